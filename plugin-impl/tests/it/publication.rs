use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use goplug_pconf_schema::{Pconf, PluginId};
use goplug_plugin_impl::{Code, Error, Plugin, PluginBuilder, Running};
use tokio::net::UnixListener;

use crate::raw::Wire;

fn builder(dir: &Path, namespace: &str, name: &str) -> PluginBuilder {
    Plugin::builder(dir).namespace(namespace).name(name)
}

async fn start(dir: &Path, namespace: &str, name: &str) -> Result<Running, Error> {
    builder(dir, namespace, name).build()?.start().await
}

fn read(path: &Path) -> Pconf {
    Pconf::parse(&std::fs::read(path).unwrap()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_file_says_who_and_where_and_lies_beside_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let plugin =
        builder(dir.path(), "Test", "Do").version("1.0.0").description("does").lazy_load(true).build().unwrap();
    assert_eq!(names(dir.path()), Vec::<String>::new(), "building writes nothing");
    let running = plugin.start().await.unwrap();
    let socket = format!("TestDo.{}.sock", &running.epoch()[..8]);
    assert_eq!(names(dir.path()), [socket.clone(), "TestDo.pconf".into()], "no draft is left");
    let pconf = read(running.pconf_path());
    let mut expected = Pconf::new(PluginId::new("Test", "Do").unwrap(), socket);
    expected.lazy_load = true;
    expected.protocol = Some(1);
    expected.epoch = Some(running.epoch().into());
    expected.version = Some("1.0.0".into());
    expected.description = Some("does".into());
    expected.pid = Some(std::process::id().into());
    assert_eq!(pconf, expected);
    assert_eq!(pconf.socket_path(dir.path()).unwrap(), running.socket_path());
    let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(running.socket_path()), 0o600);
    assert_eq!(mode(running.pconf_path()) & 0o022, 0, "nobody else may write it");
    running.stop(Duration::ZERO).await;
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_socket_elsewhere_is_named_in_full() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let socket = other.path().join("s");
    let running = builder(dir.path(), "", "p").socket(&socket).build().unwrap().start().await.unwrap();
    assert_eq!(read(running.pconf_path()).sock, socket.to_str().unwrap());
    assert_eq!(Wire::connect(&socket).await.ask("GET /_goplug/hello", "", "").await.status(), 200);
}

#[tokio::test]
async fn pairs_whose_file_names_meet_do_not_overwrite_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), "ab", "c").await.unwrap();
    let fault = start(dir.path(), "a", "bc").await.unwrap_err();
    assert_eq!(fault.code, Code::Conflict);
    assert!(fault.message.contains("ab/c") && fault.message.contains("abc.pconf"), "{fault}");
    assert_eq!(names(dir.path()).len(), 2, "the refused one left nothing behind");
    assert_eq!(read(first.pconf_path()).id.as_str(), "ab/c");
    let pconf = std::fs::read(first.pconf_path()).unwrap();
    let path = first.pconf_path().to_owned();
    drop(first);
    std::fs::write(&path, pconf).unwrap();
    let second = start(dir.path(), "a", "bc").await.expect("the file of a dead plugin is no claim");
    assert_eq!(read(second.pconf_path()).id.as_str(), "a/bc");
}

#[tokio::test]
async fn a_successor_takes_the_file_and_its_predecessor_does_not_take_it_away() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(dir.path(), "", "p").await.unwrap();
    let new = start(dir.path(), "", "p").await.unwrap();
    assert_ne!(old.socket_path(), new.socket_path());
    assert_eq!(read(new.pconf_path()).epoch.as_deref(), Some(new.epoch()));
    let old_socket = old.socket_path().to_owned();
    old.stop(Duration::ZERO).await;
    assert!(!old_socket.exists());
    assert_eq!(read(new.pconf_path()).epoch.as_deref(), Some(new.epoch()), "it is not ours to remove");
    assert_eq!(Wire::connect(new.socket_path()).await.ask("GET /_goplug/hello", "", "").await.status(), 200);
}

#[tokio::test]
async fn a_dead_predecessors_socket_is_replaced_and_a_live_ones_never() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("fixed.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let make = || builder(dir.path(), "", "p").socket(&socket).build().unwrap();
    let running = make().start().await.expect("nobody listens there");
    let fault = make().start().await.unwrap_err();
    assert_eq!(fault.code, Code::Conflict, "{fault}");
    assert_eq!(Wire::connect(&socket).await.ask("GET /_goplug/hello", "", "").await.status(), 200);
    std::fs::remove_file(&socket).unwrap();
    let successor = UnixListener::bind(&socket).unwrap();
    running.stop(Duration::ZERO).await;
    assert!(socket.exists(), "another process has bound the path since");
    drop(successor);
}

#[tokio::test]
async fn a_plugin_that_is_dropped_leaves_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), "", "p").await.unwrap();
    let mut wire = Wire::connect(running.socket_path()).await;
    wire.ask("GET /_goplug/hello", "", "").await;
    drop(running);
    assert_eq!(names(dir.path()), Vec::<String>::new());
    assert_eq!(wire.rest().await, b"");
}

/// A registry that started it knows where it listens; a file of the same name is somebody else's.
#[tokio::test]
async fn without_a_file_it_listens_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let other = builder(dir.path(), "Te", "stDo").build().unwrap().start().await.unwrap();
    let socket = dir.path().join("s");
    let running =
        builder(dir.path(), "Test", "Do").publish(false).socket(&socket).build().unwrap().start().await.unwrap();
    assert!(tokio::net::UnixStream::connect(&socket).await.is_ok());
    assert_eq!(read(other.pconf_path()).id, PluginId::new("Te", "stDo").unwrap());
    running.stop(Duration::ZERO).await;
    assert!(!socket.exists() && other.pconf_path().exists());
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let fault = start(&missing, "", "p").await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument);
    assert!(fault.message.contains("does not exist"), "{fault}");

    std::fs::create_dir(dir.path().join("p.pconf")).unwrap();
    let fault = start(dir.path(), "", "p").await.unwrap_err();
    assert!(fault.message.contains("p.pconf"), "{fault}");
    assert_eq!(names(dir.path()), ["p.pconf"], "neither socket nor draft is left");
}

#[tokio::test]
async fn something_strange_in_the_files_place_is_replaced_without_blocking() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.pconf");
    let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(status.success());
    let running = start(dir.path(), "", "p").await.unwrap();
    assert_eq!(read(running.pconf_path()).epoch.as_deref(), Some(running.epoch()));
}
