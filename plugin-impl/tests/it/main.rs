//! The library from outside: plugins in this process, called over their real sockets, where bytes matter by hand.

// A helper of a test may panic: that is how the test fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod calls;
mod frames;
mod life;
mod notifications;
mod publication;
mod raw;
mod signals;
mod v0;
mod wire;
