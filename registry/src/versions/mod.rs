//! Several versions of a plugin side by side, one of them the current one.
//!
//! In reading order: `plan` (which version is to be the current one, pure), `shelf` (what lies on disk, and the link that names
//! the current one), `change` (upgrade, rollback, pin: the new one is tried before the link is exchanged), `watch` (a new version
//! that fails its calls is taken back), `diff` (what another version would change).

mod change;
mod diff;
pub(crate) mod plan;
pub(crate) mod shelf;
mod watch;

pub use change::Upgrade;
pub use diff::Against;
pub(crate) use plan::{Current, Shelf, Then};
pub(crate) use shelf::{Turn, all, shelf};
