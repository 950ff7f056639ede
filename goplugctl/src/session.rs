//! One run of one verb: where it works, what it writes, what failed so far.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::PluginId;
use goplug_pconf_schema::admin::{PluginSummary, State};

use crate::args::{Global, Plugins};
use crate::exit_code;
use crate::failure::Failure;
use crate::output::{Out, Style};
use crate::pick;
use crate::target::{Daemon, Directory, Place, Target, choose, flags};

/// What every verb gets.
pub(crate) struct Session {
    /// Where the verb works.
    pub(crate) target: Arc<dyn Target>,
    /// Where results go.
    pub(crate) out: Out,
    /// The flags with which another command works there.
    pub(crate) flags: String,
    /// `--timeout`.
    pub(crate) timeout: Option<Duration>,
    fail_fast: bool,
    yes: bool,
    errors: Box<dyn Write + Send + Sync>,
    errors_style: Style,
    worst: u8,
}

/// Whether a row is a plugin. One without a socket is a file that makes none, unless it is installed: nothing can be done
/// with it.
fn is_plugin(row: &PluginSummary) -> bool {
    let is_refused = matches!(row.state, State::Invalid | State::Denied);
    row.socket.is_some() || (row.manifest.is_some() && !is_refused)
}

/// What several names turned out to be.
pub(crate) struct Picked {
    /// The plugins, each once.
    pub(crate) plugins: Vec<PluginId>,
    /// Whether exactly one was named: its result is one document, not a list.
    pub(crate) one: bool,
}

impl Session {
    /// Finds the target that the flags mean. `may_be_missing`: a directory that is not there is no error yet.
    ///
    /// # Errors
    /// There is no such target.
    pub(crate) async fn open(global: &Global, may_be_missing: bool) -> Result<Self, Failure> {
        let target: Arc<dyn Target> = match choose(global.dir.clone(), global.socket.clone())? {
            Place::Socket(path) => Arc::new(Daemon::new(path)),
            Place::Directory(path) => {
                let opened = Directory::open(&path, may_be_missing).await;
                Arc::new(opened.map_err(|fault| Failure::new("cannot work on the directory", fault))?)
            }
        };
        let out = Out::stdout(global.output, global.quiet, global.color);
        let errors_style = Style::choose(global.color, io::stderr().is_terminal());
        let (fail_fast, yes, timeout) = (global.fail_fast, global.yes, global.timeout);
        Ok(Self {
            target,
            out,
            flags: flags(global.dir.as_deref(), global.socket.as_deref()),
            timeout,
            fail_fast,
            yes,
            errors: Box::new(io::stderr()),
            errors_style,
            worst: exit_code::DONE,
        })
    }

    /// A session on any target, which writes where it is told.
    pub(crate) fn with(target: Arc<dyn Target>, out: Out, errors: impl Write + Send + Sync + 'static) -> Self {
        let worst = exit_code::DONE;
        Self {
            target,
            out,
            flags: String::new(),
            timeout: None,
            fail_fast: false,
            yes: true,
            errors: Box::new(errors),
            errors_style: Style::Plain,
            worst,
        }
    }

    /// The plugin that is meant by one name.
    ///
    /// # Errors
    /// No plugin or more than one has this name, or its version will not do.
    pub(crate) async fn one(&self, what: &str, name: &str) -> Result<PluginId, Failure> {
        if name.contains('@') {
            let known = self.candidates(what, true).await?;
            if let Some(wanted) = pick::ranged(what, name, &known)? {
                // Here `*` and `?` are no patterns.
                let whole = wanted.name.contains('/');
                let plugin =
                    if whole { pick::whole(what, &wanted.name)? } else { pick::bare(what, &wanted.name, &known)? };
                let name = format!("{plugin}{}", &name[wanted.name.len()..]);
                return Ok(pick::any(what, &name, &known)?.pop().unwrap_or(plugin));
            }
        }
        if name.contains('/') {
            return pick::whole(what, name);
        }
        pick::bare(what, name, &self.candidates(what, false).await?)
    }

    /// All rows; with the versions that plugins tell, where they matter.
    async fn candidates(&self, what: &str, with_versions: bool) -> Result<Vec<PluginSummary>, Failure> {
        let rows = if with_versions { self.target.list().await } else { self.target.known().await };
        rows.map_err(|fault| Failure::new(what, fault))
    }

    /// The plugins that are meant by several names, globs or `--all`. A name that fits none is told, and the others go on.
    ///
    /// # Errors
    /// The plugins cannot be listed, nothing is meant, or with `--fail-fast` the first name that fits none.
    pub(crate) async fn several(&mut self, what: &str, meant: &Plugins) -> Result<Picked, Failure> {
        let one = !meant.all && matches!(meant.plugins.as_slice(), [name] if !pick::is_glob(name));
        let ranged = meant.plugins.iter().any(|name| name.contains('@'));
        let known = if one && !ranged && meant.plugins.iter().all(|name| name.contains('/')) {
            Vec::new()
        } else {
            self.candidates(what, ranged).await?.into_iter().filter(is_plugin).collect()
        };
        let mut plugins: Vec<PluginId> = Vec::new();
        if meant.all {
            plugins.extend(known.iter().filter_map(PluginSummary::id));
        }
        for name in &meant.plugins {
            match pick::any(what, name, &known) {
                Ok(found) => plugins.extend(found),
                Err(failure) if one => return Err(failure),
                Err(failure) => self.failed(failure)?,
            }
        }
        let mut seen = std::collections::HashSet::new();
        plugins.retain(|plugin| seen.insert(plugin.clone()));
        Ok(Picked { plugins, one })
    }

    /// Takes note of a failure of one of several and tells it.
    ///
    /// # Errors
    /// With `--fail-fast`, or when nobody reads our output any more: the failure, untold, to end the verb with.
    pub(crate) fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.fail_fast || failure.reader_left() {
            return Err(failure);
        }
        self.tell(&failure);
        Ok(())
    }

    /// Whether the first failure ends the verb.
    pub(crate) fn is_fail_fast(&self) -> bool {
        self.fail_fast
    }

    /// Tells a failure, and remembers its exit code if it is the highest so far.
    pub(crate) fn tell(&mut self, failure: &Failure) {
        if failure.reader_left() {
            return;
        }
        let text = failure.render(self.out.is_json(), self.errors_style == Style::Color, &self.flags);
        self.say(&text);
        self.exit_with(failure.exit());
    }

    /// Writes to stderr. Nobody can be told that this failed.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = self.errors.write_all(text.as_bytes());
    }

    /// The exit code will be at least this.
    pub(crate) fn exit_with(&mut self, exit: u8) {
        self.worst = self.worst.max(exit);
    }

    /// The highest exit code so far.
    pub(crate) fn exit(&self) -> u8 {
        self.worst
    }

    /// Asks a question before something that cannot be undone; without a person at the terminal, or with `--yes`, the
    /// answer is yes.
    pub(crate) async fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
        self.ask(question, true).await
    }

    /// As [`Session::confirm`], but without a person at the terminal the answer is no.
    pub(crate) async fn consents(&mut self, question: &str) -> Result<bool, Failure> {
        self.ask(question, false).await
    }

    async fn ask(&mut self, question: &str, alone: bool) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(alone);
        }
        self.say(&format!("{question} [y/N] "));
        let mut line = String::new();
        let mut input = tokio::io::BufReader::new(tokio::io::stdin());
        tokio::io::AsyncBufReadExt::read_line(&mut input, &mut line).await?;
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }
}
