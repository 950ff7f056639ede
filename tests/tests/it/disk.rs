//! A full disk, and one that fails: a verb that changes a plugin directory says which file and why, and leaves the old or the
//! new, and nothing else.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use goplug_tests::{PluginDir, deep, fast, in_mount_namespace, note, skip};

use crate::changes::{Change, Cut, Moment, Stage, can_trace, for_each};

/// What each call says of a disk that is full, and of one that fails.
const FAULTS: [(&str, &[&str]); 12] = [
    ("write", &["ENOSPC", "EIO"]),
    ("copy_file_range", &["ENOSPC", "EIO"]),
    ("sendfile", &["ENOSPC", "EIO"]),
    ("openat", &["ENOSPC", "EIO"]),
    ("mkdirat", &["ENOSPC", "EIO"]),
    ("symlinkat", &["ENOSPC", "EIO"]),
    ("fchmod", &["EIO"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("renameat", &["EIO", "ENOSPC"]),
    ("renameat2", &["EIO", "ENOSPC"]),
    ("unlinkat", &["EIO"]),
];

/// It worked, or it says which file and why.
fn check_told(run: &Cut, is_new: bool, cause: &str, what: &str) {
    let code = run.status.code();
    match code {
        Some(0) => return assert!(is_new, "{what}: it says that it is done: {run:?}"),
        Some(1..=12) => {}
        _ => panic!("{what}: {run:?}"),
    }
    let said = run.said.to_lowercase();
    assert!(!said.contains("panicked") && said.contains(cause), "{what}: {run:?}");
    // Behind what was asked for, which names files by itself.
    let why = said.split_once(": cannot ").or(said.split_once(": ")).map_or("", |(_, why)| why);
    let names = [".goplug", "plugin.json", "data", "run", "manifest", "/test", "/gp", "/d"];
    assert!(names.iter().any(|name| why.contains(name)), "{what}: which file? {run:?}");
}

/// Each call of the verb that writes fails once, in every way that it can.
fn fails_at_every_write(change: Change) {
    if !can_trace() {
        return skip(
            &format!("{change:?} on a disk that fails"),
            "NOT AVAILABLE: strace is not there or may not trace",
        );
    }
    let stage = Stage::new(change);
    let (moments, _) = stage.moments();
    let ours = |moment: &&Moment| moment.changes() && !moment.is_early && moment.text.contains("DIR");
    let faults = moments.iter().filter(ours).flat_map(|moment| {
        let errnos = FAULTS.iter().find(|(call, _)| *call == moment.call).map_or(&[][..], |(_, errnos)| *errnos);
        errnos.iter().map(move |errno| (moment, *errno))
    });
    // In a fast run a third of them.
    let faults: Vec<_> = faults.step_by(if fast() { 3 } else { 1 }).collect();
    let [told, harmless, missed] = [const { AtomicU64::new(0) }; 3];
    for_each(&faults, |(moment, errno)| {
        let Moment { call, nth, text, .. } = moment;
        let what = format!("{change:?}, {errno} at {call} {nth}, such as {text}");
        let dir = stage.fresh();
        let log = dir.path().with_extension("strace");
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={errno}:when={nth}"));
        let run = stage.traced(dir.path(), &["-y", "-o", log.to_str().unwrap(), "-e", &trace, "-e", &inject]);
        let injected = std::fs::read(&log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap();
        std::fs::remove_file(&log).unwrap();
        let injected: Vec<_> = injected.lines().filter(|line| line.contains("(INJECTED)")).collect();
        let what = format!("{what}: {injected:#?}");
        let is_new = stage.is_new(dir.path(), &what);
        // Its threads may have shared the work in another way: then something else has failed, or nothing.
        let is_write = |line: &&str| line.contains(dir.text()) && (call != "openat" || line.contains("O_CREAT"));
        if injected.len() == 1 && injected.iter().all(is_write) {
            let cause = if *errno == "EIO" { "input/output error" } else { "no space left" };
            check_told(&run, is_new, cause, &what);
            // Only what tidies up may fail unheard, and the file for other registries: what is said to be done must be on disk.
            // The folder of that file is made a second time for what must be there.
            let for_others =
                injected[0].contains("keeper.lock") || call == "mkdirat" && injected[0].contains(".goplug\"");
            let may_fail = call == "unlinkat" || for_others;
            assert!(!run.status.success() || may_fail, "{what}: not told: {run:?}");
            // What cannot be taken away stays until the next one tries.
            if call != "unlinkat" && !(change == Change::Remove && call == "renameat" && is_new) {
                stage.is_clean(dir.path(), is_new, &what);
            }
            _ = if run.status.success() { &harmless } else { &told }.fetch_add(1, Ordering::Relaxed);
        } else {
            // No kernel refuses to count up an eventfd, and the runtime relies on it.
            let is_possible = !injected.iter().any(|line| line.contains("eventfd"));
            assert!(matches!(run.status.code(), Some(0..=12)) || !is_possible, "{what}: {run:?}");
            _ = missed.fetch_add(1, Ordering::Relaxed);
        }
        stage.settles(dir.path(), is_new, &what);
    });
    let [told, harmless, missed] = [told, harmless, missed].map(AtomicU64::into_inner);
    note(
        &format!("writes_that_failed_{}", format!("{change:?}").to_lowercase()),
        format_args!("{told} told, {harmless} did no harm, {missed} were not of a file"),
    );
    assert!(told > 0);
}

#[test]
fn an_installation_on_a_disk_that_fails() {
    fails_at_every_write(Change::Install);
    fails_at_every_write(Change::InstallPackage);
}

#[test]
fn an_upgrade_on_a_disk_that_fails() {
    for change in [Change::Upgrade, Change::UpgradePackage, Change::UpgradeByHand, Change::Rollback] {
        fails_at_every_write(change);
    }
}

#[test]
fn a_removal_on_a_disk_that_fails() {
    fails_at_every_write(Change::Remove);
    fails_at_every_write(Change::RemoveVersion);
}

/// A disk with room for so much and no more, page by page and file by file, until there is enough.
#[test]
fn a_full_disk_is_told_and_leaves_the_old_or_the_new() {
    in_mount_namespace("disk::a_full_disk_is_told_and_leaves_the_old_or_the_new", || {
        let (mut told, mut done) = (0, 0);
        for change in Change::ALL {
            let stage = Stage::new(change);
            for limit in ["size", "nr_inodes"] {
                for room in 0.. {
                    let what = format!("{change:?} with {limit} for {room} more");
                    let disk = Disk::new();
                    let dir = disk.0.join("d");
                    std::fs::create_dir(&dir).unwrap();
                    stage.restore(&dir);
                    disk.leave(limit, room);
                    let run = stage.plain(&dir);
                    let is_new = stage.is_new(&dir, &what);
                    check_told(&run, is_new, "no space left", &what);
                    stage.is_clean(&dir, is_new, &what);
                    disk.leave(limit, 1_000);
                    stage.settles(&dir, is_new, &what);
                    if run.status.success() {
                        done += 1;
                        break;
                    }
                    told += 1;
                    assert!(room < 100, "{what}: {run:?}");
                }
            }
        }
        note("full_disks", format_args!("{told} told, {done} with just enough room"));
        assert!(told > 20 || !deep(), "{told}");
    });
}

/// A file system in memory, in our own view of the machine.
struct Disk(PluginDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(PluginDir::new());
        mount(&["-t", "tmpfs", "-o", "size=64m,nr_inodes=10000,mode=0700", "disk"], disk.0.path());
        // A file system that holds nothing has no limit.
        std::fs::write(disk.0.join("page"), [0; 4096]).unwrap();
        disk
    }

    /// Leaves room for so many pages, or files, more than there are.
    fn leave(&self, limit: &str, room: u64) {
        let status = rustix::fs::statvfs(self.0.path()).unwrap();
        let option = match limit {
            "size" => format!("remount,size={}", (status.f_blocks - status.f_bfree + room) * status.f_bsize),
            _ => format!("remount,nr_inodes={}", status.f_files - status.f_ffree + room),
        };
        mount(&["-o", &option], self.0.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(words: &[&str], at: &Path) {
    let output = Command::new("mount").args(words).arg(at).output().unwrap();
    assert!(output.status.success(), "mount {words:?}: {output:?}");
}
