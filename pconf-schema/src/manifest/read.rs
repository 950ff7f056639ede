//! From entries to a [`Manifest`].

use std::time::Duration;

use semver::{Version, VersionReq};
use serde_json::Value;

use crate::pconf::fields::is_plain_name;
use crate::pconf::json::{self, Entry};
use crate::range::parse_range;
use crate::{Locator, PconfError, PconfProblem, PluginId, PluginRef, Sha256, check_call_name, printable};

use super::object::{LONGEST, Notes, Object, text_of};
use super::program::{check_command, check_inside, check_path, check_text, check_variable};
use super::{
    Build, Exec, Folder, Health, Hooks, METHOD_EXECUTE, Manifest, ManifestWire, MaxUse, Requirement, Restart,
    RestartPolicy, SharedObject, Source, SourceMode,
};

const SECOND: Duration = Duration::from_secs(1);

/// Reads a whole file.
pub(super) fn read(bytes: &[u8], folder: Folder<'_>) -> Result<Manifest, PconfError> {
    match understand(bytes, folder) {
        (Some(manifest), problems) if problems.is_empty() => Ok(manifest),
        (_, problems) => Err(PconfError { problems }),
    }
}

/// As far as it can be understood, and every problem.
pub(super) fn understand(bytes: &[u8], folder: Folder<'_>) -> (Option<Manifest>, Vec<PconfProblem>) {
    let text = json::without_mark(bytes);
    let document = json::read(bytes);
    let mut notes = Notes { problems: document.problems, warnings: Vec::new() };
    if let Some(at) = document.tail {
        notes.warnings.push((at, "what follows the first value is ignored".into()));
    }
    let manifest = manifest(Object::new(document.start, document.entries, &mut notes), folder);
    let place = |(at, message): (usize, String)| json::problem(text, at, message);
    notes.warnings.sort_by_key(|(at, _)| *at);
    let warnings = notes.warnings.into_iter().map(|warning| place(warning).to_string()).collect();
    notes.problems.sort_by_key(|(at, _)| *at);
    let problems = notes.problems.into_iter().map(place).collect();
    (manifest.map(|manifest| Manifest { warnings, ..manifest }), problems)
}

/// The line and the column of what is behind these keys, one in the other.
pub(super) fn place_of(bytes: &[u8], keys: &[&str]) -> Option<(usize, usize)> {
    let mut entries = json::read(bytes).entries;
    let mut found = None;
    for key in keys {
        let entry = entries.into_iter().rev().find(|entry| entry.key.eq_ignore_ascii_case(key))?;
        entries = json::entries_of(&entry);
        found = Some(entry.at);
    }
    let problem = json::problem(json::without_mark(bytes), found?, String::new());
    Some((problem.line, problem.column))
}

/// What could be better.
pub(super) fn lint(manifest: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    for (what, text) in [("name", manifest.id.name()), ("namespace", manifest.id.namespace())] {
        if !text.is_empty() && !is_plain_name(text) {
            let shown = printable(text);
            found
                .push(format!("{what} `{shown}` is not [a-z0-9][a-z0-9._-]*: it has to be quoted in shells and paths"));
        }
    }
    found.extend(manifest.not_runnable());
    if manifest.source.mode == SourceMode::LocalSo {
        let unusable = route_labels(manifest).filter_map(|label| check_label(label).err());
        found.extend(unusable.map(|why| format!("`http_services.routes.label` {why}: it is no method")));
        if !manifest.exec.command.is_empty() || !manifest.exec.args.is_empty() {
            found.push("`exec.command` and `exec.args` mean nothing for a shared object".into());
        }
        if manifest.wire != ManifestWire::V1 {
            found.push("`wire` means nothing for a shared object".into());
        }
    }
    found
}

/// The labels of `http_services.routes`, however they are written.
pub(super) fn route_labels(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let routes = manifest.http_services.as_ref().and_then(|services| field(services, "routes")?.as_array());
    routes.into_iter().flatten().filter_map(|route| field(route, "label")?.as_str()).filter(|label| !label.is_empty())
}

/// A key of an object, without regard to ASCII case.
fn field<'v>(object: &'v Value, key: &str) -> Option<&'v Value> {
    object.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

/// What is wrong with a label, which is the name of a method.
pub(super) fn check_label(label: &str) -> Result<(), String> {
    if label == METHOD_EXECUTE {
        return Err(format!("`{METHOD_EXECUTE}` is the method that takes any label"));
    }
    check_call_name("label", label).map_err(|error| error.to_string())
}

fn manifest(mut top: Object<'_>, folder: Folder<'_>) -> Option<Manifest> {
    let id = id(&mut top, folder);
    let version = version(&mut top);
    let (source, exec) = program(&mut top);
    let build = build(&mut top);
    let description = top.string("description").map(|(_, text)| text);
    let maintainers = top.texts("maintainers", |_| Ok(()));
    let home = top.string("home").map(|(_, text)| text);
    let shared_object = shared_object(&mut top);
    let lazy_load = top.boolean("lazy_load").unwrap_or_default();
    let restart = restart(&mut top);
    let health = health(&mut top);
    let idle_stop = top.duration("idle_stop", SECOND..=LONGEST);
    let hooks = hooks(&mut top);
    let limits = limits(&mut top);
    let requires = requires(&mut top);
    let interfaces = top.texts("interfaces", check_interface);
    let wire = top.choice("wire", &ManifestWire::ALL).unwrap_or(ManifestWire::V1);
    let (settings, settings_schema) = (top.data("settings"), top.schema("settings_schema"));
    let (permissions, http_services) = (top.data("permissions"), top.data("http_services"));
    let unknown = top.finish();
    Some(Manifest {
        // What is not there or wrong is a problem, and noted.
        id: id.or_else(|| PluginId::new("", "unknown").ok())?,
        version: version.unwrap_or(Version::new(0, 0, 0)),
        description,
        maintainers,
        home,
        source: source?,
        build,
        exec: exec?,
        shared_object,
        lazy_load,
        restart,
        health,
        idle_stop,
        hooks,
        limits,
        requires,
        interfaces,
        wire,
        settings,
        settings_schema,
        permissions,
        http_services,
        unknown,
        warnings: Vec::new(),
    })
}

fn id(top: &mut Object<'_>, folder: Folder<'_>) -> Option<PluginId> {
    let (name, namespace) = (top.string("name"), top.string("namespace"));
    if name.is_none() {
        top.missing("name", "it is the name of the plugin's folder");
    }
    // Each is checked alone: both may be wrong, and each has its own place.
    if let Some((at, name)) = &name {
        match PluginId::new("", name) {
            Err(error) => top.problem(*at, error.to_string()),
            Ok(_) => {
                if let Some(folder) = folder.name.filter(|folder| folder != name) {
                    top.problem(*at, differs("name", name, folder));
                }
            }
        }
    }
    let (at, text) = namespace.unwrap_or((top.start, String::new()));
    match PluginId::new(&text, "x") {
        Err(error) => top.problem(at, error.to_string()),
        Ok(_) => {
            if let Some(folder) = folder.namespace.filter(|folder| *folder != text) {
                top.problem(at, differs("namespace", &text, folder));
            }
        }
    }
    PluginId::new(&text, &name?.1).ok()
}

fn differs(what: &str, text: &str, folder: &str) -> String {
    let (text, folder) = (printable(text), printable(folder));
    format!("{what} conflict: the folder is named `{folder}`, the file says `{text}`: rename one of the two")
}

fn version(top: &mut Object<'_>) -> Option<Version> {
    let Some((at, text)) = top.string("version") else {
        top.missing("version", "write a SemVer version such as `1.0.0`");
        return None;
    };
    match Version::parse(&text) {
        Ok(version) => Some(version),
        Err(error) => {
            let hint = completed(&text).map(|near| format!(": write `{near}`")).unwrap_or_default();
            top.wrong(at, "version", &format!("`{}` is no SemVer version ({error}){hint}", printable(&text)));
            None
        }
    }
}

/// What `v1` or `1.0` most likely means.
fn completed(text: &str) -> Option<Version> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    [String::new(), ".0".into(), ".0.0".into()].iter().find_map(|rest| Version::parse(&format!("{text}{rest}")).ok())
}

fn program(top: &mut Object<'_>) -> (Option<Source>, Option<Exec>) {
    let exec = top.object("exec").map(|mut exec| {
        let given = exec.string("command");
        let checked = given
            .clone()
            .filter(|(at, command)| check_command(command).map_err(|why| exec.wrong(*at, "command", &why)).is_ok());
        let args = exec.texts("args", check_text);
        let env = exec.map("env", |name, value| check_variable(name).and_then(|()| check_text(value)));
        let workdir = exec.checked("workdir", check_inside);
        exec.finish();
        (given.is_some(), Exec { command: checked.map(|(_, command)| command).unwrap_or_default(), args, env, workdir })
    });
    let names_program = exec.as_ref().is_some_and(|(given, _)| *given);
    let Some(mut source) = top.object("source") else {
        if !names_program {
            top.missing("source", "say what to run, such as {\"mode\": \"local_exec\", \"path\": \"bin/run\"}");
        }
        let source = Source { mode: SourceMode::LocalExec, path: String::new(), sha256: None };
        return (Some(source), exec.map(|(_, exec)| exec).or_else(|| Some(Exec::default())));
    };
    source.missing("mode", "one of `local_exec`, `local_so`, `remote_git`, `remote_url`");
    let mode = source.choice("mode", &SourceMode::ALL);
    let path = source.string("path");
    let sha256 = source.checked("sha256", |text| text.parse::<Sha256>().map(drop));
    let is_local = matches!(mode, Some(SourceMode::LocalExec | SourceMode::LocalSo));
    match &path {
        None if mode == Some(SourceMode::LocalExec) && names_program => {}
        None => source.missing("path", "a file of the plugin's folder, or where to get the plugin from"),
        Some((at, path)) if is_local => _ = check_path(path).map_err(|why| source.wrong(*at, "path", &why)),
        Some((at, path)) => {
            let sha256 = sha256.as_ref().and_then(|text| text.parse().ok());
            let remote = mode.map_or(Ok(()), |mode| check_remote(mode, path, sha256));
            _ = check_text(path).and(remote).map_err(|why| source.wrong(*at, "path", &why));
        }
    }
    source.finish();
    let sha256 = sha256.and_then(|text| text.parse().ok());
    let path = path.map(|(_, path)| path).unwrap_or_default();
    let mut exec = exec.map(|(_, exec)| exec).unwrap_or_default();
    if exec.command.is_empty() && !names_program && mode == Some(SourceMode::LocalExec) {
        // A path, even if it has no `/` in it.
        exec.command = if path.contains('/') { path.clone() } else { format!("./{path}") };
    }
    (mode.map(|mode| Source { mode, path, sha256 }), Some(exec))
}

/// What is wrong with the address of something that is not here.
fn check_remote(manifest_mode: SourceMode, path: &str, sha256: Option<Sha256>) -> Result<(), String> {
    let read = path.parse::<Locator>();
    match (manifest_mode, read) {
        (SourceMode::RemoteGit, Ok(Locator::Git(_))) => Ok(()),
        (SourceMode::RemoteGit, _) => match format!("git+{path}").parse() {
            Ok(Locator::Git(_)) => Ok(()),
            Ok(_) => Err("names no repository".into()),
            Err(why) => Err(format!("names no repository: {why}")),
        },
        (_, Ok(Locator::Url(url))) => match (url.sha256, sha256) {
            (None, None) => Err("needs a checksum: write `source.sha256`".into()),
            (Some(one), Some(other)) if one != other => Err("has another checksum than `source.sha256`".into()),
            _ => Ok(()),
        },
        (_, Ok(_)) => Err("is no address: write https://HOST/FILE".into()),
        (_, Err(why)) => Err(format!("is no address: {why}")),
    }
}

fn build(top: &mut Object<'_>) -> Build {
    let Some(mut build) = top.object("build") else { return Build::default() };
    let is_there = build.has("command");
    let command = build.texts("command", check_text);
    let include = build.texts("include", check_inside);
    build.finish();
    Build { command: is_there.then_some(command), include }
}

fn shared_object(top: &mut Object<'_>) -> SharedObject {
    let default = SharedObject::default();
    let Some(mut object) = top.object("shared_object") else { return default };
    let found = SharedObject {
        labels: object.texts("labels", check_label),
        concurrent: object.boolean("concurrent").unwrap_or(default.concurrent),
        grace: object.duration("grace", Duration::from_millis(100)..=LONGEST).unwrap_or(default.grace),
    };
    object.finish();
    found
}

fn restart(top: &mut Object<'_>) -> Restart {
    let default = Restart::default();
    let Some(mut restart) = top.object("restart") else { return default };
    let policies =
        [("always", RestartPolicy::Always), ("on_failure", RestartPolicy::OnFailure), ("never", RestartPolicy::Never)];
    let policy = restart.choice("policy", &policies).unwrap_or(default.policy);
    let max = restart.integer("max", 1..=1_000).and_then(|max| u32::try_from(max).ok()).unwrap_or(default.max);
    let window = restart.duration("window", SECOND..=LONGEST).unwrap_or(default.window);
    let mut backoff = default.backoff;
    if let Some(mut object) = restart.object("backoff") {
        let least = Duration::from_millis(10);
        backoff.first = object.duration("first", least..=LONGEST).unwrap_or(backoff.first);
        // A longer first pause than the longest makes all pauses equal.
        backoff.longest = object.duration("longest", least..=LONGEST).unwrap_or(backoff.longest).max(backoff.first);
        object.finish();
    }
    restart.finish();
    Restart { policy, max, window, backoff }
}

fn health(top: &mut Object<'_>) -> Health {
    let default = Health::default();
    let Some(mut health) = top.object("health") else { return default };
    let least = Duration::from_millis(100);
    let found = Health {
        interval: health.duration("interval", least..=LONGEST).unwrap_or(default.interval),
        timeout: health.duration("timeout", least..=LONGEST).unwrap_or(default.timeout),
        failures: health.integer("failures", 1..=100).and_then(|n| u32::try_from(n).ok()).unwrap_or(default.failures),
    };
    health.finish();
    found
}

fn hooks(top: &mut Object<'_>) -> Hooks {
    let Some(mut hooks) = top.object("hooks") else { return Hooks::default() };
    let found = Hooks {
        pre_start: command(&mut hooks, "pre_start"),
        post_start: command(&mut hooks, "post_start"),
        pre_stop: command(&mut hooks, "pre_stop"),
        post_stop: command(&mut hooks, "post_stop"),
    };
    hooks.finish();
    found
}

/// A program and its arguments.
fn command(hooks: &mut Object<'_>, key: &'static str) -> Vec<String> {
    let mut first = true;
    hooks.list(key, |_, element| {
        let text = text_of(element)?;
        if std::mem::take(&mut first) { check_command(&text) } else { check_text(&text) }?;
        Ok(text)
    })
}

fn limits(top: &mut Object<'_>) -> MaxUse {
    let Some(mut limits) = top.object("limits") else { return MaxUse::default() };
    let found = MaxUse {
        // Less than 1 MiB holds no program.
        memory: limits.bytes("memory", 1 << 20..=1 << 50),
        // Standard streams, a socket, a connection and some libraries.
        open_files: limits.integer("open_files", 16..=1 << 20),
        processes: limits.integer("processes", 1..=1 << 22),
        cpu_milli: limits.milli("cpu", 10..=1_000_000),
    };
    limits.finish();
    found
}

fn requires(top: &mut Object<'_>) -> Vec<Requirement> {
    top.list("requires", |top, element| match text_of(element) {
        Ok(text) => {
            let wanted = PluginRef::parse(&text).map_err(|error| error.to_string())?;
            let plugin = wanted.id().map_err(|error| error.to_string())?;
            Ok(Requirement { plugin, range: wanted.range.unwrap_or(VersionReq::STAR) })
        }
        Err(_) => required(top, element),
    })
}

/// `{"plugin": …, "range": …}`.
fn required(top: &mut Object<'_>, element: &Entry) -> Result<Requirement, String> {
    let is_object = serde_json::from_str::<Value>(&element.value).is_ok_and(|value| value.is_object());
    if !is_object {
        return Err("must hold strings such as \"Test/Do@^1.2\", or objects {\"plugin\": …, \"range\": …}".into());
    }
    let mut object = top.element("requires", element);
    let (plugin, range) = (object.string("plugin"), object.string("range"));
    object.finish();
    let (_, plugin) = plugin.ok_or("must say which `plugin`")?;
    let plugin = PluginId::parse(&plugin).map_err(|error| error.to_string())?;
    let range = range.map_or(Ok(VersionReq::STAR), |(_, range)| parse_range(&range));
    Ok(Requirement { plugin, range: range.map_err(|error| error.to_string())? })
}

/// `NAME@VERSION`.
fn check_interface(text: &str) -> Result<(), String> {
    let shown = printable(text);
    let Some((name, version)) = text.rsplit_once('@') else {
        return Err(format!("`{shown}` has no version: write NAME@VERSION, such as `calculator@1.0.0`"));
    };
    check_call_name("interface", name).map_err(|error| error.to_string())?;
    Version::parse(version).map_err(|error| format!("`{shown}` names no SemVer version behind the `@` ({error})"))?;
    Ok(())
}
