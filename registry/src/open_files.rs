//! How many files this process may have open: each plugin and each call under way takes some.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's soft limit of open files to its hard limit; answers the soft limit then, `None` for no limit.
///
/// For programs, at their start: the usual soft limit of 1,024 stands for about a hundred plugins, and it is that low only
/// for programs that use `select(2)`, which a registry does not. A library changes no limit of its host by itself. Processes
/// that are started afterwards inherit the raised limit; one that uses `select` wants its old one back.
///
/// # Errors
/// As the kernel says, which refuses a hard limit that is above `fs.nr_open`; then nothing has changed.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// What to say when no descriptor is left: how many there are, and how to have more.
pub(crate) fn exhausted() -> String {
    let limit = getrlimit(Resource::Nofile);
    advice(limit.current, limit.maximum)
}

fn advice(soft: Option<u64>, hard: Option<u64>) -> String {
    let shown = |limit: Option<u64>| limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string());
    let more = match (soft, hard) {
        (Some(soft), hard) if hard.is_none_or(|hard| soft < hard) => {
            format!("`ulimit -n {}`", hard.map_or_else(|| "unlimited".into(), |hard| hard.to_string()))
        }
        _ => "LimitNOFILE= in the service file, or as root `ulimit -Hn`".to_owned(),
    };
    format!(
        "this process may have {} files open (hard limit: {}): {more} allows more, unloading plugins needs fewer",
        shown(soft),
        shown(hard)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_and_what_raises_it_are_named() {
        for (soft, hard, parts) in [
            (Some(64), Some(4096), ["may have 64 files", "hard limit: 4096", "`ulimit -n 4096`"]),
            (Some(64), None, ["may have 64 files", "hard limit: any number", "`ulimit -n unlimited`"]),
            (Some(64), Some(64), ["may have 64 files", "hard limit: 64", "LimitNOFILE="]),
            (None, None, ["any number of files", "hard limit: any number", "LimitNOFILE="]),
        ] {
            let text = advice(soft, hard);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
