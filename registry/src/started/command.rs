//! What to run, and how.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_pconf_schema::wire::host::ProcessLimits;
use goplug_pconf_schema::{Code, Fault, PluginId};

use crate::host::{HostSpec, allowed_environment};

/// The usual soft limit of open files: enough for every call that a plugin takes at once, and what programs expect that
/// use `select(2)`.
const OPEN_FILES: u64 = 1_024;
/// How long a plugin may take until it answers on its socket.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A program that is a plugin, for [`crate::Registry::start`]. Made with [`Command::new`], or from a
/// [`std::process::Command`] (of which program, arguments, set variables and working directory count).
///
/// The plugin gets `GOPLUG_PLUGIN_SOCKET` and `PLUGIN_SOCKET` (the socket), the variables of
/// [`crate::host::allowed_environment`] and those set here; no other.
#[derive(Debug, Clone)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, Option<OsString>>,
    workdir: Option<PathBuf>,
    limits: ProcessLimits,
    pub(crate) plugin: Option<PluginId>,
    pub(crate) ready_within: Duration,
}

impl Command {
    /// A program: a path, or a name that is looked for in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            workdir: None,
            limits: ProcessLimits { open_files: Some(OPEN_FILES), core_bytes: Some(0), ..ProcessLimits::default() },
            plugin: None,
            ready_within: READY_WITHIN,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more variable; it wins over one of this process.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), Some(value.into()));
        self
    }

    /// Its working directory (default: `/`).
    #[must_use]
    pub fn workdir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.workdir = Some(folder.into());
        self
    }

    /// What it may use (default: 1,024 open files, no core file).
    #[must_use]
    pub fn limits(mut self, limits: ProcessLimits) -> Self {
        self.limits = limits;
        self
    }

    /// What it may use as it is now.
    pub(crate) fn process_limits(&self) -> ProcessLimits {
        self.limits
    }

    /// Its name (default: what it says in its hello; of a v0 plugin, which says none, the program's).
    #[must_use]
    pub fn plugin(mut self, id: PluginId) -> Self {
        self.plugin = Some(id);
        self
    }

    /// How long it may take until it answers on its socket (default 10 s).
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.ready_within = limit;
        self
    }

    /// The absolute path of the program.
    pub(crate) fn program(&self) -> Result<PathBuf, Fault> {
        let shown = self.program.display();
        let failed = |error: std::io::Error| Fault::new(Code::InvalidArgument, format!("the program {shown}: {error}"));
        if self.program.components().count() > 1 || self.program.is_absolute() {
            return std::path::absolute(&self.program).map_err(failed);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(&self.program)).find(|path| runs(path));
        let missing = || Fault::new(Code::NotFound, format!("there is no program `{shown}` in PATH: give its path"));
        std::path::absolute(found.ok_or_else(missing)?).map_err(failed)
    }

    pub(crate) fn spec(&self, instance: &str, socket: &Path, folder: PathBuf) -> Result<HostSpec, Fault> {
        let text = |what: &OsString| {
            what.clone().into_string().map_err(|what| {
                let text = format!("`{}` is no UTF-8: arguments and variables must be", what.to_string_lossy());
                Fault::new(Code::InvalidArgument, text)
            })
        };
        let mut spec = HostSpec::new(instance, &self.program()?, socket, &folder);
        spec.args = self.args.iter().map(text).collect::<Result<_, _>>()?;
        spec.env = allowed_environment();
        for (name, value) in &self.env {
            match value {
                Some(value) => _ = spec.env.insert(text(name)?, text(value)?),
                None => _ = spec.env.remove(&text(name)?),
            }
        }
        for name in ["GOPLUG_PLUGIN_SOCKET", "PLUGIN_SOCKET"] {
            spec.env.insert(name.to_owned(), socket.to_string_lossy().into_owned());
        }
        if let Some(workdir) = &self.workdir {
            spec.workdir = std::path::absolute(workdir)
                .map_err(|error| Fault::new(Code::InvalidArgument, format!("the working directory: {error}")))?;
        }
        spec.limits = self.limits;
        Ok(spec)
    }
}

impl From<std::process::Command> for Command {
    fn from(command: std::process::Command) -> Self {
        let mut ours = Self::new(command.get_program()).args(command.get_args());
        ours.env = command.get_envs().map(|(name, value)| (name.to_owned(), value.map(Into::into))).collect();
        ours.workdir = command.get_current_dir().map(Into::into);
        ours
    }
}

fn runs(path: &Path) -> bool {
    path.metadata().is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_the_standard_library_means_the_same() {
        let mut theirs = std::process::Command::new("sh");
        theirs.args(["-c", "true"]).env("A", "b").env("PATH", "/x").env_remove("HOME").current_dir("/tmp");
        let command = Command::from(theirs);
        let spec = command.spec("i", Path::new("/run/s"), "/run/h".into()).unwrap();
        assert!(spec.program.is_absolute() && spec.program.ends_with("sh"), "{:?}", spec.program);
        assert_eq!((spec.args, spec.workdir), (vec!["-c".to_owned(), "true".to_owned()], PathBuf::from("/tmp")));
        let value = |name: &str| spec.env.get(name).map(String::as_str);
        assert_eq!((value("A"), value("PATH"), value("HOME")), (Some("b"), Some("/x"), None));
        assert_eq!((value("GOPLUG_PLUGIN_SOCKET"), value("PLUGIN_SOCKET")), (Some("/run/s"), Some("/run/s")));
        assert_eq!((spec.limits.open_files, spec.limits.core_bytes), (Some(1_024), Some(0)));
    }

    #[test]
    fn a_name_is_looked_for_and_a_path_is_not() {
        assert_eq!(Command::new("no-such-program-here").program().unwrap_err().code, Code::NotFound);
        assert_eq!(Command::new("/no/such").program().unwrap(), Path::new("/no/such"));
        assert!(Command::new("./x").program().unwrap().is_absolute());
    }
}
