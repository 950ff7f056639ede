//! `execute`: bytes in, bytes out, once or many times.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::event::to_base64;
use goplug_pconf_schema::{Code, Fault, PluginId, check_call_name};
use serde::Serialize;

use super::body::body;
use super::measure::{Work, by_code, measure};
use crate::args::ExecuteArgs;
use crate::duration::{nanoseconds, show};
use crate::failure::Failure;
use crate::output::{Format, escape};
use crate::session::Session;
use crate::target::Call;

pub(super) async fn execute(session: &mut Session, args: &ExecuteArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot execute `{}` of `{plugin}`", args.method);
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let what = what(plugin.as_str());
    check_call_name("method", &args.method)
        .map_err(|error| Failure::new(what.clone(), Fault::new(Code::InvalidArgument, error.to_string())))?;
    let body = body(&args.body).map_err(|fault| Failure::new(what.clone(), fault))?;
    let call =
        Call { deadline: session.timeout, load: args.load, content_type: args.body.json.then_some("application/json") };
    if args.count > 1 {
        return many(session, args, &plugin, body, call).await;
    }
    let begun = Instant::now();
    let reply = session.target.execute(&plugin, &args.method, body, call).await;
    let took = begun.elapsed();
    let reply = match reply {
        Ok(reply) => reply,
        Err(fault) => return Err(failed(session, "execute", what, fault, &plugin, &args.method).await),
    };
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    plugin: &'a PluginId,
    method: &'a str,
    calls: u64,
    parallel: u16,
    failed: u64,
    errors: &'a BTreeMap<&'static str, u64>,
    elapsed_ns: u64,
    calls_per_second: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

impl Summary<'_> {
    /// The summary in one line for people.
    fn text(&self) -> String {
        let time = |ns| show(Duration::from_nanos(ns));
        let errors = if self.errors.is_empty() { String::new() } else { format!(" ({})", by_code(self.errors)) };
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
    let work = Work {
        target: session.target.as_ref(),
        plugin,
        method: &args.method,
        body: &body,
        call,
        parallel: args.parallel,
        fail_fast: session.is_fail_fast(),
    };
    let measured = measure(&work, args.count, std::future::pending()).await;
    let times = &measured.times;
    let summary = Summary {
        plugin,
        method: &args.method,
        calls: times.count(),
        parallel: args.parallel,
        failed: measured.failed(),
        errors: &measured.errors,
        elapsed_ns: nanoseconds(measured.elapsed),
        calls_per_second: measured.per_second(times.count()),
        p50_ns: nanoseconds(times.percentile(500)),
        p90_ns: nanoseconds(times.percentile(900)),
        p99_ns: nanoseconds(times.percentile(990)),
        max_ns: nanoseconds(times.longest()),
    };
    match session.out.format() {
        Format::Table | Format::Wide | Format::Name => {
            if let Some(reply) = &measured.first {
                session.out.payload(reply, args.raw)?;
            }
            let line = format!("{}\n", summary.text());
            session.say(&line);
        }
        Format::Json | Format::Jsonl | Format::Yaml => {
            session.out.show(&[&summary], true, Vec::new, |_, _| String::new())?
        }
    }
    match measured.worst {
        Some(fault) => {
            let what = format!("{} of {} calls of `{}` failed, at worst", summary.failed, summary.calls, args.method);
            Err(failed(session, "execute", what, fault, plugin, &args.method).await)
        }
        None => Ok(()),
    }
}

/// Says what helps: to load the plugin, or to look at what there is.
pub(super) async fn failed(
    session: &Session,
    verb: &str,
    what: String,
    fault: Fault,
    plugin: &PluginId,
    method: &str,
) -> Failure {
    let (shown, method) = (escape(plugin.as_str()), escape(method));
    let hint = match fault.code {
        Code::WrongState if fault.reason.is_none() => Some(format!("goplugctl {verb} --load {shown} {method}")),
        // Either the plugin or its method is not there.
        Code::NotFound => {
            let known = session.target.known().await.unwrap_or_default();
            let is_known = known.iter().any(|summary| summary.id().as_ref() == Some(plugin));
            is_known.then(|| format!("goplugctl methods {shown}"))
        }
        _ => None,
    };
    let failure = Failure::new(what, fault);
    match hint {
        Some(hint) => failure.hint(hint).about(plugin),
        None => failure.about(plugin),
    }
}
