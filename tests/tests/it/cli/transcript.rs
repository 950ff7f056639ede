//! One command line, two targets, one answer.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use goplug_tests::{PluginDir, Process};

use super::masks::masked;
use crate::supervision::Hosts;
use crate::support::{Daemon, EXAMPLE, FIXTURE, GOPLUG_HOST, GOPLUGCTL, V0, command};

/// What a run said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: i32,
    /// Masked.
    pub(super) out: String,
    /// Masked.
    pub(super) err: String,
    /// As it came.
    pub(super) raw: Vec<u8>,
}

impl Answer {
    /// As it stands in a snapshot.
    fn text(&self) -> String {
        let mut text = self.out.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str("[no newline]\n");
        }
        text.extend(self.err.lines().map(|line| format!("stderr: {line}\n")));
        text + &format!("[exit {}]\n", self.code)
    }

    /// Everything but the bytes as they came.
    pub(super) fn says(&self) -> (i32, &str, &str) {
        (self.code, &self.out, &self.err)
    }
}

/// A target and its plugin directory.
pub(super) struct Target {
    flags: [String; 2],
    places: Vec<(String, &'static str)>,
    variables: Vec<(&'static str, PathBuf)>,
    pub(super) dir: PluginDir,
}

impl Target {
    /// Runs `goplugctl` on this target. `{dir}` in a word is the plugin directory.
    pub(super) fn run(&self, words: &[&str], input: &[u8]) -> Answer {
        let words = words.iter().map(|word| word.replace("{dir}", self.dir.text()));
        // A hint holds the flags, so that it works here: what is left is the same on both targets.
        let [flag, value] = &self.flags;
        let hinted = (format!("goplugctl {flag} {value} "), "goplugctl ");
        let places: Vec<_> = std::iter::once(hinted).chain(self.places.iter().cloned()).collect();
        run_with(self.flags.iter().cloned().chain(words), input, &places, &self.variables)
    }

    /// `goplugctl` on this target, to be started by the caller.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = command(GOPLUGCTL);
        command.arg0("goplugctl").args(&self.flags).args(words).envs(self.variables.iter().cloned());
        command
    }
}

/// Runs `goplugctl` with `words` and masks what it says.
pub(super) fn run(words: impl Iterator<Item = String>, input: &[u8], places: &[(String, &str)]) -> Answer {
    run_with(words, input, places, &[])
}

fn run_with(
    words: impl Iterator<Item = String>,
    input: &[u8],
    places: &[(String, &str)],
    variables: &[(&'static str, PathBuf)],
) -> Answer {
    let words: Vec<String> = words.collect();
    let mut command = command(GOPLUGCTL);
    command.envs(variables.iter().cloned());
    command.arg0("goplugctl").args(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("goplugctl");
    // Small enough for the pipe, so that nobody waits; one that reads no input may have ended already.
    let _ = child.stdin.take().expect("a piped input").write_all(input);
    let output = child.wait_with_output().expect("the output of goplugctl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let err = text(&output.stderr);
    assert!(!err.chars().any(|c| c.is_control() && c != '\n'), "{words:?} drives the terminal: {err:?}");
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: masked(&text(&output.stdout), places),
        err: masked(&err, places),
        raw: output.stdout,
    }
}

/// The two targets, and what they said so far.
pub(super) struct Transcript {
    pub(super) daemon: Target,
    pub(super) directory: Target,
    /// The processes behind the daemon, and those in the directory.
    pub(super) plugins: [Vec<Process>; 2],
    _process: Daemon,
    /// Where the plugins run that were started.
    _hosts: Hosts,
    masks: Vec<(String, &'static str)>,
    text: String,
}

impl Transcript {
    /// The same plugins behind a daemon with `flags` and in a directory.
    pub(super) fn new(flags: &[&str], plugins: impl Fn(&PluginDir) -> Vec<Process>) -> Self {
        Self::with(flags, plugins, &[])
    }

    /// As [`Transcript::new`], with further variables on both sides.
    pub(super) fn with(
        flags: &[&str],
        plugins: impl Fn(&PluginDir) -> Vec<Process>,
        further: &[(&'static str, PathBuf)],
    ) -> Self {
        let (one, other) = (PluginDir::new(), PluginDir::new());
        let plugins = [plugins(&one), plugins(&other)];
        let hosts = Hosts::new();
        let mut variables = vec![("GOPLUG_HOSTS_DIR", hosts.folder()), ("GOPLUG_HOST", GOPLUG_HOST.into())];
        variables.extend(further.iter().cloned());
        let given: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_path())).collect();
        let process = Daemon::at(PluginDir::new(), &[&["--plugin-dir", one.text()], flags].concat(), &given);
        let place = |path: &Path, mask| (path.to_str().expect("a path in UTF-8").to_owned(), mask);
        let places = |dir: &PluginDir| {
            vec![
                place(dir.path(), "[DIR]"),
                place(process.home.path(), "[HOME]"),
                place(&hosts.folder(), "[HOSTS]"),
                place(Path::new(FIXTURE), "[FIXTURE]"),
                place(Path::new(EXAMPLE), "[EXAMPLE]"),
                place(Path::new(V0), "[V0PLUGIN]"),
            ]
        };
        let daemon = Target {
            flags: ["--socket".into(), place(&process.socket(), "").0],
            places: places(&one),
            variables: variables.clone(),
            dir: one,
        };
        let directory =
            Target { flags: ["--dir".into(), other.text().to_owned()], places: places(&other), variables, dir: other };
        Self { daemon, directory, plugins, _process: process, _hosts: hosts, masks: Vec::new(), text: String::new() }
    }

    /// A daemon that loads nothing by itself, as a directory does not, and that has looked at its directory.
    pub(super) fn quiet(plugins: impl Fn(&PluginDir) -> Vec<Process>) -> Self {
        let transcript = Self::new(&["--auto-discover=false"], plugins);
        transcript.unseen("rescan");
        transcript
    }

    /// What is said of `text` on either target is masked, and so it is in the words.
    pub(super) fn mask(&mut self, text: &str, mask: &'static str) {
        self.masks.push((text.to_owned(), mask));
        for target in [&mut self.daemon, &mut self.directory] {
            target.places.insert(0, (text.to_owned(), mask));
        }
    }

    /// Runs words that hold no space on both targets, and requires success; for what leads to the state of interest.
    #[track_caller]
    pub(super) fn unseen(&self, line: &str) {
        for target in [&self.daemon, &self.directory] {
            let answer = target.run(&line.split(' ').collect::<Vec<_>>(), b"");
            assert_eq!(answer.code, 0, "goplugctl {line}: {answer:?}");
        }
    }

    /// Both targets give the same answer, which is written down.
    #[track_caller]
    pub(super) fn same(&mut self, line: &str) -> Answer {
        self.same_words(&line.split(' ').collect::<Vec<_>>(), b"")
    }

    /// As [`Transcript::same`], for words with spaces and for an input.
    #[track_caller]
    pub(super) fn same_words(&mut self, words: &[&str], input: &[u8]) -> Answer {
        let [daemon, directory] = [&self.daemon, &self.directory].map(|target| target.run(words, input));
        assert_eq!(daemon.says(), directory.says(), "goplugctl {words:?}: on a daemon (left), on a directory (right)");
        self.write(words, &daemon.text());
        daemon
    }

    /// As [`Transcript::same`], for several formats: as it comes for people, and as JSON.
    #[track_caller]
    pub(super) fn same_in_both_forms(&mut self, line: &str) -> Answer {
        self.same(line);
        self.same(&format!("{line} -o json"))
    }

    /// The targets cannot give the same answer, for this reason.
    #[track_caller]
    pub(super) fn differs(&mut self, line: &str, why: &str) -> [Answer; 2] {
        let words: Vec<&str> = line.split(' ').collect();
        let answers = [&self.daemon, &self.directory].map(|target| target.run(&words, b""));
        assert_ne!(answers[0].says(), answers[1].says(), "goplugctl {line}: the answers do not differ any more");
        let [daemon, directory] = answers.each_ref().map(Answer::text);
        self.write(&words, &format!("# they differ: {why}\n# daemon\n{daemon}# directory\n{directory}"));
        answers
    }

    /// Writes down an answer that was had by hand.
    pub(super) fn note(&mut self, words: &[&str], answer: &Answer) {
        self.write(words, &answer.text());
    }

    /// Both targets; each is asked what the other is not.
    pub(super) fn each(&self) -> [&Target; 2] {
        [&self.daemon, &self.directory]
    }

    fn write(&mut self, words: &[&str], text: &str) {
        let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let line = self.masks.iter().fold(line, |line, (text, mask)| line.replace(text, mask));
        self.text.push_str(&format!("$ goplugctl {line}\n{text}\n"));
    }

    /// Everything that was written down is the snapshot of this name.
    #[track_caller]
    pub(super) fn is(&self, name: &str) {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, self.text);
        });
    }
}

/// A word as one types it; control characters as Rust writes them.
fn quoted(word: &str) -> String {
    let word = word.replace("{dir}", "[DIR]");
    let shown: String =
        word.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if word.is_empty() || word.contains([' ', '"', '{', '\\']) { format!("'{shown}'") } else { shown }
}
