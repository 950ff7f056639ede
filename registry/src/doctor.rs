//! Is this machine, and this directory, fit for plugins? One line per check, with the command that mends it.

mod folder;
mod machine;

use std::path::Path;

use goplug_pconf_schema::admin::{Link, LinkState};

/// Looks at the machine and at a plugin directory. No plugin is told anything; whether somebody listens on its socket is tried.
///
/// The answer has one entry per check: `directory`, `owner`, `mode`, `path`, `files`, `watch`, `leftovers`, `keeper`, `sockets` (of
/// the directory), `runtime`, `open files`, `goplug-host`, `kernel`, `pidfd`, `identity` (of the machine). Those of a directory that cannot
/// be read are `skipped`.
///
/// # Cancel safety
/// Safe: it changes nothing.
pub async fn doctor(directory: &Path) -> Vec<Link> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    // Everything but the identity asks the file system, which may be slow.
    let blocking = crate::tasks::on_a_thread(move || {
        let (mut links, plugins) = folder::check(&directory);
        links.extend(machine::check(plugins));
        links
    });
    let mut links = blocking.await.unwrap_or_else(|_| vec![broken("directory", "the checks were interrupted")]);
    links.push(machine::identity());
    links
}

fn ok(name: &str, detail: impl Into<String>) -> Link {
    Link { name: name.to_owned(), state: LinkState::Ok, detail: detail.into() }
}

fn warning(name: &str, detail: impl Into<String>) -> Link {
    Link { name: name.to_owned(), state: LinkState::Warning, detail: detail.into() }
}

fn broken(name: &str, detail: impl Into<String>) -> Link {
    Link { name: name.to_owned(), state: LinkState::Broken, detail: detail.into() }
}

fn skipped(name: &str) -> Link {
    Link { name: name.to_owned(), state: LinkState::Skipped, detail: "the directory cannot be read".to_owned() }
}

#[cfg(test)]
mod tests;
