//! An application with an embedded registry in a process of its own, so that it can be killed, stopped and measured.
//!
//! `app DIR [--no-auto] [--rescan-ms N] [--hosts DIR]`, then one command per line on standard input, one answer per line:
//! `plugins` (JSON), `loaded PLUGIN` (waits), `load PLUGIN`, `unload PLUGIN`, `execute PLUGIN METHOD BODY`,
//! `start SOCKET PROGRAM ARGUMENT…` (answers `started PID` or `adopted PID`), `call SOCKET METHOD BODY`, `terminate SOCKET`,
//! `listen PATH` and `heard` (a socket that is no plugin's; how many bytes its first connection brought),
//! `overflows` (how many were reported), `handle PLUGIN CALLBACK NAME FILE MICROSECONDS` (writes every message as a line to
//! FILE before its handler returns), `exit`.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use goplug_registry::admin::EventKind;
use goplug_registry::{Command, Error, Registry, Started, Subscribe, Subscription, Unload, Wait};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)?.parse::<u64>().ok());
    let mut builder = Registry::builder(&args[0]).auto_discover(!args.contains(&"--no-auto".to_owned())).caller("app");
    builder = builder.fast_paths(goplug_tests::fast_paths());
    if args.contains(&"--low".to_owned()) || goplug_tests::shared_memory() {
        builder = builder.latency(goplug_registry::Latency::Low);
    }
    if let Some(ms) = value("--rescan-ms") {
        builder = builder.rescan_interval(Duration::from_millis(ms));
    }
    if let Some(at) = args.iter().position(|arg| arg == "--hosts") {
        builder = builder.hosts_dir(&args[at + 1]);
    }
    // As a program does; a limit that cannot be raised may do.
    _ = goplug_registry::raise_open_files();
    let registry = builder.open().await?;
    let mut subscriptions: Vec<Subscription> = Vec::new();
    let mut plugins: BTreeMap<String, Started> = BTreeMap::new();
    let mut decoy = None;
    println!("ready");
    let (send, mut lines) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.splitn(7, ' ').collect();
        let answer = match words.as_slice() {
            ["exit"] => break,
            ["listen", path] => {
                decoy = Some(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
                "ok".to_owned()
            }
            ["heard"] => heard(decoy.as_ref()),
            ["handle", plugin, callback, name, file, pause] => {
                match handle(&registry, plugin, callback, name, file.into(), pause.parse().unwrap_or(0)).await {
                    Ok(subscription) => {
                        subscriptions.push(subscription);
                        "ok".to_owned()
                    }
                    Err(error) => failed(&error),
                }
            }
            ["start", socket, program, args @ ..] => match start(&registry, socket, program, args).await {
                Ok((started, answer)) => {
                    plugins.insert((*socket).to_owned(), started);
                    answer
                }
                Err(error) => failed(&error),
            },
            ["call", socket, method, body @ ..] => match plugins.get(*socket) {
                Some(started) => match started.execute(method, body.join(" ")).await {
                    Ok(reply) => String::from_utf8_lossy(&reply).into_owned(),
                    Err(error) => failed(&error),
                },
                None => "what?".to_owned(),
            },
            ["terminate", socket] => match plugins.get(*socket) {
                Some(started) => match started.terminate().await {
                    Ok(exit) => exit.map_or_else(|| "did not run".to_owned(), |exit| exit.to_string()),
                    Err(error) => failed(&error),
                },
                None => "what?".to_owned(),
            },
            words => answer(&registry, words).await,
        };
        println!("{answer}");
    }
    registry.close().await;
    Ok(())
}

/// Takes one connection and says how much was sent on it.
fn heard(decoy: Option<&std::os::unix::net::UnixListener>) -> String {
    let mut bytes = Vec::new();
    let (mut stream, _) = decoy.expect("a socket").accept().expect("a connection");
    stream.read_to_end(&mut bytes).expect("its end");
    format!("{} bytes", bytes.len())
}

async fn start(registry: &Registry, socket: &str, program: &str, args: &[&str]) -> Result<(Started, String), Error> {
    let command = Command::new(program).args(args.iter().flat_map(|args| args.split(' ')));
    let started = registry.start(command, socket).await?;
    let how = if started.was_adopted().await { "adopted" } else { "started" };
    let pid = started.hosted().await.map_or(0, |hosted| hosted.record().plugin.pid);
    Ok((started, format!("{how} {pid}")))
}

async fn answer(registry: &Registry, words: &[&str]) -> String {
    let result = match words {
        ["plugins"] => Ok(serde_json::to_string(&registry.plugins()).unwrap_or_default()),
        ["loaded", plugin] => {
            registry.wait_for(plugin, Wait::Loaded, Duration::from_secs(20)).await.map(|()| "ok".to_owned())
        }
        ["load", plugin] => registry.load(plugin).await.map(|_| "ok".to_owned()),
        ["unload", plugin] => registry.unload(plugin, Unload::default()).await.map(|_| "ok".to_owned()),
        ["execute", plugin, method, body @ ..] => {
            let reply = registry.execute(plugin, method, body.join(" ")).await;
            reply.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        ["overflows"] => registry.events_after(0).map(|mut events| {
            let mut count = 0;
            while let Some(event) = events.try_next() {
                count += usize::from(event.kind == EventKind::Overflow);
            }
            count.to_string()
        }),
        _ => Ok("what?".to_owned()),
    };
    result.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &Error) -> String {
    format!("error {}: {error}", error.code)
}

async fn handle(
    registry: &Registry,
    plugin: &str,
    callback: &str,
    name: &str,
    file: PathBuf,
    pause: u64,
) -> Result<Subscription, Error> {
    let how = Subscribe { name: Some(name.to_owned()) };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
    let file =
        std::sync::Arc::new(file.map_err(|error| Error::new(goplug_registry::Code::Internal, error.to_string()))?);
    registry
        .register_callback(plugin, callback, how, move |notice| {
            let file = std::sync::Arc::clone(&file);
            async move {
                let position = notice.position.map(|position| position.seq).unwrap_or_default();
                let line = format!("{position} {}\n", String::from_utf8_lossy(&notice.data));
                // The pause first: a message that was acknowledged before its handler returned is lost by a kill in it.
                if pause > 0 {
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                }
                (&*file).write_all(line.as_bytes()).map_err(|error| error.to_string())
            }
        })
        .await
}
