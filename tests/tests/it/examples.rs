//! Every example runs, and does what it says.

use goplug_registry::{Code, FeedItem, Unload};
use goplug_tests::{LONG, PluginDir};

use crate::support::{example_app, example_plugin, fault, loaded, python_plugin, quiet, text, watching};

#[test]
fn the_originals_plugin_and_application() {
    let dir = PluginDir::new();
    let _plugin = example_plugin(&dir, "do_plugin", "TestDo.pconf");
    assert_eq!(example_app(&dir, "do_app"), "method Do\nDo: hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typed_plugin() {
    let dir = PluginDir::new();
    let _plugin = example_plugin(&dir, "typed", "Exampletyped.pconf");
    let registry = quiet(&dir).await;
    registry.load("Example/typed").await.unwrap();
    let divide = async |body: &str| registry.execute("typed", "divide", body.to_owned()).await;
    assert_eq!(text(divide(r#"{"dividend": 1, "divisor": 4}"#).await.unwrap()), r#"{"quotient":0.25}"#);
    assert_eq!(fault(divide(r#"{"dividend": 1, "divisor": 0}"#).await).code, Code::MethodFailed);
    assert_eq!(fault(divide(r#"{"dividend": "one"}"#).await).code, Code::InvalidArgument);
    let methods = registry.methods("typed").unwrap();
    assert!(methods.methods[0].idempotent && methods.methods[0].output.is_some());
    registry.close().await;
}

#[test]
fn the_notifier_and_the_application_that_embeds_a_registry() {
    let dir = PluginDir::new();
    let _plugin = example_plugin(&dir, "notifier", "Exampleteller.pconf");
    assert_eq!(example_app(&dir, "embed"), "heard one\nheard two\nheard three\n");
}

#[test]
fn the_shouting_plugin_and_the_application_that_pipes_through_it() {
    let dir = PluginDir::new();
    let _plugin = example_plugin(&dir, "shout", "Exampleshout.pconf");
    assert_eq!(example_app(&dir, "pipe"), "16 MiB shouted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lazy_plugin() {
    let dir = PluginDir::new();
    let _plugin = example_plugin(&dir, "lazy", "Examplelazy.pconf");
    let registry = watching(&dir).await;
    goplug_tests::wait_for("it is found", LONG, || async { registry.is_discovered("Example/lazy").then_some(()) })
        .await;
    assert!(!registry.is_loaded("Example/lazy"));
    registry.load("Example/lazy").await.unwrap();
    assert_eq!(registry.activation_output("Example/lazy").map(text).as_deref(), Some("1000 squares"));
    assert_eq!(text(registry.execute("lazy", "square", "12").await.unwrap()), "144");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_in_python() {
    let dir = PluginDir::new();
    let Some(mut plugin) = python_plugin(&dir) else { return };
    let registry = watching(&dir).await;
    loaded(&registry, "Example/notifier").await;
    assert_eq!(registry.activation_output("notifier").map(text).as_deref(), Some("ready\n"));
    assert_eq!(text(registry.execute("notifier", "greet", "world").await.unwrap()), "hello, world");
    let error = fault(registry.execute("notifier", "fail", "why").await);
    assert_eq!((error.code, error.message.as_str()), (Code::MethodFailed, "as asked"));
    registry.ping("notifier").await.unwrap();

    for n in 1..=3 {
        registry.execute("notifier", "announce", format!("news {n}")).await.unwrap();
    }
    let mut feed = registry.subscribe("notifier", "news", "reader").await.unwrap();
    for n in 1..=3 {
        let Some(FeedItem::Message(notice)) = tokio::time::timeout(LONG, feed.next()).await.unwrap() else {
            panic!("no message")
        };
        assert_eq!((text(&notice.data), notice.position.as_ref().unwrap().seq), (format!("news {n}"), n));
        feed.ack(&notice.position.unwrap()).await.unwrap();
    }
    let list = registry.callbacks("notifier").await.unwrap();
    assert_eq!(list.callbacks[0].subscriptions[0].acknowledged, 3);
    // Sixteen at once on connections of their own.
    let calls = (0..16).map(|n| {
        let registry = registry.clone();
        tokio::spawn(async move { (n, registry.execute("notifier", "greet", n.to_string()).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (n, reply) = call.await.unwrap();
        assert_eq!(text(reply.unwrap()), format!("hello, {n}"));
    }
    registry.reload("notifier").await.unwrap();
    registry.unload("notifier", Unload { stop: true, ..Unload::default() }).await.unwrap();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert_eq!(dir.names(), Vec::<String>::new());
    registry.close().await;
}
