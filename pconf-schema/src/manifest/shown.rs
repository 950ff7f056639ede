//! A manifest as a document again, with every default in its place: what two of them differ in.

use std::time::Duration;

use serde_json::{Value, json};

use super::Manifest;
use crate::units::show_duration;

impl Manifest {
    /// All that it says and all that it leaves to the defaults, with the keys of the file.
    pub fn to_value(&self) -> Value {
        let time = |duration: Duration| Value::from(show_duration(duration));
        let requires: Vec<_> =
            self.requires.iter().map(|wanted| format!("{}@{}", wanted.plugin, wanted.range)).collect();
        let mut value = json!({
            "name": self.id.name(),
            "namespace": self.id.namespace(),
            "version": self.version.to_string(),
            "description": self.description,
            "maintainers": self.maintainers,
            "home": self.home,
            "source": { "mode": self.source.mode, "path": self.source.path, "sha256": self.source.sha256 },
            "build": { "command": self.build.command, "include": self.build.include },
            "exec": {
                "command": self.exec.command,
                "args": self.exec.args,
                "env": self.exec.env,
                "workdir": self.exec.workdir,
            },
            "shared_object": {
                "labels": self.shared_object.labels,
                "concurrent": self.shared_object.concurrent,
                "grace": time(self.shared_object.grace),
            },
            "lazy_load": self.lazy_load,
            "restart": {
                "policy": self.restart.policy,
                "max": self.restart.max,
                "window": time(self.restart.window),
                "backoff": { "first": time(self.restart.backoff.first), "longest": time(self.restart.backoff.longest) },
            },
            "health": {
                "interval": time(self.health.interval),
                "timeout": time(self.health.timeout),
                "failures": self.health.failures,
            },
            "idle_stop": self.idle_stop.map(time),
            "hooks": {
                "pre_start": self.hooks.pre_start,
                "post_start": self.hooks.post_start,
                "pre_stop": self.hooks.pre_stop,
                "post_stop": self.hooks.post_stop,
            },
            "limits": {
                "memory": self.limits.memory,
                "open_files": self.limits.open_files,
                "processes": self.limits.processes,
                "cpu_milli": self.limits.cpu_milli,
            },
            "requires": requires,
            "interfaces": self.interfaces,
            "wire": self.wire,
            "settings": self.settings,
            "settings_schema": self.settings_schema,
            "permissions": self.permissions,
            "http_services": self.http_services,
        });
        if let Some(keys) = value.as_object_mut() {
            keys.extend(self.unknown.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        value
    }
}
