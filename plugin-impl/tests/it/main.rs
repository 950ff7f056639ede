//! The library from outside: plugins in this process, called over their real sockets, where bytes matter by hand.

mod calls;
mod life;
mod notifications;
mod publication;
mod raw;
mod signals;
mod v0;
mod wire;
