//! `bench`: calls one method for a while, many at once, and tells how that went.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::admin::Transport;
use goplug_pconf_schema::{Code, Fault, PluginId, check_call_name};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::body::body;
use super::execute::failed;
use super::measure::{LAST_CALLS, Work, by_code, measure};
use crate::args::BenchArgs;
use crate::duration::{nanoseconds, show};
use crate::exit_code;
use crate::failure::Failure;
use crate::output::style::Paint;
use crate::output::{Style, Table, escape};
use crate::session::Session;
use crate::target::Call;

/// The bodies of all calls under way together.
const MAX_UNDER_WAY_BYTES: u64 = 1024 * 1024 * 1024;

pub(super) async fn bench(session: &mut Session, args: &BenchArgs) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let ready = tokio::select! {
        ready = prepare(session, args) => Some(ready?),
        () = interrupt.came() => None,
    };
    let Some((plugin, body, call)) = ready else {
        session.exit_with(exit_code::INTERRUPTED);
        return Ok(());
    };
    let work = Work {
        target: session.target.as_ref(),
        plugin: &plugin,
        method: &args.method,
        body: &body,
        call,
        parallel: args.parallel,
        fail_fast: session.is_fail_fast(),
    };
    if !args.warmup.is_zero() {
        _ = measure(&work, u64::MAX, interrupt.came_within(args.warmup)).await;
    }
    if interrupt.has_come {
        session.exit_with(exit_code::INTERRUPTED);
        return Ok(());
    }
    let measured = measure(&work, u64::MAX, interrupt.came_within(args.time)).await;
    let (times, request_bytes) = (&measured.times, body.len() as u64);
    let (calls, failed_calls) = (times.count(), measured.failed());
    let report = Report {
        plugin: &plugin,
        method: &args.method,
        through_daemon: !matches!(session.target.status().await, Ok(None)),
        // A plugin that died meanwhile has none: the errors tell.
        transport: session.target.inspect(&plugin).await.ok().and_then(|detail| detail.transport),
        parallel: args.parallel,
        request_bytes,
        warmup_ns: nanoseconds(args.warmup),
        interrupted: interrupt.has_come,
        elapsed_ns: nanoseconds(measured.elapsed),
        calls,
        failed: failed_calls,
        errors: &measured.errors,
        unfinished: measured.unfinished,
        calls_per_second: measured.per_second(calls),
        bytes_per_second: measured.per_second((calls - failed_calls) * request_bytes + measured.reply_bytes),
        p50_ns: nanoseconds(times.percentile(500)),
        p90_ns: nanoseconds(times.percentile(900)),
        p99_ns: nanoseconds(times.percentile(990)),
        p999_ns: nanoseconds(times.percentile(999)),
        max_ns: nanoseconds(times.longest()),
    };
    let name = || vec![plugin.to_string()];
    session.out.show(&[&report], true, name, |style, _| report.text(style))?;
    if interrupt.has_come {
        session.exit_with(exit_code::INTERRUPTED);
    }
    match measured.worst {
        None => Ok(()),
        Some(fault) => {
            let what = format!("{} of {} calls of `{}` failed, at worst", report.failed, report.calls, args.method);
            Err(failed(session, "bench", what, fault, &plugin, &args.method).await)
        }
    }
}

/// Finds the plugin, reads the body, and makes one call, so that what cannot work at all fails at once.
async fn prepare(session: &mut Session, args: &BenchArgs) -> Result<(PluginId, Bytes, Call), Failure> {
    let what = |plugin: &str| format!("cannot bench `{}` of `{plugin}`", args.method);
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let what = what(plugin.as_str());
    let refused = |fault| Failure::new(what.clone(), fault);
    check_call_name("method", &args.method)
        .map_err(|error| refused(Fault::new(Code::InvalidArgument, error.to_string())))?;
    let body = match args.body.data {
        Some(_) => body(&args.body).map_err(refused)?,
        None => Bytes::from(vec![b'x'; args.size]),
    };
    let under_way = body.len() as u64 * u64::from(args.parallel);
    if under_way > MAX_UNDER_WAY_BYTES {
        let text = format!(
            "{} calls at once with {} bytes each are {under_way} bytes under way: the limit is {MAX_UNDER_WAY_BYTES}",
            args.parallel,
            body.len()
        );
        return Err(Failure::usage(what, text));
    }
    let json = args.body.json.then_some("application/json");
    let call = Call { deadline: session.timeout, load: args.load, content_type: json };
    match session.target.execute(&plugin, &args.method, body.clone(), call).await {
        Err(fault) if !is_of_the_method(fault.code) => {
            Err(failed(session, "bench", what, fault, &plugin, &args.method).await)
        }
        _ => Ok((plugin, body, call)),
    }
}

/// Whether a call that failed so says nothing of the next one.
fn is_of_the_method(code: Code) -> bool {
    matches!(code, Code::MethodFailed | Code::Panicked | Code::Overloaded | Code::DeadlineExceeded)
}

/// Ctrl-C while this verb runs.
struct Interrupt {
    signal: Signal,
    has_come: bool,
}

impl Interrupt {
    fn new() -> Result<Self, Failure> {
        Ok(Self { signal: signal(SignalKind::interrupt())?, has_come: false })
    }

    async fn came(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.has_come = true;
    }

    /// Ends after `time`, or with Ctrl-C.
    async fn came_within(&mut self, time: Duration) {
        _ = tokio::time::timeout(time, self.came()).await;
    }
}

/// Answer of `bench -o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    plugin: &'a PluginId,
    method: &'a str,
    /// Whether every call went through goplugd's HTTP API.
    through_daemon: bool,
    /// How they reached the plugin; `null` if it was not there any more at the end.
    transport: Option<Transport>,
    parallel: u16,
    request_bytes: u64,
    warmup_ns: u64,
    /// Whether Ctrl-C ended it early.
    interrupted: bool,
    elapsed_ns: u64,
    /// Calls that ended.
    calls: u64,
    failed: u64,
    errors: &'a BTreeMap<&'static str, u64>,
    /// Calls that had not ended 2 s after the end, and were given up.
    unfinished: u64,
    calls_per_second: f64,
    /// Bodies of requests and replies of calls that did not fail.
    bytes_per_second: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    #[serde(rename = "p999Ns")]
    p999_ns: u64,
    max_ns: u64,
}

impl Report<'_> {
    /// For people; a line for each thing.
    fn text(&self, style: Style) -> String {
        let time = |ns| show(Duration::from_nanos(ns));
        let reached = self.transport.map_or("unknown: it is not loaded any more", Transport::as_str);
        let transport =
            if self.through_daemon { format!("HTTP API of goplugd, then {reached}") } else { reached.into() };
        let failed = match self.failed {
            0 => "0".to_owned(),
            _ => format!("{} ({})", self.failed, by_code(self.errors)),
        };
        let early = if self.interrupted { ", interrupted" } else { "" };
        let mut table = Table::new(["", "", ""]);
        let mut line = |title: &str, value: String, paint: Paint| {
            table.row([(String::new(), Paint::None), (title.to_owned(), Paint::Faint), (value, paint)]);
        };
        line("transport", transport, Paint::None);
        line("load", format!("{} at once, {} bytes each", self.parallel, self.request_bytes), Paint::None);
        line(
            "time",
            format!("{}{early}, after {} of warm-up", time(self.elapsed_ns), time(self.warmup_ns)),
            Paint::None,
        );
        line("calls", format!("{}, {:.0} calls/s", self.calls, self.calls_per_second), Paint::None);
        line("bodies", format!("{:.3} MB/s, both ways together", self.bytes_per_second / 1e6), Paint::None);
        line("failed", failed, if self.failed == 0 { Paint::None } else { Paint::Bad });
        if self.unfinished > 0 {
            let text = format!("{}, given up after {}", self.unfinished, show(LAST_CALLS));
            line("unfinished", text, Paint::Notice);
        }
        let times = [
            ("p50", self.p50_ns),
            ("p90", self.p90_ns),
            ("p99", self.p99_ns),
            ("p99.9", self.p999_ns),
            ("max", self.max_ns),
        ];
        for (title, ns) in times {
            line(title, if self.calls == 0 { "-".into() } else { time(ns) }, Paint::None);
        }
        format!("{} {}\n{}", escape(self.plugin.as_str()), escape(self.method), table.render(style))
    }
}
