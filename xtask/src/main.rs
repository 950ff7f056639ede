//! What the project's own checks and generators do: `cargo xtask help`.

mod bench;
mod callgrind;
mod check;
mod deep;
mod deny;
mod edges;
mod miri;
mod mutants;
mod schemas;
mod steps;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Name, what follows it, what it does, and how.
type Verb = (&'static str, &'static str, &'static str, fn(&Path, &[String]) -> Result<()>);

const VERBS: [Verb; 10] = [
    ("check", "", "format, lints, and the tests without the long ones: before every commit", check::check),
    (
        "ci",
        "",
        "everything but the tests: format, lints, docs, edges, tree, schemas, mutants --check, deny, callgrind",
        check::ci,
    ),
    (
        "deep",
        "[FILTER…]",
        "runs the behaviour tests whose names hold a FILTER at full size, asserts their figures and lists them in the end",
        deep::run,
    ),
    (
        "schemas",
        "[--check]",
        "writes pconf-schema/schemas and the table of docs/errors.md, or says what differs",
        schemas::run,
    ),
    ("edges", "", "who may depend on whom, and where each third-party crate may be named", edges::run),
    ("deny", "", "licences, banned crates and sources of the dependencies; installs cargo-deny in .tools", deny::run),
    (
        "bench",
        "[--peers] …",
        "measures and writes docs/benchmarks.md; the rest goes to goplug-bench, such as --section scale,rates or --only TEXT",
        bench::run,
    ),
    (
        "callgrind",
        "[--bless]",
        "counts instructions per frame and call with valgrind and compares them with benches/callgrind.txt",
        callgrind::run,
    ),
    ("miri", "", "runs the frame codec and the pure half of frame connections in miri, if there is one", miri::run),
    (
        "mutants",
        "[--check|--only NAME]",
        "applies each tests/mutants/*.patch and requires that its test fails; with --check only that it applies",
        mutants::run,
    ),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_else(|| "help".into());
    let rest: Vec<String> = args.collect();
    match run(&verb, &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &str, rest: &[String]) -> Result<()> {
    if matches!(verb, "help" | "--help" | "-h") {
        print!("{}", help());
        return Ok(());
    }
    let Some((_, _, _, act)) = VERBS.iter().find(|(name, ..)| *name == verb) else {
        bail!("unknown verb `{verb}`\n{}", help());
    };
    let start = Instant::now();
    act(&root()?, rest)?;
    println!("{verb}: ok ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(())
}

fn help() -> String {
    let lines = VERBS.map(|(name, args, what, _)| format!("  cargo xtask {:22} {what}\n", format!("{name} {args}")));
    lines.concat()
}

/// The workspace's folder.
fn root() -> Result<PathBuf> {
    // Cargo says where this package is now; where it was compiled may be another checkout.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("run as `cargo xtask`, not by itself")?;
    let root = Path::new(&package).parent().context("the package has no parent folder")?;
    Ok(root.to_path_buf())
}

/// The cargo that runs us, in the workspace's folder.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Refuses arguments that a verb does not take.
fn no_arguments(rest: &[String]) -> Result<()> {
    if let Some(argument) = rest.first() {
        bail!("unknown argument `{argument}`");
    }
    Ok(())
}
