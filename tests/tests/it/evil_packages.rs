//! The archives of attackers, through the installer as it is: each is refused, and not a byte comes to lie outside the staging
//! folder.
//!
//! In a mount namespace of its own the whole machine is read-only but for one folder in memory, and what is in that folder is
//! compared, byte by byte, before and after: whoever writes elsewhere fails with an error that no archive causes by itself.

#[path = "../../../package/tests/it/corpus.rs"]
mod corpus;
#[path = "../../../package/tests/it/raw.rs"]
#[allow(dead_code, reason = "it is the other package's")]
mod raw;

use std::path::Path;
use std::process::{Command, Output};

use goplug_tests::{fast, figure, in_mount_namespace};

use crate::changes::everything;
use crate::support::{GOPLUGCTL, command};

/// Folders that hold nothing that is needed, one of which is on every machine.
const PLACES: [&str; 5] = ["/mnt", "/srv", "/media", "/var/tmp", "/tmp"];

/// Makes everything read-only that is mounted, but for a file system in memory: where it is.
fn seal_the_machine() -> &'static Path {
    let needed =
        |place: &Path| [GOPLUGCTL, env!("CARGO_MANIFEST_DIR")].iter().any(|path| Path::new(path).starts_with(place));
    let folder = PLACES.iter().map(Path::new).find(|place| place.is_dir() && !needed(place)).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut sealed = 0;
    for line in mounts.lines() {
        let Some(point) = line.split(' ').nth(4).map(|point| point.replace("\\040", " ")) else { continue };
        // The kernel's own files are no disk; some of them cannot be mounted anew in a container.
        let output = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&point).output().unwrap();
        sealed += usize::from(output.status.success());
    }
    assert!(sealed > 0, "nothing can be made read-only: {mounts}");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512m", "tmpfs"]).arg(folder).status().unwrap();
    assert!(status.success());
    for place in ["/", "/etc", "/var/tmp", "/tmp", "/dev/shm", "/root", "/home", env!("CARGO_MANIFEST_DIR")] {
        let probe = Path::new(place).join("goplug-probe");
        let is_sealed = Path::new(place) == folder || std::fs::write(&probe, "x").is_err();
        assert!(is_sealed, "{place} can be written");
    }
    folder
}

/// Trust is kept in the folder that is watched, too.
fn ctl(plugins: &Path) -> Command {
    let mut run = command(GOPLUGCTL);
    run.env("GOPLUG_TRUST_DIR", plugins.with_file_name("trust")).arg("--dir").arg(plugins).current_dir("/");
    run
}

fn install(plugins: &Path, package: &Path) -> Output {
    ctl(plugins).args(["install", "--allow-unsigned"]).arg(package).output().unwrap()
}

#[test]
fn not_a_byte_of_one_comes_to_lie_outside_the_staging_folder() {
    in_mount_namespace("evil_packages::not_a_byte_of_one_comes_to_lie_outside_the_staging_folder", || {
        let folder = seal_the_machine();
        let (plugins, package) = (folder.join("deep/er/plugins"), folder.join("evil.plg"));
        std::fs::create_dir_all(&plugins).unwrap();
        // What is in order is installed here: it is not the machine that refuses.
        std::fs::write(&package, raw::tar(&raw::entries())).unwrap();
        let good = install(&plugins, &package);
        assert!(good.status.success(), "{good:?}");
        let removed = ctl(&plugins).args(["remove", "test/do"]).status().unwrap();
        assert!(removed.success());

        let corpus = corpus::corpus();
        let (all, step) = (corpus.len(), if fast() { 3 } else { 1 });
        let (mut refused, mut wrong) = (0, Vec::new());
        for (what, why, bytes) in corpus.into_iter().step_by(step) {
            std::fs::write(&package, &bytes).unwrap();
            let before = everything(folder);
            let run = install(&plugins, &package);
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            if run.status.code() != Some(10) || !said.contains(why) || said.contains("os error") {
                wrong.push(format!("{what}: {:?} {said}", run.status.code()));
            }
            let after = everything(folder);
            // The staging folder is empty again, too.
            if after != before {
                let new = after.keys().filter(|path| !before.contains_key(*path));
                wrong.push(format!("{what}: written {:?}", new.collect::<Vec<_>>()));
            }
            refused += 1;
        }
        let text = format_args!("{} of {refused} refused, of {all} in all", refused - wrong.len());
        figure("evil_archives_installed", text, "0 bytes outside the staging folder");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
