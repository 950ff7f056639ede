use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{Code, Context, Error, Plugin, PluginBuilder, Ran};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::raw::{PATIENCE, Wire};

const NO_DRAIN: Duration = Duration::ZERO;

/// A plugin that counts its activations and ends of activation.
async fn counting() -> (InProcess, Arc<AtomicU32>, Arc<AtomicU32>) {
    let (starts, stops) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (started, stopped) = (Arc::clone(&starts), Arc::clone(&stops));
    let plugin = InProcess::start_inactive(|dir| {
        Plugin::builder(dir)
            .name("p")
            .activator(move |settings| {
                let nth = started.fetch_add(1, Ordering::SeqCst) + 1;
                if settings["refuse"] == true {
                    return Err(Error::new(Code::InvalidArgument, "refused").with_data(json!(7)));
                }
                assert!(settings["panic"] != true, "told to panic");
                Ok(format!("activation {nth} with {settings}"))
            })
            .stopper(move || format!("end {}", stopped.fetch_add(1, Ordering::SeqCst) + 1))
            .method("Do", |_, body| Ok(body))
    })
    .await
    .unwrap();
    (plugin, starts, stops)
}

#[tokio::test]
async fn activation_happens_once_and_is_adopted() {
    let (plugin, starts, _) = counting().await;
    let fault = plugin.call("Do", "x").await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::WrongState, Ran::No));
    assert!(!plugin.hello().await.unwrap().active);

    let settings = json!({"b": 1, "a": [2]});
    let first = plugin.activate(settings.clone()).await.unwrap();
    assert_eq!(first, r#"activation 1 with {"a":[2],"b":1}"#);
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let again = wire.ask("POST /_goplug/activate", "", r#"{ "b" : 1, "a" : [2] }"#).await;
    assert_eq!(again.body, first, "the same settings in other spelling");
    let fault = plugin.activate(json!({"a": 1})).await.unwrap_err();
    assert_eq!((fault.code, starts.load(Ordering::SeqCst)), (Code::WrongState, 1));
    assert_eq!(plugin.call("Do", "x").await.unwrap(), "x");
    assert!(plugin.hello().await.unwrap().active);
}

#[tokio::test]
async fn two_who_activate_at_once_share_one_activation() {
    let (plugin, starts, _) = counting().await;
    let (one, two) = tokio::join!(plugin.activate(json!({})), plugin.activate(json!({})));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_activation_that_fails_leaves_the_plugin_inactive() {
    let (plugin, starts, _) = counting().await;
    let fault = plugin.activate(json!({"refuse": true})).await.unwrap_err();
    assert_eq!(
        (fault.code, fault.message.as_str(), fault.data),
        (Code::MethodFailed, "refused", Some(json!(7).into()))
    );
    let fault = plugin.activate(json!({"panic": true})).await.unwrap_err();
    assert_eq!(fault.code, Code::Panicked);
    assert!(fault.message.contains("told to panic"), "{fault}");
    assert_eq!(plugin.call("Do", "x").await.unwrap_err().code, Code::WrongState);
    plugin.activate(json!({})).await.expect("it may be tried again");
    assert_eq!(starts.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_activation_goes_on_without_its_caller() {
    let (entered, go_on) = (Arc::new(Notify::new()), std::sync::mpsc::channel());
    let (enter, go) = (Arc::clone(&entered), std::sync::Mutex::new(go_on.1));
    let plugin = InProcess::start_inactive(|dir| {
        Plugin::builder(dir).name("p").activator(move |_| {
            enter.notify_one();
            go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            Ok("done")
        })
    })
    .await
    .unwrap();
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("POST /_goplug/activate", "", "{}").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    drop(wire);
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let late = wire.ask("POST /_goplug/activate", "Goplug-Deadline-Ms: 20\r\n", "{}").await;
    assert_eq!(late.problem(), (504, "deadline_exceeded".into(), "unknown".into()));
    let other = wire.ask("POST /_goplug/activate", "", r#"{"a":1}"#).await;
    assert_eq!(other.problem().1, "wrong_state");
    let call = wire.ask("POST /_goplug/methods/Do", "", "").await;
    assert_eq!(call.problem().1, "not_found");
    go_on.0.send(()).unwrap();
    assert_eq!(plugin.activate(json!({})).await.unwrap(), "done");
}

#[tokio::test]
async fn deactivation_runs_the_stopper_once_and_the_plugin_stays() {
    let (plugin, _, stops) = counting().await;
    let nothing = plugin.deactivate(NO_DRAIN).await.unwrap();
    assert_eq!((nothing.cancelled, nothing.unacknowledged, nothing.output), (0, 0, None), "it was not active");
    plugin.activate(json!({})).await.unwrap();
    let drained = plugin.deactivate(Duration::from_secs(10)).await.unwrap();
    assert_eq!(drained.output, Some(json!({"dataBase64": "ZW5kIDE="})));
    plugin.deactivate(NO_DRAIN).await.unwrap();
    assert_eq!(stops.load(Ordering::SeqCst), 1);
    assert_eq!(plugin.call("Do", "x").await.unwrap_err().code, Code::WrongState);
    assert!(plugin.running().unwrap().pconf_path().exists());
    assert_eq!(plugin.activate(json!({"a": 1})).await.unwrap(), r#"activation 2 with {"a":1}"#);
    for body in ["[]", r#"{"drainMs":-1}"#, r#"{"drainMs":86400001}"#] {
        let reply = Wire::connect(plugin.socket_path()).await.ask("POST /_goplug/deactivate", "", body).await;
        assert_eq!(reply.problem().1, "invalid_argument", "{body}");
    }
}

fn waiting(builder: PluginBuilder, entered: &Arc<Notify>, finish: &Arc<Notify>) -> PluginBuilder {
    let (entered, finish) = (Arc::clone(entered), Arc::clone(finish));
    builder.name("p").method_async("wait", move |_: Context, body: Bytes| {
        let (entered, finish) = (Arc::clone(&entered), Arc::clone(&finish));
        async move {
            entered.notify_one();
            finish.notified().await;
            Ok(body)
        }
    })
}

#[tokio::test]
async fn a_drain_waits_for_calls_and_lets_no_new_one_in() {
    let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let plugin = InProcess::start(|dir| waiting(Plugin::builder(dir), &entered, &finish)).await.unwrap();
    let mut call = Wire::connect(plugin.socket_path()).await;
    call.request("POST /wait", "", "kept").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    let mut drain = Wire::connect(plugin.socket_path()).await;
    drain.request("POST /_goplug/deactivate", "", r#"{"drainMs":60000}"#).await;
    let refused = timeout(PATIENCE, async {
        loop {
            // Until the drain has begun the call is let in, and cancelled by its own deadline.
            match plugin.call_within(Duration::from_millis(20), "wait", "").await.unwrap_err() {
                fault if fault.code == Code::DeadlineExceeded => {}
                fault => return fault,
            }
        }
    });
    let refused = refused.await.unwrap();
    assert_eq!((refused.code, refused.ran), (Code::Unavailable, Ran::No));
    let mut other = Wire::connect(plugin.socket_path()).await;
    other.request("POST /_goplug/deactivate", "", "").await;
    finish.notify_one();
    assert_eq!(call.reply().await.text(), "kept");
    assert_eq!(drain.reply().await.json(), json!({"cancelled": 0, "unacknowledged": 0}));
    assert_eq!(other.reply().await.json(), json!({"cancelled": 0, "unacknowledged": 0}));
}

#[tokio::test]
async fn what_is_under_way_when_the_drain_is_over_is_cut_off() {
    let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let plugin = InProcess::start(|dir| waiting(Plugin::builder(dir), &entered, &finish)).await.unwrap();
    let mut call = Wire::connect(plugin.socket_path()).await;
    call.request("POST /wait", "", "").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    assert_eq!(plugin.deactivate(Duration::from_millis(20)).await.unwrap().cancelled, 1);
    assert_eq!(call.reply().await.problem(), (503, "unavailable".into(), "unknown".into()));
}

#[tokio::test]
async fn a_stop_answers_and_then_leaves_nothing_behind() {
    let (plugin, _, _) = counting().await;
    plugin.activate(json!({})).await.unwrap();
    let running = plugin.running().unwrap();
    let (pconf, socket) = (running.pconf_path().to_owned(), running.socket_path().to_owned());
    let mut idle = Wire::connect(&socket).await;
    assert_eq!(idle.ask("POST /Do", "", "x").await.text(), "x");
    let mut stop = Wire::connect(&socket).await;
    let reply = stop.ask("POST /_goplug/stop", "Goplug-Call-Id: 9\r\n", r#"{"drainMs":1000}"#).await;
    assert_eq!(reply.json()["output"], json!({"dataBase64": "ZW5kIDE="}));
    assert!(reply.head.contains("Goplug-Call-Id: 9\r\n") && reply.head.contains("Connection: close\r\n"));
    assert_eq!(idle.rest().await, b"", "an idle connection is closed");
    assert!(!pconf.exists() && !socket.exists(), "closed before nobody could find it any more");
    timeout(PATIENCE, running.wait()).await.unwrap();
    assert_eq!(std::fs::read_dir(plugin.dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_stop_is_finished_without_its_caller_and_answers_two_of_them() {
    let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let plugin = InProcess::start(|dir| waiting(Plugin::builder(dir), &entered, &finish)).await.unwrap();
    let mut call = Wire::connect(plugin.socket_path()).await;
    call.request("POST /wait", "", "").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    let mut gone = Wire::connect(plugin.socket_path()).await;
    gone.request("POST /_goplug/stop", "", r#"{"drainMs":60000}"#).await;
    timeout(PATIENCE, async { while plugin.call("wait", "").await.unwrap_err().code != Code::Unavailable {} })
        .await
        .unwrap();
    drop(gone);
    let mut second = Wire::connect(plugin.socket_path()).await;
    second.request("POST /_goplug/stop", "", r#"{"drainMs":0}"#).await;
    finish.notify_one();
    assert_eq!(call.reply().await.status(), 200);
    assert_eq!(second.reply().await.status(), 200);
    timeout(PATIENCE, plugin.running().unwrap().wait()).await.unwrap();
}

#[tokio::test]
async fn the_author_stops_his_plugin_with_the_same_order() {
    let (mut plugin, _, stops) = counting().await;
    plugin.activate(json!({})).await.unwrap();
    let pconf = plugin.running().unwrap().pconf_path().to_owned();
    let drained = plugin.stop(Duration::from_secs(1)).await;
    assert_eq!((drained.cancelled, stops.load(Ordering::SeqCst), pconf.exists()), (0, 1, false));
    assert!(plugin.call("Do", "").await.is_err());
}

#[tokio::test]
async fn the_stopper_of_a_plugin_that_was_never_active_does_not_run() {
    let (mut plugin, _, stops) = counting().await;
    plugin.stop(NO_DRAIN).await;
    assert_eq!(stops.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_hangs_does_not_keep_the_plugin_from_leaving() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let plugin = InProcess::start_inactive(|dir| {
        Plugin::builder(dir).name("p").activator(move |_| {
            // Ends when the test drops `hold`.
            _ = held.lock().unwrap().recv_timeout(PATIENCE);
            Ok("")
        })
    })
    .await
    .unwrap();
    let mut activation = Wire::connect(plugin.socket_path()).await;
    activation.request("POST /_goplug/activate", "", "").await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let late = passing(wire.ask("POST /_goplug/activate", "Goplug-Deadline-Ms: 1\r\n", "{}")).await;
    assert_eq!(late.problem().1, "deadline_exceeded");
    let busy = passing(wire.ask("POST /_goplug/deactivate", "", r#"{"drainMs":0}"#)).await;
    assert_eq!(busy.problem().1, "deadline_exceeded");
    let stopped = passing(wire.ask("POST /_goplug/stop", "", r#"{"drainMs":0}"#)).await;
    assert_eq!(stopped.status(), 200);
    passing(plugin.running().unwrap().wait()).await;
    drop(hold);
}

/// Waits while the clock is moved by hand: a paused clock stands still as long as a thread is busy.
async fn passing<T>(wait: impl Future<Output = T>) -> T {
    let clock = async {
        loop {
            std::thread::sleep(Duration::from_millis(1));
            tokio::time::advance(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        biased;
        done = wait => done,
        () = clock => unreachable!("the clock never stops"),
    }
}

#[tokio::test]
async fn a_stopper_that_panics_ends_the_plugin_all_the_same() {
    let mut plugin =
        InProcess::start(|dir| Plugin::builder(dir).name("p").stopper(|| -> Bytes { panic!("cannot stop") }))
            .await
            .unwrap();
    assert_eq!(timeout(PATIENCE, plugin.stop(NO_DRAIN)).await.unwrap().output, None);
    assert_eq!(std::fs::read_dir(plugin.dir()).unwrap().count(), 0);
}
