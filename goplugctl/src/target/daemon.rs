//! A daemon as the target: its HTTP API over its Unix socket. The only user of hyperlocal.

mod lines;
mod routes;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use goplug_pconf_schema::wire::call::{DEADLINE_MS, HOST};
use goplug_pconf_schema::wire::sse::{SseEvent, SseReader};
use goplug_pconf_schema::{Code, Fault, Ran, printable};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyperlocal::UnixConnector;
use serde::de::DeserializeOwned;

/// How long an answer may take that waits for no plugin beyond the registry's own deadlines.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much longer than the deadline that was sent along we wait: the daemon is the judge.
const GRACE: Duration = Duration::from_secs(2);
/// The largest document that is read.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024 * 1024;
/// The largest reply of a method that is read; the daemon's own limit is usually lower.
const MAX_REPLY_BYTES: usize = 1024 * 1024 * 1024;

/// A client of one daemon. Connections are made as they are needed and kept.
#[derive(Clone)]
pub(crate) struct Daemon {
    socket: PathBuf,
    client: Client<UnixConnector, Full<Bytes>>,
}

impl Daemon {
    /// A client of the daemon that listens at `socket`; connects with the first question.
    pub(crate) fn new(socket: PathBuf) -> Self {
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(UnixConnector);
        Self { socket, client }
    }

    /// Sends a request and waits for the head of the answer. An answer that is no success is a `Fault`.
    async fn send(&self, request: Ask<'_>) -> Result<Response<Incoming>, Fault> {
        let uri = hyperlocal::Uri::new(&self.socket, &request.path);
        let mut builder = Request::builder().method(request.method.clone()).uri(uri).header("host", HOST);
        if let Some(content_type) = request.content_type {
            builder = builder.header("content-type", content_type);
        }
        if let Some(deadline) = request.deadline {
            builder = builder.header(DEADLINE_MS, milliseconds(deadline).to_string());
        }
        let message = builder
            .body(Full::new(request.body.clone()))
            .map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let response = match tokio::time::timeout(request.patience, self.client.request(message)).await {
            Err(_) => return Err(self.silent(request.patience)),
            Ok(Err(error)) => return Err(self.broken(&request, &error)),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Sends a request and reads the whole answer.
    async fn ask(&self, request: Ask<'_>, max_bytes: usize) -> Result<Bytes, Fault> {
        let patience = request.patience;
        let whole = async {
            let changes = request.method != Method::GET;
            let response = self.send(request).await?;
            let body = Limited::new(response.into_body(), max_bytes).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|error| {
                match error.downcast_ref::<http_body_util::LengthLimitError>() {
                    Some(_) => Fault::new(Code::TooLarge, format!("the answer is larger than {max_bytes} bytes"))
                        .with_ran(Ran::Yes),
                    None => self.lost(changes, &error.to_string()),
                }
            })
        };
        tokio::time::timeout(patience, whole).await.unwrap_or_else(|_| Err(self.silent(patience)))
    }

    async fn document<T: DeserializeOwned>(&self, request: Ask<'_>) -> Result<T, Fault> {
        let bytes = self.ask(request, MAX_DOCUMENT_BYTES).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Fault::new(Code::ProtocolError, format!("the daemon's answer is not understood: {error}")))
    }

    async fn stream(&self, path: String) -> Result<stream::BoxStream<'static, Result<SseEvent, Fault>>, Fault> {
        let response = self.send(Ask::get(path)).await?;
        let state = Stream { body: response.into_body(), reader: SseReader::default(), ready: VecDeque::new() };
        Ok(stream::unfold(state, |mut state| async { state.next().await.map(|item| (item, state)) }).boxed())
    }

    fn broken(&self, request: &Ask<'_>, error: &hyper_util::client::legacy::Error) -> Fault {
        let shown = printable(&self.socket.display().to_string());
        let cause = root_cause(error);
        if !error.is_connect() {
            return self.lost(request.method != Method::GET, &cause.to_string());
        }
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::PermissionDenied) => Fault::new(
                Code::Denied,
                format!("no permission to connect to `{shown}`: the daemon serves its own user and root"),
            ),
            Some(io::ErrorKind::NotFound) => {
                Fault::new(Code::Unavailable, format!("no daemon at `{shown}`: there is no such socket"))
            }
            Some(io::ErrorKind::ConnectionRefused) => {
                Fault::new(Code::Unavailable, format!("no daemon at `{shown}`: nobody listens on the socket"))
            }
            _ => Fault::new(Code::Unavailable, format!("cannot connect to `{shown}`: {cause}")),
        }
    }

    fn lost(&self, changes: bool, cause: &str) -> Fault {
        let shown = printable(&self.socket.display().to_string());
        let code = if changes { Code::PluginGone } else { Code::Unavailable };
        Fault::new(code, format!("the daemon at `{shown}` broke the connection: {}", printable(cause)))
    }

    fn silent(&self, patience: Duration) -> Fault {
        let shown = printable(&self.socket.display().to_string());
        Fault::new(
            Code::DeadlineExceeded,
            format!("the daemon at `{shown}` gave no answer within {} ms", patience.as_millis()),
        )
    }
}

/// One question.
struct Ask<'a> {
    method: Method,
    path: String,
    body: Bytes,
    content_type: Option<&'a str>,
    deadline: Option<Duration>,
    patience: Duration,
}

impl Ask<'_> {
    fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: Bytes::new(),
            content_type: None,
            deadline: None,
            patience: PATIENCE,
        }
    }

    fn post(path: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }
}

/// A stream of events while it is read.
struct Stream {
    body: Incoming,
    reader: SseReader,
    ready: VecDeque<SseEvent>,
}

impl Stream {
    async fn next(&mut self) -> Option<Result<SseEvent, Fault>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let frame = match self.body.frame().await? {
                Ok(frame) => frame,
                Err(error) => {
                    return Some(Err(Fault::new(Code::Unavailable, format!("the daemon broke the stream: {error}"))));
                }
            };
            let mut events = Vec::new();
            if let Some(bytes) = frame.data_ref()
                && let Err(why) = self.reader.push(bytes, &mut events)
            {
                return Some(Err(Fault::new(Code::ProtocolError, why)));
            }
            self.ready.extend(events);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an answer that is no success says.
async fn refusal(response: Response<Incoming>) -> Fault {
    let status = response.status();
    let body =
        Limited::new(response.into_body(), 2 * goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES).collect().await;
    let document = body.ok().and_then(|body| Fault::from_problem(&body.to_bytes()));
    document.unwrap_or_else(|| {
        Fault::new(Code::ProtocolError, format!("answer {status} without a problem document: is this a goplugd?"))
    })
}

fn root_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}
