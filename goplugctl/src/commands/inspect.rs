//! `inspect` and `cat`: all about a plugin, and its file as it is.

use std::fs::File;
use std::io::Read;

use goplug_pconf_schema::admin::PluginDetail;
use goplug_pconf_schema::{Code, Fault, MAX_PCONF_BYTES, printable};
use rustix::fs::{Mode, OFlags};

use crate::args::{OnePlugin, Plugins};
use crate::failure::Failure;
use crate::output::style::{Paint, of_state};
use crate::output::{Format, Style, Table, escape, text};
use crate::session::Session;

pub(super) async fn inspect(session: &mut Session, args: &Plugins) -> Result<(), Failure> {
    let picked = session.several("cannot inspect", args).await?;
    let mut details = Vec::new();
    for plugin in &picked.plugins {
        match session.target.inspect(plugin).await {
            Ok(detail) => details.push(detail),
            Err(fault) => session.failed(Failure::new(format!("cannot inspect `{plugin}`"), fault).about(plugin))?,
        }
    }
    if picked.one && details.is_empty() {
        return Ok(());
    }
    let names = || details.iter().map(name).collect();
    let text = |style, _| details.iter().map(|detail| describe(detail, style)).collect::<Vec<_>>().join("\n");
    Ok(session.out.show(&details, picked.one, names, text)?)
}

pub(super) async fn cat(session: &mut Session, args: &OnePlugin) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot show the file of `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let failed = |fault| Failure::new(what(plugin.as_str()), fault).about(&plugin);
    let detail = session.target.inspect(&plugin).await.map_err(failed)?;
    let Some(path) = detail.summary.pconf.or(detail.summary.manifest) else {
        return Err(failed(Fault::new(Code::NotFound, "it has no file")));
    };
    let bytes = read_pconf(&path).map_err(failed)?;
    if matches!(session.out.format(), Format::Name) {
        return Ok(session.out.bytes(format!("{}\n", escape(&path)).as_bytes())?);
    }
    if session.out.is_terminal() {
        let shown = text::escape_lines(&String::from_utf8_lossy(&bytes));
        return Ok(session.out.bytes(shown.as_bytes())?);
    }
    Ok(session.out.bytes(&bytes)?)
}

/// Reads the file without following a link and without waiting for what is no file.
fn read_pconf(path: &str) -> Result<Vec<u8>, Fault> {
    let shown = printable(path);
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Fault::new(Code::NotFound, format!("`{shown}` is not there any more")),
        std::io::ErrorKind::PermissionDenied => Fault::new(Code::Denied, format!("`{shown}` may not be read")),
        _ => Fault::new(Code::InvalidArgument, format!("`{shown}` cannot be read: {error}")),
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| refused(error.into()))?);
    if !file.metadata().map_err(refused)?.is_file() {
        return Err(Fault::new(Code::InvalidArgument, format!("`{shown}` is no regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PCONF_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() > MAX_PCONF_BYTES {
        return Err(Fault::new(Code::TooLarge, format!("`{shown}` is larger than {MAX_PCONF_BYTES} bytes")));
    }
    Ok(bytes)
}

fn name(detail: &PluginDetail) -> String {
    detail.summary.id().map_or_else(|| detail.summary.name.clone(), |id| id.to_string())
}

fn describe(detail: &PluginDetail, style: Style) -> String {
    let summary = &detail.summary;
    let mut table = Table::new(["", "", ""]);
    let mut line = |title: &str, value: String, paint: Paint| {
        if !value.is_empty() {
            table.row([(String::new(), Paint::None), (title.to_owned(), Paint::Faint), (value, paint)]);
        }
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: Option<u32>| value.map(|number| number.to_string()).unwrap_or_default();
    line("state", format!("{} since {}", summary.state, summary.since), of_state(summary.state));
    line("error", text(&summary.last_error), Paint::Bad);
    line("description", text(&detail.description), Paint::None);
    line("version", text(&summary.version), Paint::None);
    line("versions", summary.versions.join(", "), Paint::None);
    line("pinned", text(&summary.pinned), Paint::None);
    line("protocol", summary.protocol.map(|number| format!("v{number}")).unwrap_or_default(), Paint::None);
    line("transport", detail.transport.map(|transport| transport.as_str().to_owned()).unwrap_or_default(), Paint::None);
    line("active", detail.active.map(|active| active.to_string()).unwrap_or_default(), Paint::None);
    line("health", detail.health.map(|health| format!("{health:?}").to_lowercase()).unwrap_or_default(), Paint::None);
    line("lazy", if summary.lazy_load { "loaded when asked for".into() } else { String::new() }, Paint::None);
    line("pid", number(summary.pid), Paint::None);
    line("uid", number(detail.uid), Paint::None);
    for (title, value, paint) in detail.executable.iter().flat_map(super::trust::lines) {
        line(title, value, paint);
    }
    line("epoch", text(&detail.epoch), Paint::None);
    line("file", text(&summary.pconf), Paint::None);
    line("manifest", text(&summary.manifest), Paint::None);
    line("socket", text(&summary.socket), Paint::None);
    line("url", text(&detail.url), Paint::None);
    line("methods", summary.methods.as_ref().map(|names| names.join(", ")).unwrap_or_default(), Paint::None);
    let callbacks = detail
        .callbacks
        .iter()
        .map(|callback| format!("{} ({})", callback.name, super::methods::class_word(callback.class)));
    line("callbacks", callbacks.collect::<Vec<_>>().join(", "), Paint::None);
    let spoken = detail.interfaces.iter().map(|interface| format!("{} {}", interface.name, interface.version));
    let spoken = spoken.collect::<Vec<_>>().join(", ");
    let announced = detail.installed.as_ref().map(|installed| installed.interfaces.join(", ")).unwrap_or_default();
    // What a process says counts more than what its manifest says.
    line("interfaces", if spoken.is_empty() { announced } else { spoken }, Paint::None);
    if let Some(installed) = &detail.installed {
        // The process that runs may be of another version.
        let other = Some(&installed.version) != summary.version.as_ref();
        line("installed", if other { installed.version.clone() } else { String::new() }, Paint::None);
        line("source", installed.source.as_str().to_owned(), Paint::None);
        line("command", installed.command.join(" "), Paint::None);
        line("wire", installed.wire.as_str().to_owned(), Paint::None);
        line("requires", installed.requires.join(", "), Paint::None);
        line("maintainers", installed.maintainers.join(", "), Paint::None);
        line("home", text(&installed.home), Paint::None);
        if let Some(origin) = &installed.origin {
            line("from", origin.source.clone(), Paint::None);
            line("sha256", origin.sha256.map(|sha256| sha256.to_string()).unwrap_or_default(), Paint::None);
            line("commit", text(&origin.commit), Paint::None);
            line("built with", origin.built_with.join(" "), Paint::None);
        }
    }
    if let Some(process) = &detail.process {
        line("process", super::list::running(process).unwrap_or_default(), Paint::None);
        if let Some(exit) = &process.last_exit {
            line("last exit", format!("{}: {exit}", exit.time), Paint::None);
            for said in &exit.stderr {
                line("stderr", said.clone(), Paint::Faint);
            }
        }
    }
    let limits = detail.limits.map(|limits| {
        format!("{} bytes per request, {} calls at once", limits.max_request_bytes, limits.max_concurrent_calls)
    });
    line("limits", limits.unwrap_or_default(), Paint::None);
    line("calls", format!("{}, {} under way", detail.calls, detail.in_flight), Paint::None);
    for (key, value) in &detail.unknown {
        line("unknown key", format!("{key}: {value}"), Paint::None);
    }
    for warning in &detail.warnings {
        line("warning", warning.clone(), Paint::Notice);
    }
    for conflict in &detail.conflicts {
        line("conflict", conflict.clone(), Paint::Bad);
    }
    format!("{}\n{}", escape(&name(detail)), table.render(style))
}
