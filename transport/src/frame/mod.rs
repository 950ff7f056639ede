//! The fast path: binary frames on a socket that began as HTTP (`docs/protocol.md`, section on frames).

#[cfg(feature = "client")]
mod client;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod far_end;
mod grants;
mod ids;
mod inflow;
mod input;
mod lending;
mod outbox;
mod patience;
mod pipe;
mod segments;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "client")]
pub use client::{
    Acknowledger, Call, FrameAttach, FrameConnection, FrameExchange, FrameNotice, FrameRefusal, FrameReply,
    FrameReplyBody, FrameRequest, FrameRequestBody, FrameSubscription, ReplyEnd,
};
pub use patience::Latency;
#[cfg(feature = "server")]
pub use server::{
    Answered, Cancel, Closed, FrameBody, FrameCall, FrameHandler, FrameLimits, FrameServer, FrameSubscribe, Late,
    NextNotice, NoticeSource, Outlet, Replier, segment_for,
};

/// Room in the socket, so that a large reply does not need a wake-up for every bit of it. The kernel may give less.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// For the tests of what the bytes travel through.
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
pub(crate) mod testing {
    pub(crate) use super::input::{Input, Read};
    pub(crate) use super::outbox::Outbox;
    pub(crate) use super::pipe::Pipe;
}
