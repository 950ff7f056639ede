//! What the figures were taken on.

use serde::Serialize;

/// A machine, at a time.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// The cpus that we could use.
    pub cpus: usize,
    /// Its memory.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// When it began (UTC).
    pub date: String,
    /// How busy it was before we began, over the last minute.
    pub load: String,
}

impl Machine {
    /// This one, now. What the system does not tell is empty.
    pub fn read(allowed: &[usize]) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib = field(&file("/proc/meminfo"), "MemTotal");
        Self {
            processor: field(&file("/proc/cpuinfo"), "model name"),
            cpus: allowed.len(),
            memory_mib: kib.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            load: file("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}
