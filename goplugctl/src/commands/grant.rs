//! Permissions that a plugin asks for: whoever is at the terminal is asked for those that nobody has granted.

use goplug_pconf_schema::grants::words;
use goplug_pconf_schema::{Fault, Grant, Permissions, Reason};

use crate::failure::Failure;
use crate::output::escape;
use crate::session::Session;

/// What would have to be granted, if that is why it failed.
fn asked(fault: &Fault) -> Option<Permissions> {
    let data = fault.data.as_ref().filter(|_| fault.reason == Some(Reason::NotGranted))?;
    data.get("permissions")?.as_object().cloned()
}

/// Asks for it; `None`: nobody is there, nobody wants it, or `given` was all that there is.
pub(super) async fn ask(session: &mut Session, given: Option<&Grant>, fault: &Fault) -> Result<Option<Grant>, Failure> {
    let Some(permissions) = asked(fault).filter(|_| given.is_none()) else { return Ok(None) };
    let granted = session.consents(&format!("{}\ngrant it that?", escape(&fault.message))).await?;
    Ok(granted.then_some(Grant::Exactly(permissions)))
}

/// The option that grants it, if that is why it failed.
pub(super) fn option(fault: &Fault) -> Option<String> {
    let names: Vec<_> = asked(fault)?.keys().map(|name| escape(name)).collect();
    Some(format!("--grant {}", names.join(",")))
}

/// Tells what was granted now.
pub(super) fn tell(session: &mut Session, plugin: &str, granted: &Permissions) {
    if !granted.is_empty() {
        session.say(&format!("{plugin} is granted {}\n", escape(&words(granted).join(", "))));
    }
}
