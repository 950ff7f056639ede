//! The command line: turns arguments into calls of a daemon or, with `--dir`, of the registry library.
//!
//! In reading order: `args` (what can be said), `target` (where it works), `commands` (the verbs, each written once),
//! `output` and `exit_code` (what comes out), `demo` (everything at work).

mod args;
mod commands;
mod demo;
mod duration;
mod exit_code;
mod failure;
mod notification;
mod output;
mod pick;
mod pidfd;
mod progress;
mod session;
mod stats;
mod target;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use goplug_pconf_schema::{Code, Fault};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use args::{Cli, DaemonVerb, Global, Verb};
use failure::Failure;
use output::{Out, Style};
use session::Session;

/// How long what was begun may take to let go at the end.
const LET_GO: Duration = Duration::from_secs(2);

/// Runs the command line of this process and tells its exit code.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = demo::plugin::run_if_asked(&words) {
        return code;
    }
    let is_json = args::asks_for_json(&words);
    let cli = match Cli::try_parse_from(words.into_iter().map(args::shielded)) {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error, is_json),
    };
    match &cli.verb {
        // These become another program, with a runtime of its own or none.
        Verb::Daemon(DaemonVerb::Run(args)) => commands::daemon::run(&cli.global, args),
        Verb::External(words) => ExitCode::from(tell(&cli.global, &commands::external::run(&cli.global, words))),
        _ => run(cli),
    }
}

/// Tells what is wrong with the command line, or the help that it asks for.
fn misunderstood(error: &clap::Error, is_json: bool) -> ExitCode {
    // A closed stdout is the only way for this to fail, and then nobody is left to tell.
    let _ = error.print();
    if is_json && error.use_stderr() {
        let text = error.render().to_string();
        // The first paragraph says what is wrong, the others how it would be right.
        let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
        let why = lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned();
        let failure = Failure::usage("the command line is wrong", why);
        let _ = io::stderr().write_all(failure.json_line("").as_bytes());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit_code::USAGE))
}

/// Runs a verb on a runtime, and ends it on Ctrl-C.
fn run(cli: Cli) -> ExitCode {
    // The demo starts processes, which would inherit it; a limit that cannot be raised may do.
    if !matches!(cli.verb, Verb::Demo(_)) {
        _ = goplug_registry::raise_open_files();
    }
    let runtime = match goplugd::runtime() {
        Ok(runtime) => runtime,
        Err(fault) => return ExitCode::from(tell(&cli.global, &Failure::new("cannot start", fault))),
    };
    let goes_on = match &cli.verb {
        Verb::Events(_) | Verb::Listen(_) | Verb::Logs(_) => true,
        Verb::List(args) => args.watch,
        _ => false,
    };
    let tells_when_interrupted = matches!(cli.verb, Verb::Bench(_));
    let exit = runtime.block_on(async {
        // A task of its own: Ctrl-C ends the program even while a write to a full pipe blocks the verb.
        let mut verb = tokio::spawn(verb(cli));
        tokio::select! {
            ended = &mut verb => ended.unwrap_or(exit_code::UNEXPECTED),
            () = reader_left(), if goes_on => exit_code::DONE,
            () = interrupted(tells_when_interrupted) => {
                verb.abort();
                // What the verb made (calls, processes, folders) is taken back when its future is dropped.
                let _ = tokio::time::timeout(LET_GO, verb).await;
                exit_code::INTERRUPTED
            }
        }
    });
    runtime.shutdown_background();
    ExitCode::from(exit)
}

/// Waits for Ctrl-C; where the verb itself ends at the first, for the second.
async fn interrupted(is_told: bool) {
    for _ in 0..=u8::from(is_told) {
        // Without a handler Ctrl-C ends the program by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until nobody can read standard output any more: a verb that goes on but has nothing to write would never
/// notice.
async fn reader_left() {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread, since a pipe that somebody else made must not be switched to non-blocking.
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while matches!(poll(&mut watched, None), Err(Errno::INTR)) {}
        if watched[0].revents().contains(PollFlags::ERR) {
            // Nobody listens when the verb has ended first.
            let _ = tell.send(());
        }
    });
    if told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Carries out a verb within `--timeout` and tells its failure.
async fn verb(cli: Cli) -> u8 {
    let global = cli.global.clone();
    // These have their own meaning of the time limit.
    let own_limit =
        matches!(cli.verb, Verb::Execute(_) | Verb::Bench(_) | Verb::Wait(_) | Verb::Daemon(DaemonVerb::Stop));
    let work = Box::pin(carry_out(cli));
    let ended = match global.timeout.filter(|_| !own_limit) {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(too_late(limit))),
    };
    ended.unwrap_or_else(|failure| tell(&global, &failure))
}

async fn carry_out(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    let out = || Out::stdout(global.output, global.quiet, global.color);
    let done = |result: Result<(), Failure>| result.map(|()| exit_code::DONE);
    match &cli.verb {
        Verb::Doctor => commands::doctor::doctor(global).await,
        Verb::Lint(args) => commands::lint::lint(global, args),
        Verb::Pack(args) => done(commands::pack::pack(global, args)),
        Verb::Build(args) => done(commands::build::build(global, args).await),
        Verb::Search(args) => done(commands::index::search(global, args).await),
        Verb::Pull(args) => done(commands::index::pull(global, args).await),
        Verb::Push(args) => done(commands::index::push(global, args)),
        Verb::Daemon(DaemonVerb::Status) => done(commands::daemon::status(global).await),
        Verb::Daemon(DaemonVerb::Stop) => done(commands::daemon::stop(global).await),
        Verb::Completion(args) => done(commands::own::completion(&mut out(), args)),
        Verb::Man(args) => done(commands::own::man(&mut out(), args)),
        Verb::Version => done(commands::own::version(global)),
        Verb::Help(args) => done(commands::own::help(&mut out(), args)),
        Verb::Demo(args) => demo::run(args).await,
        verb => {
            let may_be_missing = matches!(verb, Verb::Why(_) | Verb::Wait(_) | Verb::Events(_));
            let mut session = Session::open(global, may_be_missing).await?;
            let ended = commands::run(&mut session, verb).await;
            if let Err(failure) = ended {
                session.tell(&failure);
            }
            let _ = tokio::time::timeout(LET_GO, session.target.close()).await;
            Ok(session.exit())
        }
    }
}

fn too_late(limit: Duration) -> Failure {
    let text = format!("not done after {} ms, the limit of --timeout", limit.as_millis());
    Failure::new("gave up", Fault::new(Code::DeadlineExceeded, text))
}

/// Writes a failure that ended everything to stderr, and tells its exit code.
fn tell(global: &Global, failure: &Failure) -> u8 {
    if !failure.reader_left() {
        let style = Style::choose(global.color, io::stderr().is_terminal());
        let json = Out::stdout(global.output, global.quiet, global.color).is_json();
        let flags = target::flags(global.dir.as_deref(), global.socket.as_deref());
        // Nobody can be told that this failed.
        let _ = io::stderr().write_all(failure.render(json, style == Style::Color, &flags).as_bytes());
    }
    failure.exit()
}
