//! A plugin as users see it: from what its supervisor publishes to the answers of `list` and `inspect`.

use std::path::Path;
use std::sync::atomic::Ordering;

use goplug_pconf_schema::admin::{InstalledDetail, MethodList, PluginDetail, PluginSummary, State};
use goplug_pconf_schema::manifest::MANIFEST_NAME;
use goplug_pconf_schema::wire::hello::Hello;
use goplug_pconf_schema::{Code, Fault};

use crate::discovery::Refusal;
use crate::finder::InstalledPlugin;
use crate::supervisor::{Slot, View, Wire};

fn is_manifest(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == MANIFEST_NAME)
}

/// The row of a plugin.
pub(crate) fn summary(slot: &Slot) -> PluginSummary {
    summary_of(slot, &slot.view())
}

fn summary_of(slot: &Slot, view: &View) -> PluginSummary {
    let live = slot.live();
    let seen = view.seen.as_deref();
    let (pconf, hello) = (&view.found.pconf, seen.and_then(|seen| seen.hello.as_ref()));
    // A pid is shown only while it is known to belong to the plugin.
    let pid = match view.state {
        State::Loaded | State::Draining => live.as_ref().map(|live| live.peer.pid()),
        State::Discovered => seen.map(|seen| seen.pid),
        _ => None,
    };
    let wire = live.as_ref().map(|live| live.wire).or(seen.map(|seen| seen.wire));
    PluginSummary {
        namespace: slot.id.namespace().to_owned(),
        name: slot.id.name().to_owned(),
        version: hello.and_then(|hello| hello.version.clone()).or_else(|| pconf.version.clone()),
        state: view.state,
        lazy_load: pconf.lazy_load,
        pid,
        socket: Some(text(&view.found.socket)),
        pconf: (!is_manifest(&view.file)).then(|| text(&view.file)),
        manifest: None,
        methods: hello.map(|hello| hello.methods.iter().map(|method| method.name.clone()).collect()),
        protocol: wire.and_then(Wire::number),
        since: view.since.clone(),
        last_error: view.last_error.as_ref().map(ToString::to_string),
        versions: Vec::new(),
        pinned: None,
    }
}

/// The row of a file that is not used.
pub(crate) fn refused(file: &Path, refusal: &Refusal, since: &str) -> PluginSummary {
    let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (namespace, name) = match &refusal.id {
        Some(id) => (id.namespace().to_owned(), id.name().to_owned()),
        None => (String::new(), file_name),
    };
    PluginSummary {
        namespace,
        name,
        version: None,
        state: refusal.kind.state(),
        lazy_load: false,
        pid: None,
        socket: None,
        pconf: Some(text(file)),
        manifest: None,
        methods: None,
        protocol: None,
        since: since.to_owned(),
        last_error: Some(refusal.reason.clone()),
        versions: Vec::new(),
        pinned: None,
    }
}

/// The row of a manifest that is not used; without a name it is known by its folder.
pub(crate) fn refused_manifest(file: &Path, refusal: &Refusal, since: &str) -> PluginSummary {
    let row = refused(file.parent().unwrap_or(file), refusal, since);
    PluginSummary { pconf: None, manifest: Some(text(file)), ..row }
}

/// The row of a plugin that is installed and has no process.
pub(crate) fn installed(plugin: &InstalledPlugin) -> PluginSummary {
    let manifest = &plugin.found.manifest;
    PluginSummary {
        namespace: plugin.id.namespace().to_owned(),
        name: plugin.id.name().to_owned(),
        version: Some(manifest.version.to_string()),
        state: plugin.state,
        lazy_load: manifest.lazy_load,
        pid: None,
        socket: None,
        pconf: None,
        manifest: Some(text(&plugin.file)),
        methods: None,
        protocol: None,
        since: plugin.since.clone(),
        last_error: plugin.last_error.as_ref().map(ToString::to_string),
        versions: Vec::new(),
        pinned: None,
    }
}

/// All that is known of a plugin that is installed and has no process.
pub(crate) fn detail_installed(plugin: &InstalledPlugin, conflicts: Vec<String>) -> PluginDetail {
    let manifest = &plugin.found.manifest;
    PluginDetail {
        summary: installed(plugin),
        description: manifest.description.clone(),
        url: None,
        epoch: None,
        active: None,
        transport: None,
        health: None,
        uid: None,
        method_details: Vec::new(),
        interfaces: Vec::new(),
        callbacks: Vec::new(),
        limits: None,
        unknown: manifest.unknown.clone(),
        warnings: plugin.found.warnings.clone(),
        conflicts,
        in_flight: 0,
        calls: 0,
        installed: Some(manifest_of(plugin)),
        process: None,
        executable: None,
    }
}

/// What a manifest says, for people.
pub(crate) fn manifest_of(plugin: &InstalledPlugin) -> InstalledDetail {
    let manifest = &plugin.found.manifest;
    InstalledDetail {
        version: manifest.version.to_string(),
        folder: text(&plugin.found.folder),
        source: manifest.source.mode,
        command: manifest.command_line(),
        wire: manifest.wire,
        requires: manifest.requires.iter().map(|wanted| format!("{}@{}", wanted.plugin, wanted.range)).collect(),
        interfaces: manifest.interfaces.clone(),
        maintainers: manifest.maintainers.clone(),
        home: manifest.home.clone(),
        origin: None,
    }
}

/// All that is known of a plugin; `conflicts` are other files that claim its pair.
pub(crate) fn detail(slot: &Slot, conflicts: Vec<String>) -> PluginDetail {
    let view = slot.view();
    let live = slot.live();
    let seen = view.seen.as_deref();
    let hello: Option<&Hello> = seen.and_then(|seen| seen.hello.as_ref());
    let summary = summary_of(slot, &view);
    let is_v1 = summary.protocol.is_some_and(|protocol| protocol > 0);
    let pconf = &view.found.pconf;
    PluginDetail {
        description: hello.and_then(|hello| hello.description.clone()).or_else(|| pconf.description.clone()),
        url: Some(pconf.url.clone()),
        epoch: hello.filter(|_| is_v1).map(|hello| hello.epoch.clone()).or_else(|| pconf.epoch.clone()),
        active: match view.state {
            State::Loaded | State::Draining if is_v1 => Some(true),
            State::Discovered if is_v1 => Some(false),
            _ => None,
        },
        transport: live.as_ref().map(|live| live.transport()),
        health: None,
        uid: summary.pid.and(seen.map(|seen| seen.uid)),
        method_details: hello.map(|hello| hello.methods.clone()).unwrap_or_default(),
        callbacks: hello.map(|hello| hello.callbacks.clone()).unwrap_or_default(),
        interfaces: hello.map(|hello| hello.interfaces.clone()).unwrap_or_default(),
        limits: hello.filter(|_| is_v1).map(|hello| hello.limits),
        unknown: pconf.unknown.clone(),
        warnings: view.found.warnings.clone(),
        conflicts,
        in_flight: live.as_ref().map_or(0, |live| live.in_flight()),
        calls: live.as_ref().map_or(0, |live| live.calls.load(Ordering::Relaxed)),
        installed: None,
        process: None,
        executable: None,
        summary,
    }
}

/// The methods, when somebody told them: a v1 plugin's hello, or a v0 plugin's activation.
pub(crate) fn methods(slot: &Slot) -> Result<MethodList, Fault> {
    let view = slot.view();
    let seen = view.seen.as_deref().and_then(|seen| Some((seen.wire, seen.hello.as_ref()?)));
    let told = seen.filter(|(wire, _)| *wire == Wire::V1 || slot.live().is_some());
    match told {
        Some((wire, hello)) => {
            let (methods, interfaces) = (hello.methods.clone(), hello.interfaces.clone());
            let untold = || {
                let text =
                    format!("plugin `{}` speaks the wire of tilotech/go-plugin, which tells no methods", slot.id);
                Fault::new(Code::WrongState, text)
            };
            let protocol = wire.number().ok_or_else(untold)?;
            Ok(MethodList { plugin: slot.id.clone(), protocol, methods, interfaces })
        }
        None if view.state == State::Discovered || view.state == State::Stopped => {
            let text = format!("plugin `{}` is {}: its methods are known once it is loaded", slot.id, view.state);
            Err(Fault::new(Code::WrongState, text))
        }
        None => Err(slot.not_callable()),
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
