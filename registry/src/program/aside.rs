//! A version that is only asked what it says of itself: started aside, not activated, ended.

use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::Fault;
use goplug_pconf_schema::manifest::DEFAULT_READY;
use goplug_pconf_schema::wire::hello::Hello;

use super::launch::{Instance, open, own_program, process, program_of};
use super::leave::end;
use crate::discovery::Installed;
use crate::host;
use crate::registry::Inner;
use crate::started::{Unready, wait_ready};
use crate::supervisor::{Met, Mode, meet};
use crate::trust::Verified;

/// The hello of a process of `installed`; `None` when it speaks a wire that has none. Its hooks do not run.
///
/// # Errors
/// Why it did not come up, or did not say who it is.
///
/// # Cancel safety
/// Dropping the future ends the process.
pub(crate) async fn hello_of(registry: &Arc<Inner>, installed: Arc<Installed>) -> Result<Option<Hello>, Fault> {
    let options = registry.shared.options.load_full();
    let verified = Verified::of(&options, &registry.shared.trust.digests, &installed).await?;
    let program = options.host_program.clone().map_or_else(host::find, Ok)?;
    let instance = Instance::new(&format!("aside-{}", installed.manifest.id.name()), &options.hosts());
    // Before it can write a `.pconf` that names it.
    registry.programs.put_aside(&instance.socket);
    // Without the labels of a plugin's process: nobody is to adopt it.
    let mut spec = program_of(&installed, &program).await?.spec(&instance.name, &instance.socket, options.hosts())?;
    spec.linger_ms = 0;
    let opened = open(verified.as_ref(), own_program(&installed)).await?;
    let hosted = host::launch_opened(&program, spec, opened).await?;
    let guard = Unready::new(hosted.clone());
    wait_ready(&hosted, &instance.socket, DEFAULT_READY).await?;
    let process = process(hosted, installed);
    let met = meet(&registry.shared, &process.found, &options, Mode::Look).await;
    guard.release();
    // Whatever cannot be ended now is found by its record.
    _ = tokio::time::timeout(Duration::from_secs(10), end(&process)).await;
    match met {
        Ok(Met::Active(live, _)) => Ok(Some(live.hello.clone())),
        Ok(Met::Seen { hello, .. }) => Ok(hello.map(|hello| *hello)),
        Err(not_met) => Err(not_met.fault),
    }
}
