//! What a plugin gets, and what it does not; why a start fails.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use goplug_registry::Code;
use goplug_registry::host::{ProcessLimits, launch};
use goplug_tests::PluginDir;

use super::{folder, output, run, spec};
use crate::support::{GOPLUG_HOST, fault};

#[tokio::test]
async fn a_plugin_has_three_descriptors_whatever_is_inherited() {
    let dir = PluginDir::new();
    // An application that is careless with its descriptors: this one survives every exec.
    let canary = std::fs::File::create(dir.join("canary")).unwrap();
    rustix::io::fcntl_setfd(&canary, rustix::io::FdFlags::empty()).unwrap();
    let hosted = run(&spec(&dir, "fds", "/bin/sh", &["-c", "ls -l /proc/$$/fd; exec sleep 1000"])).await;
    let holds = |pid: u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        fds.map(|fd| (fd.file_name(), std::fs::read_link(fd.path()).unwrap_or_default())).collect::<BTreeMap<_, _>>()
    };
    let record = hosted.record();
    let of_plugin = holds(record.plugin.pid);
    let names: Vec<_> = of_plugin.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["0", "1", "2"], "{of_plugin:?}");
    assert_eq!(of_plugin[std::ffi::OsStr::new("0")], Path::new("/dev/null"));
    let of_host = holds(record.host.pid);
    assert!(of_host.values().all(|path| !path.ends_with("canary")), "{of_host:?}");
}

#[tokio::test]
async fn a_plugin_has_the_environment_that_it_was_given() {
    let dir = PluginDir::new();
    assert!(std::env::vars_os().count() > 3, "there is something to inherit");
    let mut spec = spec(&dir, "env", "/bin/cat", &["/proc/self/environ"]);
    spec.env = BTreeMap::from([("A".to_owned(), "b c".to_owned()), ("E".to_owned(), String::new())]);
    let hosted = run(&spec).await;
    let lines = output(&hosted).await;
    assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<String>(), "A=b c\0E=\0");
    // Nor has its host more.
    let of_host = std::fs::read(format!("/proc/{}/environ", hosted.record().host.pid)).unwrap();
    assert_eq!(of_host, b"");
}

#[tokio::test]
async fn limits_and_working_directory_are_applied() {
    let dir = PluginDir::new();
    let mut spec = spec(&dir, "limits", "/bin/sh", &["-c", "pwd; cat /proc/self/limits"]);
    spec.workdir = dir.path().to_owned();
    spec.limits = ProcessLimits {
        open_files: Some(77),
        core_bytes: Some(0),
        file_bytes: Some(1 << 20),
        memory_bytes: Some(1 << 30),
        processes: Some(5_000),
        cpu_seconds: Some(60),
    };
    let hosted = run(&spec).await;
    let lines: Vec<_> = output(&hosted).await.into_iter().map(|line| line.text).collect();
    assert_eq!(Path::new(&lines[0]), dir.path().canonicalize().unwrap());
    for (name, value) in [
        ("Max open files", "77"),
        ("Max core file size", "0"),
        ("Max file size", "1048576"),
        ("Max address space", "1073741824"),
        ("Max processes", "5000"),
        ("Max cpu time", "60"),
    ] {
        let line = lines.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        let values: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [value, value], "{name}: soft and hard");
    }
    spec.instance = "too-many".to_owned();
    spec.limits = ProcessLimits { open_files: Some(1 << 40), ..ProcessLimits::default() };
    let refused = fault(launch(Path::new(GOPLUG_HOST), &spec).await);
    assert!(refused.message.contains("cannot limit `openFiles` to 1099511627776"), "{refused}");
}

#[tokio::test]
async fn a_plugin_beyond_its_limit_dies_of_it_and_says_so() {
    let dir = PluginDir::new();
    let mut spec = spec(&dir, "fsize", "/bin/sh", &["-c", "exec head -c 100000 /dev/zero > big"]);
    spec.workdir = dir.path().to_owned();
    spec.limits = ProcessLimits { file_bytes: Some(10_000), ..ProcessLimits::default() };
    let hosted = run(&spec).await;
    let exit = hosted.exited().await.unwrap();
    assert_eq!((exit.signal, exit.asked), (Some(25), false), "SIGXFSZ: {exit:?}");
    assert_eq!(std::fs::metadata(dir.join("big")).unwrap().len(), 10_000);
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let dir = PluginDir::new();
    let script = |name: &str, text: &str, mode: u32| {
        let path = dir.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = script("plain", "#!/bin/sh\n", 0o644);
    let lost = script("lost", "#!/nowhere/sh\n", 0o755);
    let busy = script("busy", "#!/bin/sh\necho ran\n", 0o755);
    let writer = OpenOptions::new().append(true).open(&busy).unwrap();
    let huge = "x".repeat(200_000);
    for (program, args, code, part) in [
        ("/nowhere/plugin", vec![], Code::NotFound, "cannot run /nowhere/plugin: No such file"),
        (&plain, vec![], Code::Denied, "may be executed"),
        (dir.text(), vec![], Code::Denied, "it is a folder"),
        (&lost, vec![], Code::NotFound, "interpreter"),
        (&busy, vec![], Code::Unavailable, "somebody is writing it"),
        ("/bin/true", vec![huge.as_str()], Code::InvalidArgument, "Argument list too long"),
    ] {
        let refused = fault(launch(Path::new(GOPLUG_HOST), &spec(&dir, "refused", program, &args)).await);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message.contains(part), "{refused:?}");
    }
    let mut elsewhere = spec(&dir, "elsewhere", "/bin/true", &[]);
    elsewhere.workdir = "/nowhere".into();
    let refused = fault(launch(Path::new(GOPLUG_HOST), &elsewhere).await);
    assert!(refused.code == Code::NotFound && refused.message.contains("enter /nowhere"), "{refused:?}");
    let refused = fault(launch(Path::new("/nowhere/goplug-host"), &elsewhere).await);
    assert!(refused.code == Code::NotFound && refused.message.contains("/nowhere/goplug-host"), "{refused:?}");
    assert_eq!(std::fs::read_dir(folder(&dir)).unwrap().count(), 0, "neither records nor sockets");

    // Somebody who is done with it in time costs a moment only.
    let done = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(writer);
    });
    let hosted = run(&spec(&dir, "busy", &busy, &[])).await;
    assert_eq!(output(&hosted).await[0].text, "ran");
    done.await.unwrap();
}

#[tokio::test]
async fn a_folder_that_others_reach_is_refused() {
    let dir = PluginDir::new();
    std::fs::create_dir(folder(&dir)).unwrap();
    std::fs::set_permissions(folder(&dir), std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = fault(launch(Path::new(GOPLUG_HOST), &spec(&dir, "x", "/bin/true", &[])).await);
    assert!(refused.code == Code::Denied && refused.message.contains("mode 0755"), "{refused:?}");
}
