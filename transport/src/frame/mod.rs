//! The fast path: binary frames on a socket that began as HTTP (`docs/protocol.md`, section on frames).

#[cfg(feature = "client")]
mod client;
mod grants;
mod ids;
mod input;
mod outbox;
mod patience;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "client")]
pub use client::{
    Acknowledger, Call, FrameAttach, FrameConnection, FrameNotice, FrameRefusal, FrameReply, FrameRequest,
    FrameSubscription,
};
pub use patience::Latency;
#[cfg(feature = "server")]
pub use server::{
    Answered, Cancel, Closed, FrameCall, FrameHandler, FrameLimits, FrameServer, FrameSubscribe, Late, NextNotice,
    NoticeSource, Outlet, Replier,
};

/// Room in the socket, so that a large reply does not need a wake-up for every bit of it. The kernel may give less.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
