//! The command line as data. Every verb and every flag says here what it does.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use goplug_pconf_schema::wire::event::Position;
use goplug_pconf_schema::{Grant, RollbackOn, Sha256};

use crate::duration;
use crate::output::{ColorChoice, Format};
use crate::target::Awaited;

/// Begins a shielded word: no argument of a process can hold it.
const SHIELD: &str = "\0";

/// The longest time that `bench` measures, or warms up.
const MAX_BENCH: Duration = Duration::from_secs(3600);
/// The largest body that `bench` makes up: what a plugin takes unless its author says otherwise.
const MAX_BENCH_BYTES: usize = 64 * 1024 * 1024;

/// The command line of GoPlug.
#[derive(Debug, Parser)]
#[command(
    name = "goplugctl",
    version,
    about = "See, call and hear plugins: in a directory (--dir) or through a running goplugd.",
    after_help = "Exit codes, names, output: `goplugctl help exit-codes`, `names`, `output`, `targets`.\nAn unknown verb is looked for as `goplugctl-VERB` in PATH.",
    disable_help_subcommand = true,
    allow_external_subcommands = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Work on this plugin directory, without a daemon [env: GOPLUG_DIR]
    #[arg(short, long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Work on the daemon that listens here [env: GOPLUG_SOCKET]
    #[arg(short = 'S', long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How results are written: table, wide, json, jsonl, yaml or name
    #[arg(short, long, global = true, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Option<Format>,
    /// Say nothing about what was changed
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// When to use colour: auto, always or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: ColorChoice,
    /// Give up after this time, such as 500ms, 10s or 1m; of `execute` and `bench`, a call's deadline
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    /// Of several plugins, stop at the first that fails
    #[arg(long, global = true)]
    pub(crate) fail_fast: bool,
    /// Answer yes to every question
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List plugins and their states
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show how many plugins are in which state, or the state of one
    Status(OptionalPlugin),
    /// Show all that is known of plugins, without activating them
    Inspect(Plugins),
    /// Print a plugin's .pconf, or else its plugin.json, as it is on disk
    Cat(OnePlugin),
    /// List a plugin's methods
    Methods(OnePlugin),
    /// List a plugin's callbacks and who subscribed to them
    Callbacks(OnePlugin),
    /// Explain why a plugin or a file is callable, or what is missing and which command mends it
    Why(WhyArgs),
    /// Check this machine, the daemon and the plugin directory
    Doctor,
    /// Show what happened to plugins, and with -f what goes on
    Events(EventsArgs),
    /// Tell whether plugins are known (exit code 0, else 4)
    IsDiscovered(Plugins),
    /// Tell whether plugins are loaded (exit code 0, known but not loaded 3, unknown 4)
    IsLoaded(Plugins),
    /// Wait until a plugin is loaded, discovered or gone, or notifies a callback
    Wait(WaitArgs),
    /// Activate plugins
    Load(Plugins),
    /// Deactivate plugins; with --stop their processes leave
    Unload(UnloadArgs),
    /// Deactivate plugins and activate them again
    Reload(Plugins),
    /// Start the processes of installed plugins, after those that they require
    Start(Plugins),
    /// Stop the processes of plugins: calls finish, then they leave, or are killed
    Stop(Plugins),
    /// Stop the processes of installed plugins and start others
    Restart(Plugins),
    /// Let installed plugins run again
    Enable(Plugins),
    /// Stop installed plugins, and keep them from running until they are enabled
    Disable(Plugins),
    /// Show what the process of an installed plugin wrote, and with -f what it goes on to write
    Logs(LogsArgs),
    /// Look at the plugin directory now
    Rescan,
    /// Measure the way to a plugin and back
    Ping(PingArgs),
    /// Call a method: bytes in, bytes out
    #[command(visible_aliases = ["exec", "call"])]
    Execute(ExecuteArgs),
    /// Load a plugin if need be, and call its one method, or Execute, with JSON values
    Run(RunArgs),
    /// Measure calls of a method: how many, how long they take, which fail
    Bench(BenchArgs),
    /// Print a callback's notifications as they come, holding nobody back
    Listen(ListenArgs),
    /// Bring a package or the folder of a plugin, or of another version of it, into the plugin directory
    Install(InstallArgs),
    /// Take installed plugins, or single versions of them, out of the plugin directory
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Make another version of an installed plugin current; if it does not come up, the one before goes on
    Upgrade(UpgradeArgs),
    /// Make the version current that was so before
    Rollback(RollbackArgs),
    /// Let only some versions of an installed plugin become current
    Pin(PinArgs),
    /// Show what another version changes in the manifest, in methods and in schemas (exit code 11 if anything)
    Diff(DiffArgs),
    /// Check .pconf files, plugin.json folders and packages, read only
    Lint(LintArgs),
    /// Make a package of the folder of a plugin
    Pack(PackArgs),
    /// Build a plugin from a git repository, and make a package of it
    Build(BuildArgs),
    /// Look for packages in an index: a folder of packages, or one behind a web server
    Search(SearchArgs),
    /// Get a package out of an index, to install it or hand it on
    Pull(PullArgs),
    /// Put a package into a folder and into its index
    Push(PushArgs),
    /// Say whose packages are taken, and which programs plugins that start themselves may run
    #[command(subcommand)]
    Trust(TrustVerb),
    /// Run, show or stop the daemon
    #[command(subcommand)]
    Daemon(DaemonVerb),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write the manual pages into a folder
    Man(ManArgs),
    /// Show everything at work, with plugins of its own, and check it
    Demo(DemoArgs),
    /// Print the version
    Version,
    /// Explain a verb or a topic
    Help(HelpArgs),
    /// A program `goplugctl-VERB`.
    #[command(external_subcommand)]
    External(Vec<OsString>),
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only these: NAME, NAMESPACE/NAME or a quoted glob such as 'Test/*', with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugins: Vec<String>,
    /// Go on, and show a plugin again when something about it has changed
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// One plugin.
#[derive(Debug, Args)]
pub(crate) struct OnePlugin {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
}

/// One plugin or none.
#[derive(Debug, Args)]
pub(crate) struct OptionalPlugin {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: Option<String>,
}

/// Several plugins.
#[derive(Debug, Args)]
pub(crate) struct Plugins {
    /// The plugins: NAME, NAMESPACE/NAME or a quoted glob such as 'Test/*', with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", required_unless_present = "all", value_parser = whole)]
    pub(crate) plugins: Vec<String>,
    /// All plugins
    #[arg(short, long, conflicts_with = "plugins")]
    pub(crate) all: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The plugin, or the file that should be one
    #[arg(value_name = "PLUGIN|FILE", value_parser = whole)]
    pub(crate) subject: String,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// Go on with what it writes from now on, across restarts of the plugin and of the daemon
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The plugin: NAME (of the empty namespace while it is not there) or NAMESPACE/NAME
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// What to wait for: loaded, discovered, gone or callback=NAME
    #[arg(long = "for", value_name = "WHAT", default_value = "loaded", value_parser = awaited)]
    pub(crate) what: Awaited,
}

/// `unload`.
#[derive(Debug, Args)]
pub(crate) struct UnloadArgs {
    /// Which plugins.
    #[command(flatten)]
    pub(crate) plugins: Plugins,
    /// How long calls and acknowledgements may take to finish [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) drain: Option<Duration>,
    /// End the process too
    #[arg(long)]
    pub(crate) stop: bool,
}

/// `ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Which plugins.
    #[command(flatten)]
    pub(crate) plugins: Plugins,
    /// How many times
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
}

/// `execute`.
#[derive(Debug, Args)]
pub(crate) struct ExecuteArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// The method
    #[arg(value_name = "METHOD", value_parser = whole)]
    pub(crate) method: String,
    /// The body.
    #[command(flatten)]
    pub(crate) body: BodyArgs,
    /// Load the plugin first if it is not loaded
    #[arg(long)]
    pub(crate) load: bool,
    /// Write the reply to a terminal as it is, even if it does not print
    #[arg(long)]
    pub(crate) raw: bool,
    /// Call this many times; prints the first reply, and times on stderr
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) count: u64,
    /// Calls under way at once, with --count
    #[arg(short = 'P', long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) parallel: u16,
}

/// The body of a call.
#[derive(Debug, Args)]
pub(crate) struct BodyArgs {
    /// The body: the text itself, @FILE, or - for standard input [default: empty]
    #[arg(value_name = "DATA", value_parser = whole)]
    pub(crate) data: Option<String>,
    /// DATA is JSON: it is checked, and sent as application/json
    #[arg(long, group = "encoding")]
    pub(crate) json: bool,
    /// DATA is bytes in hex
    #[arg(long, group = "encoding")]
    pub(crate) hex: bool,
    /// DATA is bytes in base64
    #[arg(long, group = "encoding")]
    pub(crate) base64: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// The method
    #[arg(value_name = "METHOD", value_parser = whole)]
    pub(crate) method: String,
    /// The body of every call, instead of --size.
    #[command(flatten)]
    pub(crate) body: BodyArgs,
    /// How long to measure, at most 1h; Ctrl-C ends it early and shows what was measured
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = measured)]
    pub(crate) time: Duration,
    /// How long to call before that without measuring, at most 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = warm_up)]
    pub(crate) warmup: Duration,
    /// The body without DATA: this many bytes `x`, at most 67108864 (64 MiB)
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = size, conflicts_with = "data")]
    pub(crate) size: usize,
    /// Calls under way at once, at most 1024; with the body's size, at most 1 GiB in all
    #[arg(short = 'P', long, value_name = "P", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) parallel: u16,
    /// Load the plugin first if it is not loaded
    #[arg(long)]
    pub(crate) load: bool,
}

/// `listen`.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// The callback
    #[arg(value_name = "CALLBACK", value_parser = whole)]
    pub(crate) callback: String,
    /// End after this many notifications
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Begin after this position instead of now
    #[arg(long, value_name = "EPOCH:SEQ")]
    pub(crate) after: Option<Position>,
    /// Write the payloads' bytes and nothing else
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// A package, the folder of a plugin or the plugin.json in it, the address of a package, or a git repository
    #[arg(value_name = "FILE|DIR|URL|GIT")]
    pub(crate) source: PathBuf,
    /// What will do.
    #[command(flatten)]
    pub(crate) how: SourceArgs,
    /// The permissions that it may have besides those granted before: names with commas between, or `all` [default: asks]
    #[arg(long, value_name = "LIST|all")]
    pub(crate) grant: Option<Grant>,
    /// Check everything, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What of a source will do.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Take a package of this machine that nobody signed
    #[arg(long)]
    pub(crate) allow_unsigned: bool,
    /// What the package at an address must have; it need not be signed then
    #[arg(long, value_name = "HEX", value_parser = clap::value_parser!(Sha256))]
    pub(crate) sha256: Option<Sha256>,
    /// Run the build of a repository without asking; it may do whatever you may do
    #[arg(long)]
    pub(crate) build: bool,
}

/// `remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Which plugins; one version of one: NAME@1.2.0
    #[command(flatten)]
    pub(crate) plugins: Plugins,
    /// Stop what runs first
    #[arg(long)]
    pub(crate) stop: bool,
    /// Check everything, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `upgrade`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// The new version, as `install` takes it [default: the newest that is installed and not pinned away]
    #[arg(value_name = "FILE|DIR|URL|GIT")]
    pub(crate) source: Option<PathBuf>,
    /// Take it back when in its first minute more of its calls fail than this, such as err>1%; needs a daemon
    #[arg(long, value_name = "RULE")]
    pub(crate) rollback_on: Option<RollbackOn>,
    /// An older version than the current one will do
    #[arg(long)]
    pub(crate) downgrade: bool,
    /// What will do.
    #[command(flatten)]
    pub(crate) how: SourceArgs,
    /// The permissions that it may have besides those granted before: names with commas between, or `all` [default: asks]
    #[arg(long, value_name = "LIST|all")]
    pub(crate) grant: Option<Grant>,
    /// Check everything, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// Check everything, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `pin`.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// The versions that may become current, such as ^1.2 or =1.2.0
    #[arg(value_name = "RANGE", required_unless_present = "clear")]
    pub(crate) range: Option<String>,
    /// All of them again
    #[arg(long, conflicts_with = "range")]
    pub(crate) clear: bool,
}

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// A package, a folder, the plugin.json in it, or @VERSION for one that is installed [default: what upgrade leads to]; a version that
    /// does not run is started for its hello, not activated, and ended
    #[arg(value_name = "FILE|DIR|@VERSION")]
    pub(crate) against: Option<PathBuf>,

    /// Take a package that nobody signed; its program is run, too
    #[arg(long)]
    pub(crate) allow_unsigned: bool,
}

/// `lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Files, packages, folders of plugins, or plugin directories
    #[arg(value_name = "FILE|DIR", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

/// `pack`.
#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// The folder, with a plugin.json in it
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,

    /// The package; by default NAMESPACE-NAME-VERSION.plg in the current folder
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Sign it with this secret key, a file of `minisign -G`; its password is asked for, or read from GOPLUG_KEY_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Check everything, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A repository, as `install` takes it, or a folder of this machine that is one: what is committed there is built
    #[arg(value_name = "DIR|GIT")]
    pub(crate) source: PathBuf,
    /// The package; by default NAMESPACE-NAME-VERSION.plg in the current folder
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Sign it with this secret key, as `pack` does
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Tell what would be run, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which index.
#[derive(Debug, Clone, Args)]
pub(crate) struct IndexArgs {
    /// A folder with an index.json, the file itself, or its address, which may end in `/` [env: GOPLUG_INDEX]
    #[arg(long, value_name = "DIR|FILE|URL")]
    pub(crate) index: Option<PathBuf>,
}

/// `search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What the name, the description or an interface holds [default: all]
    #[arg(value_name = "TEXT", value_parser = whole, default_value = "", hide_default_value = true)]
    pub(crate) text: String,
    /// Where to look.
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    /// All versions, not the newest alone
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do; the newest of them comes
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// Where to look.
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    /// The package; by default NAMESPACE-NAME-VERSION.plg in the current folder
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The package
    #[arg(value_name = "FILE")]
    pub(crate) package: PathBuf,
    /// The folder; its index.json is made if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Check everything, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The plugin: NAME or NAMESPACE/NAME, with @RANGE if only some versions will do
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// The method [default: Execute if there is one, else the only one]
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// The body, JSON: the text itself, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) values: String,
}

/// `trust`.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustVerb {
    /// List the programs that are recorded, or the keys whose packages are taken
    List(TrustListArgs),
    /// Take packages that are signed with a key
    Add(TrustAddArgs),
    /// Take packages that are signed with a key no more
    Remove(TrustRemoveArgs),
    /// Show what a plugin may run, and what it runs
    Show(OnePlugin),
    /// Let a plugin run the program that it runs now
    Approve(ApproveArgs),
    /// Forget what a plugin may run: the next program that it runs is taken as the first
    Revoke(OnePlugin),
}

/// `trust list`.
#[derive(Debug, Args)]
pub(crate) struct TrustListArgs {
    /// The keys instead of the programs
    #[arg(long)]
    pub(crate) keys: bool,
}

/// `trust add`.
#[derive(Debug, Args)]
pub(crate) struct TrustAddArgs {
    /// A public key of minisign, or the .pub file with it
    #[arg(value_name = "KEY|FILE")]
    pub(crate) key: String,
    /// Whose it is
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
}

/// `trust remove`.
#[derive(Debug, Args)]
pub(crate) struct TrustRemoveArgs {
    /// The public key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

/// `trust approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The plugin: NAME or NAMESPACE/NAME
    #[arg(value_name = "PLUGIN", value_parser = whole)]
    pub(crate) plugin: String,
    /// Only if the program's digest is this
    #[arg(long, value_name = "HEX", value_parser = clap::value_parser!(Sha256))]
    pub(crate) sha256: Option<Sha256>,
}

/// `daemon`.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonVerb {
    /// Run the daemon in the foreground; arguments after `run` are goplugd's own
    Run(DaemonRunArgs),
    /// Show whether the daemon runs, and what it serves
    Status,
    /// Tell the daemon to drain and leave, and wait until it is gone
    Stop,
}

/// `daemon run`.
#[derive(Debug, Args)]
pub(crate) struct DaemonRunArgs {
    /// Arguments of goplugd, such as --plugin-dir DIR; `-- --help` lists them
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder; it is made if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave everything running and say what to try
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `help`.
#[derive(Debug, Args)]
pub(crate) struct HelpArgs {
    /// A verb, or one of: exit-codes, names, output, targets
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
}

/// Whether a script reads, told from words that may make no sense.
pub(crate) fn asks_for_json(words: &[OsString]) -> bool {
    let is_json = |format: &OsStr| format == "json" || format == "jsonl";
    let before = words.split(|word| word == "--").next().unwrap_or_default();
    before.windows(2).any(|pair| (pair[0] == "-o" || pair[0] == "--output") && is_json(&pair[1]))
        || before.iter().any(|word| {
            let bytes = word.as_bytes();
            let format = bytes.strip_prefix(b"--output=").or_else(|| bytes.strip_prefix(b"-o"));
            format.is_some_and(|format| is_json(OsStr::from_bytes(format.strip_prefix(b"=").unwrap_or(format))))
        })
}

/// A word as the parser of the command line takes it: `-/NAME`, a plugin without a namespace, would be a flag.
pub(crate) fn shielded(word: OsString) -> OsString {
    if !word.as_bytes().starts_with(b"-/") {
        return word;
    }
    let mut shield = OsString::from(SHIELD);
    shield.push(word);
    shield
}

/// What was shielded, as it was written.
pub(crate) fn unshielded(word: &OsStr) -> &OsStr {
    OsStr::from_bytes(word.as_bytes().strip_prefix(SHIELD.as_bytes()).unwrap_or(word.as_bytes()))
}

fn whole(word: &str) -> Result<String, Infallible> {
    Ok(word.strip_prefix(SHIELD).unwrap_or(word).to_owned())
}

/// Reads `bench --time`.
fn measured(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("nothing can be measured in no time".into()),
        time => at_most_an_hour(time),
    }
}

/// Reads `bench --warmup`.
fn warm_up(text: &str) -> Result<Duration, String> {
    at_most_an_hour(duration::parse(text)?)
}

fn at_most_an_hour(time: Duration) -> Result<Duration, String> {
    if time > MAX_BENCH { Err("the limit is 1h".into()) } else { Ok(time) }
}

/// Reads `bench --size`.
fn size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "write a number of bytes".to_owned())?;
    if size > MAX_BENCH_BYTES { Err(format!("the limit is {MAX_BENCH_BYTES} bytes (64 MiB)")) } else { Ok(size) }
}

/// Reads what `wait --for` waits for.
fn awaited(text: &str) -> Result<Awaited, String> {
    match text {
        "loaded" => Ok(Awaited::Loaded),
        "discovered" => Ok(Awaited::Discovered),
        "gone" => Ok(Awaited::Gone),
        _ => match text.strip_prefix("callback=") {
            Some(name) => {
                goplug_pconf_schema::check_call_name("callback", name).map_err(|error| error.to_string())?;
                Ok(Awaited::Callback(name.to_owned()))
            }
            None => Err("write loaded, discovered, gone or callback=NAME".into()),
        },
    }
}

#[cfg(test)]
mod tests;
