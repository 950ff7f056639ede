//! What a registry and the `goplug-host` of a plugin say to each other, and the record that stays behind.
//!
//! A host reads one [`HostSpec`] from its standard input and writes one [`Answer`] to its standard output: the status of the
//! plugin that it started, or the problem. From then on it is spoken to through its control socket: one [`Request`] per
//! line, one or (for `logs`) several [`Answer`]s, a line each. Its [`Record`] is a file, so that it can be found again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pconf::MAX_SOCKET_PATH_BYTES;
use crate::wire::fault::{Code, Fault};

/// The largest specification that a host reads.
pub const MAX_SPEC_BYTES: usize = 1024 * 1024;
/// The longest line that a host reads from its control socket.
pub const MAX_HOST_REQUEST_BYTES: usize = 4 * 1024;
/// The longest line that a host writes: a line of output of [`MAX_LINE_BYTES`] of which every byte is escaped.
pub const MAX_HOST_ANSWER_BYTES: usize = 8 * MAX_LINE_BYTES;
/// The largest record that is read.
pub const MAX_RECORD_BYTES: usize = 128 * 1024;
/// The longest name of an instance.
pub const MAX_INSTANCE_BYTES: usize = 64;
/// The most that is kept of one stream.
pub const MAX_RING_BYTES: usize = 16 * 1024 * 1024;
/// The most that is kept of one line.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// How a plugin is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// Names this one run of the plugin: `[a-z0-9._-]`, at most [`MAX_INSTANCE_BYTES`]. Its files are called after it.
    pub instance: String,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// The program is open as the standard error of the host: that file is executed, whatever lies at `program` by now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opened: bool,
    /// Its arguments, without its own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment: nothing is added and nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working directory, an absolute path.
    pub workdir: PathBuf,
    /// What it may use.
    #[serde(default)]
    pub limits: ProcessLimits,
    /// Where it is going to listen; only written down.
    pub socket: PathBuf,
    /// What the registry wants to find in the record again, such as the plugin's name; only written down.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where the record and the control socket lie: a folder of mode 0700, made if it is missing.
    pub folder: PathBuf,
    /// What is kept of its output.
    #[serde(default)]
    pub output: OutputLimits,
    /// In milliseconds: how long the host answers after the plugin and everything that it started are gone; at least a second.
    #[serde(default = "default_linger_ms")]
    pub linger_ms: u64,
    /// The pid of the process that starts the host, if everything is to end with it; else the plugin outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starter: Option<u32>,
}

fn default_linger_ms() -> u64 {
    60_000
}

/// Limits of the plugin's process and, each for itself, of every process that it starts (`setrlimit`): `None` leaves what
/// the registry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProcessLimits {
    /// Open files (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Bytes of a core file (`RLIMIT_CORE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<u64>,
    /// Bytes of the largest file that it may write (`RLIMIT_FSIZE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Bytes of address space (`RLIMIT_AS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads of its user, all programs together (`RLIMIT_NPROC`); does not bind root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Seconds of processor time (`RLIMIT_CPU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
}

/// What is kept of standard output and standard error, of each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutputLimits {
    /// Memory for the newest lines, at most [`MAX_RING_BYTES`]; older ones are dropped and counted.
    pub ring_bytes: usize,
    /// The longest line, at most [`MAX_LINE_BYTES`]; what is beyond is dropped and counted.
    pub line_bytes: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { ring_bytes: 64 * 1024, line_bytes: 8 * 1024 }
    }
}

impl HostSpec {
    /// The smallest specification: everything optional has its default.
    pub fn new(instance: &str, program: &Path, socket: &Path, folder: &Path) -> Self {
        Self {
            instance: instance.to_owned(),
            program: program.to_owned(),
            opened: false,
            args: Vec::new(),
            env: BTreeMap::new(),
            workdir: PathBuf::from("/"),
            limits: ProcessLimits::default(),
            socket: socket.to_owned(),
            labels: BTreeMap::new(),
            folder: folder.to_owned(),
            output: OutputLimits::default(),
            linger_ms: default_linger_ms(),
            starter: None,
        }
    }

    /// Reads and checks a specification of at most [`MAX_SPEC_BYTES`].
    ///
    /// # Errors
    /// `invalid_argument`, with what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::new(Code::InvalidArgument, format!("the host's specification: {why}"));
        if bytes.len() > MAX_SPEC_BYTES {
            return Err(wrong(format!("more than {MAX_SPEC_BYTES} bytes")));
        }
        let spec: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        spec.check().map_err(wrong)?;
        Ok(spec)
    }

    /// What is wrong with it.
    ///
    /// # Errors
    /// A fragment that names the field and the limit.
    pub fn check(&self) -> Result<(), String> {
        if !is_instance(&self.instance) {
            return Err(format!(
                "instance `{}` is not 1 to {MAX_INSTANCE_BYTES} of `[a-z0-9._-]`, the first no dot",
                crate::printable(&self.instance)
            ));
        }
        for (what, path) in [("program", &self.program), ("workdir", &self.workdir), ("folder", &self.folder)] {
            if !path.is_absolute() {
                return Err(format!("{what} {} is not an absolute path", crate::printable(&path.to_string_lossy())));
            }
        }
        let nul = |text: &str| text.contains('\0');
        let bad_name = |name: &str| name.is_empty() || name.contains('=') || nul(name);
        if self.args.iter().any(|arg| nul(arg)) || self.env.iter().any(|(name, value)| bad_name(name) || nul(value)) {
            return Err("an argument or a variable holds a NUL, or a variable's name is empty or holds `=`".to_owned());
        }
        let control = control_path(&self.folder, &self.instance);
        let length = control.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            return Err(format!(
                "the control socket's path is {length} bytes, the limit is {MAX_SOCKET_PATH_BYTES}: {}; use a shorter folder",
                control.display()
            ));
        }
        if !(1..=MAX_RING_BYTES).contains(&self.output.ring_bytes)
            || !(1..=MAX_LINE_BYTES).contains(&self.output.line_bytes)
        {
            return Err(format!("output: `ringBytes` is 1 to {MAX_RING_BYTES}, `lineBytes` 1 to {MAX_LINE_BYTES}"));
        }
        Ok(())
    }
}

/// Whether files may be called after it.
pub fn is_instance(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_INSTANCE_BYTES).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(fits)
}

/// The record of an instance.
pub fn record_path(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("{instance}.json"))
}

/// The control socket of an instance.
pub fn control_path(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("{instance}.sock"))
}

/// Where an instance that has no other place listens. It belongs to that instance alone, and goes with it.
pub fn plugin_path(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("{instance}.plugin"))
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number, which the system gives to another process later.
    pub pid: u32,
    /// The inode of its pidfd, which no other process of this boot ever has; missing before Linux 6.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

/// What a host writes down, whole or not at all: when the plugin was started, and when it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// As in the specification.
    pub instance: String,
    /// Of the kernel, `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The host itself.
    pub host: ProcessId,
    /// The plugin.
    pub plugin: ProcessId,
    /// The plugin's program.
    pub program: PathBuf,
    /// Where the plugin listens.
    pub socket: PathBuf,
    /// As in the specification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// How the plugin ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

impl Record {
    /// Reads a record of at most [`MAX_RECORD_BYTES`]; `None` if it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let record: Self = (bytes.len() <= MAX_RECORD_BYTES).then(|| serde_json::from_slice(bytes).ok())??;
        is_instance(&record.instance).then_some(record)
    }
}

/// How a plugin ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What it returned, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Its host was told to end it.
    #[serde(default)]
    pub asked: bool,
    /// It died of a SIGKILL that its host did not send, and the kernel ended a process for lack of memory meanwhile.
    #[serde(default)]
    pub out_of_memory: bool,
    /// The last lines that it wrote to standard error: at most 20, together at most 4 KiB.
    #[serde(default)]
    pub stderr: Vec<String>,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "it returned {code}")?,
            (None, Some(signal)) => write!(f, "signal {signal} ended it")?,
            (None, None) => f.write_str("it ended")?,
        }
        f.write_str(if self.out_of_memory { ", probably for lack of memory" } else { "" })
    }
}

/// What a host is asked, `{"do": …}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// How is it? Answered with a status.
    Status,
    /// Answered with a status when the plugin has ended.
    Wait,
    /// Lines whose number is above `after`, then an end; with `follow`, also those to come until the plugin has ended.
    Logs {
        /// 0 for all that is there.
        #[serde(default)]
        after: u64,
        /// Whether to wait for more.
        #[serde(default)]
        follow: bool,
    },
    /// Ends the plugin and everything that it started: SIGTERM to its process group, then SIGKILL to all. Answered with a
    /// status when nothing is left. A second one can only bring the end forward.
    Stop {
        /// How long the plugin may take to end by itself before the SIGTERM.
        #[serde(default)]
        term_after_ms: u64,
        /// How long it may take after the SIGTERM.
        #[serde(default = "default_kill_after_ms")]
        kill_after_ms: u64,
    },
    /// Sends the plugin's process a signal. Answered with a status.
    Signal {
        /// 1 to 64.
        number: i32,
    },
    /// The plugin has ended and nobody will ask again: removes the record; the host ends after its answer.
    Forget,
}

fn default_kill_after_ms() -> u64 {
    5_000
}

/// What a host answers, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// A line of output.
    Line(LogLine),
    /// No more lines: what to ask for next.
    End {
        /// The number of the newest line.
        after: u64,
    },
    /// The request failed.
    Problem {
        /// What went wrong.
        code: Code,
        /// For people.
        message: String,
    },
}

impl Answer {
    /// The problem as an answer.
    pub fn problem(fault: &Fault) -> Self {
        Self::Problem { code: fault.code, message: fault.message.clone() }
    }

    /// Reads a line. What is no answer, or a problem, is a fault.
    ///
    /// # Errors
    /// The problem that it tells; `protocol_error` for what is no answer.
    pub fn read(line: &[u8]) -> Result<Self, Fault> {
        match serde_json::from_slice(line) {
            Ok(Self::Problem { code, message }) => Err(Fault::new(code, message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Fault::new(Code::ProtocolError, format!("the host's answer is none: {error}"))),
        }
    }

    /// The line with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// How a plugin and its host are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// As in the file.
    pub record: Record,
    /// Where it is in its life.
    pub phase: HostPhase,
    /// Lines that it has written.
    pub lines: u64,
    /// Lines of those that are no longer kept.
    pub dropped_lines: u64,
    /// Bytes beyond the longest line that were not kept.
    pub cut_bytes: u64,
}

/// Where a hosted plugin is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPhase {
    /// The process runs.
    Running,
    /// It was told to end.
    Stopping,
    /// It has ended, or is being killed; processes that it started may be left.
    Killing,
    /// Nothing is left of it.
    Ended,
}

/// A line that a plugin wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Counts the lines of both streams together from 1; a gap is what was dropped.
    pub number: u64,
    /// Milliseconds since 1970: when its end was read.
    pub at_ms: u64,
    /// Where it was written.
    pub stream: Stream,
    /// Without its newline; what is no UTF-8 is replaced.
    pub text: String,
    /// Bytes that were cut off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut_bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where a plugin writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_refused_with_its_reason() {
        let good = HostSpec::new("a-1", Path::new("/bin/true"), Path::new("/run/x.sock"), Path::new("/run/h"));
        let json = |spec: &HostSpec| serde_json::to_vec(spec).unwrap();
        assert_eq!(HostSpec::read(&json(&good)).unwrap(), good);
        let with = |change: fn(&mut HostSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            HostSpec::read(&json(&spec)).unwrap_err().message
        };
        for (refused, part) in [
            (with(|spec| spec.instance = "../a".into()), "instance `../a`"),
            (with(|spec| spec.instance = String::new()), "instance"),
            (with(|spec| spec.instance = ".a".into()), "the first no dot"),
            (with(|spec| spec.program = "true".into()), "program true is not an absolute path"),
            (with(|spec| spec.workdir = PathBuf::new()), "workdir"),
            (with(|spec| spec.folder = "x".into()), "folder x"),
            (with(|spec| spec.folder = format!("/{}", "x".repeat(120)).into()), "the limit is 107"),
            (with(|spec| spec.args = vec!["a\0b".into()]), "NUL"),
            (with(|spec| _ = spec.env.insert("A=B".into(), "c".into())), "holds `=`"),
            (with(|spec| spec.output.ring_bytes = usize::MAX), "ringBytes"),
            (with(|spec| spec.output.line_bytes = 0), "lineBytes"),
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        for bytes in [&b"{}"[..], b"", b"[]", &vec![b' '; MAX_SPEC_BYTES + 1]] {
            assert_eq!(HostSpec::read(bytes).unwrap_err().code, Code::InvalidArgument);
        }
    }

    #[test]
    fn requests_are_short_to_write_by_hand() {
        let read = |text: &str| serde_json::from_str::<Request>(text).ok();
        assert_eq!(read(r#"{"do":"status"}"#), Some(Request::Status));
        assert_eq!(read(r#"{"do":"logs"}"#), Some(Request::Logs { after: 0, follow: false }));
        let stop = Request::Stop { term_after_ms: 0, kill_after_ms: 5_000 };
        assert_eq!(read(r#"{"do":"stop"}"#), Some(stop));
        assert_eq!(read(r#"{"do":"stop","killAfterMs":1,"x":1}"#), None);
        assert_eq!(read(r#"{"do":"dance"}"#), None);
    }
}
