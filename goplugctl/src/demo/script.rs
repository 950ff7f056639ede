//! The steps of the demo, in order.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use goplug_pconf_schema::admin::State;
use goplug_registry::Wait;

use super::curl;
use super::stage::{Mismatch, PLUGIN, Stage};
use crate::duration::show;

/// How long a change may take to be seen.
const SOON: Duration = Duration::from_secs(10);
/// How many calls are measured.
const CALLS: &str = "10000";

type Play = for<'a> fn(&'a mut Stage) -> BoxFuture<'a, Result<(), Mismatch>>;

/// One step.
pub(super) struct Step {
    pub(super) title: &'static str,
    pub(super) play: Play,
}

/// All steps; with `keep` the plugin is not stopped at the end.
pub(super) fn steps(keep: bool) -> Vec<Step> {
    let step = |title, play: Play| Step { title, play };
    let mut steps = vec![
        step("an empty directory", |stage| empty(stage).boxed()),
        step("a plugin starts, publishes its .pconf, and is found", |stage| start(stage).boxed()),
        step("its methods", |stage| methods(stage).boxed()),
        step("a call by library and by curl: the same bytes", |stage| calls(stage).boxed()),
        step("ten thousand calls", |stage| many(stage).boxed()),
        step("three notifications", |stage| notifications(stage).boxed()),
        step("a method panics, and the next call works", |stage| panics(stage).boxed()),
        step("the plugin is killed", |stage| killed(stage).boxed()),
        step("it is started again, and called", |stage| again(stage).boxed()),
        step("a broken .pconf", |stage| broken(stage).boxed()),
        step("unload and load", |stage| unload(stage).boxed()),
    ];
    if !keep {
        steps.push(step("stop", |stage| stop(stage).boxed()));
        steps.push(step("nothing is left", |stage| nothing_left(stage).boxed()));
    }
    steps
}

async fn empty(stage: &mut Stage) -> Result<(), Mismatch> {
    let played = stage.play(&["list"]).await?;
    played.expect(0, &["PLUGIN"])?;
    if played.text.lines().count() == 1 { Ok(()) } else { Err("the directory is not empty".to_owned().into()) }
}

async fn start(stage: &mut Stage) -> Result<(), Mismatch> {
    let begun = Instant::now();
    stage.start()?;
    stage.registry.wait_for(PLUGIN, Wait::Loaded, SOON).await?;
    let remark = format!("found and loaded {} after its process was started", show(begun.elapsed()));
    let line = stage.line(&["wait", PLUGIN, "--for=loaded"]);
    stage.show(&line, PLUGIN, &remark)?;
    stage.play(&["cat", PLUGIN]).await?.expect(0, &["\"Test\"", "\"Do\""])?;
    stage.play(&["list"]).await?.expect(0, &[PLUGIN, "loaded"])
}

async fn methods(stage: &mut Stage) -> Result<(), Mismatch> {
    stage.play(&["methods", PLUGIN]).await?.expect(0, &["Do", "Panic", "Count"])
}

async fn calls(stage: &mut Stage) -> Result<(), Mismatch> {
    let played = stage.play(&["execute", PLUGIN, "Do", "hello"]).await?;
    played.expect(0, &["HELLO"])?;
    let socket = stage.socket().await?;
    let line = curl::line(&socket, "hello");
    let begun = Instant::now();
    let called = tokio::task::spawn_blocking(move || curl::call(&socket, "hello")).await;
    let (reply, how) = called.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    stage.show(&line, &String::from_utf8_lossy(&reply), &format!("{how}, {}", show(begun.elapsed())))?;
    if reply == played.text.as_bytes() {
        return Ok(());
    }
    Err(format!("the library got {:?}, curl {:?}", played.text, String::from_utf8_lossy(&reply)).into())
}

async fn many(stage: &mut Stage) -> Result<(), Mismatch> {
    let words = ["execute", PLUGIN, "Do", "hello", "--count", CALLS, "--parallel", "8"];
    let summary = format!("{CALLS} calls, 8 at once, 0 failed");
    stage.play(&words).await?.expect(0, &["HELLO", &summary, "p50", "calls/s"])
}

async fn notifications(stage: &mut Stage) -> Result<(), Mismatch> {
    let words = ["listen", PLUGIN, "tick", "-n", "3"];
    let line = stage.line(&words);
    // The stream is open before anything is notified: an observer sees what happens from now on.
    let items = stage.target.listen(&Stage::plugin()?, "tick", None).await?;
    stage.play(&["execute", PLUGIN, "Count"]).await?.expect(0, &["counted"])?;
    let begun = Instant::now();
    let heard = stage.listen(items, &words).await?;
    stage.show(&line, &heard.text, &show(begun.elapsed()))?;
    heard.expect(0, &["\"data\":\"one\"", "\"data\":\"two\"", "\"data\":\"three\""])?;
    let in_order = heard.text.lines().zip(["one", "two", "three"]).all(|(line, word)| line.contains(word));
    if in_order { Ok(()) } else { Err("the notifications are not in order".to_owned().into()) }
}

async fn panics(stage: &mut Stage) -> Result<(), Mismatch> {
    stage.play(&["execute", PLUGIN, "Panic"]).await?.expect(crate::exit_code::FAILED, &["error:"])?;
    stage.play(&["execute", PLUGIN, "Do", "still here"]).await?.expect(0, &["STILL HERE"])
}

async fn killed(stage: &mut Stage) -> Result<(), Mismatch> {
    let process = stage.process.take().ok_or_else(|| "there is no process".to_owned())?;
    stage.dead_socket = Some(stage.socket().await?);
    let line = format!("kill -KILL {}", process.pid());
    let mut events = stage.registry.events();
    let begun = Instant::now();
    process.kill().map_err(|error| error.to_string())?;
    let seen = tokio::time::timeout(SOON, async {
        while let Some(event) = events.next().await {
            let ours = event.plugin.as_ref().is_some_and(|plugin| plugin.as_str() == PLUGIN);
            if ours && event.state.is_some_and(|state| state != State::Loaded) {
                return Some(event);
            }
        }
        None
    });
    let event = seen.await.ok().flatten().ok_or_else(|| "nobody noticed that the process died".to_owned())?;
    let state = event.state.map(State::as_str).unwrap_or_default();
    stage.show(&line, "", &format!("seen {} later: {PLUGIN} is in state {state}", show(begun.elapsed())))?;
    stage.play(&["why", PLUGIN]).await?.expect(crate::exit_code::WRONG_STATE, &["not callable", "BROKEN", "fix: "])
}

async fn again(stage: &mut Stage) -> Result<(), Mismatch> {
    let begun = Instant::now();
    stage.start()?;
    stage.registry.wait_for(PLUGIN, Wait::Loaded, SOON).await?;
    let line = stage.line(&["wait", PLUGIN, "--for=loaded"]);
    stage.show(&line, PLUGIN, &format!("loaded {} after its process was started", show(begun.elapsed())))?;
    stage.play(&["execute", PLUGIN, "Do", "back again"]).await?.expect(0, &["BACK AGAIN"])?;
    // A process that was killed could not remove its socket; unless its successor did, somebody has to.
    if let Some(socket) = stage.dead_socket.take().filter(|socket| socket.exists()) {
        std::fs::remove_file(&socket).map_err(|error| error.to_string())?;
        let line = format!("rm {}", crate::output::text::quoted(&socket.display().to_string()));
        stage.show(&line, "", "the socket of the process that was killed")?;
    }
    Ok(())
}

async fn broken(stage: &mut Stage) -> Result<(), Mismatch> {
    let path = stage.path().join("broken.pconf");
    std::fs::write(&path, "{ \"Name\": \"Broken\",\n  \"Sock\" \"broken.sock\" }\n")
        .map_err(|error| error.to_string())?;
    let shown = path.display().to_string();
    stage.play(&["why", &shown]).await?.expect(crate::exit_code::WRONG_STATE, &["line 2", "column"])?;
    std::fs::remove_file(&path).map_err(|error| error.to_string().into())
}

async fn unload(stage: &mut Stage) -> Result<(), Mismatch> {
    stage.play(&["unload", PLUGIN]).await?.expect(0, &[PLUGIN])?;
    stage.play(&["is-loaded", PLUGIN]).await?.expect(crate::exit_code::WRONG_STATE, &["discovered"])?;
    stage.play(&["load", PLUGIN]).await?.expect(0, &[PLUGIN])?;
    stage.play(&["is-loaded", PLUGIN]).await?.expect(0, &["loaded"])
}

async fn stop(stage: &mut Stage) -> Result<(), Mismatch> {
    stage.play(&["unload", "--stop", PLUGIN]).await?.expect(0, &[PLUGIN])?;
    let process = stage.process.take().ok_or_else(|| "there is no process".to_owned())?;
    let pid = process.pid();
    let status = process.ended(SOON).await.map_err(|error| format!("process {pid} has not ended: {error}"))?;
    stage.registry.wait_for(PLUGIN, Wait::Gone, SOON).await?;
    stage.play(&["is-discovered", PLUGIN]).await?.expect(crate::exit_code::NOT_FOUND, &[])?;
    if status.success() { Ok(()) } else { Err(format!("process {pid} ended with {status}").into()) }
}

async fn nothing_left(stage: &mut Stage) -> Result<(), Mismatch> {
    let begun = Instant::now();
    let entries = std::fs::read_dir(stage.path()).map_err(|error| error.to_string())?;
    let left: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    let line = format!("ls -A {}", crate::output::text::quoted(&stage.path().display().to_string()));
    let listed: String = left.iter().map(|name| format!("{}\n", name.display())).collect();
    stage.registry.close().await;
    stage.show(&line, &listed, &format!("no file, no process, {}", show(begun.elapsed())))?;
    if !left.is_empty() {
        return Err(format!("{} files are left", left.len()).into());
    }
    stage.remove_folder()
}
