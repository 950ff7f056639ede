//! Feeds and handlers whose plugin comes, goes and misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use goplug_registry::{FeedItem, Registry, Subscribe};
use serde_json::json;
use tokio::sync::mpsc;

use crate::fake::{Asked, Done, Fake, SOON, epoch};

const FAKE: &str = "Test/Fake";

fn one_message(digit: char) -> impl Fn(&mut Asked<'_>) -> Done {
    move |asked| {
        if asked.line.starts_with("GET /_goplug/events/") {
            asked.stream();
            asked.message(&epoch(digit), 1);
            return asked.until_closed();
        }
        Done::No
    }
}

#[tokio::test]
async fn what_comes_after_the_file_was_gone_is_acknowledged_too() {
    let dir = tempfile::tempdir().unwrap();
    let old = Fake::published(dir.path(), 'a', one_message('a'));
    let registry = Registry::builder(dir.path())
        .auto_discover(true)
        .rescan_interval(Duration::from_millis(50))
        .open()
        .await
        .unwrap();
    let (sender, mut handled) = mpsc::unbounded_channel();
    registry.wait_for(FAKE, goplug_registry::Wait::Loaded, SOON).await.unwrap();
    let how = Subscribe { name: Some("s".into()) };
    let handler = move |notice: goplug_registry::Notice| {
        let sender = sender.clone();
        async move { sender.send(notice.position).map_err(|error| error.to_string()) }
    };
    let _subscription = registry.register_callback(FAKE, "news", how, handler).await.unwrap();
    assert!(old.sees("POST /_goplug/events/ack", 1, SOON).await);
    old.die();
    std::fs::remove_file(dir.path().join("Fake.pconf")).unwrap();
    registry.rescan().await.unwrap();
    let new = Fake::published(dir.path(), 'b', one_message('b'));
    let second = async { while handled.recv().await.flatten().is_some_and(|position| position.epoch != epoch('b')) {} };
    tokio::time::timeout(SOON, second).await.unwrap();
    assert!(
        new.sees("POST /_goplug/events/ack", 1, SOON).await,
        "the message of the new process was never acknowledged"
    );
}

#[tokio::test]
async fn an_acknowledgement_that_did_not_arrive_is_sent_again_on_a_healthy_stream() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let stream = one_message('a');
    let fake = Fake::published(dir.path(), 'a', move |asked| {
        if asked.line == "POST /_goplug/events/ack" && count.fetch_add(1, Ordering::AcqRel) < 2 {
            return asked.problem(503, &json!({"code": "overloaded", "ran": "no"}));
        }
        stream(asked)
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load(FAKE).await.unwrap();
    let _subscription =
        registry.register_callback(FAKE, "news", Subscribe::default(), |_| async { Ok(()) }).await.unwrap();
    assert!(fake.sees("POST /_goplug/events/ack", 3, SOON).await, "seen {}", refused.load(Ordering::Acquire));
    assert_eq!(fake.count("GET /_goplug/events/"), 1);
}

#[tokio::test]
async fn the_values_of_a_state_are_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', one_message('a'));
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load(FAKE).await.unwrap();
    let (sender, mut handled) = mpsc::unbounded_channel();
    let handler = move |_| {
        let sent = sender.send(()).map_err(|error| error.to_string());
        async move { sent }
    };
    let subscription = registry.register_callback(FAKE, "level", Subscribe::default(), handler).await.unwrap();
    tokio::time::timeout(SOON, handled.recv()).await.unwrap().unwrap();
    // Closing waits for the last acknowledgement, if there is to be one.
    subscription.close().await;
    assert_eq!(fake.count("POST /_goplug/events/ack"), 0);
}

#[tokio::test]
async fn a_gap_is_told_once_and_behind_the_change_of_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let script = |digit: char| {
        move |asked: &mut Asked<'_>| {
            if asked.line.starts_with("GET /_goplug/events/") {
                asked.stream();
                let epoch = epoch(digit);
                asked.event(&format!("event: gap\ndata: {{\"from\":\"{epoch}:1\",\"to\":\"{epoch}:4\"}}\n\n"));
                asked.message(&epoch, 5);
                return asked.until_closed();
            }
            Done::No
        }
    };
    let old = Fake::published(dir.path(), 'a', script('a'));
    let registry = Registry::builder(dir.path())
        .auto_discover(true)
        .rescan_interval(Duration::from_millis(50))
        .open()
        .await
        .unwrap();
    registry.wait_for(FAKE, goplug_registry::Wait::Loaded, SOON).await.unwrap();
    let mut feed = registry.subscribe(FAKE, "news", "s").await.unwrap();
    let mut words = Vec::new();
    let mut take = async |until: &str, words: &mut Vec<String>| loop {
        let item = tokio::time::timeout(SOON, feed.next()).await.unwrap().unwrap();
        let word = match item {
            FeedItem::Message(notice) => format!("message {}", notice.position.unwrap().seq),
            FeedItem::Gap(gap) => format!("gap {}-{}", gap.from.seq, gap.to.seq),
            FeedItem::Epoch(change) => format!("epoch {}", &change.epoch[..1]),
            FeedItem::Replaced => "replaced".to_owned(),
            FeedItem::Lost(_) => "lost".to_owned(),
        };
        let over = word == until;
        if word != "lost" {
            words.push(word);
        }
        if over {
            return;
        }
    };
    take("message 5", &mut words).await;
    let _new = Fake::published(dir.path(), 'b', script('b'));
    drop(old);
    take("message 5", &mut words).await;
    assert_eq!(words, ["gap 1-4", "message 5", "epoch b", "gap 1-4", "message 5"]);
}

#[tokio::test]
async fn an_observer_that_saw_nothing_hears_what_the_next_process_kept() {
    let dir = tempfile::tempdir().unwrap();
    let old = Fake::published(dir.path(), 'a', |_| Done::No);
    let registry = Registry::builder(dir.path())
        .auto_discover(true)
        .rescan_interval(Duration::from_millis(50))
        .open()
        .await
        .unwrap();
    registry.wait_for(FAKE, goplug_registry::Wait::Loaded, SOON).await.unwrap();
    let mut feed = registry.observe(FAKE, "news", None).await.unwrap();
    assert!(old.sees("GET /_goplug/events/news", 1, SOON).await);
    let new = Fake::published(dir.path(), 'b', |_| Done::No);
    drop(old);
    let reading = tokio::spawn(async move { while feed.next().await.is_some() {} });
    let line = format!("GET /_goplug/events/news?after={}%3A0", epoch('a'));
    assert!(new.sees(&line, 1, SOON).await, "it begins now instead of after what it knew");
    reading.abort();
}
