//! A plugin on the plugin library that misbehaves on command.
//!
//! `fixture DIR [OPTION…] NAMESPACE/NAME…` serves all the named plugins from one process and prints `ready` when they are
//! published. Options: `--count N --prefix P` (P0, P1, … in the namespace `Many`), `--lazy`, `--version V`,
//! `--activations FILE` (the activator appends a line), `--activator-ms N`, `--activator-fails FILE` (while FILE exists),
//! `--output TEXT`, `--stopper TEXT`, `--max-calls N`, `--max-request N`, `--window N` (messages), `--health STATUS`,
//! `--broken` (its method `once` fails), `--more` (one method more, and another schema),
//! `--publish FILE` (notifies `events` all the time, from its first moment on, and appends the position of what was acknowledged),
//! `--brief FILE` (while FILE exists, dies of the first thing that it published),
//! `--chatter` (writes to standard output and error all the time, and dies when it cannot).

#![allow(clippy::panic, reason = "it misbehaves on command")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use goplug_plugin_impl::{
    Callback, Code, Context, Error, Health, HealthStatus, Method, Notifier, Plugin, PluginBuilder,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default)]
struct Options {
    dir: PathBuf,
    names: Vec<String>,
    lazy: bool,
    no_shared_memory: bool,
    version: Option<String>,
    activations: Option<PathBuf>,
    activator_ms: u64,
    activator_fails: Option<PathBuf>,
    activator_exits: bool,
    output: String,
    stopper: String,
    max_calls: Option<u32>,
    max_request: Option<u64>,
    window: Option<usize>,
    health: String,
    publish: Option<PathBuf>,
    brief: Option<PathBuf>,
    chatter: bool,
    broken: bool,
    more: bool,
}

/// What `add` takes.
#[derive(Deserialize, JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

/// What `add` takes.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Sum")]
struct OtherSum {
    a: i32,
    b: i64,
}

/// What `add` gives.
#[derive(Serialize, JsonSchema)]
struct Total {
    total: i64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = options();
    if options.chatter {
        std::thread::spawn(|| {
            for n in 0_u64.. {
                let line = format!("chatter {n}\n");
                let written = std::io::stdout().write_all(line.as_bytes());
                if written.and_then(|()| std::io::stderr().write_all(line.as_bytes())).is_err() {
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
    }
    if let [name] = options.names.as_slice() {
        // One plugin: with its signals, and it ends with a `stop`.
        let plugin = build(&options, name).build()?;
        let pair = name.strip_prefix("-/").unwrap_or(name).replacen('/', "", 1);
        if let Some(file) = &options.publish {
            tokio::spawn(publish(plugin.notifier(), file.clone(), options.brief.clone()));
        }
        tokio::spawn(announce(options.dir.join(format!("{pair}.pconf"))));
        return plugin.run().await;
    }
    let mut running = Vec::new();
    for name in &options.names {
        running.push(build(&options, name).build()?.start().await?);
    }
    println!("ready");
    for plugin in &running {
        plugin.wait().await;
    }
    Ok(())
}

async fn publish(notifier: Notifier, file: PathBuf, brief: Option<PathBuf>) {
    loop {
        match notifier.notify_acked("events", "published").await {
            Ok(position) => {
                append(&file, &format!("{position}\n"));
                if brief.as_ref().is_some_and(|brief| brief.exists()) {
                    std::process::abort();
                }
            }
            // Ended, or a subscriber has left.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Prints `ready` when the `.pconf` of this process is there: `run` says nothing of its own.
async fn announce(pconf: PathBuf) {
    let ours = || {
        let value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&pconf).unwrap_or_default()).unwrap_or_default();
        value["Pid"] == std::process::id()
    };
    while !ours() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("ready");
}

fn options() -> Options {
    let mut args = std::env::args().skip(1);
    let mut options = Options { dir: args.next().expect("the plugin directory").into(), ..Options::default() };
    let (mut count, mut prefix) = (0, String::from("p"));
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("`{arg}` needs a value"));
        let number = |text: String| text.parse::<u64>().expect("a number");
        match arg.as_str() {
            "--lazy" => options.lazy = true,
            "--version" => options.version = Some(value()),
            "--activations" => options.activations = Some(value().into()),
            "--activator-ms" => options.activator_ms = number(value()),
            "--activator-fails" => options.activator_fails = Some(value().into()),
            "--activator-exits" => options.activator_exits = true,
            "--output" => options.output = value(),
            "--stopper" => options.stopper = value(),
            "--max-calls" => options.max_calls = Some(number(value()) as u32),
            "--max-request" => options.max_request = Some(number(value())),
            "--window" => options.window = Some(number(value()) as usize),
            "--health" => options.health = value(),
            "--no-shared-memory" => options.no_shared_memory = true,
            "--publish" => options.publish = Some(value().into()),
            "--brief" => options.brief = Some(value().into()),
            "--chatter" => options.chatter = true,
            "--broken" => options.broken = true,
            "--more" => options.more = true,
            "--count" => count = number(value()),
            "--prefix" => prefix = value(),
            _ => options.names.push(arg),
        }
    }
    options.names.extend((0..count).map(|n| format!("Many/{prefix}{n}")));
    options
}

fn build(options: &Options, name: &str) -> PluginBuilder {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let mut builder = Plugin::builder(&options.dir).namespace(if namespace == "-" { "" } else { namespace }).name(name);
    builder = builder.shared_memory(!options.no_shared_memory);
    builder = builder.lazy_load(options.lazy).description("misbehaves on command");
    if let Some(version) = &options.version {
        builder = builder.version(version);
    }
    if let Some(calls) = options.max_calls {
        builder = builder.max_concurrent_calls(calls);
    }
    if let Some(bytes) = options.max_request {
        builder = builder.max_request_bytes(bytes);
    }
    let status = match options.health.as_str() {
        "degraded" => HealthStatus::Degraded,
        "failing" => HealthStatus::Failing,
        _ => HealthStatus::Ok,
    };
    let (stopper, activation) = (options.stopper.clone(), options.clone());
    let version = options.version.clone().unwrap_or_default();
    let builder = builder
        .health(move || Health { status, detail: None })
        .activator(move |settings| activate(&activation, &settings))
        .stopper(move || stopper.clone())
        .method("version", move |_cx, _body| Ok(format!("{version} {}", std::process::id())));
    let builder = calls(builder, options.broken);
    let builder = match options.more {
        false => builder.typed("add", |_cx, input: Sum| Ok(Total { total: input.a + input.b })),
        true => builder
            .method("more", |_cx, body| Ok(body))
            .typed("add", |_cx, input: OtherSum| Ok(Total { total: i64::from(input.a) + input.b })),
    };
    notifications(builder.method("a b/c+d%ü", |_cx, body| Ok(body)), options.window)
}

fn activate(options: &Options, settings: &serde_json::Value) -> Result<String, Error> {
    if let Some(file) = &options.activations {
        append(file, &format!("{} {settings}\n", std::process::id()));
    }
    std::thread::sleep(Duration::from_millis(options.activator_ms));
    if options.activator_exits {
        std::process::exit(3);
    }
    if options.activator_fails.as_ref().is_some_and(|file| file.exists()) {
        return Err(Error::new(Code::MethodFailed, "no database"));
    }
    Ok(options.output.clone())
}

fn calls(builder: PluginBuilder, is_broken: bool) -> PluginBuilder {
    let (count, under_way) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    builder
        .method_async(
            Method::new("echo").description("answers its bytes").idempotent(),
            |_cx, body: Bytes| async move { Ok(body) },
        )
        .method_async("once", move |_cx, body: Bytes| async move {
            if is_broken { Err(Error::new(Code::MethodFailed, "as asked")) } else { Ok(body) }
        })
        .method_async("sleep", |_cx, body: Bytes| async move {
            tokio::time::sleep(Duration::from_millis(number(&body)?)).await;
            Ok("slept")
        })
        .method("block", |_cx, body| {
            std::thread::sleep(Duration::from_millis(number(&body)?));
            Ok("blocked")
        })
        .method("fail", |_cx, body| -> Result<Bytes, Error> { Err(Error::new(Code::MethodFailed, text(&body))) })
        .method("fail-with-data", |_cx, body| -> Result<Bytes, Error> {
            let data =
                serde_json::from_slice(&body).map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
            Err(Error::new(Code::MethodFailed, "as asked").with_data(data))
        })
        .method("panic", |_cx, body| -> Result<Bytes, Error> { panic!("{}", text(&body)) })
        .method("exit", |_cx, body| -> Result<Bytes, Error> { std::process::exit(number(&body)? as i32) })
        .method("abort", |_cx, _body| -> Result<Bytes, Error> { std::process::abort() })
        .method(Method::new("die-once").idempotent(), |_cx, body| {
            // The file tells the process that comes next that one has died already.
            let file = PathBuf::from(text(&body));
            if !file.exists() {
                append(&file, "died\n");
                std::process::abort();
            }
            Ok(std::process::id().to_string())
        })
        .method("big", |_cx, body| Ok(vec![b'x'; number(&body)? as usize]))
        .method("segment", |cx, body| {
            // `LENGTH BYTE`: so many of them, written where the caller reads them.
            let text = text(&body);
            let (length, byte) = text.split_once(' ').unwrap_or((&text, "7"));
            let mut segment = cx.segment(number(length.as_bytes())? as usize);
            segment.fill(number(byte.as_bytes())? as u8);
            Ok(segment)
        })
        .method_view("count-view", |_cx, body| Ok(body.len().to_string()))
        .method_view("sum-view", |_cx, body| {
            let sum = body.words().flat_map(u64::to_ne_bytes).map(u64::from).sum::<u64>();
            Ok(format!("{} {sum} {}", body.len(), if body.is_shared() { "shared" } else { "ours" }))
        })
        .method("count", move |_cx, _body| Ok((counted.fetch_add(1, Ordering::SeqCst) + 1).to_string()))
        .method("pid", |_cx, _body| Ok(std::process::id().to_string()))
        .method("caller", |cx, _body| Ok(cx.caller().unwrap_or("nobody").to_owned()))
        .method("trace", |cx, _body| Ok(cx.traceparent().unwrap_or("none").to_owned()))
        .method("remaining", |cx, _body| Ok(cx.remaining().as_millis().to_string()))
        .method("append", |_cx, body| {
            let text = text(&body);
            let (file, line) = text.split_once(' ').unwrap_or((&text, ""));
            append(Path::new(file), &format!("{line}\n"));
            Ok("")
        })
        .method_async(Method::new("serial").serial(), move |_cx, body: Bytes| {
            let under_way = Arc::clone(&under_way);
            async move {
                if under_way.fetch_add(1, Ordering::SeqCst) != 0 {
                    return Err(Error::new(Code::MethodFailed, "two at once"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                Ok(body)
            }
        })
        .method_stream("stream", |_cx, body, out| async move {
            for piece in 0..number(&body)? {
                out.send(format!("{piece}\n")).await?;
            }
            Ok(())
        })
        .method_stream("stream-fails", |_cx, _body, out| async move {
            out.send("half").await?;
            Err(Error::new(Code::MethodFailed, "after the first piece"))
        })
        .method_body("sum", |_cx, mut body| async move {
            let (mut count, mut sum) = (0_u64, 0_u64);
            while let Some(piece) = body.next().await? {
                count += piece.len() as u64;
                sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            }
            Ok(format!("{count} {sum}"))
        })
        .method_body_blocking("sum-blocking", |_cx, mut body| {
            let (mut count, mut sum) = (0_u64, 0_u64);
            while let Some(piece) = body.next_piece()? {
                count += piece.len() as u64;
                sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            }
            Ok(format!("{count} {sum}"))
        })
        .method_duplex("echo-pieces", |_cx, mut body, out| async move {
            while let Some(piece) = body.next().await? {
                out.send(piece).await?;
            }
            Ok(())
        })
        .method_body("read-one-and-wait", |cx: Context, mut body| async move {
            // The first piece names a file; then nothing is read until the caller has gone.
            let file = PathBuf::from(text(&body.next().await?.unwrap_or_default()));
            append(&file, "begun\n");
            let _note = OnDrop(file);
            cx.cancelled().await;
            Ok("")
        })
        .method_duplex("name-and-rest", |_cx, mut body, out| async move {
            // The first piece names a file, which tells that the call has begun; the others are answered.
            append(Path::new(&text(&body.next().await?.unwrap_or_default())), "begun\n");
            while let Some(piece) = body.next().await? {
                out.send(piece).await?;
            }
            Ok(())
        })
        .method_body("answer-early", |_cx, mut body| async move {
            body.next().await?;
            Ok("enough")
        })
        .method_stream("pour", |_cx, body, out| async move {
            let piece = Bytes::from(vec![7; 256 * 1024]);
            for _ in 0..number(&body)? {
                out.send(piece.clone()).await?;
            }
            Ok(())
        })
}

fn notifications(builder: PluginBuilder, window: Option<usize>) -> PluginBuilder {
    let event = |name: &str| match window {
        Some(messages) => Callback::event(name).window(messages, 1 << 20),
        None => Callback::event(name),
    };
    builder
        .callback(event("events"))
        .callback(Callback::event("small").window(4, 1 << 20))
        .callback(Callback::state("state"))
        .callback(Callback::lossy("lossy").window(16, 1 << 20))
        .method_async("notify", |cx: Context, body: Bytes| async move {
            // `CALLBACK FIRST LAST`: notifies the numbers and answers how long it took.
            let begin = Instant::now();
            let text = text(&body);
            let words: Vec<&str> = text.split(' ').collect();
            let [callback, first, last] = words[..] else {
                return Err(Error::new(Code::InvalidArgument, "CALLBACK FIRST LAST"));
            };
            for n in number(first.as_bytes())?..=number(last.as_bytes())? {
                cx.notifier().notify(callback, n.to_string()).await?;
            }
            Ok(begin.elapsed().as_millis().to_string())
        })
        .method_async("notify-later", |cx: Context, body: Bytes| async move {
            // As `notify`, but goes on after its answer.
            let (text, notifier) = (text(&body), cx.notifier().clone());
            tokio::spawn(async move {
                let words: Vec<&str> = text.split(' ').collect();
                let [callback, first, last] = words[..] else { return };
                for n in number(first.as_bytes()).unwrap_or(1)..=number(last.as_bytes()).unwrap_or(0) {
                    if notifier.notify(callback, n.to_string()).await.is_err() {
                        return;
                    }
                }
            });
            Ok("")
        })
        .method_async("notify-now-and-then", |cx: Context, body: Bytes| async move {
            // `CALLBACK COUNT EVERY_MS`: after its answer, notifies what time it is.
            let (text, notifier) = (text(&body), cx.notifier().clone());
            tokio::spawn(async move {
                let words: Vec<&str> = text.split(' ').collect();
                let [callback, count, every_ms] = words[..] else { return };
                for _ in 0..number(count.as_bytes()).unwrap_or(1) {
                    tokio::time::sleep(Duration::from_millis(number(every_ms.as_bytes()).unwrap_or(1))).await;
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    if notifier.notify(callback, now.as_nanos().to_string()).await.is_err() {
                        return;
                    }
                }
            });
            Ok("")
        })
        .method("try-notify", |cx, body| {
            cx.notifier().try_notify(&text(&body), "tried").map(|position| position.to_string())
        })
        .method_async("notify-acked", |cx: Context, body: Bytes| async move {
            cx.notifier().notify_acked(&text(&body), "acked").await.map(|position| position.to_string())
        })
        .method("set", |cx, body| {
            let text = text(&body);
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            cx.notifier().notify_key("state", key, value.to_owned()).map(|position| position.to_string())
        })
}

/// Leaves a file when the method's future is dropped or done.
struct OnDrop(PathBuf);

impl Drop for OnDrop {
    fn drop(&mut self) {
        append(&self.0, "cancelled\n");
    }
}

fn append(file: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("a file to append to");
    file.write_all(text.as_bytes()).expect("a write");
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

fn number(body: &[u8]) -> Result<u64, Error> {
    text(body).trim().parse().map_err(|_| Error::new(Code::InvalidArgument, "the body is no number"))
}
