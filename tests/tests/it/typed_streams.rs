//! Methods of interfaces that take or give streams, over frames and over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use goplug_interface::{Client, Error, Failed, Implement, MAX_ITEM_BYTES, Stream, interface};
use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{InterfaceInfo, Plugin};
use goplug_registry::{Code, Ran, Registry};
use goplug_tests::{LONG, wait_for};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::{fault, text};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct TooMany {
    limit: u64,
}

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more than {}", self.limit)
    }
}

/// Of a sum.
const LIMIT: u64 = 10_000_000_000;

#[interface(name = "test.streams", version = "1.0.0")]
trait Streams {
    /// Counts up to a number; beyond a thousand it is refused.
    async fn count(&self, to: u64) -> Result<Stream<u64>, TooMany>;
    /// Counts, and fails in the middle.
    async fn falter(&self, after: u64) -> Result<Stream<u64>, Error>;
    /// Never ends by itself.
    #[goplug(idempotent)]
    async fn endless(&self) -> Result<Stream<String>, Error>;
    async fn sum(&self, numbers: Stream<u64>) -> Result<u64, TooMany>;
    async fn scaled(&self, factor: u64, offset: u64, numbers: Stream<u64>) -> Result<Stream<u64>, Error>;
    async fn echo(&self, words: Stream<String>) -> Result<Stream<String>, Error>;
}

#[derive(Default, Clone)]
struct Numbers {
    sent: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

/// Counts when it is dropped.
struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Streams for Numbers {
    async fn count(&self, to: u64) -> Result<Stream<u64>, TooMany> {
        if to > 1_000 { Err(TooMany { limit: 1_000 }) } else { Ok(Stream::from_items(1..=to)) }
    }

    async fn falter(&self, after: u64) -> Result<Stream<u64>, Error> {
        Ok(Stream::new(move |out| async move {
            for n in 1..=after {
                out.send(n).await?;
            }
            Err(Error::new(Code::MethodFailed, "out of numbers").with_data(serde_json::json!({"after": after})))
        }))
    }

    async fn endless(&self) -> Result<Stream<String>, Error> {
        let (sent, dropped) = (Arc::clone(&self.sent), Dropped(Arc::clone(&self.dropped)));
        Ok(Stream::new(|out| async move {
            let _dropped = dropped;
            loop {
                out.send("x".repeat(1_000)).await?;
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }))
    }

    async fn sum(&self, mut numbers: Stream<u64>) -> Result<u64, TooMany> {
        let mut sum = 0;
        // A caller that goes away in the middle has no use for a sum.
        while let Ok(Some(n)) = numbers.next().await {
            sum += n;
            if sum > LIMIT {
                return Err(TooMany { limit: LIMIT });
            }
        }
        Ok(sum)
    }

    async fn scaled(&self, factor: u64, offset: u64, mut numbers: Stream<u64>) -> Result<Stream<u64>, Error> {
        Ok(Stream::new(move |out| async move {
            while let Some(n) = numbers.next().await? {
                out.send(n * factor + offset).await?;
            }
            Ok(())
        }))
    }

    async fn echo(&self, words: Stream<String>) -> Result<Stream<String>, Error> {
        Ok(words)
    }
}

/// A plugin, and a client over frames and one over HTTP.
struct Both {
    clients: Vec<StreamsClient>,
    registries: Vec<Registry>,
    numbers: Numbers,
    _plugin: InProcess,
}

impl Both {
    async fn start() -> Self {
        let numbers = Numbers::default();
        let server = StreamsServer::new(numbers.clone());
        let plugin = InProcess::start(|dir| Plugin::builder(dir).name("streams").implement(server)).await.unwrap();
        let (mut clients, mut registries) = (Vec::new(), Vec::new());
        for fast in [true, false] {
            let registry = Registry::builder(plugin.dir()).fast_paths(fast).open().await.unwrap();
            registry.load("streams").await.unwrap();
            clients.push(StreamsClient::connect(&registry, "streams").unwrap());
            registries.push(registry);
        }
        Self { clients, registries, numbers, _plugin: plugin }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_come_and_go_one_after_another() {
    let both = Both::start().await;
    for client in &both.clients {
        let mut counted = client.count(3).await.unwrap();
        for n in 1..=3 {
            assert_eq!(counted.next().await, Ok(Some(n)));
        }
        assert_eq!((counted.next().await, counted.next().await), (Ok(None), Ok(None)));
        assert_eq!(client.count(0).await.unwrap().collect().await, Ok(vec![]));
        assert_eq!(client.sum(vec![1, 2, 3]).await, Ok(6));
        assert_eq!(client.sum(vec![]).await, Ok(0));
        assert_eq!(client.sum(Stream::from_items(1..=50_000)).await, Ok(1_250_025_000));
        let scaled = client.scaled(10, 1, Stream::from_items(1..=1_000)).await.unwrap().collect().await.unwrap();
        assert_eq!((scaled.len(), scaled[0], scaled[999]), (1_000, 11, 10_001));
    }
}

/// What is asked next depends on what was answered: nothing waits for a stream to be whole.
#[tokio::test(flavor = "multi_thread")]
async fn both_directions_go_on_at_once() {
    let both = Both::start().await;
    for client in &both.clients {
        let (ask, mut asked) = tokio::sync::mpsc::channel::<String>(1);
        let words = Stream::new(|out| async move {
            while let Some(word) = asked.recv().await {
                out.send(word).await?;
            }
            Ok(())
        });
        let mut answers = client.echo(words).await.unwrap();
        for n in 0..100 {
            ask.send(format!("word {n}\nof two lines")).await.unwrap();
            assert_eq!(answers.next().await, Ok(Some(format!("word {n}\nof two lines"))));
        }
        drop(ask);
        assert_eq!(answers.next().await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_data_before_and_in_the_middle() {
    let both = Both::start().await;
    for client in &both.clients {
        let refused = client.count(2_000).await.unwrap_err();
        assert_eq!(refused, Failed::Method(TooMany { limit: 1_000 }));
        let refused = client.sum(vec![u64::MAX / 2]).await.unwrap_err();
        assert_eq!(refused, Failed::Method(TooMany { limit: LIMIT }));
        let mut faltering = client.falter(2).await.unwrap();
        assert_eq!((faltering.next().await, faltering.next().await), (Ok(Some(1)), Ok(Some(2))));
        for _ in 0..2 {
            let error = faltering.next().await.unwrap_err();
            assert_eq!(
                (error.code, error.ran, error.message.as_str()),
                (Code::MethodFailed, Ran::Yes, "out of numbers")
            );
            assert_eq!(*error.data.unwrap(), serde_json::json!({"after": 2}));
        }
        // The caller's own stream fails: the plugin is told, and says so.
        let failing = Stream::new(|out| async move {
            out.send("one".to_owned()).await?;
            Err(Error::new(Code::Internal, "no more words"))
        });
        let mut answers = client.echo(failing).await.unwrap();
        assert_eq!(answers.next().await, Ok(Some("one".into())));
        assert_eq!(answers.next().await.unwrap_err().message, "no more words");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_slowly_holds_back_and_whoever_leaves_ends_it() {
    let both = Both::start().await;
    for (client, ended) in both.clients.iter().zip(1..) {
        both.numbers.sent.store(0, Ordering::SeqCst);
        let mut endless = client.endless().await.unwrap();
        for _ in 0..10 {
            assert!(endless.next().await.unwrap().is_some());
        }
        // What fits between the two: some 512 KiB of frames, or what two sockets and two pieces hold.
        let before = AtomicU64::new(u64::MAX);
        wait_for("nothing more is sent", LONG, || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = both.numbers.sent.load(Ordering::SeqCst);
            (before.swap(now, Ordering::SeqCst) == now).then_some(())
        })
        .await;
        let before = before.into_inner();
        assert!(before < 4_000, "{before} items of 1 kB are on their way");
        drop(endless);
        let dropped = &both.numbers.dropped;
        wait_for("the method ends", LONG, || async { (dropped.load(Ordering::SeqCst) == ended).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_has_a_limit_on_both_sides() {
    let both = Both::start().await;
    for client in &both.clients {
        // With its quotes it is one byte more than the limit.
        let words = vec!["a".to_owned(), "x".repeat(MAX_ITEM_BYTES - 1)];
        let mut answers = client.echo(words).await.unwrap();
        assert_eq!(answers.next().await, Ok(Some("a".into())));
        let error = answers.next().await.unwrap_err();
        assert_eq!(error.code, Code::TooLarge, "{error:?}");
        let largest = "x".repeat(MAX_ITEM_BYTES - 2);
        let answers = client.echo(vec![largest.clone()]).await.unwrap().collect().await.unwrap();
        assert!(answers == [largest]);
    }
}

/// Bytes that no stream of ours would send.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_cut_off_never_ends_as_if_it_were_whole() {
    let methods = ["count", "falter", "endless"].map(str::to_owned).to_vec();
    let interface = InterfaceInfo { name: "test.streams".into(), version: "1.0.0".into(), methods, callbacks: vec![] };
    let plugin = InProcess::start(|dir| {
        let builder = Plugin::builder(dir).name("cut").interface(interface);
        // Half an item, and the reply ends well.
        let builder = builder.method_stream("count", |_cx, _body, out| async move { out.send("1\n2").await });
        // The connection ends in the middle.
        let builder = builder.method_stream("falter", |_cx, _body, out| async move {
            out.send("1\n").await?;
            Err(Error::new(Code::Internal, "nobody hears this"))
        });
        builder.method_stream("endless", |_cx, _body, out| async move { out.send("\"fine\"\nthis is none\n").await })
    });
    let plugin = plugin.await.unwrap();
    #[interface(name = "test.streams", version = "1.0.0")]
    trait Some {
        async fn count(&self, to: u64) -> Result<Stream<u64>, Error>;
        async fn falter(&self, after: u64) -> Result<Stream<u64>, Error>;
        async fn endless(&self) -> Result<Stream<String>, Error>;
    }
    for fast in [true, false] {
        let registry = Registry::builder(plugin.dir()).fast_paths(fast).open().await.unwrap();
        registry.load("cut").await.unwrap();
        let client = SomeClient::connect(&registry, "cut").unwrap();
        let mut counted = client.count(2).await.unwrap();
        assert_eq!(counted.next().await, Ok(Some(1)));
        let error = counted.next().await.unwrap_err();
        assert_eq!((error.code, error.ran), (Code::ProtocolError, Ran::Yes));
        assert!(error.message.contains("in the middle of an item"), "{error}");
        let mut faltering = client.falter(2).await.unwrap();
        assert_eq!(faltering.next().await, Ok(Some(1)));
        let error = faltering.next().await.unwrap_err();
        assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Yes), "{error:?}");
        let mut words = client.endless().await.unwrap();
        assert_eq!(words.next().await, Ok(Some("fine".into())));
        let error = words.next().await.unwrap_err();
        assert_eq!(error.code, Code::ProtocolError);
        assert!(error.message.contains("method `endless` of plugin `-/cut`"), "{error}");
        registry.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hello_tells_of_streams_and_whoever_has_no_types_sends_lines() {
    let both = Both::start().await;
    let registry = &both.registries[0];
    let list = registry.methods("streams").unwrap();
    let method = |name: &str| list.methods.iter().find(|method| method.name == name).unwrap();
    assert!(method("count").input.is_some() && method("count").output.is_none());
    assert_eq!(method("count").output_item.as_ref().unwrap()["type"], "integer");
    assert_eq!((&method("sum").input, method("sum").input_item.is_some()), (&None, true));
    assert!(method("sum").output.is_some() && method("scaled").input.is_some());
    for registry in &both.registries {
        let call = async |method: &str, body: &str| registry.execute("streams", method, body.to_owned()).await;
        assert_eq!(text(call("count", "2").await.unwrap()), "\n1\n2\n");
        assert_eq!(text(call("sum", "1\n2\n\n3\n").await.unwrap()), "6");
        let scaled = call("scaled", "{\"factor\": 2, \"offset\": 1}\r\n1\r\n2\r\n").await.unwrap();
        assert_eq!(text(scaled), "\n3\n5\n");
        let faltered = text(call("falter", "1").await.unwrap());
        assert!(faltered.starts_with("\n1\n!{") && faltered.contains("\"code\":\"method_failed\""), "{faltered}");
        let error = fault(call("scaled", "{\"factor\": \"two\"}\n").await);
        assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
        assert!(error.message.contains("the first line of the request of method `scaled`"), "{error}");
        let error = fault(call("count", "\"two\"").await);
        assert_eq!((error.code, error.ran), (Code::InvalidArgument, Ran::No), "{error:?}");
    }
}

mod other {
    use super::*;

    #[interface(name = "test.streams", version = "1.0.0")]
    pub(super) trait Streams {
        async fn count(&self, to: u64) -> Result<Vec<u64>, Error>;
        async fn falter(&self, after: u64) -> Result<Stream<String>, Error>;
        async fn sum(&self, numbers: Vec<u64>) -> Result<u64, Error>;
        async fn echo(&self, words: Stream<Option<String>>) -> Result<Stream<String>, Error>;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_of_streams_is_told_method_by_method() {
    let both = Both::start().await;
    let error = other::StreamsClient::connect(&both.registries[0], "streams").unwrap_err();
    let mismatches = serde_json::json!([
        "method `count` gives a stream, one reply is wanted",
        "method `falter` may give a reply that cannot be read: in an item: integer is given, string is expected",
        "method `sum` takes a stream, one request is wanted",
        "method `echo` would refuse a request: in an item: string or null is given, string is expected",
    ]);
    assert_eq!(error.data.unwrap()["mismatches"], mismatches);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_is_as_over_the_wire() {
    let client = StreamsClient::in_process(Numbers::default()).await.unwrap();
    assert_eq!(client.count(2).await.unwrap().collect().await, Ok(vec![1, 2]));
    assert_eq!(client.scaled(2, 0, vec![1, 2]).await.unwrap().collect().await, Ok(vec![2, 4]));
    let error = client.with_deadline(Duration::from_secs(1)).endless().await.unwrap().collect().await.unwrap_err();
    assert_eq!((error.code, error.ran), (Code::DeadlineExceeded, Ran::Yes), "{error:?}");
}
