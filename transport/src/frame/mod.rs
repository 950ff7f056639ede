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
pub use client::{Call, FrameConnection, FrameReply, FrameRequest};
pub use patience::Latency;
#[cfg(feature = "server")]
pub use server::{Cancel, Closed, FrameCall, FrameHandler, FrameLimits, FrameServer, Late, Replier};
