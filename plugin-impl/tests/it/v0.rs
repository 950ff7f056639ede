//! An application of the original GoPlug, by hand.

use std::time::Duration;

use bytes::Bytes;
use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{Callback, Code, Error, Plugin};
use serde_json::json;
use tokio::time::timeout;

use crate::raw::{PATIENCE, Raw, Wire};

async fn plugin() -> InProcess {
    InProcess::start_inactive(|dir| {
        Plugin::builder(dir)
            .namespace("Test")
            .name("Do")
            .activator(|_| Ok("bytes that the original cannot read"))
            .stopper(|| "stopped")
            .method("main.Do", |_, body: Bytes| Ok([&b"did "[..], &body].concat()))
            .method("main.Fail", |_, _| -> Result<Bytes, _> { Err(Error::new(Code::MethodFailed, "no")) })
            .typed("main.Typed", |_, n: u32| Ok(n + 1))
            .callback("main.callBack")
            .callback(Callback::state("main.state"))
    })
    .await
    .unwrap()
}

async fn ask(wire: &mut Wire, path: &str, body: &str) -> Raw {
    let content_type = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    wire.ask(&format!("POST /{path}"), &format!("Host: TestDo\r\n{content_type}"), body).await
}

async fn poll(wire: &mut Wire, callback: &str) {
    let body = format!("\"{callback}\"");
    wire.request("POST /RegisterCallback", "Host: TestDo\r\nContent-Type: application/json\r\n", body).await;
}

/// Waits until `count` polls or streams of `callback` are attached.
async fn wait_attached(plugin: &InProcess, callback: &str, is_attached: bool) {
    let attached = || {
        let list = plugin.callbacks();
        let callback = list.into_iter().find(|status| status.name == callback).unwrap();
        callback.subscriptions.iter().any(|subscription| subscription.attached)
    };
    timeout(PATIENCE, async {
        while attached() != is_attached {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the poll does not arrive, or does not leave");
}

#[tokio::test]
async fn one_connection_carries_a_whole_life_byte_for_byte() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let active = ask(&mut wire, "Activate", "").await;
    assert!(active.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", active.head);
    assert_eq!(active.text(), r#"["main.Do","main.Fail","main.Typed"]"#, "one JSON array and not a byte more");
    assert!(active.head.contains("\r\nContent-Type: text/plain\r\n"), "{}", active.head);
    assert_eq!(ask(&mut wire, "Activate", "").await.text(), r#"["main.Do","main.Fail","main.Typed"]"#);
    let typed = ask(&mut wire, "main.Typed", "7").await;
    assert!(typed.head.contains("\r\nContent-Type: text/plain\r\n") && typed.text() == "8", "{}", typed.head);
    assert_eq!(ask(&mut wire, "Ping", "Test Data").await.text(), "Test Data");
    wire.request("POST /main.Do", "Host: TestDo\r\nContent-Type: application/json\r\n", "it").await;
    let expected = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\ndid it";
    assert_eq!(wire.bytes(expected.len()).await, expected);

    poll(&mut wire, "main.callBack").await;
    wait_attached(&plugin, "main.callBack", true).await;
    plugin.running().unwrap().notify("main.callBack", "news").await.unwrap();
    assert_eq!(wire.reply().await.text(), "news");

    let stopped = ask(&mut wire, "Stop", "").await;
    assert_eq!((stopped.status(), stopped.text()), (200, "stopped"));
    timeout(PATIENCE, plugin.running().unwrap().wait()).await.unwrap();
    assert_eq!(wire.rest().await, b"");
    assert_eq!(std::fs::read_dir(plugin.dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn every_error_is_400_without_a_body() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let expected = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for (path, body, why) in [
        ("main.Do", "", "not active"),
        ("nobody", "", "unknown"),
        ("", "", "empty"),
        ("RegisterCallback", "\"nobody\"", "unknown callback"),
        ("RegisterCallback", "main.callBack", "no JSON string"),
        ("Activate", "", ""),
        ("main.Fail", "", "the author's error"),
    ] {
        wire.request(&format!("POST /{path}"), "Host: TestDo\r\n", body).await;
        if path == "Activate" {
            assert_eq!(wire.reply().await.status(), 200);
        } else {
            assert_eq!(wire.bytes(expected.len()).await, expected, "{why}");
        }
    }
}

#[tokio::test]
async fn an_active_plugin_stays_as_it_is() {
    let plugin = plugin().await;
    plugin.activate(json!({"by": "a registry"})).await.unwrap();
    let mut wire = Wire::connect(plugin.socket_path()).await;
    assert_eq!(ask(&mut wire, "Activate", "").await.status(), 200);
    plugin.activate(json!({"by": "a registry"})).await.expect("the settings are still these");
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_between_polls() {
    let plugin = plugin().await;
    let running = plugin.running().unwrap();
    let mut wire = Wire::connect(plugin.socket_path()).await;
    poll(&mut wire, "main.callBack").await;
    wait_attached(&plugin, "main.callBack", true).await;
    for n in 0..200 {
        running.notify("main.callBack", n.to_string()).await.unwrap();
    }
    for n in 0..200 {
        // Every other poll comes on a connection of its own, as soon as the reply before it is there.
        assert_eq!(wire.reply().await.text(), n.to_string());
        if n % 2 == 0 {
            wire = Wire::connect(plugin.socket_path()).await;
        }
        poll(&mut wire, "main.callBack").await;
    }
}

#[tokio::test]
async fn a_poll_whose_caller_has_gone_loses_nothing() {
    let plugin = plugin().await;
    let running = plugin.running().unwrap();
    for half in [false, true] {
        let mut gone = Wire::connect(plugin.socket_path()).await;
        poll(&mut gone, "main.callBack").await;
        wait_attached(&plugin, "main.callBack", true).await;
        if half {
            gone.half_close().await;
        } else {
            drop(gone);
        }
        wait_attached(&plugin, "main.callBack", false).await;
        running.notify("main.callBack", "kept").await.unwrap();
        let mut wire = Wire::connect(plugin.socket_path()).await;
        poll(&mut wire, "main.callBack").await;
        assert_eq!(wire.reply().await.text(), "kept");
    }
    assert_eq!(running.notifier().losses("main.callBack").unwrap().dropped, 0);
}

#[tokio::test]
async fn a_later_poll_takes_the_place_of_one_that_waits() {
    let plugin = plugin().await;
    let mut first = Wire::connect(plugin.socket_path()).await;
    poll(&mut first, "main.callBack").await;
    wait_attached(&plugin, "main.callBack", true).await;
    let mut second = Wire::connect(plugin.socket_path()).await;
    poll(&mut second, "main.callBack").await;
    assert_eq!(first.reply().await.status(), 400);
    plugin.running().unwrap().notify("main.callBack", "news").await.unwrap();
    assert_eq!(second.reply().await.text(), "news");
}

#[tokio::test]
async fn a_poll_never_holds_up_calls_and_the_end_ends_it() {
    let mut plugin = plugin().await;
    let mut waiting = Wire::connect(plugin.socket_path()).await;
    poll(&mut waiting, "main.callBack").await;
    wait_attached(&plugin, "main.callBack", true).await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    ask(&mut wire, "Activate", "").await;
    for n in 0..100 {
        assert_eq!(ask(&mut wire, "main.Do", &n.to_string()).await.text(), format!("did {n}"));
    }
    timeout(PATIENCE, plugin.stop(Duration::ZERO)).await.unwrap();
    assert!(waiting.rest().await.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
}

#[tokio::test]
async fn polls_of_a_state_see_each_value_once() {
    let plugin = plugin().await;
    let notifier = plugin.running().unwrap().notifier();
    notifier.notify_key("main.state", "a", "1").unwrap();
    notifier.notify_key("main.state", "b", "2").unwrap();
    let mut wire = Wire::connect(plugin.socket_path()).await;
    for expected in ["1", "2"] {
        poll(&mut wire, "main.state").await;
        assert_eq!(wire.reply().await.text(), expected);
    }
    poll(&mut wire, "main.state").await;
    wait_attached(&plugin, "main.state", true).await;
    notifier.notify_key("main.state", "a", "3").unwrap();
    assert_eq!(wire.reply().await.text(), "3");
}
