//! The HTTP API of the daemon: a client, the daemon, the plugin, a process each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use goplug_benches::{
    Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, placement, serve_control,
};
use goplug_registry::Latency;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::library::{Face, Handler, ID, Library, Transport};

/// How long the daemon may take until it answers.
const LONGEST_START: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(5);
/// The longest head of a reply.
const MAX_HEAD: usize = 4096;

/// Clients keep their connections, one each, as the API's clients do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Daemon;

/// What the daemon's process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DaemonJob {
    dir: PathBuf,
    cpu: Option<usize>,
}

/// What the daemon's process does.
pub(crate) fn run(job: &DaemonJob) -> Result<()> {
    if let Some(cpu) = job.cpu {
        placement::pin(&[cpu])?;
    }
    serve_control()?;
    let socket = socket(&job.dir);
    let mut args = ["goplugd", "--log", "warn", "--plugin-dir"].map(OsString::from).to_vec();
    args.extend([job.dir.clone().into(), "--socket".into(), socket.into()]);
    goplugd::main_with(args);
    bail!("the daemon ended")
}

/// In a folder of its own, which the daemon makes for itself alone.
fn socket(dir: &Path) -> PathBuf {
    dir.join("daemon/api.sock")
}

/// The plugin is the library's own.
fn plugin() -> Library {
    Library {
        transport: Transport::Frames(Latency::Balanced),
        face: Face::Async(Runtime::CurrentThread),
        handler: Handler::Async,
    }
}

impl Subject for Daemon {
    fn name(&self) -> String {
        "goplugd-api/current-thread".into()
    }

    fn takes(&self, case: &Case) -> bool {
        // The daemon keeps 256 MiB of request bodies at most.
        case.size * case.in_flight <= 128 << 20
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut processes = PluginProcess::start(job)?;
        let told = DaemonJob { dir: processes.dir().to_owned(), cpu: job.plugin_cpu };
        processes.add("daemon", &[told])?;
        let socket = socket(processes.dir());
        Runtime::CurrentThread.build()?.block_on(async {
            until_ready(&socket).await?;
            let exchange = Exchange::new(job.case);
            let mut callers = Vec::new();
            for _ in 0..job.case.in_flight {
                let mut client = Client::connect(&socket).await?;
                client.request("POST", &format!("/v1/plugins/{ID}/methods/echo?load=true"), &exchange.request).await?;
                callers.push(OneClient { client, exchange: exchange.clone() });
            }
            drive(job, Some(&mut processes), callers).await
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        plugin().plugin(dir, work, size)
    }
}

async fn until_ready(socket: &Path) -> Result<()> {
    let until = Instant::now() + LONGEST_START;
    loop {
        let ready = async { Client::connect(socket).await?.request("GET", "/readyz", b"").await };
        match ready.await {
            Ok(()) => return Ok(()),
            Err(error) => ensure!(Instant::now() < until, "the daemon is not ready: {error:#}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct OneClient {
    client: Client,
    exchange: Exchange,
}

impl Caller for OneClient {
    async fn call(&mut self) -> Result<()> {
        self.client.request("POST", &format!("/v1/plugins/{ID}/methods/echo"), &self.exchange.request).await?;
        self.exchange.check(&self.client.reply)
    }
}

/// A client of HTTP/1.1 that understands as much of it as the daemon says.
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    /// The body of the last reply.
    reply: Vec<u8>,
}

impl Client {
    async fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { stream: UnixStream::connect(socket).await?, request: Vec::new(), reply: Vec::new() })
    }

    /// One request; `reply` holds the body behind it.
    async fn request(&mut self, method: &str, target: &str, body: &[u8]) -> Result<()> {
        self.request.clear();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: goplug\r\nContent-Length: {}\r\n\r\n", body.len());
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        let mut head = [0; MAX_HEAD];
        let mut filled = 0;
        let end = loop {
            let read = self.stream.read(&mut head[filled..]).await?;
            ensure!(read > 0, "the daemon closed the connection");
            filled += read;
            if let Some(at) = head[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&head[..end])?;
        let length = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let length: usize = length.with_context(|| format!("no length: {text}"))?;
        self.reply.resize(length, 0);
        let here = &head[end..filled];
        ensure!(here.len() <= length, "more came than was asked for");
        self.reply[..here.len()].copy_from_slice(here);
        self.stream.read_exact(&mut self.reply[here.len()..]).await?;
        ensure!(text.starts_with("HTTP/1.1 200 "), "{text}{}", String::from_utf8_lossy(&self.reply));
        Ok(())
    }
}
