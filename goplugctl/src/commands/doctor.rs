//! `doctor`: this machine, the daemon, and the plugin directories.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::admin::{Link, LinkState};

use super::why::chain;
use crate::args::Global;
use crate::exit_code;
use crate::failure::Failure;
use crate::output::Out;
use crate::target::{Daemon, Place, Target, choose, default_sockets};

/// Checks everything and says what is broken.
///
/// # Errors
/// The flags contradict each other, or the output cannot be written.
pub(crate) async fn doctor(global: &Global) -> Result<u8, Failure> {
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    let place = match choose(global.dir.clone(), global.socket.clone()) {
        Ok(place) => Some(place),
        Err(failure) if failure.exit() == exit_code::USAGE => return Err(failure),
        Err(_) => None,
    };
    let (daemon, directories) = match place {
        Some(Place::Directory(path)) => (skipped(), vec![path]),
        Some(Place::Socket(path)) => ask_daemon(path).await,
        None => (nobody(), Vec::new()),
    };
    let mut links = vec![daemon];
    for directory in &directories {
        links.extend(goplug_registry::doctor(directory).await);
    }
    let names = || links.iter().map(|link| link.name.clone()).collect();
    out.show(&links, false, names, |style, _| chain(&links, style))?;
    let broken = links.iter().any(|link| link.state == LinkState::Broken);
    Ok(if broken { exit_code::WRONG_STATE } else { exit_code::DONE })
}

async fn ask_daemon(socket: PathBuf) -> (Link, Vec<PathBuf>) {
    let daemon = Daemon::new(socket.clone());
    match daemon.status().await {
        Ok(Some(status)) => {
            let detail = format!("version {} answers at {}, pid {}", status.version, socket.display(), status.pid);
            (link(LinkState::Ok, detail), status.directories.into_iter().map(PathBuf::from).collect())
        }
        Ok(None) => (skipped(), Vec::new()),
        Err(fault) => {
            (link(LinkState::Broken, format!("{}: goplugctl daemon run --plugin-dir DIR", fault.message)), Vec::new())
        }
    }
}

fn nobody() -> Link {
    let sockets: Vec<_> = default_sockets().iter().map(|path: &PathBuf| Path::display(path).to_string()).collect();
    link(
        LinkState::Broken,
        format!(
            "none answers at {}: goplugctl daemon run --plugin-dir DIR, or name a plugin directory with --dir",
            sockets.join(" or ")
        ),
    )
}

fn skipped() -> Link {
    link(LinkState::Skipped, "not needed with a plugin directory".into())
}

fn link(state: LinkState, detail: String) -> Link {
    Link { name: "daemon".into(), state, detail }
}
