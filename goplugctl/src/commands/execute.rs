//! `execute`: bytes in, bytes out, once or many times.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use goplug_pconf_schema::wire::event::{from_base64, to_base64};
use goplug_pconf_schema::{Code, Fault, PluginId};
use serde::Serialize;

use crate::args::ExecuteArgs;
use crate::duration::{nanoseconds, show};
use crate::exit_code;
use crate::failure::Failure;
use crate::output::{Format, escape, text};
use crate::session::Session;
use crate::stats::Times;
use crate::target::{Call, Target};

/// The largest body that is read from a file or from standard input.
const MAX_BODY_BYTES: u64 = 1024 * 1024 * 1024;

pub(super) async fn execute(session: &mut Session, args: &ExecuteArgs) -> Result<(), Failure> {
    let what = format!("cannot execute `{}` of `{}`", args.method, args.plugin);
    let plugin = session.one(&what, &args.plugin).await?;
    let body = body(args).map_err(|fault| Failure::new(what.clone(), fault))?;
    let call =
        Call { deadline: session.timeout, load: args.load, content_type: args.json.then_some("application/json") };
    if args.count > 1 {
        return many(session, args, &plugin, body, call).await;
    }
    let begun = Instant::now();
    let reply = session.target.execute(&plugin, &args.method, body, call).await;
    let took = begun.elapsed();
    let reply = reply.map_err(|fault| failed(what, fault, &plugin, &args.method))?;
    if matches!(session.out.format(), Format::Table | Format::Wide | Format::Name) {
        return Ok(session.out.payload(&reply, args.raw)?);
    }
    let document = Reply {
        plugin: &plugin,
        method: &args.method,
        data: std::str::from_utf8(&reply).ok(),
        data_base64: to_base64(&reply),
        duration_ns: nanoseconds(took),
    };
    Ok(session.out.show(&[document], true, Vec::new, |_, _| String::new())?)
}

/// Answer of `execute -o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    plugin: &'a PluginId,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    data_base64: String,
    duration_ns: u64,
}

/// Answer of `execute --count N -o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    plugin: PluginId,
    method: String,
    /// Calls that were made.
    pub(crate) calls: u64,
    parallel: u16,
    /// Calls that failed.
    pub(crate) failed: u64,
    errors: BTreeMap<&'static str, u64>,
    elapsed_ns: u64,
    calls_per_second: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

impl Summary {
    /// The summary in one line for people.
    pub(crate) fn text(&self) -> String {
        let time = |ns| show(Duration::from_nanos(ns));
        let errors: Vec<_> = self.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        let errors = if errors.is_empty() { String::new() } else { format!(" ({})", errors.join(", ")) };
        format!(
            "{} calls, {} at once, {} failed{errors}, p50 {}, p99 {}, max {}, {:.0} calls/s",
            self.calls,
            self.parallel,
            self.failed,
            time(self.p50_ns),
            time(self.p99_ns),
            time(self.max_ns),
            self.calls_per_second
        )
    }
}

async fn many(
    session: &mut Session,
    args: &ExecuteArgs,
    plugin: &PluginId,
    body: Bytes,
    call: Call,
) -> Result<(), Failure> {
    let load = Load { count: args.count, parallel: args.parallel, fail_fast: session.is_fail_fast() };
    let (summary, first, worst) = measure(session.target.as_ref(), plugin, &args.method, &body, call, load).await;
    match session.out.format() {
        Format::Table | Format::Wide | Format::Name => {
            if let Some(reply) = &first {
                session.out.payload(reply, args.raw)?;
            }
            let line = format!("{}\n", summary.text());
            session.say(&line);
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            session.out.show(&[&summary], true, Vec::new, |_, _| String::new())?
        }
    }
    match worst {
        Some(fault) => {
            let what = format!("{} of {} calls of `{}` failed, at worst", summary.failed, summary.calls, args.method);
            Err(failed(what, fault, plugin, &args.method))
        }
        None => Ok(()),
    }
}

/// How many calls are made, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How many calls in all.
    pub(crate) count: u64,
    /// How many at once.
    pub(crate) parallel: u16,
    /// Whether the first failure ends it.
    pub(crate) fail_fast: bool,
}

/// Makes many calls; tells their times, the first reply, and the failure with the highest exit code.
pub(crate) async fn measure(
    target: &dyn Target,
    plugin: &PluginId,
    method: &str,
    body: &Bytes,
    call: Call,
    load: Load,
) -> (Summary, Option<Bytes>, Option<Fault>) {
    let left = AtomicU64::new(load.count);
    let stopped = AtomicBool::new(false);
    let begun = Instant::now();
    let worker = || async {
        let mut part = Part::new();
        while !stopped.load(Ordering::Relaxed) && take(&left) {
            let started = Instant::now();
            let reply = target.execute(plugin, method, body.clone(), call).await;
            part.times.record(started.elapsed());
            match reply {
                Ok(reply) if part.first.is_none() => part.first = Some(reply),
                Ok(_) => {}
                Err(fault) => {
                    stopped.fetch_or(load.fail_fast, Ordering::Relaxed);
                    part.note(fault);
                }
            }
        }
        part
    };
    let parts = join_all((0..load.parallel.max(1)).map(|_| worker())).await;
    let elapsed = begun.elapsed();
    let mut whole = Part::new();
    parts.into_iter().for_each(|part| whole.add(part));
    let (calls, times) = (whole.times.count(), &whole.times);
    let summary = Summary {
        plugin: plugin.clone(),
        method: method.to_owned(),
        calls,
        parallel: load.parallel,
        failed: whole.errors.values().sum(),
        elapsed_ns: nanoseconds(elapsed),
        calls_per_second: calls as f64 / elapsed.as_secs_f64().max(1e-9),
        p50_ns: nanoseconds(times.percentile(50)),
        p90_ns: nanoseconds(times.percentile(90)),
        p99_ns: nanoseconds(times.percentile(99)),
        max_ns: nanoseconds(times.longest()),
        errors: whole.errors,
    };
    (summary, whole.first, whole.worst)
}

/// What one worker saw.
struct Part {
    times: Times,
    first: Option<Bytes>,
    worst: Option<Fault>,
    errors: BTreeMap<&'static str, u64>,
}

impl Part {
    fn new() -> Self {
        Self { times: Times::new(), first: None, worst: None, errors: BTreeMap::new() }
    }

    fn note(&mut self, fault: Fault) {
        *self.errors.entry(fault.code.as_str()).or_insert(0) += 1;
        self.keep_worse(fault);
    }

    fn keep_worse(&mut self, fault: Fault) {
        if self.worst.as_ref().is_none_or(|worst| exit_code::of(fault.code) > exit_code::of(worst.code)) {
            self.worst = Some(fault);
        }
    }

    fn add(&mut self, other: Self) {
        self.times.add(&other.times);
        self.first = self.first.take().or(other.first);
        for (code, count) in other.errors {
            *self.errors.entry(code).or_insert(0) += count;
        }
        if let Some(fault) = other.worst {
            self.keep_worse(fault);
        }
    }
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// A call of a plugin that is not loaded: `--load` would mend it.
fn failed(what: String, fault: Fault, plugin: &PluginId, method: &str) -> Failure {
    let (shown, method) = (escape(plugin.as_str()), escape(method));
    let hint = match fault.code {
        Code::WrongState => Some(format!("goplugctl execute --load {shown} {method}")),
        Code::NotFound => Some(format!("goplugctl methods {shown}")),
        _ => None,
    };
    let failure = Failure::new(what, fault);
    match hint {
        Some(hint) => failure.hint(hint).about(plugin),
        None => failure.about(plugin),
    }
}

/// The body that the arguments mean.
fn body(args: &ExecuteArgs) -> Result<Bytes, Fault> {
    let given = match args.data.as_deref() {
        None => Vec::new(),
        Some("-") => read("standard input", io::stdin().lock())?,
        Some(data) => match data.strip_prefix('@') {
            None => data.as_bytes().to_vec(),
            Some(path) => {
                let refused = |error: io::Error| {
                    Fault::new(Code::InvalidArgument, format!("`{}` cannot be read: {error}", escape(path)))
                };
                read(path, std::fs::File::open(path).map_err(refused)?)?
            }
        },
    };
    decode(given, args).map(Bytes::from)
}

fn read(name: &str, source: impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let refused =
        |error: io::Error| Fault::new(Code::InvalidArgument, format!("`{}` cannot be read: {error}", escape(name)));
    source.take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > MAX_BODY_BYTES {
        return Err(Fault::new(Code::TooLarge, format!("`{}` is larger than {MAX_BODY_BYTES} bytes", escape(name))));
    }
    Ok(bytes)
}

fn decode(given: Vec<u8>, args: &ExecuteArgs) -> Result<Vec<u8>, Fault> {
    let wrong = |why: String| Fault::new(Code::InvalidArgument, format!("DATA: {why}"));
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| wrong("no text".into()));
    if args.json {
        serde_json::from_slice::<serde::de::IgnoredAny>(&given).map_err(|error| wrong(format!("no JSON: {error}")))?;
        return Ok(given);
    }
    if args.hex {
        return text::from_hex(&text(&given)?).map_err(wrong);
    }
    if args.base64 {
        return from_base64(text(&given)?.trim()).map_err(wrong);
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn sent(line: &[&str]) -> Result<Vec<u8>, Code> {
        let words = ["goplugctl", "execute", "Test/Do", "Do"].iter().chain(line);
        let Verb::Execute(args) = Cli::try_parse_from(words).unwrap().verb else { panic!("another verb") };
        body(&args).map(Into::into).map_err(|fault| fault.code)
    }

    #[test]
    fn data_is_taken_as_it_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xffx").unwrap();
        let at_file = format!("@{}", file.path().display());
        let wrong = Err(Code::InvalidArgument);
        for (line, expected) in [
            (vec![], Ok(vec![])),
            (vec!["hello"], Ok(b"hello".to_vec())),
            (vec![at_file.as_str()], Ok(b"\xffx".to_vec())),
            (vec!["@/nothing/there"], wrong.clone()),
            (vec!["--hex", "ff 00"], Ok(vec![255, 0])),
            (vec!["--hex", "f"], wrong.clone()),
            (vec!["--base64", "/w=="], Ok(vec![255])),
            (vec!["--base64", "?"], wrong.clone()),
            (vec!["--json", "{\"a\": 1}"], Ok(b"{\"a\": 1}".to_vec())),
            (vec!["--json", "{"], wrong.clone()),
            (vec!["--json"], wrong.clone()),
        ] {
            assert_eq!(sent(&line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_worst_failure_counts() {
        let mut part = Part::new();
        part.note(Fault::new(Code::PluginGone, "died"));
        part.note(Fault::new(Code::MethodFailed, "no"));
        part.note(Fault::new(Code::MethodFailed, "no"));
        let mut whole = Part::new();
        whole.add(part);
        assert_eq!(whole.worst.unwrap().code, Code::PluginGone);
        assert_eq!(whole.errors, BTreeMap::from([("method_failed", 2), ("plugin_gone", 1)]));
    }
}
