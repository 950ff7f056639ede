//! Plugins of tilotech/go-plugin run unchanged: named in the manifest, started, called in their own words.

use std::time::{Duration, SystemTime};

use goplug_registry::admin::State;
use goplug_registry::{CallOptions, Code, Ran};
use serde_json::json;

use super::Home;
use crate::support::{fault, loaded, row, text};

const PLUGIN: &str = env!("CARGO_BIN_EXE_tilotech");

#[tokio::test(flavor = "multi_thread")]
async fn its_plugins_run_unchanged() {
    let home = Home::new();
    home.install("Test/Tilo", &[], &json!({"wire": "tilotech", "exec": {"command": PLUGIN}}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Tilo").await;
    let call = async |method: &str, payload: &str| registry.execute("Test/Tilo", method, payload.to_owned()).await;
    assert_eq!(text(call("hello", r#""you""#).await.unwrap()), r#""hello you""#);
    assert_eq!(text(call("/hello", r#""you""#).await.unwrap()), r#""hello you""#, "as its own clients write it");

    let failed = fault(call("fail", r#""no room left""#).await);
    assert_eq!((failed.code, failed.ran), (Code::MethodFailed, Ran::Yes));
    assert!(failed.message.contains("no room left"), "{failed:?}");
    let panicked = fault(call("panic", "").await);
    assert_eq!(panicked.code, Code::MethodFailed);
    assert_eq!(text(call("hello", r#""again""#).await.unwrap()), r#""hello again""#, "the call after a panic");
    assert_eq!(fault(call("hello", "7").await).code, Code::InvalidArgument);
    assert_eq!(fault(call("none", "").await).code, Code::NotFound);
    assert_eq!(fault(call("hello", "no JSON").await).code, Code::InvalidArgument);

    // A deadline reaches the plugin, and ends a call that takes longer.
    let told: String = serde_json::from_slice(&call("deadline", "").await.unwrap()).unwrap();
    assert!(told.ends_with('Z') && told.starts_with("20"), "{told}");
    let options = CallOptions { deadline: Some(Duration::from_millis(200)), ..CallOptions::default() };
    let began = SystemTime::now();
    let late = fault(registry.execute_with("Test/Tilo", "sleep", "20000", options).await);
    assert_eq!(late.code, Code::DeadlineExceeded, "{late:?} after {:?}", began.elapsed());
    assert_eq!(text(call("sleep", "1").await.unwrap()), r#""awake""#);
    assert!(registry.ping("Test/Tilo").await.is_ok());

    // It has no standing connection: a server that closes what is idle is not dead.
    let shown = row(&registry, "Test/Tilo").unwrap();
    assert_eq!((shown.state, shown.protocol), (State::Loaded, None));

    // Stopped any number of times; and the next start is another process.
    let before = text(call("pid", "").await.unwrap());
    registry.stop_plugin("Tilo").await.unwrap();
    registry.stop_plugin("Tilo").await.unwrap();
    registry.start_plugin("Tilo").await.unwrap();
    assert_ne!(text(call("pid", "").await.unwrap()), before);

    // One that dies during a call comes back for the next.
    let died = fault(call("die", "").await);
    assert_eq!((died.code, died.ran), (Code::PluginGone, Ran::Unknown), "{died:?}");
    let back = goplug_tests::wait_for("it is back", goplug_tests::LONG, async || call("hello", r#""back""#).await.ok());
    assert_eq!(text(back.await), r#""hello back""#);
    registry.close().await;
}
