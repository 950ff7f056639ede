//! Values at the end of their range.

use std::time::Duration;

use goplug_registry::{Code, Registry, Unload, Wait};

use crate::fake::{Done, Fake, SOON, write_file};

#[tokio::test]
async fn the_longest_times_are_taken_or_refused_but_break_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', |_| Done::No);
    let registry =
        Registry::builder(dir.path()).auto_discover(true).rescan_interval(Duration::MAX).open().await.unwrap();
    registry.wait_for("Test/Fake", Wait::Loaded, Duration::MAX).await.unwrap();
    let forever = Unload { drain: Some(Duration::MAX), stop: false };
    assert_eq!(registry.unload("Test/Fake", forever).await.unwrap_err().code, Code::InvalidArgument);
    assert!(registry.is_loaded("Test/Fake"));
    registry.rescan().await.unwrap();
    assert_eq!(registry.events_after(u64::MAX).map(drop), Ok(()));
    for builder in
        [Registry::builder(dir.path()).drain(Duration::MAX), Registry::builder(dir.path()).call_deadline(Duration::MAX)]
    {
        assert_eq!(builder.open().await.unwrap_err().code, Code::InvalidArgument);
    }
    drop(fake);
}

#[tokio::test]
async fn a_v0_plugin_too_is_unloaded_within_a_day_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v0.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = vec![0; 4096];
                while let Ok(1..) = stream.read(&mut head) {
                    let reply = match head.starts_with(b"POST /Activate") {
                        true => &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"[..],
                        false => b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
                    };
                    if stream.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    write_file(dir.path(), r#"{"Name":"old","Sock":"v0.sock"}"#);
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load("old").await.unwrap();
    let forever = Unload { drain: Some(Duration::MAX), stop: false };
    let unload = tokio::time::timeout(SOON, registry.unload("old", forever)).await.unwrap();
    assert_eq!(unload.unwrap_err().code, Code::InvalidArgument);
    assert!(registry.is_loaded("old"));
}
