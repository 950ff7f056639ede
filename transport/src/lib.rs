//! Unix sockets and bytes: everything that GoPlug's two libraries have in common, and that neither protocol nor policy is.
//!
//! In reading order: [`Connection`] (the registry's side: one request at a time over one socket), [`serve`] with
//! [`Handler`] (the plugin's side), [`bind`] (a socket file that a dead predecessor cannot block and a live one keeps),
//! [`Peer`] (who is at the other end, and whether that process still lives), [`close_on_exec`], [`FrameConnection`] and [`FrameServer`] (many
//! calls at once, on a socket that began as HTTP, or through memory that both sides share), [`Segment`] and [`View`] (a body that is
//! written and read in such memory).
//!
//! HTTP/1.1 is our own, on httparse; `docs/decisions/0001-own-http.md` says why. Nothing here knows what a plugin is,
//! and nothing that the other side sends can panic, hang or exhaust the process: heads are at most
//! [`MAX_HEAD_BYTES`], bodies at most what the caller allows, and memory grows with what was received.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod error;
#[cfg(any(feature = "client", feature = "server"))]
mod frame;
#[cfg(any(feature = "client", feature = "server"))]
mod http;
mod peer;
#[cfg(any(feature = "client", feature = "server"))]
mod pool;
#[cfg(any(feature = "client", feature = "server"))]
mod send;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "client", feature = "server"))]
// Each side uses its half.
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code, unused_imports))]
mod shm;
mod socket;

#[cfg(feature = "client")]
pub use client::{Connection, Reply, ReplyBody, ReplyHead, Request, RequestBody, Upgrade};
#[cfg(feature = "client")]
pub use error::{Error, ErrorKind};
#[cfg(any(feature = "client", feature = "server"))]
pub use frame::Latency;
#[cfg(feature = "client")]
pub use frame::{
    Acknowledger, Call, FrameAttach, FrameConnection, FrameExchange, FrameNotice, FrameRefusal, FrameReply,
    FrameReplyBody, FrameRequest, FrameRequestBody, FrameSubscription, ReplyEnd,
};
#[cfg(feature = "server")]
pub use frame::{
    Answered, Cancel, Closed, FrameBody, FrameCall, FrameHandler, FrameLimits, FrameServer, FrameSubscribe, Late,
    NextNotice, NoticeSource, Outlet, Replier, segment_for,
};
#[cfg(any(feature = "client", feature = "server"))]
pub use http::{MAX_FIELDS, MAX_HEAD_BYTES};
pub use peer::{Peer, Program, close_on_exec, hold_off_writers, pidfd_inode};
#[cfg(feature = "server")]
pub use server::{
    Handler, IncomingBody, ServerBody, ServerHead, ServerLimits, ServerRequest, ServerResponse, ServerUpgrade, Written,
    serve,
};
#[cfg(feature = "memory")]
#[cfg(any(feature = "client", feature = "server"))]
pub use shm::Region as SharedMemory;
#[cfg(any(feature = "client", feature = "server"))]
pub use shm::{Segment, View, ViewReader, Words};
pub use socket::{BoundSocket, SocketFile, bind};

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod mutation_tests;
