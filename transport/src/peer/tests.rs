use std::os::unix::net::UnixListener as StdListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::*;

async fn connected(path: &std::path::Path) -> (UnixStream, UnixStream) {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let client = UnixStream::connect(path).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

#[tokio::test]
async fn both_ends_are_this_process() {
    let folder = tempfile::tempdir().unwrap();
    let (client, server) = connected(&folder.path().join("a.sock")).await;
    let (seen_by_client, seen_by_server) = (Peer::of(&client).unwrap(), Peer::of(&server).unwrap());
    assert_eq!(seen_by_client.pid(), std::process::id());
    assert_eq!(seen_by_client.uid(), rustix::process::getuid().as_raw());
    assert_eq!(seen_by_client.gid(), rustix::process::getgid().as_raw());
    assert!(seen_by_client.is_alive());
    assert!(seen_by_client.same_process(&seen_by_server));
    assert_eq!(seen_by_client.inode(), seen_by_server.inode());
    assert!(timeout(Duration::from_millis(20), seen_by_client.exited()).await.is_err(), "we live");
}

/// A process that holds the peer credentials of a socket although this test accepts on it: the kernel remembers who
/// called `connect`.
#[tokio::test]
async fn an_exit_is_seen_by_every_clone_and_ends_the_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = StdListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
    let child = Command::new("python3").arg("-c").arg(script).arg(&path).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("SKIPPED: there is no python3 here");
        return;
    };
    let (server, _) = timeout(Duration::from_secs(30), listener.accept()).await.unwrap().unwrap();
    let peer = Peer::of(&server).unwrap();
    assert_eq!(peer.pid(), child.id());
    let client = UnixStream::connect(&path).await.unwrap();
    assert!(!peer.same_process(&Peer::of(&client).unwrap()), "we are another process");

    let clone = peer.clone();
    let waiting = tokio::spawn(async move { clone.exited().await });
    assert!(peer.is_alive());
    drop(child.stdin.take());
    timeout(Duration::from_secs(30), peer.exited()).await.expect("the exit is seen");
    timeout(Duration::from_secs(30), waiting).await.expect("by every clone").unwrap();
    assert!(!peer.is_alive(), "a zombie does not live");
    child.wait().unwrap();
    assert!(!peer.is_alive());
}
