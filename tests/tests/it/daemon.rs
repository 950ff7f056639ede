//! goplugd end to end: HTTP by hand on its Unix socket, real plugins behind it.

mod calls;
mod life;
mod outlived;
pub(crate) mod process;
mod refusals;
mod streams;

use std::path::Path;

use goplug_tests::{LONG, PluginDir, Process, http, wait_until};
use serde_json::Value;

use crate::support::{Daemon, fixture};

/// One daemon over one directory with the fixture `Test/Do`, loaded.
struct Stage {
    dir: PluginDir,
    plugin: Process,
    daemon: Daemon,
}

impl Stage {
    fn new(args: &[&str]) -> Self {
        let dir = PluginDir::new();
        let plugin = fixture(&dir, args);
        let daemon = Daemon::start(&dir, &[]);
        let stage = Self { dir, plugin, daemon };
        let loaded = stage.get("/v1/plugins/Test/Do/wait?for=loaded&timeoutMs=20000");
        assert_eq!(loaded.status(), 200, "{loaded:?}");
        stage
    }

    fn get(&self, target: &str) -> http::Reply {
        http::once(&self.daemon.socket(), "GET", target, &[], b"").expect("an answer")
    }

    fn post(&self, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> http::Reply {
        http::once(&self.daemon.socket(), "POST", target, headers, body.as_ref()).expect("an answer")
    }

    /// Calls a method of `Test/Do`.
    fn execute(&self, method: &str, body: impl AsRef<[u8]>) -> http::Reply {
        self.post(&format!("/v1/plugins/Test/Do/methods/{method}"), &[], body)
    }

    fn in_flight(&self) -> u64 {
        self.get("/v1/plugins/Test/Do").json()["inFlight"].as_u64().expect("calls under way")
    }

    fn until_in_flight(&self, calls: u64) {
        wait_until(&format!("{calls} calls are under way"), LONG, || self.in_flight() == calls);
    }

    fn epoch(&self) -> String {
        self.get("/v1/plugins/Test/Do").json()["epoch"].as_str().expect("an epoch").to_owned()
    }
}

/// The problem document of a refusal, which agrees with its status.
#[track_caller]
fn problem(reply: &http::Reply, status: u16, code: &str) -> Value {
    assert_eq!((reply.status(), reply.header("content-type")), (status, Some("application/problem+json")), "{reply:?}");
    let document = reply.json();
    assert_eq!((&document["status"], &document["code"]), (&status.into(), &code.into()), "{document}");
    document
}

/// What the plugin on this socket says of itself.
fn hello(socket: &Path) -> Value {
    http::once(socket, "GET", "/_goplug/hello", &[], b"").expect("an answer").json()
}
