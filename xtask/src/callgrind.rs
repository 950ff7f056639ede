//! Instructions per frame and per call, counted by valgrind and held against `benches/callgrind.txt`: what a benchmark on a
//! busy machine cannot tell apart from noise, a count does.
//!
//! The codec alone counts the same to the instruction. A call is both sides, in one process with several threads: its count
//! differs by up to four in a hundred from run to run, with what else the machine does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::steps::{output, succeed};

const FILE: &str = "benches/callgrind.txt";
const HEAD: &str = "# Instructions of one frame or one call; `cargo xtask callgrind --bless` writes this file.\n";

/// Something that is counted.
struct Work {
    name: &'static str,
    what: &'static str,
    /// The two numbers of repetitions whose difference is counted.
    repeated: [u64; 2],
    /// How much more than what is written down is too much, in percent. Other processors take other ways through the C
    /// library's `memcpy`: an allocation more in the codec is a third. Who looks for frames looks again and again, more
    /// often on a busy machine.
    tolerance: u64,
}

const WORKS: [Work; 4] = [
    Work { name: "encode", what: "one request's frame is written", repeated: [1_000, 11_000], tolerance: 20 },
    Work {
        name: "decode",
        what: "header and metadata of that frame are read and checked",
        repeated: [1_000, 11_000],
        tolerance: 20,
    },
    Work {
        name: "frames",
        what: "one call over frames, registry and plugin together",
        repeated: [200, 1_200],
        tolerance: 50,
    },
    Work {
        name: "http",
        what: "one call over HTTP, registry and plugin together",
        repeated: [200, 1_200],
        tolerance: 20,
    },
];

/// Counts, and compares; with `--bless` writes down what was counted.
pub(crate) fn run(root: &Path, rest: &[String]) -> Result<()> {
    let bless = match rest {
        [] => false,
        [flag] if flag == "--bless" => true,
        _ => bail!("unknown arguments {rest:?}: expected none or `--bless`"),
    };
    let Ok(valgrind) = output(Command::new("valgrind").arg("--version")) else {
        println!("SKIPPED: there is no valgrind on this machine");
        return Ok(());
    };
    let compiler = compiler()?;
    let path = root.join(FILE);
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    if !bless && known.lines().nth(1) != Some(compiler.as_str()) {
        println!("SKIPPED: {FILE} was written with another compiler than {compiler}; `--bless` writes it anew");
        return Ok(());
    }
    let program = build(root)?;
    println!("{} with {compiler}", valgrind.trim());
    let (mut text, mut worse) = (format!("{HEAD}{compiler}\n"), Vec::new());
    for Work { name: work, what, repeated: [few, many], tolerance } in WORKS {
        let count = || counted(&program, work, few, many);
        let mut found = count()?;
        text.push_str(&format!("{work} {found}\n"));
        let Some(before) = recorded(&known, work).filter(|_| !bless) else {
            println!("{work:8} {found:>8}            {what}");
            continue;
        };
        if is_too_much(found, before, tolerance) {
            // Threads that met otherwise than ever before do not do so twice.
            found = found.min(count()?);
        }
        let change = (found as f64 / before as f64 - 1.0) * 100.0;
        println!("{work:8} {found:>8}  {change:+6.1} % of at most {tolerance:+}  {what}");
        if is_too_much(found, before, tolerance) {
            worse.push(format!("{work}: {found} instructions, {before} are written down"));
        }
    }
    if bless {
        return std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
    }
    if !worse.is_empty() {
        bail!("{}\nif it is worth that: `cargo xtask callgrind --bless`", worse.join("\n"));
    }
    Ok(())
}

fn is_too_much(found: u64, before: u64, tolerance: u64) -> bool {
    found * 100 > before * (100 + tolerance)
}

fn recorded(known: &str, work: &str) -> Option<u64> {
    known.lines().find_map(|line| line.strip_prefix(work)?.trim().parse().ok())
}

/// What decides how many instructions there are, besides the source.
fn compiler() -> Result<String> {
    let told = output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
    let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let (release, host) = field("release:").zip(field("host:")).context("rustc -vV has another shape than expected")?;
    Ok(format!("rustc {release} {host}"))
}

fn build(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // As it is shipped, and whatever the environment adds to it left out: those would be other instructions.
    let mut build = cargo(root);
    build.args(["build", "--release", "--locked", "--quiet", "--package", "goplug-benches", "--bin", "goplug-count"]);
    succeed(build.env_remove("RUSTFLAGS"))?;
    Ok(root.join(target).join("release/goplug-count"))
}

/// Instructions of one `work`.
fn counted(program: &Path, work: &str, few: u64, many: u64) -> Result<u64> {
    let [few_took, many_took] = [few, many].map(|count| collected(program, work, count));
    Ok(many_took?.saturating_sub(few_took?) / (many - few))
}

/// Instructions of the whole program.
fn collected(program: &Path, work: &str, count: u64) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg(work).arg(count.to_string());
    let output = valgrind.output().context("cannot run valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected.filter(|_| output.status.success()) {
        Some(instructions) => Ok(instructions),
        None => bail!("`goplug-count {work} {count}` under valgrind: {}\n{told}", output.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_too_much() {
        for (found, before, expected) in [(100, 100, false), (110, 100, false), (111, 100, true), (1, 100, false)] {
            assert_eq!(is_too_much(found, before, 10), expected, "{found} instead of {before}");
        }
        let known = format!("{HEAD}rustc 1.0.0 x\nencode 309\nframes 17830\n");
        assert_eq!(recorded(&known, "frames"), Some(17_830));
        assert_eq!(recorded(&known, "http"), None);
    }
}
