use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{Code, Context, Error, Method, Plugin, PluginBuilder, Ran};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::raw::{PATIENCE, Wire};

async fn start(make: impl FnOnce(PluginBuilder) -> PluginBuilder) -> InProcess {
    InProcess::start(|dir| make(Plugin::builder(dir).name("p"))).await.unwrap()
}

/// A blocking method that reports its start and then waits to be let go.
struct Gate {
    entered: tokio::sync::mpsc::UnboundedReceiver<String>,
    leave: mpsc::Sender<()>,
}

fn gate() -> (Gate, impl Fn(&Context, Bytes) -> Result<String, Error> + Send + Sync) {
    let (enter, entered) = tokio::sync::mpsc::unbounded_channel();
    let (leave, left) = mpsc::channel();
    let left = Mutex::new(left);
    let method = move |cx: &Context, body: Bytes| {
        enter.send(String::from_utf8_lossy(&body).into_owned()).unwrap();
        left.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Ok(format!("cancelled: {}", cx.is_cancelled()))
    };
    (Gate { entered, leave }, method)
}

impl Gate {
    async fn entered(&mut self) -> String {
        timeout(PATIENCE, self.entered.recv()).await.expect("the method is not called").unwrap()
    }
}

#[tokio::test]
async fn the_three_kinds_of_method_answer() {
    let plugin = start(|builder| {
        builder
            .method("sync", |cx, body: Bytes| Ok(format!("{} {}", cx.method(), body.len())))
            .method_async("async", |cx, body| async move {
                tokio::task::yield_now().await;
                Ok([cx.method().as_bytes(), &body].concat())
            })
            .method_stream("stream", |_cx, body, out| async move {
                for byte in body {
                    out.send(vec![byte; 3]).await?;
                }
                Ok(())
            })
    })
    .await;
    assert_eq!(plugin.call("sync", "abc").await.unwrap(), "sync 3");
    assert_eq!(plugin.call("async", "abc").await.unwrap(), "asyncabc");
    assert_eq!(plugin.call("stream", "abc").await.unwrap(), "aaabbbccc");
    assert_eq!(plugin.call("stream", "").await.unwrap(), "");
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("POST /stream", "Goplug-Call-Id: s\r\n", "ab").await;
    let head = wire.head().await;
    assert!(head.contains("Transfer-Encoding: chunked\r\n") && head.contains("Goplug-Call-Id: s\r\n"), "{head}");
    assert_eq!(wire.until(b"0\r\n\r\n").await, b"3\r\naaa\r\n3\r\nbbb\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_method_knows_its_caller_and_its_time() {
    let plugin = start(|builder| {
        builder.method(Method::new("who").deadline(Duration::from_secs(9)), |cx, _| {
            let left = cx.remaining();
            let is_default = left > Duration::from_secs(8) && left <= Duration::from_secs(9);
            let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
            Ok(format!("{} {} {} {is_default}", text(cx.caller()), text(cx.traceparent()), text(cx.tracestate())))
        })
    })
    .await;
    assert_eq!(plugin.call("who", "").await.unwrap(), "- - - true");
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let fields = "Goplug-Caller: me\r\nTraceparent: 00-a\r\ntracestate: b=c\r\nGoplug-Deadline-Ms: 80000\r\n";
    assert_eq!(wire.ask("POST /who", fields, "").await.text(), "me 00-a b=c false");
}

#[tokio::test]
async fn a_failure_is_the_methods_own_and_a_panic_does_not_end_the_plugin() {
    let plugin = start(|builder| {
        builder
            .method("fails", |_, _| -> Result<Bytes, _> {
                Err(Error::new(Code::MethodFailed, "no more ink").with_data(serde_json::json!({"ink": 0})))
            })
            .method("panics", |_, _| -> Result<Bytes, Error> { panic!("out of {}", "paper") })
            .method_async("panics async", |_, _| async { if true { panic!("later") } else { Ok(Bytes::new()) } })
            .method_async("panics at once", |_, _| -> std::future::Ready<Result<Bytes, Error>> { panic!("at once") })
            .method_stream("panics stream", |_, _, _| async { panic!("in a stream") })
    })
    .await;
    let fault = plugin.call("fails", "").await.unwrap_err();
    assert_eq!((fault.code, fault.ran, fault.message.as_str()), (Code::MethodFailed, Ran::Yes, "no more ink"));
    assert_eq!(*fault.data.unwrap(), serde_json::json!({"ink": 0}));
    for (method, text) in [
        ("panics", "out of paper"),
        ("panics async", "later"),
        ("panics at once", "at once"),
        ("panics stream", "in a stream"),
    ] {
        for _ in 0..3 {
            let fault = plugin.call(method, "").await.unwrap_err();
            assert_eq!((fault.code, fault.ran), (Code::Panicked, Ran::Yes), "{method}");
            assert!(fault.message.contains(text) && fault.message.contains(method), "{fault}");
        }
    }
    assert_eq!(plugin.call("fails", "").await.unwrap_err().code, Code::MethodFailed);
}

#[derive(Deserialize, JsonSchema)]
struct Sum {
    terms: Vec<i64>,
}

#[derive(Serialize, JsonSchema)]
struct Total {
    total: i64,
}

#[tokio::test]
async fn a_typed_method_publishes_its_schemas_and_refuses_what_does_not_fit() {
    let plugin = start(|builder| {
        builder
            .typed("sum", |_: &Context, sum: Sum| Ok(Total { total: sum.terms.iter().sum() }))
            .typed("now", |_: &Context, (): ()| Ok("noon"))
    })
    .await;
    assert_eq!(plugin.call("sum", r#"{"terms":[1,2]}"#).await.unwrap(), r#"{"total":3}"#);
    assert_eq!(plugin.call("now", "").await.unwrap(), r#""noon""#, "an empty body is null");
    let fault = plugin.call("sum", r#"{"terms":["1"]}"#).await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::InvalidArgument, Ran::No));
    assert!(fault.message.contains("`sum`") && fault.message.contains("column"), "{fault}");
    let hello = plugin.hello().await.unwrap();
    let sum = hello.method("sum").unwrap();
    assert_eq!(sum.input.as_ref().unwrap()["properties"]["terms"]["type"], "array");
    assert_eq!(sum.output.as_ref().unwrap()["required"][0], "total");
    assert_eq!(sum.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn a_blocking_method_past_its_deadline_is_answered_and_its_result_dropped() {
    let (mut gate, method) = gate();
    let plugin = start(|builder| builder.method("slow", method).method("quick", |_, body| Ok(body))).await;
    let fault = plugin.call_within(Duration::from_millis(20), "slow", "").await.unwrap_err();
    gate.entered().await;
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::Unknown));
    assert_eq!(plugin.call("quick", "ok").await.unwrap(), "ok");
    gate.leave.send(()).unwrap();
}

#[tokio::test]
async fn an_async_method_past_its_deadline_is_dropped() {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let dropped = Arc::new(Notify::new());
    let seen = Arc::clone(&dropped);
    let plugin = start(|builder| {
        builder.method_async("stuck", move |_, _| {
            let dropped = Dropped(Arc::clone(&seen));
            async move {
                std::future::pending::<()>().await;
                drop(dropped);
                Ok(Bytes::new())
            }
        })
    })
    .await;
    let fault = plugin.call_within(Duration::from_millis(20), "stuck", "").await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::Unknown));
    timeout(PATIENCE, dropped.notified()).await.expect("the future lives on");
}

#[tokio::test]
async fn calls_beyond_the_limit_are_overloaded_and_have_not_run() {
    let (mut gate, method) = gate();
    let plugin = Arc::new(start(|builder| builder.method("slow", method).max_concurrent_calls(1)).await);
    let first = tokio::spawn({
        let plugin = Arc::clone(&plugin);
        async move { plugin.call("slow", "first").await }
    });
    assert_eq!(gate.entered().await, "first");
    let fault = plugin.call("slow", "second").await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Overloaded, Ran::No));
    gate.leave.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), "cancelled: false");
    gate.leave.send(()).unwrap();
    plugin.call("slow", "third").await.expect("there is room again");
}

#[tokio::test]
async fn a_serial_method_runs_one_at_a_time_in_order_and_waits_inside_its_deadline() {
    let (mut gate, method) = gate();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let seen = Arc::clone(&most);
    let plugin = start(|builder| {
        builder.method(Method::new("one").serial(), move |cx, body| {
            seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let reply = method(cx, body);
            running.fetch_sub(1, Ordering::SeqCst);
            reply
        })
    })
    .await;
    let plugin = Arc::new(plugin);
    let mut wires = Vec::new();
    for n in 0..5 {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.request("POST /one", "Goplug-Call-Id: 1\r\n", n.to_string()).await;
        if n == 0 {
            assert_eq!(gate.entered().await, "0");
        } else {
            wait_in_flight(&plugin, n + 1).await;
        }
        wires.push(wire);
    }
    let fault = plugin.call_within(Duration::from_millis(20), "one", "late").await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::No), "it waited for its turn in vain");
    for (n, mut wire) in wires.into_iter().enumerate() {
        if n > 0 {
            assert_eq!(gate.entered().await, n.to_string());
        }
        gate.leave.send(()).unwrap();
        assert_eq!(wire.reply().await.status(), 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

/// Waits until `count` calls are under way. On one thread a call that was let in has its place in the line.
async fn wait_in_flight(plugin: &InProcess, count: usize) {
    let running = plugin.running().unwrap();
    timeout(PATIENCE, async {
        while running.in_flight() < count as u32 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the calls do not arrive");
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_call() {
    let cancelled = Arc::new(Notify::new());
    let seen = Arc::clone(&cancelled);
    let entered = Arc::new(Notify::new());
    let enter = Arc::clone(&entered);
    let plugin = start(|builder| {
        builder.method_async("wait", move |cx: Context, _| {
            enter.notify_one();
            let seen = Arc::clone(&seen);
            // The method's own future is dropped; a task that it started hears of it by the context.
            tokio::spawn(async move {
                cx.cancelled().await;
                assert!(cx.is_cancelled());
                seen.notify_one();
            });
            std::future::pending::<Result<Bytes, Error>>()
        })
    })
    .await;
    for half in [false, true] {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.request("POST /wait", "", "").await;
        timeout(PATIENCE, entered.notified()).await.unwrap();
        if half {
            wire.half_close().await;
        } else {
            drop(wire);
        }
        // Long before the call's own deadline, which would end it, too.
        timeout(PATIENCE / 6, cancelled.notified()).await.expect("the call goes on without its caller");
    }
}

#[tokio::test]
async fn a_blocking_method_hears_that_its_caller_has_gone() {
    let (mut gate, method) = gate();
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let plugin = start(|builder| {
        builder.method("slow", move |cx, body| {
            let reply = method(cx, body);
            tell.lock().unwrap().send(reply.clone().unwrap()).unwrap();
            reply
        })
    })
    .await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("POST /slow", "", "").await;
    gate.entered().await;
    wire.half_close().await;
    assert_eq!(wire.rest().await, b"", "there is no reply to a cancelled call");
    gate.leave.send(()).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "cancelled: true");
}

#[tokio::test]
async fn a_stream_that_fails_says_so_before_its_first_piece_and_breaks_after_it() {
    let plugin = start(|builder| {
        builder
            .method_stream("early", |_, _, _| async { Err(Error::new(Code::MethodFailed, "nothing to send")) })
            .method_stream("late", |_, _, out| async move {
                out.send("half").await?;
                Err(Error::new(Code::MethodFailed, "lost the rest"))
            })
            .method_stream("stuck", |_, _, out| async move {
                out.send("half").await?;
                std::future::pending().await
            })
    })
    .await;
    assert_eq!(plugin.call("early", "").await.unwrap_err().message, "nothing to send");
    for (method, fields) in [("late", ""), ("stuck", "Goplug-Deadline-Ms: 50\r\n")] {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.request(&format!("POST /{method}"), fields, "").await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(wire.rest().await, b"4\r\nhalf\r\n", "{method}: closed without the last chunk");
    }
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("POST /stuck", "", "").await;
    wire.until(b"half\r\n").await;
    wire.half_close().await;
    assert_eq!(wire.rest().await, b"", "a caller that goes away ends the stream");
}

#[tokio::test]
async fn calls_do_not_wait_for_each_other() {
    let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wake_first, wake_second) = (Arc::clone(&first), Arc::clone(&second));
    let plugin = start(|builder| {
        builder
            .method_async("first", move |_, _| {
                let first = Arc::clone(&first);
                async move {
                    first.notified().await;
                    Ok("first")
                }
            })
            .method_async("second", move |_, _| {
                wake_first.notify_one();
                wake_second.notify_one();
                async { Ok("second") }
            })
    })
    .await;
    let (one, two) = tokio::join!(plugin.call("first", ""), plugin.call("second", ""));
    assert_eq!((one.unwrap(), two.unwrap()), ("first".into(), "second".into()));
    second.notified().await;
}

#[tokio::test]
async fn whatever_code_a_method_chooses_it_ran() {
    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Number(u8);
    let fault = |code| Error::new(code, "the database is away");
    let plugin = InProcess::start(|dir| {
        Plugin::builder(dir)
            .name("picky")
            .method("blocking", move |_, _| Err::<Bytes, _>(fault(Code::Unavailable)))
            .method_async("async", move |_, _| async move { Err::<Bytes, _>(fault(Code::WrongState)) })
            .method_stream("stream", move |_, _, _| async move { Err(fault(Code::Overloaded)) })
            .typed("typed", move |_, _: Number| Err::<Number, _>(fault(Code::InvalidArgument)))
    })
    .await
    .unwrap();
    for (method, body) in [("blocking", ""), ("async", ""), ("stream", ""), ("typed", "7")] {
        assert_eq!(plugin.call(method, body).await.unwrap_err().ran, Ran::Yes, "{method}");
    }
    assert_eq!(plugin.call("typed", "no number").await.unwrap_err().ran, Ran::No, "it was not asked");
}

/// Tells what a method took its body for, also when it is dropped in the middle.
struct Took {
    told: tokio::sync::mpsc::UnboundedSender<&'static str>,
    is_whole: bool,
}

impl Drop for Took {
    fn drop(&mut self) {
        _ = self.told.send(if self.is_whole { "whole" } else { "cut off" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_or_too_long_is_never_whole() {
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let blocking = told.clone();
    let plugin = start(|builder| {
        builder
            .max_request_bytes(100_000)
            .method_body("reads", move |_, mut body| {
                let told = told.clone();
                async move {
                    let mut took = Took { told, is_whole: false };
                    while body.next().await?.is_some() {
                        _ = took.told.send("a piece");
                    }
                    took.is_whole = true;
                    Ok("")
                }
            })
            .method_body_blocking("blocks", move |_, mut body| {
                let mut took = Took { told: blocking.clone(), is_whole: false };
                while body.next_piece()?.is_some() {
                    _ = took.told.send("a piece");
                }
                took.is_whole = true;
                Ok("")
            })
    })
    .await;
    let mut next = async || timeout(PATIENCE, hears.recv()).await.unwrap().unwrap();
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for method in ["reads", "blocks"] {
        for beginning in [chunked, "Content-Length: 9\r\n\r\nhello"] {
            let mut wire = Wire::connect(plugin.socket_path()).await;
            wire.send(format!("POST /{method} HTTP/1.1\r\n{beginning}")).await;
            assert_eq!(next().await, "a piece");
            wire.half_close().await;
            assert_eq!(wire.rest().await, b"", "nobody waits for a reply");
            assert_eq!(next().await, "cut off", "{method} {beginning:?}");
        }
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.send(format!("POST /{method} HTTP/1.1\r\n{chunked}")).await;
        // One that was not begun yet would not be begun any more.
        assert_eq!(next().await, "a piece");
        wire.send(format!("186a0\r\n{}\r\n0\r\n\r\n", "x".repeat(100_000))).await;
        let refused = wire.reply().await;
        assert_eq!(refused.problem().1, "too_large", "{method}");
        let mut end = "a piece";
        while end == "a piece" {
            end = next().await;
        }
        assert_eq!(end, "cut off", "{method}");
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.send(format!("POST /{method} HTTP/1.1\r\n{chunked}0\r\n\r\n")).await;
        assert_eq!(wire.reply().await.status(), 200);
        assert_eq!((next().await, next().await), ("a piece", "whole"), "{method}");
    }
}
