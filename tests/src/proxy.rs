//! A Unix-socket proxy that makes bad weather: slices, delays and cuts what goes through, from a seed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use crate::Random;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Where the random numbers begin.
    pub seed: u64,
    /// Pieces have 1 to this many bytes; 0: as they come.
    pub slice: usize,
    /// This many percent of the pieces wait.
    pub delay_percent: usize,
    /// How long a piece waits at most.
    pub delay: Duration,
    /// Cut the connection when this many notifications went through, as events of a stream or as frames; 0: never.
    pub cut_after_events: u64,
}

/// A running proxy. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    socket: PathBuf,
    runtime: Option<Runtime>,
    cut: broadcast::Sender<()>,
    connections: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// Listens on `socket` and passes everything on to `upstream`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(socket: &Path, upstream: &Path, weather: Weather) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (cut, _) = broadcast::channel(1);
        let (connections, cuts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket for the proxy");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::from_std(listener).expect("a socket for the proxy")
        };
        let shared = Shared {
            upstream: upstream.to_owned(),
            weather,
            cut: cut.clone(),
            connections: Arc::clone(&connections),
            cuts: Arc::clone(&cuts),
        };
        runtime.spawn(accept(listener, Arc::new(shared)));
        Self { socket: socket.to_owned(), runtime: Some(runtime), cut, connections, cuts }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Cuts every connection that is open now.
    pub fn cut_all(&self) {
        let _ = self.cut.send(());
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections cut by [`Weather::cut_after_events`] so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test may drop the proxy on a thread of its own runtime, where nothing may wait.
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Shared {
    upstream: PathBuf,
    weather: Weather,
    cut: broadcast::Sender<()>,
    connections: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(pass(client, number, Arc::clone(&shared)));
    }
}

/// Both directions of one connection; when one ends in an error, or is cut, both do.
async fn pass(client: UnixStream, number: u64, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    let Ok(plugin) = UnixStream::connect(&shared.upstream).await else { return };
    let ((client_in, client_out), (plugin_in, plugin_out)) = (client.into_split(), plugin.into_split());
    let random = |direction| Random::new(shared.weather.seed ^ (number << 1 | direction));
    let both = async {
        tokio::try_join!(
            carry(client_in, plugin_out, random(0), &shared, false),
            carry(plugin_in, client_out, random(1), &shared, true)
        )
    };
    tokio::select! {
        _ = both => {}
        _ = cut.recv() => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut random: Random,
    shared: &Shared,
    events: bool,
) -> io::Result<()> {
    let (weather, mut buffer, mut seen, mut talk) = (shared.weather, vec![0; 16 * 1024], 0, Talk::Begins(Vec::new()));
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let size = if weather.slice == 0 { rest.len() } else { (1 + random.below(weather.slice)).min(rest.len()) };
            if random.percent(weather.delay_percent) {
                tokio::time::sleep(weather.delay.mul_f64(random.below(1000) as f64 / 1000.0)).await;
            }
            to.write_all(&rest[..size]).await?;
            rest = &rest[size..];
        }
        if events && weather.cut_after_events > 0 {
            seen += talk.notifications(&buffer[..count]);
            if seen >= weather.cut_after_events {
                shared.cuts.fetch_add(1, Ordering::Relaxed);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// What a plugin speaks on a connection, as far as one has to know to count notifications.
enum Talk {
    /// Its first bytes, until they say which it is.
    Begins(Vec<u8>),
    Http,
    /// The beginning of a frame, and how much of the frame before is still to come.
    Frames(Vec<u8>, usize),
}

impl Talk {
    /// How many notifications are in the next bytes. One that is cut in two between reads may be missed over HTTP.
    fn notifications(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Self::Http => bytes.windows(15).filter(|piece| piece == b"event: message\n").count() as u64,
            Self::Frames(head, skip) => frames(head, skip, bytes),
            Self::Begins(first) => {
                first.extend_from_slice(bytes);
                let all = std::mem::take(first);
                let end = all.windows(4).position(|four| four == b"\r\n\r\n");
                match (all.starts_with(b"HTTP/1.1 101 "), end) {
                    (true, Some(end)) => {
                        *self = Self::Frames(Vec::new(), 0);
                        return self.notifications(&all[end + 4..]);
                    }
                    (true, None) => *self = Self::Begins(all),
                    (false, _) if all.len() < 13 => *self = Self::Begins(all),
                    (false, _) => {
                        *self = Self::Http;
                        return self.notifications(&all);
                    }
                }
                0
            }
        }
    }
}

/// Counts frames of type 10 whose END is set.
fn frames(head: &mut Vec<u8>, skip: &mut usize, mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    loop {
        let skipped = bytes.len().min(*skip);
        (*skip, bytes) = (*skip - skipped, &bytes[skipped..]);
        let wanted = bytes.len().min(6 - head.len());
        head.extend_from_slice(&bytes[..wanted]);
        bytes = &bytes[wanted..];
        let Some(&[a, b, c, d, kind, flags]) = head.first_chunk() else { return count };
        count += u64::from(kind == 10 && flags == 1);
        // The length counts what follows it, and two of these bytes have come.
        *skip = (u32::from_le_bytes([a, b, c, d]) as usize).saturating_sub(2);
        head.clear();
    }
}
