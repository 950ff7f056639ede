//! What the daemon is told, in layers: default, file, environment, flag.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_pconf_schema::settings::{MAX_SETTINGS_BYTES, Settings, check_extension, check_key, check_log};
use goplug_registry::{Builder, Registry};

use crate::args::Args;

/// Where everything that the daemon is told comes from; the file is read again at each [`Layers::load`].
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    flags: Args,
    environment: BTreeMap<String, OsString>,
}

impl Layers {
    /// Keeps the flags and what the environment says to us; a reload sees the same again.
    pub(crate) fn new(flags: Args, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = |name: &str| name.starts_with("GOPLUG_") || name == "XDG_RUNTIME_DIR";
        let pairs = environment.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self { flags, environment: pairs.filter(|(name, value)| ours(name) && !value.is_empty()).collect() }
    }

    /// Reads the file, if one is named, and lays environment and flags over it. All paths of the result are absolute.
    ///
    /// # Errors
    /// Every problem of every layer, one text each.
    pub(crate) fn load(&self) -> Result<Settings, Vec<String>> {
        let (mut settings, mut problems) = match self.read_file() {
            Ok(settings) => (settings, Vec::new()),
            Err(problems) => (Settings::default(), problems),
        };
        self.overlay(&mut settings, &mut problems);
        if settings.plugin_dirs.is_empty() && problems.is_empty() {
            problems.push("no plugin directory: give --plugin-dir DIR, GOPLUG_PLUGIN_DIRS, or plugin_dirs in the configuration file".into());
        }
        make_absolute(&mut settings, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// The socket of the API.
    pub(crate) fn socket(&self, settings: &Settings) -> PathBuf {
        let runtime = || self.environment.get("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/run"), PathBuf::from);
        settings.socket.clone().unwrap_or_else(|| runtime().join("goplug/goplugd.sock"))
    }

    /// The state folder: by default the folder of the socket.
    pub(crate) fn state_dir(&self, settings: &Settings) -> PathBuf {
        let beside = || self.socket(settings).parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        settings.state_dir.clone().unwrap_or_else(beside)
    }

    fn read_file(&self) -> Result<Settings, Vec<String>> {
        let named = self.flags.config.clone().or_else(|| self.environment.get("GOPLUG_CONFIG").map(PathBuf::from));
        let Some(path) = named else { return Ok(Settings::default()) };
        let unreadable = |error: std::io::Error| vec![format!("configuration file {}: {error}", path.display())];
        // Absolute, because the paths in the file are relative to its folder.
        let path = std::path::absolute(&path).map_err(unreadable)?;
        let mut text = String::new();
        // One byte more than allowed, so that a file that is too large is refused and not cut.
        let limit = MAX_SETTINGS_BYTES as u64 + 1;
        File::open(&path).and_then(|file| file.take(limit).read_to_string(&mut text)).map_err(unreadable)?;
        let problems = |problems: Vec<_>| problems.iter().map(ToString::to_string).collect();
        Settings::parse_toml(&text, &path.to_string_lossy())
            .map_err(|found: Vec<goplug_pconf_schema::settings::SettingsProblem>| problems(found))
    }

    fn overlay(&self, settings: &mut Settings, problems: &mut Vec<String>) {
        let variable = |name: &str| self.environment.get(name).map(OsString::as_os_str);
        let path = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        let mut wrong = Vec::new();
        let mut text =
            |flag: &Option<String>, name: &str| flag.clone().or_else(|| utf8(name, variable(name)?, problems));

        if let Some(extension) = text(&self.flags.extension, "GOPLUG_EXTENSION") {
            let from = if self.flags.extension.is_some() { "--extension" } else { "GOPLUG_EXTENSION" };
            let told = |why| format!("{from} `{}` {why}", goplug_pconf_schema::printable(&extension));
            wrong.extend(check_extension(&extension).err().map(told));
            settings.extension = extension;
        }
        if let Some(filter) = text(&self.flags.log, "GOPLUG_LOG") {
            let from = if self.flags.log.is_some() { "--log" } else { "GOPLUG_LOG" };
            let told = |why| format!("{from} `{}` {why}", goplug_pconf_schema::printable(&filter));
            wrong.extend(check_log(&filter).err().map(told));
            settings.log = Some(filter);
        }
        let switches = [
            ("GOPLUG_AUTO_DISCOVER", self.flags.auto_discover, &mut settings.auto_discover),
            ("GOPLUG_PIN_EXECUTABLES", self.flags.pin_executables, &mut settings.pin_executables),
        ];
        for (name, flag, setting) in switches {
            let Some(word) = text(&flag.map(|on| on.to_string()), name) else { continue };
            match word.as_str() {
                "true" | "1" => *setting = true,
                "false" | "0" => *setting = false,
                other => {
                    wrong.push(format!("{name} is `{}`: use true or false", goplug_pconf_schema::printable(other)))
                }
            }
        }
        if let Some(word) = text(&None, "GOPLUG_UNSIGNED") {
            match word.parse() {
                Ok(unsigned) => settings.trust.unsigned = unsigned,
                Err(why) => wrong.push(format!("GOPLUG_UNSIGNED: {why}")),
            }
        }
        if let Some(list) = text(&None, "GOPLUG_TRUST_KEYS") {
            settings.trust.keys = list.split(',').map(|key| key.trim().to_owned()).collect();
            for key in &settings.trust.keys {
                let told = |why| format!("GOPLUG_TRUST_KEYS: `{}` {why}", goplug_pconf_schema::printable(key));
                wrong.extend(check_key(key).err().map(told));
            }
        }
        problems.extend(wrong);
        if !self.flags.plugin_dirs.is_empty() {
            settings.plugin_dirs.clone_from(&self.flags.plugin_dirs);
        } else if let Some(list) = variable("GOPLUG_PLUGIN_DIRS") {
            settings.plugin_dirs =
                std::env::split_paths(list).filter(|directory| !directory.as_os_str().is_empty()).collect();
        }
        settings.socket = path(&self.flags.socket, "GOPLUG_SOCKET").or(settings.socket.take());
        settings.state_dir = path(&self.flags.state_dir, "GOPLUG_STATE_DIR").or(settings.state_dir.take());
        settings.hosts_dir = path(&None, "GOPLUG_HOSTS_DIR").or(settings.hosts_dir.take());
        settings.trust_dir = path(&None, "GOPLUG_TRUST_DIR").or(settings.trust_dir.take());
    }
}

fn utf8(name: &str, value: &OsStr, problems: &mut Vec<String>) -> Option<String> {
    let text = value.to_str().map(str::to_owned);
    if text.is_none() {
        problems.push(format!("{name} is no UTF-8"));
    }
    text
}

/// The working directory of a daemon is nobody's business later on; a directory that is named twice is one.
fn make_absolute(settings: &mut Settings, problems: &mut Vec<String>) {
    let mut absolute = |path: &mut PathBuf| match std::path::absolute(&*path) {
        Ok(found) => *path = found.components().collect(),
        Err(error) => problems.push(format!("path {}: {error}", path.display())),
    };
    settings.plugin_dirs.iter_mut().for_each(&mut absolute);
    settings.socket_dirs.iter_mut().for_each(&mut absolute);
    settings.socket.iter_mut().for_each(&mut absolute);
    settings.state_dir.iter_mut().for_each(&mut absolute);
    settings.hosts_dir.iter_mut().for_each(&mut absolute);
    settings.trust_dir.iter_mut().for_each(&mut absolute);
    let mut seen = std::collections::HashSet::new();
    settings.plugin_dirs.retain(|directory| seen.insert(directory.clone()));
}

/// How the registry of each plugin directory is to be opened.
pub(crate) fn registries(settings: &Settings) -> Vec<(PathBuf, Builder)> {
    let (limits, deadlines) = (&settings.limits, &settings.deadlines);
    let builder = |directory: &PathBuf| {
        let builder = Registry::builder(directory)
            .auto_discover(settings.auto_discover)
            .extension(&settings.extension)
            .socket_dirs(settings.socket_dirs.clone())
            .allow_uids(settings.allow_uids.clone())
            .pin_executables(settings.pin_executables)
            .trust_keys(settings.trust.keys.clone())
            .unsigned(settings.trust.unsigned)
            .max_reply_bytes(usize::try_from(limits.max_reply_bytes).unwrap_or(usize::MAX))
            .latency(settings.latency)
            .max_plugins(limits.max_plugins as usize)
            .max_concurrent_calls(limits.max_concurrent_calls)
            .rescan_interval(Duration::from_millis(deadlines.rescan_ms))
            .call_deadline(Duration::from_millis(deadlines.default_call_ms))
            .drain(drain(settings))
            .caller("goplugd");
        let builder = match &settings.trust_dir {
            Some(folder) => builder.trust_dir(folder),
            None => builder,
        };
        match &settings.hosts_dir {
            Some(folder) => builder.hosts_dir(folder),
            None => builder,
        }
    };
    settings.plugin_dirs.iter().map(|directory| (directory.clone(), builder(directory))).collect()
}

/// How long calls under way may take to finish.
pub(crate) fn drain(settings: &Settings) -> Duration {
    Duration::from_millis(settings.deadlines.drain_ms)
}

/// What a reload cannot change: the names of the keys that differ.
pub(crate) fn fixed_until_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let fixed = [
        ("socket", old.socket != new.socket),
        ("state_dir", old.state_dir != new.state_dir),
        ("hosts_dir", old.hosts_dir != new.hosts_dir),
        ("log", old.log != new.log),
    ];
    fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use goplug_pconf_schema::settings::{TrustSettings, Unsigned};

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn layers(flags: &[&str], environment: &[(&str, &str)]) -> Layers {
        let flags = Args::try_parse_from(std::iter::once(&"goplugd").chain(flags)).unwrap();
        Layers::new(flags, environment.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_flag_outranks_the_environment_and_that_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("goplugd.toml");
        std::fs::write(
            &file,
            "plugin_dirs = ['from-file']\nextension = '.file'\nauto_discover = false\n[trust]\nunsigned = 'allow'\n[limits]\nmax_plugins = 7\n",
        )
        .unwrap();
        let config = format!("--config={}", file.display());
        let of_file = dir.path().join("from-file");

        let settings = layers(&[&config], &[]).load().unwrap();
        assert_eq!(
            (settings.plugin_dirs, settings.extension.as_str(), settings.auto_discover, settings.trust.unsigned),
            (vec![of_file], ".file", false, Unsigned::Allow)
        );

        let environment = [
            ("GOPLUG_PLUGIN_DIRS", "/e1:/e2:/e1/"),
            ("GOPLUG_EXTENSION", ".env"),
            ("GOPLUG_AUTO_DISCOVER", "1"),
            ("GOPLUG_LOG", "debug"),
            ("GOPLUG_UNSIGNED", "refuse"),
            ("GOPLUG_TRUST_KEYS", KEY),
        ];
        let settings = layers(&[&config], &environment).load().unwrap();
        assert_eq!(settings.trust, TrustSettings { keys: vec![KEY.into()], unsigned: Unsigned::Refuse });
        assert_eq!(settings.plugin_dirs, [Path::new("/e1"), Path::new("/e2")]);
        assert_eq!(
            (settings.extension.as_str(), settings.auto_discover, settings.log.as_deref()),
            (".env", true, Some("debug"))
        );

        let flags = [&config, "--plugin-dir=/f", "--extension=.flag", "--auto-discover=false"];
        let settings = layers(&flags, &environment).load().unwrap();
        assert_eq!(settings.plugin_dirs, [Path::new("/f")]);
        assert_eq!(
            (settings.extension.as_str(), settings.auto_discover, settings.limits.max_plugins),
            (".flag", false, 7)
        );
    }

    #[test]
    fn every_problem_of_every_layer_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bad.toml");
        std::fs::write(&file, "auto_discover = 3\nplugin_dir = 'x'\n").unwrap();
        let environment = [("GOPLUG_AUTO_DISCOVER", "maybe"), ("GOPLUG_EXTENSION", "pconf"), ("GOPLUG_LOG", "loud")];
        let problems = layers(&[&format!("--config={}", file.display())], &environment).load().unwrap_err();
        let told = [
            "bad.toml:1:",
            "bad.toml:2:",
            "GOPLUG_AUTO_DISCOVER",
            "GOPLUG_EXTENSION `pconf` must",
            "GOPLUG_LOG `loud`",
        ];
        let places: Vec<bool> = told.iter().map(|place| problems.iter().any(|text| text.contains(place))).collect();
        assert_eq!((places, problems.len()), (vec![true; 5], 5), "{problems:?}");
        let problems = layers(&["--plugin-dir=/p", "--extension=.a/b", "--log=loud"], &[]).load().unwrap_err();
        assert!(problems.len() == 2 && problems[0].starts_with("--extension `.a/b`"), "{problems:?}");

        assert!(layers(&[], &[]).load().unwrap_err()[0].contains("--plugin-dir"));
        assert!(layers(&["--config=/does/not/exist"], &[]).load().unwrap_err()[0].contains("/does/not/exist"));
        let huge = dir.path().join("huge.toml");
        std::fs::write(&huge, "#".repeat(MAX_SETTINGS_BYTES + 2)).unwrap();
        assert!(layers(&[&format!("--config={}", huge.display())], &[]).load().unwrap_err()[0].contains("limit"));
    }

    #[test]
    fn socket_and_state_folder_have_their_places() {
        let place = |flags: &[&str], environment: &[(&str, &str)]| {
            let layers = layers(flags, environment);
            let settings = layers.load().unwrap();
            (layers.socket(&settings), layers.state_dir(&settings))
        };
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        for (flags, environment, socket, state) in [
            (vec!["--plugin-dir=/p"], vec![], "/run/goplug/goplugd.sock", "/run/goplug"),
            (vec!["--plugin-dir=/p"], vec![runtime], "/run/user/7/goplug/goplugd.sock", "/run/user/7/goplug"),
            (vec!["--plugin-dir=/p", "--state-dir=/s"], vec![runtime, ("GOPLUG_SOCKET", "/x/s")], "/x/s", "/s"),
            (vec!["--plugin-dir=/p", "--socket=/y/s"], vec![("GOPLUG_SOCKET", "/x/s")], "/y/s", "/y"),
        ] {
            assert_eq!(place(&flags, &environment), (socket.into(), state.into()));
        }
    }

    #[test]
    fn a_reload_says_what_it_cannot_change() {
        let old = Settings::default();
        let new = Settings {
            log: Some("debug".into()),
            socket: Some("/s".into()),
            auto_discover: false,
            ..Settings::default()
        };
        assert_eq!(fixed_until_restart(&old, &new), ["socket", "log"]);
        assert!(fixed_until_restart(&old, &old).is_empty());
    }
}
