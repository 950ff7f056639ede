//! `goplugd.toml`: what an operator sets (`docs/platform.md` lists environment variables and flags beside it).

mod keys;

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::MAX_SOCKET_PATH_BYTES;
use crate::wire::call::{DEFAULT_DEADLINE_MS, MAX_DEADLINE_MS};
use crate::wire::life::DEFAULT_DRAIN_MS;
use keys::Keys;

/// The largest settings file that is read.
pub const MAX_SETTINGS_BYTES: usize = 1024 * 1024;

/// All settings of the daemon. Every key is optional. Paths that are not absolute are relative to the folder of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Settings {
    /// Folders in which plugins are looked for.
    pub plugin_dirs: Vec<PathBuf>,
    /// Whether plugins are found and loaded as they appear.
    pub auto_discover: bool,
    /// What the names of plugin files end in; begins with a dot.
    pub extension: String,
    /// The daemon's own socket; by default in the user's runtime folder.
    pub socket: Option<PathBuf>,
    /// Where the daemon keeps its lock; by default beside the socket.
    pub state_dir: Option<PathBuf>,
    /// Where the records and sockets of plugins that are started lie; by default `goplug/hosts` in the runtime folder.
    pub hosts_dir: Option<PathBuf>,
    /// Further folders in which plugins may have their sockets.
    pub socket_dirs: Vec<PathBuf>,
    /// Users, beside our own and root, whose plugins are trusted.
    pub allow_uids: Vec<u32>,
    /// Whether a plugin that starts itself may run only the program that it ran first, or that was approved since.
    pub pin_executables: bool,
    /// Where the programs that are trusted are recorded; by default `goplug` in the user's state folder.
    pub trust_dir: Option<PathBuf>,
    /// Whether a caller that waits for a reply looks for it before it sleeps.
    pub latency: Latency,
    /// What is logged, such as `info` or `goplug_registry=debug`.
    pub log: Option<String>,
    /// Whose packages are taken.
    pub trust: TrustSettings,
    /// How much of everything.
    pub limits: LimitSettings,
    /// How long everything may take.
    pub deadlines: DeadlineSettings,
}

/// Whether, and how long, a reader of a connection looks for bytes before it sleeps; in applications and plugins too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Latency {
    /// Answers as soon as can be: a reader looks for a fifth of a millisecond before each sleep.
    Low,
    /// A reader looks for at most a tenth of a millisecond, and only while that proves useful.
    #[default]
    Balanced,
    /// A reader sleeps at once.
    Frugal,
}

/// Whose packages are taken: the table `[trust]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct TrustSettings {
    /// Public keys of minisign whose packages are taken, besides those that `goplugctl trust add` has named.
    pub keys: Vec<String>,
    /// What becomes of a package that nobody signed.
    pub unsigned: Unsigned,
}

/// What becomes of a package that nobody signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unsigned {
    /// It is refused, whoever asks for it.
    Refuse,
    /// It is taken when whoever installs it says so.
    #[default]
    Ask,
    /// It is taken.
    Allow,
}

impl Unsigned {
    /// The words that it is written with.
    pub const WORDS: [(&str, Self); 3] = [("refuse", Self::Refuse), ("ask", Self::Ask), ("allow", Self::Allow)];
}

impl std::str::FromStr for Unsigned {
    type Err = String;

    /// # Errors
    /// Says which words there are.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
        found.ok_or_else(|| format!("`{}` is none of refuse, ask, allow", crate::printable(text)))
    }
}

/// Whether a text may be a public key of minisign: 56 characters of base64 that begin with `RW`.
///
/// # Errors
/// Says what it must be.
pub fn check_key(text: &str) -> Result<(), &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    match text.len() == 56 && text.starts_with("RW") && text.bytes().all(fits) {
        true => Ok(()),
        false => Err("is no public key of minisign: 56 characters that begin with RW"),
    }
}

/// How much of everything: the table `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// The largest reply of a plugin; beyond it `too_large`. 1 to 4 GiB.
    #[schemars(range(min = 1, max = 4_294_967_296_u64))]
    pub max_reply_bytes: u64,
    /// Calls of one plugin at once; beyond it `overloaded`.
    #[schemars(range(min = 1))]
    pub max_concurrent_calls: u32,
    /// Plugins in all folders together; what is beyond it is not discovered.
    #[schemars(range(min = 1))]
    pub max_plugins: u32,
}

/// How long everything may take: the table `[deadlines]`, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct DeadlineSettings {
    /// A call whose caller and method name no deadline. 1 ms to a day.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub default_call_ms: u64,
    /// Calls under way when a plugin is unloaded or the daemon ends. 0 to a day.
    #[schemars(range(max = 86_400_000))]
    pub drain_ms: u64,
    /// From one scan of the folders to the next, even if no file event arrives. 10 ms to a day.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub rescan_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plugin_dirs: Vec::new(),
            auto_discover: true,
            extension: ".pconf".into(),
            socket: None,
            state_dir: None,
            hosts_dir: None,
            socket_dirs: Vec::new(),
            allow_uids: Vec::new(),
            pin_executables: false,
            trust_dir: None,
            latency: Latency::default(),
            log: None,
            trust: TrustSettings::default(),
            limits: LimitSettings::default(),
            deadlines: DeadlineSettings::default(),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { max_reply_bytes: 64 * 1024 * 1024, max_concurrent_calls: 256, max_plugins: 16_384 }
    }
}

impl Default for DeadlineSettings {
    fn default() -> Self {
        Self { default_call_ms: DEFAULT_DEADLINE_MS, drain_ms: DEFAULT_DRAIN_MS, rescan_ms: 1_000 }
    }
}

impl Settings {
    /// Reads `text`, the content of the file `file_name`.
    ///
    /// # Errors
    /// Every problem of the file, in the order of the text: what is no TOML, a key that does not exist, a value of
    /// another type or out of range.
    pub fn parse_toml(text: &str, file_name: &str) -> Result<Self, Vec<SettingsProblem>> {
        let mut problems = Vec::new();
        let settings = read(text, Path::new(file_name), &mut problems);
        if problems.is_empty() {
            return Ok(settings);
        }
        problems.sort_by_key(|(at, _)| *at);
        Err(problems.into_iter().map(|(at, message)| SettingsProblem::new(text, file_name, at, message)).collect())
    }
}

fn read(text: &str, file: &Path, problems: &mut Vec<(usize, String)>) -> Settings {
    let mut settings = Settings::default();
    if text.len() > MAX_SETTINGS_BYTES {
        problems.push((0, format!("the file is {} bytes, the limit is {MAX_SETTINGS_BYTES}", text.len())));
        return settings;
    }
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in errors {
        problems.push((error.span().map_or(0, |span| span.start), crate::printable(error.message())));
    }
    let mut top = Keys::new("", Some(document.get_ref()), file.parent(), problems);
    top.paths("plugin_dirs", &mut settings.plugin_dirs);
    top.boolean("auto_discover", &mut settings.auto_discover);
    top.string("extension", &mut settings.extension, check_extension);
    top.path("socket", &mut settings.socket, MAX_SOCKET_PATH_BYTES);
    top.path("state_dir", &mut settings.state_dir, usize::MAX);
    top.path("hosts_dir", &mut settings.hosts_dir, MAX_SOCKET_PATH_BYTES);
    top.paths("socket_dirs", &mut settings.socket_dirs);
    top.integers("allow_uids", &mut settings.allow_uids);
    top.boolean("pin_executables", &mut settings.pin_executables);
    top.path("trust_dir", &mut settings.trust_dir, usize::MAX);
    let latencies = [("low", Latency::Low), ("balanced", Latency::Balanced), ("frugal", Latency::Frugal)];
    top.choice("latency", &mut settings.latency, &latencies);
    top.optional_string("log", &mut settings.log, check_log);
    let (trust, limits, deadlines) = (top.table("trust"), top.table("limits"), top.table("deadlines"));
    top.finish();

    let mut keys = Keys::new("trust", trust, None, problems);
    keys.strings("keys", &mut settings.trust.keys, check_key);
    keys.choice("unsigned", &mut settings.trust.unsigned, &Unsigned::WORDS);
    keys.finish();

    let mut keys = Keys::new("limits", limits, None, problems);
    keys.integer("max_reply_bytes", &mut settings.limits.max_reply_bytes, 1..=1 << 32);
    keys.integer("max_concurrent_calls", &mut settings.limits.max_concurrent_calls, 1..=u32::MAX);
    keys.integer("max_plugins", &mut settings.limits.max_plugins, 1..=u32::MAX);
    keys.finish();

    let mut keys = Keys::new("deadlines", deadlines, None, problems);
    keys.integer("default_call_ms", &mut settings.deadlines.default_call_ms, 1..=MAX_DEADLINE_MS);
    keys.integer("drain_ms", &mut settings.deadlines.drain_ms, 0..=MAX_DEADLINE_MS);
    keys.integer("rescan_ms", &mut settings.deadlines.rescan_ms, 10..=MAX_DEADLINE_MS);
    keys.finish();
    settings
}

/// Whether the names of plugins' files may end so.
///
/// # Errors
/// What is wrong with it, to be said behind its name.
pub fn check_extension(extension: &str) -> Result<(), &'static str> {
    if !extension.starts_with('.') || extension.len() < 2 {
        return Err("must begin with a dot, as in `.pconf`");
    }
    if extension.contains(['/', '\0']) {
        return Err("must not hold `/` or NUL: it is the end of a file's name");
    }
    Ok(())
}

/// Whether this says what is logged: a level, or with commas between, a level per part of the program
/// (`warn,goplugd=debug`). A word that is no level would be taken for the name of a part, and nothing else be logged.
///
/// # Errors
/// What is wrong with it, to be said behind its name.
pub fn check_log(text: &str) -> Result<(), &'static str> {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| level.eq_ignore_ascii_case(word))
    };
    let says = |part: &str| match part.rsplit_once('=') {
        Some((name, level)) => !name.is_empty() && is_level(level),
        None => is_level(part),
    };
    if text.split(',').all(says) {
        return Ok(());
    }
    Err("must be error, warn, info, debug, trace or off, or with commas between also PART=LEVEL")
}

/// One problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// The file as it was named.
    pub file: String,
    /// Counts from 1.
    pub line: usize,
    /// Counts characters from 1.
    pub column: usize,
    /// What, which one, the limit, and what to do: a lowercase fragment without a dot, safe to show.
    pub message: String,
}

impl SettingsProblem {
    fn new(text: &str, file: &str, at: usize, message: String) -> Self {
        let (line, column) = crate::text::line_and_column(text.as_bytes(), at);
        Self { file: file.to_owned(), line, column, message }
    }
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", crate::printable(&self.file), self.line, self.column, self.message)
    }
}

impl std::error::Error for SettingsProblem {}

#[cfg(test)]
mod tests;
