use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_plugin_impl::testing::{InProcess, Notifications};
use goplug_plugin_impl::{Callback, Class, Code, Notifier, Plugin, Ran};
use serde_json::json;
use tokio::time::timeout;

use crate::raw::{PATIENCE, Wire};

async fn plugin() -> InProcess {
    InProcess::start(|dir| {
        Plugin::builder(dir)
            .name("p")
            .callback(Callback::event("e").window(4, 1000))
            .callback("large")
            .callback(Callback::state("s"))
            .callback(Callback::lossy("l").window(4, 1000))
            .method("Do", |_, body| Ok(body))
    })
    .await
    .unwrap()
}

fn notifier(plugin: &InProcess) -> Notifier {
    plugin.running().unwrap().notifier()
}

/// The payloads of the next messages.
async fn read(stream: &mut Notifications, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let notification = stream.next().await.unwrap();
        let key = notification.key.map(|key| format!("{key}=")).unwrap_or_default();
        seen.push(format!("{key}{}", String::from_utf8_lossy(&notification.data)));
    }
    seen
}

#[tokio::test]
async fn a_stream_is_chunked_server_sent_events_byte_for_byte() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("GET /_goplug/events/e?subscription=me", "Goplug-Call-Id: 5\r\n", "").await;
    let head = wire.head().await;
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nGoplug-Call-Id: 5\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let position = notifier(&plugin).notify("e", "hello").await.unwrap();
    let epoch = plugin.running().unwrap().epoch();
    assert_eq!(position.to_string(), format!("{epoch}:1"));
    let event = format!("id: {epoch}:1\nevent: message\ndata: {{\"dataBase64\":\"aGVsbG8=\"}}\n\n");
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    assert_eq!(String::from_utf8(wire.bytes(chunk.len()).await).unwrap(), chunk);

    let mut ack = Wire::connect(plugin.socket_path()).await;
    let body = json!({"callback": "e", "subscription": "me", "position": position}).to_string();
    let reply = ack.ask("POST /_goplug/events/ack", "Goplug-Call-Id: 6\r\n", &body).await;
    assert_eq!((reply.status(), reply.text()), (200, ""));
    let list = ack.ask("GET /_goplug/callbacks", "", "").await.json();
    let mine = json!({"name": "me", "attached": true, "acknowledged": 1, "pending": 0,
        "caller": format!("pid {}", std::process::id())});
    assert_eq!(list[0], json!({"name": "e", "class": "event", "subscriptions": [mine], "observers": 0}));
}

#[tokio::test]
async fn acknowledgements_are_answered_as_the_protocol_says() {
    let plugin = plugin().await;
    let mut stream = plugin.subscribe("e", "me").await.unwrap();
    notifier(&plugin).notify("e", "1").await.unwrap();
    let position = stream.next().await.unwrap().position;
    let epoch = position.epoch.clone();
    let mut wire = Wire::connect(plugin.socket_path()).await;
    for (callback, subscription, position, status) in [
        ("e", "me", format!("{epoch}:2"), 400),
        ("e", "you", format!("{epoch}:1"), 404),
        ("x", "me", format!("{epoch}:1"), 404),
        ("e", "me", format!("{}:1", "f".repeat(32)), 409),
        ("e", "me", "1".into(), 400),
        ("e", "me", format!("{epoch}:1"), 200),
        ("e", "me", format!("{epoch}:1"), 200),
        ("e", "me", format!("{epoch}:0"), 200),
    ] {
        let body = json!({"callback": callback, "subscription": subscription, "position": position}).to_string();
        let reply = wire.ask("POST /_goplug/events/ack", "", &body).await;
        assert_eq!(reply.status(), status, "{body}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_subscription_resumes_and_its_earlier_stream_is_replaced() {
    let plugin = plugin().await;
    let mut first = plugin.subscribe("e", "me").await.unwrap();
    for n in 1..=3 {
        notifier(&plugin).notify("e", n.to_string()).await.unwrap();
    }
    let position = first.next().await.unwrap().position;
    first.ack(&position).await.unwrap();
    let mut second = plugin.subscribe("e", "me").await.unwrap();
    assert_eq!(read(&mut second, 2).await, ["2", "3"]);
    let mut ended = first.next().await;
    while ended.is_ok() {
        ended = first.next().await;
    }
    assert!(ended.unwrap_err().message.contains("replaced"));
    assert_eq!(first.next().await.unwrap_err().message, "the event stream has ended");
    drop(second);
    let mut third = plugin.subscribe("e", "me").await.unwrap();
    assert_eq!(read(&mut third, 2).await, ["2", "3"], "nothing of it was acknowledged");
}

#[tokio::test]
async fn a_full_window_holds_notify_back_until_it_is_acknowledged() {
    let plugin = plugin().await;
    let notifier = notifier(&plugin);
    let mut stream = plugin.subscribe("e", "me").await.unwrap();
    for n in 0..4 {
        notifier.try_notify("e", n.to_string()).unwrap();
    }
    let fault = notifier.try_notify("e", "4").unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Overloaded, Ran::No));
    assert_eq!(notifier.try_notify("e", vec![0; 1001]).unwrap_err().code, Code::TooLarge);

    let waiting = tokio::spawn({
        let notifier = notifier.clone();
        async move { notifier.notify("e", "4").await }
    });
    let blocked = tokio::task::spawn_blocking({
        let notifier = notifier.clone();
        move || notifier.notify_blocking("e", "5")
    });
    assert_eq!(plugin.call("Do", "not held up").await.unwrap(), "not held up");
    assert!(!waiting.is_finished() && !blocked.is_finished());
    for n in 0..4 {
        let notification = stream.next().await.unwrap();
        assert_eq!(notification.data, n.to_string());
        stream.ack(&notification.position).await.unwrap();
    }
    let mut late = [waiting.await.unwrap().unwrap().seq, blocked.await.unwrap().unwrap().seq];
    late.sort_unstable();
    assert_eq!(late, [5, 6]);
    assert_eq!(notifier.callbacks()[0].subscriptions[0].pending, 2);
}

#[tokio::test]
async fn notify_acked_returns_when_every_subscription_has_acknowledged() {
    let mut plugin = plugin().await;
    let notifier = notifier(&plugin);
    notifier.notify_acked("e", "nobody listens").await.unwrap();
    assert_eq!(notifier.notify_acked("s", "x").await.unwrap_err().code, Code::InvalidArgument);

    let (mut a, mut b) = (plugin.subscribe("e", "a").await.unwrap(), plugin.subscribe("e", "b").await.unwrap());
    a.next().await.unwrap();
    b.next().await.unwrap();
    let acked = tokio::spawn({
        let notifier = notifier.clone();
        async move { notifier.notify_acked("e", "important").await }
    });
    let position = a.next().await.unwrap().position;
    a.ack(&position).await.unwrap();
    b.next().await.unwrap();
    assert!(!acked.is_finished(), "b has not acknowledged");
    b.ack(&position).await.unwrap();
    assert_eq!(acked.await.unwrap().unwrap(), position);

    let never = tokio::spawn(async move { notifier.notify_acked("e", "unheard").await });
    a.next().await.unwrap();
    plugin.stop(Duration::ZERO).await;
    let fault = timeout(PATIENCE, never).await.unwrap().unwrap().unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Unavailable, Ran::Unknown));
}

/// Who subscribed to the process before has its place back by then.
#[tokio::test(start_paused = true)]
async fn notify_acked_waits_for_the_first_activation() {
    let builder = |dir: &std::path::Path| Plugin::builder(dir).name("p").callback("e");
    let plugin = InProcess::start_inactive(builder).await.unwrap();
    let notifier = notifier(&plugin);
    let fault = notifier.notify_acked("e", "too early").await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Unavailable, Ran::No));

    let mut back = plugin.subscribe("e", "a").await.unwrap();
    let acked = tokio::spawn(async move { notifier.notify_acked("e", "first").await });
    tokio::task::yield_now().await;
    assert!(!acked.is_finished());
    plugin.activate(serde_json::json!({})).await.unwrap();
    let message = back.next().await.unwrap();
    assert_eq!((&message.data[..], message.position.seq), (&b"first"[..], 1), "what was refused was not sent");
    back.ack(&message.position).await.unwrap();
    assert_eq!(acked.await.unwrap().unwrap(), message.position);
}

#[tokio::test(start_paused = true)]
async fn a_detached_subscription_holds_back_for_a_minute() {
    let plugin = plugin().await;
    let notifier = notifier(&plugin);
    drop(plugin.subscribe("e", "gone").await.unwrap());
    while notifier.callbacks()[0].subscriptions[0].attached {
        tokio::task::yield_now().await;
    }
    for n in 0..4 {
        notifier.try_notify("e", n.to_string()).unwrap();
    }
    let start = tokio::time::Instant::now();
    notifier.notify("e", "4").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(59), "{:?}", start.elapsed());
    let losses = notifier.losses("e").unwrap();
    assert_eq!((losses.forgotten, losses.dropped), (1, 4), "a minute old, and nobody holds them any more");
}

/// Its handler may take hours: it is attached, so it holds back, and loses nothing.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_read_keeps_its_place() {
    let builder =
        |dir: &std::path::Path| Plugin::builder(dir).name("p").callback(Callback::event("e").window(100, 64 << 20));
    let plugin = InProcess::start(builder).await.unwrap();
    let notifier = notifier(&plugin);
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("GET /_goplug/events/e?subscription=slow", "", "").await;
    wire.head().await;
    for n in 0..4 {
        // More than a socket holds.
        notifier.notify("e", vec![n; 300_000]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let status = notifier.callbacks()[0].subscriptions[0].clone();
    assert_eq!((status.attached, status.pending), (true, 4), "{status:?}");
    for n in 1..=4 {
        wire.until(format!(":{n}\nevent: message\n").as_bytes()).await;
    }
    assert_eq!(notifier.losses("e").unwrap().forgotten, 0);
}

#[tokio::test]
async fn an_observer_sees_what_comes_what_it_asks_for_and_what_it_missed() {
    let plugin = plugin().await;
    let notifier = notifier(&plugin);
    for n in 1..=6 {
        notifier.notify("e", n.to_string()).await.unwrap();
    }
    let epoch = plugin.running().unwrap().epoch().to_owned();
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request(&format!("GET /_goplug/events/e?after={epoch}%3A1"), "", "").await;
    let gap = format!("event: gap\ndata: {{\"from\":\"{epoch}:2\",\"to\":\"{epoch}:2\"}}\n\nid: {epoch}:3\n");
    let text = String::from_utf8(wire.until(b":6\nevent: message").await).unwrap();
    assert!(text.contains(&gap), "{text}");

    let mut wire = Wire::connect(plugin.socket_path()).await;
    let other = "f".repeat(32);
    wire.request(&format!("GET /_goplug/events/e?after={other}%3A99"), "", "").await;
    let change = format!(
        "event: epoch\ndata: {{\"epoch\":\"{epoch}\",\"previous\":\"{other}\"}}\n\n\
         event: gap\ndata: {{\"from\":\"{epoch}:1\",\"to\":\"{epoch}:2\"}}\n\nid: {epoch}:3\n"
    );
    let text = String::from_utf8(wire.until(b":6\nevent: message").await).unwrap();
    assert!(text.contains(&change), "{text}");

    let mut wire = Wire::connect(plugin.socket_path()).await;
    // Without its name a subscriber would become an observer, and lose what it did not acknowledge.
    let no_name = ["e?subscription".into(), "e?subscription=".into()];
    let refused = [format!("e?after={epoch}%3A7"), "e?after=7".into(), "e?subscription=a%20b".into()];
    for target in refused.into_iter().chain(no_name) {
        let reply = wire.ask(&format!("GET /_goplug/events/{target}"), "", "").await;
        assert_eq!(reply.problem().0, 400, "{target}");
    }
    assert_eq!(wire.ask("GET /_goplug/events/nothing", "", "").await.problem().0, 404);
    let mut now = plugin.notifications("e").await.unwrap();
    notifier.notify("e", "7").await.unwrap();
    assert_eq!(read(&mut now, 1).await, ["7"]);
    assert_eq!(notifier.callbacks()[0].observers, 3);
}

#[tokio::test]
async fn state_and_lossy_keep_their_promises() {
    let plugin = plugin().await;
    let notifier = notifier(&plugin);
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        notifier.notify_key("s", key, value).unwrap();
    }
    let mut state = plugin.subscribe("s", "me").await.unwrap();
    assert_eq!(read(&mut state, 2).await, ["b=1", "a=2"]);
    notifier.notify("s", "keyless").await.unwrap();
    assert_eq!(read(&mut state, 1).await, ["keyless"]);
    assert_eq!(notifier.notify_key("e", "a", "1").unwrap_err().code, Code::InvalidArgument);

    let idle = plugin.subscribe("l", "idle").await.unwrap();
    drop(idle);
    while notifier.callbacks().into_iter().any(|c| c.class == Class::Lossy && c.subscriptions[0].attached) {
        tokio::task::yield_now().await;
    }
    for n in 1..=10 {
        notifier.notify("l", n.to_string()).await.unwrap();
    }
    let mut lossy = plugin.subscribe("l", "idle").await.unwrap();
    let next = lossy.next().await.unwrap();
    assert_eq!((next.dropped, next.data, next.position.seq), (6, Bytes::from("7"), 7));
    assert_eq!(notifier.losses("l").unwrap().dropped, 6);
}

#[tokio::test]
async fn a_burst_reaches_a_fast_and_a_slow_subscriber_in_order() {
    const MESSAGES: usize = 5_000;
    let plugin = Arc::new(plugin().await);
    let consume = |name: &'static str, every: usize| {
        let plugin = Arc::clone(&plugin);
        tokio::spawn(async move {
            let mut stream = plugin.subscribe("large", name).await.unwrap();
            for n in 0..MESSAGES {
                let notification = stream.next().await.unwrap();
                assert_eq!(notification.data, n.to_string());
                if n % every == every - 1 || n == MESSAGES - 1 {
                    stream.ack(&notification.position).await.unwrap();
                }
            }
        })
    };
    let (fast, slow) = (consume("fast", 500), consume("slow", 7));
    timeout(PATIENCE, async {
        while notifier(&plugin).callbacks()[1].subscriptions.len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    for n in 0..MESSAGES {
        timeout(PATIENCE, notifier(&plugin).notify("large", n.to_string())).await.unwrap().unwrap();
    }
    timeout(PATIENCE, async { (fast.await.unwrap(), slow.await.unwrap()) }).await.unwrap();
    assert!(notifier(&plugin).callbacks()[1].subscriptions.iter().all(|s| s.pending == 0));
}

#[tokio::test]
async fn a_message_larger_than_one_write_arrives_whole() {
    let plugin = plugin().await;
    let mut stream = plugin.notifications("large").await.unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    notifier(&plugin).notify("large", data.clone()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().data, data);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_sent_without_a_pause() {
    let plugin = plugin().await;
    for _ in 0..1000 {
        notifier(&plugin).notify("large", vec![b'x'; 2000]).await.unwrap();
    }
    let start = tokio::time::Instant::now();
    let mut stream = plugin.subscribe("large", "me").await.unwrap();
    read(&mut stream, 1000).await;
    assert!(start.elapsed() < Duration::from_secs(1), "a stream waits although there is more: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_every_15_seconds_that_it_lives() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("GET /_goplug/events/e", "", "").await;
    wire.head().await;
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(wire.until(b"\n\n\r\n").await, b"3\r\n:\n\n\r\n");
    }
    assert_eq!(start.elapsed().as_secs(), 45);
}

#[tokio::test]
async fn subscriptions_are_bounded_and_a_drain_waits_for_their_acknowledgements() {
    let plugin = plugin().await;
    let mut streams = Vec::new();
    for n in 0..64 {
        streams.push(plugin.subscribe("e", &n.to_string()).await.unwrap());
    }
    assert_eq!(plugin.subscribe("e", "the-65th").await.unwrap_err().code, Code::Overloaded);
    streams.truncate(1);
    timeout(PATIENCE, async {
        while notifier(&plugin).callbacks()[0].subscriptions.iter().filter(|s| s.attached).count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    notifier(&plugin).notify("e", "1").await.unwrap();
    assert_eq!(
        plugin.deactivate(Duration::from_millis(20)).await.unwrap().unacknowledged,
        1,
        "detached ones do not count"
    );

    plugin.activate(json!({})).await.unwrap();
    let mut stream = streams.remove(0);
    let mut drain = Wire::connect(plugin.socket_path()).await;
    drain.request("POST /_goplug/deactivate", "", r#"{"drainMs":60000}"#).await;
    let position = stream.next().await.unwrap().position;
    stream.ack(&position).await.unwrap();
    assert_eq!(drain.reply().await.json(), json!({"cancelled": 0, "unacknowledged": 0}));
}

#[tokio::test]
async fn the_end_of_the_plugin_ends_streams_and_refuses_messages() {
    let mut plugin = plugin().await;
    let notifier = notifier(&plugin);
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("GET /_goplug/events/e?subscription=me", "", "").await;
    wire.head().await;
    plugin.stop(Duration::ZERO).await;
    assert_eq!(wire.rest().await, b"0\r\n\r\n", "the stream ends as a whole reply does");
    assert_eq!(notifier.notify("e", "late").await.unwrap_err().code, Code::Unavailable);
}
