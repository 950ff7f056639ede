//! `execute`: bytes in, bytes out, once or many times.

mod body;
mod measure;

use std::time::Instant;

use bytes::Bytes;
use goplug_pconf_schema::wire::event::to_base64;
use goplug_pconf_schema::{Code, Fault, PluginId, check_call_name};
use serde::Serialize;

use crate::args::ExecuteArgs;
use crate::duration::nanoseconds;
use crate::failure::Failure;
use crate::output::{Format, escape};
use crate::session::Session;
use crate::target::Call;
use measure::{Load, measure};

pub(super) async fn execute(session: &mut Session, args: &ExecuteArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot execute `{}` of `{plugin}`", args.method);
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let what = what(plugin.as_str());
    check_call_name("method", &args.method)
        .map_err(|error| Failure::new(what.clone(), Fault::new(Code::InvalidArgument, error.to_string())))?;
    let body = body::body(args).map_err(|fault| Failure::new(what.clone(), fault))?;
    let call =
        Call { deadline: session.timeout, load: args.load, content_type: args.json.then_some("application/json") };
    if args.count > 1 {
        return many(session, args, &plugin, body, call).await;
    }
    let begun = Instant::now();
    let reply = session.target.execute(&plugin, &args.method, body, call).await;
    let took = begun.elapsed();
    let reply = match reply {
        Ok(reply) => reply,
        Err(fault) => return Err(failed(session, what, fault, &plugin, &args.method).await),
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
            Err(failed(session, what, fault, plugin, &args.method).await)
        }
        None => Ok(()),
    }
}

/// Says what helps: to load the plugin, or to look at what there is.
async fn failed(session: &Session, what: String, fault: Fault, plugin: &PluginId, method: &str) -> Failure {
    let (shown, method) = (escape(plugin.as_str()), escape(method));
    let hint = match fault.code {
        Code::WrongState => Some(format!("goplugctl execute --load {shown} {method}")),
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
