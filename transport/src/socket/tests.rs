use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};

use super::*;

fn code(bound: Result<BoundSocket, Fault>) -> (Code, String) {
    let fault = bound.expect_err("it must not be bound");
    (fault.code, fault.message)
}

#[tokio::test]
async fn a_bound_socket_is_private_and_listens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let bound = bind(&path).unwrap();
    let found = fs::symlink_metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let _client = StdStream::connect(&path).unwrap();
    let (_stream, _) = bound.listener.accept().await.unwrap();
    assert_eq!(bound.file.path(), path);
    assert!(bound.remove_if_ours().unwrap());
    assert!(!bound.remove_if_ours().unwrap(), "nothing is there any more");
}

#[tokio::test]
async fn a_dead_predecessor_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead socket file is in the way");
    let first = bind(&path).unwrap();
    let (code_of_second, why) = code(bind(&path));
    assert_eq!(code_of_second, Code::Conflict, "{why}");
    StdStream::connect(&path).expect("the first still listens at the path");

    fs::remove_file(&path).unwrap();
    let successor = bind(&path).unwrap();
    assert!(!first.remove_if_ours().unwrap(), "the successor's file is not ours");
    assert!(successor.remove_if_ours().unwrap());
}

#[tokio::test]
async fn a_live_predecessor_with_a_full_backlog_is_not_taken_for_dead() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let socket = listener_socket().unwrap();
    let address = SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _waiting = StdStream::connect(&path).unwrap();
    assert_eq!(code(bind(&path)).0, Code::Conflict);
}

#[tokio::test]
async fn what_cannot_be_a_socket_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert_eq!(code(bind(&file)).0, Code::Conflict);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let (missing, why) = code(bind(&folder.path().join("no/such/a.sock")));
    assert_eq!(missing, Code::InvalidArgument);
    assert!(why.contains("does not exist"), "{why}");

    let (too_long, why) = code(bind(Path::new(&format!("/{}", "x".repeat(120)))));
    assert_eq!(too_long, Code::InvalidArgument);
    assert!(why.starts_with("socket path is 121 bytes, the limit is 107: /xxx"), "{why}");
    assert_eq!(code(bind(Path::new(""))).0, Code::InvalidArgument);
    assert_eq!(code(bind(Path::new("a\0b"))).0, Code::InvalidArgument);
}

#[tokio::test]
async fn of_many_that_replace_a_dead_socket_at_once_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let runtime = tokio::runtime::Handle::current();
    for _ in 0..20 {
        drop(StdListener::bind(&path).unwrap());
        let bound: Vec<_> = std::thread::scope(|scope| {
            let bind = || {
                let _entered = runtime.enter();
                bind(&path)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
        });
        assert_eq!(bound.len(), 1);
        StdStream::connect(&path).expect("the winner listens");
        assert!(bound[0].remove_if_ours().unwrap());
    }
}
