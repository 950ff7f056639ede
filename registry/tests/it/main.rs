//! The registry against plugins that speak the wire by hand, because no honest library would say what they say.

#![allow(clippy::unwrap_used, clippy::panic)]

mod calls;
mod fake;
mod life;
mod notifications;
mod options;
