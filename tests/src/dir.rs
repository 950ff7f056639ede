//! A folder for plugins, with a path short enough for sockets, that disappears with its owner.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A fresh plugin directory.
///
/// It lies in the system's folder for temporary files and never below the build folder: a socket's path has at most 107
/// bytes, and a checkout may lie deep.
#[derive(Debug)]
pub struct PluginDir(TempDir);

impl Default for PluginDir {
    fn default() -> Self {
        Self::new()
    }
}

impl PluginDir {
    /// An empty folder of mode 0700.
    ///
    /// # Panics
    /// When the system has no place for temporary files.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("gp").rand_bytes(6).tempdir().expect("a folder for temporary files"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Its path as text, for command lines.
    ///
    /// # Panics
    /// When the path is no UTF-8.
    pub fn text(&self) -> &str {
        self.0.path().to_str().expect("a path in UTF-8")
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in place, the way a careless author does.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).expect("a file in the plugin directory");
        path
    }

    /// Writes a `.pconf` that names `sock`, whole at once.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn publish(&self, namespace: &str, name: &str, sock: &str) -> PathBuf {
        let path = self.join(&format!("{namespace}{name}.pconf"));
        let text = serde_json::json!({"Name": name, "NameSpace": namespace, "Url": format!("unix://{namespace}{name}"), "Sock": sock});
        write_atomically(&path, text.to_string().as_bytes());
        path
    }

    /// The names in it, sorted.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the plugin directory");
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Writes a dot-file and renames it, so that a reader sees all or nothing.
///
/// # Panics
/// When the file cannot be written.
pub fn write_atomically(path: &Path, content: &[u8]) {
    let name = path.file_name().expect("a file name").to_string_lossy();
    let half = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::File::create(&half).and_then(|mut file| file.write_all(content)).expect("a temporary file");
    std::fs::rename(&half, path).expect("a rename in one folder");
}
