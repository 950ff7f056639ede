//! The registry against plugins that speak the wire by hand, because no honest library would say what they say.

mod calls;
mod fake;
mod life;
mod notifications;
mod options;
