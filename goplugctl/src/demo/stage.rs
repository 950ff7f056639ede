//! What the demo works with: a fresh folder, a registry that watches it, and the plugin's processes.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use goplug_pconf_schema::admin::Notification;
use goplug_pconf_schema::{Code, Fault, PluginId};
use goplug_registry::Registry;
use tempfile::TempDir;

use super::process::Process;
use super::{cannot, curl};
use crate::args::{Cli, Verb};
use crate::commands;
use crate::duration::show;
use crate::failure::Failure;
use crate::output::text::quoted;
use crate::output::{ColorChoice, Out};
use crate::session::Session;
use crate::target::{Directory, Items, Target};

/// The plugin of the demo.
pub(super) const PLUGIN: &str = "Test/Do";
/// The longest folder whose sockets still fit into an address of 107 bytes.
const MAX_FOLDER_BYTES: usize = 80;

/// Everything that the steps use.
pub(super) struct Stage {
    folder: Option<TempDir>,
    path: PathBuf,
    pub(super) registry: Registry,
    pub(super) target: Arc<dyn Target>,
    pub(super) process: Option<Process>,
    /// What the process that was killed left behind.
    pub(super) dead_socket: Option<PathBuf>,
    keep: bool,
    out: Out,
}

/// Why a step is not what it must be.
#[derive(Debug)]
pub(super) enum Mismatch {
    /// A result is another one.
    Result(String),
    /// Our own output failed.
    Output(Failure),
}

impl Mismatch {
    pub(super) fn into_failure(self, what: String) -> Failure {
        match self {
            Self::Result(text) => Failure::new(what, Fault::new(Code::Internal, text)),
            Self::Output(failure) => failure,
        }
    }
}

impl From<String> for Mismatch {
    fn from(text: String) -> Self {
        Self::Result(text)
    }
}

impl From<Fault> for Mismatch {
    fn from(fault: Fault) -> Self {
        Self::Result(format!("{}: {}", fault.code, fault.message))
    }
}

impl From<io::Error> for Mismatch {
    fn from(error: io::Error) -> Self {
        Self::Output(error.into())
    }
}

/// What a verb did.
pub(super) struct Played {
    pub(super) text: String,
    pub(super) exit: u8,
}

impl Played {
    /// Checks the exit code and that the output holds all of `parts`.
    pub(super) fn expect(&self, exit: u8, parts: &[&str]) -> Result<(), Mismatch> {
        if self.exit != exit {
            return Err(format!("the exit code is {}, it must be {exit}", self.exit).into());
        }
        match parts.iter().find(|part| !self.text.contains(**part)) {
            Some(part) => Err(format!("the output does not say `{part}`").into()),
            None => Ok(()),
        }
    }
}

impl Stage {
    /// Makes the folder and opens a registry on it that loads what appears.
    pub(super) async fn open(keep: bool) -> Result<Self, Failure> {
        let folder = new_folder().map_err(|error| cannot("cannot make a folder for the demo", error))?;
        let path = folder.path().to_owned();
        let opened = Registry::builder(&path).auto_discover(true).caller("goplugctl-demo").open().await;
        let registry = opened.map_err(|fault| Failure::new("cannot open a registry for the demo", fault))?;
        let target = Arc::new(Directory::on(registry.clone()));
        let out = Out::stdout(None, false, ColorChoice::Never);
        Ok(Self { folder: Some(folder), path, registry, target, process: None, dead_socket: None, keep, out })
    }

    /// The plugin directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The plugin's name, parsed.
    pub(super) fn plugin() -> Result<PluginId, Mismatch> {
        PluginId::parse(PLUGIN).map_err(|error| error.to_string().into())
    }

    /// Writes to standard output.
    pub(super) fn print(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.bytes(text.as_bytes())?)
    }

    /// Shows a command line, what it printed, and what to know besides.
    pub(super) fn show(&mut self, line: &str, output: &str, remark: &str) -> io::Result<()> {
        let mut text = format!("   $ {line}\n");
        for line in output.lines() {
            text.push_str(&format!("   {line}\n"));
        }
        text.push_str(&format!("   ({remark})\n"));
        self.out.bytes(text.as_bytes())
    }

    /// The command line that does on this folder what `words` say.
    pub(super) fn line(&self, words: &[&str]) -> String {
        let folder = self.path.display().to_string();
        let all = ["goplugctl", "--dir", folder.as_str()];
        all.iter().chain(words).map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    /// Carries out a verb as the command line does, and shows it.
    pub(super) async fn play(&mut self, words: &[&str]) -> Result<Played, Mismatch> {
        let begun = Instant::now();
        let played = self.carry_out(words).await?;
        self.show(&self.line(words), &played.text, &show(begun.elapsed()))?;
        Ok(played)
    }

    /// Does the rest of the verb `listen` on a stream that is open already.
    pub(super) async fn listen(&self, items: Items<Notification>, words: &[&str]) -> Result<Played, Mismatch> {
        let cli = parsed(words)?;
        let Verb::Listen(args) = &cli.verb else { return Err("this is not `listen`".to_owned().into()) };
        let (mut session, written) = self.session(&cli);
        if let Err(failure) = commands::listen_to(&mut session, args, &Self::plugin()?, items).await {
            session.tell(&failure);
        }
        Ok(Played { text: written.text(), exit: session.exit() })
    }

    /// Carries out a verb as the command line does.
    pub(super) async fn carry_out(&self, words: &[&str]) -> Result<Played, Mismatch> {
        let cli = parsed(words)?;
        let (mut session, written) = self.session(&cli);
        if let Err(failure) = Box::pin(commands::run(&mut session, &cli.verb)).await {
            session.tell(&failure);
        }
        Ok(Played { text: written.text(), exit: session.exit() })
    }

    fn session(&self, cli: &Cli) -> (Session, Written) {
        let written = Written::default();
        let out = Out::to(written.clone(), cli.global.output);
        (Session::with(Arc::clone(&self.target), out, Aside(written.clone())), written)
    }

    /// Starts the plugin's process.
    pub(super) fn start(&mut self) -> Result<(), Mismatch> {
        self.process =
            Some(Process::start(&self.path, self.keep).map_err(|error| format!("cannot start the plugin: {error}"))?);
        Ok(())
    }

    /// The plugin's socket.
    pub(super) async fn socket(&self) -> Result<PathBuf, Mismatch> {
        let detail = self.target.inspect(&Self::plugin()?).await?;
        detail.summary.socket.map(PathBuf::from).ok_or_else(|| "the plugin has no socket".to_owned().into())
    }

    /// Removes the folder and says whether anything is left of it.
    pub(super) fn remove_folder(&mut self) -> Result<(), Mismatch> {
        let removed = self.folder.take().map_or(Ok(()), TempDir::close);
        removed.map_err(|error| format!("`{}` cannot be removed: {error}", self.path.display()))?;
        if self.path.exists() { Err(format!("`{}` is still there", self.path.display()).into()) } else { Ok(()) }
    }

    /// Leaves everything as it is and says what to try.
    pub(super) async fn keep(&mut self) -> Result<(), Failure> {
        let call = self.line(&["execute", PLUGIN, "Do", "hello"]);
        let why = self.line(&["why", PLUGIN]);
        let socket = self.socket().await.map_err(|mismatch| mismatch.into_failure("cannot find the socket".into()))?;
        let end = format!(
            "{} && rm -r {}",
            self.line(&["unload", "--stop", PLUGIN]),
            quoted(&self.path.display().to_string())
        );
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
        if let Some(process) = self.process.take() {
            process.leave();
        }
        self.print(&format!(
            "\neverything goes on; try\n  {call}\n  {why}\n  {}\nand end it with\n  {end}\n",
            curl::line(&socket, "hello")
        ))
    }
}

fn parsed(words: &[&str]) -> Result<Cli, Mismatch> {
    let all = std::iter::once("goplugctl").chain(words.iter().copied());
    Cli::try_parse_from(all).map_err(|error| error.to_string().into())
}

/// A folder whose name is short enough for sockets in it.
fn new_folder() -> io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("goplug-demo-").permissions(Permissions::from_mode(0o700));
        builder
    };
    let folder = builder().tempdir()?;
    if folder.path().as_os_str().len() <= MAX_FOLDER_BYTES { Ok(folder) } else { builder().tempdir_in("/tmp") }
}

/// Everything that a verb wrote, results and errors, in order.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a verb wrote to stderr, on a line of its own.
struct Aside(Written);

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !matches!(self.0.text().as_bytes().last(), None | Some(b'\n')) {
            self.0.write_all(b"\n")?;
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
