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
    Cancel, Closed, FrameCall, FrameHandler, FrameLimits, FrameServer, FrameSubscribe, Late, NextNotice, NoticeSource,
    Outlet, Replier,
};
