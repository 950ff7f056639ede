//! Methods: what an author says about one, and the function behind it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::hello::MethodInfo;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::View;
use tokio::sync::{SetOnce, mpsc};

use crate::body::{BlockingBody, Body};
use crate::context::Context;

/// A method's name and what callers may rely on. A plain `&str` is a method with every default.
///
/// # Example: a method that may safely be repeated, and takes long
/// ```
/// use std::time::Duration;
/// use goplug_plugin_impl::Method;
/// let method = Method::new("reindex").description("Reads every document again").idempotent().deadline(Duration::from_secs(300));
/// ```
#[derive(Debug, Clone)]
pub struct Method {
    pub(crate) info: MethodInfo,
}

impl Method {
    /// A method of this name: 1 to 128 bytes of UTF-8 without control characters, not `.` or `..`. A name with a `/`
    /// works for v1 callers only.
    pub fn new(name: impl Into<String>) -> Self {
        Self { info: MethodInfo::named(name) }
    }

    /// A method as the hello is to show it.
    pub fn described(info: MethodInfo) -> Self {
        Self { info }
    }

    /// One line for people.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.info.description = Some(text.into());
        self
    }

    /// A call that may have run can be repeated without harm; a registry then does so when the plugin dies during it.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.info.idempotent = true;
        self
    }

    /// Calls run one at a time, in the order of their arrival; the others wait inside their deadlines.
    #[must_use]
    pub fn serial(mut self) -> Self {
        self.info.serial = true;
        self
    }

    /// The deadline of a call that names none, at most a day; 30 s when it is not set. Never a cap.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.info.deadline_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The content type of request and reply; `application/octet-stream` for bytes when it is not set.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.info.content_type = Some(content_type.into());
        self
    }
}

impl<T: Into<String>> From<T> for Method {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// The way out of a method whose reply is a stream. The reply ends when this is dropped.
#[derive(Debug)]
pub struct ReplyStream {
    pieces: mpsc::Sender<Result<Bytes, ()>>,
    begun: Arc<SetOnce<()>>,
}

/// Pieces of a reply that wait for a slow caller.
pub(crate) const STREAM_PIECES: usize = 8;

impl ReplyStream {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Result<Bytes, ()>>) {
        let (pieces, body) = mpsc::channel(STREAM_PIECES);
        (Self { pieces, begun: Arc::default() }, body)
    }

    /// Sends the next piece of the reply; waits while the caller is slow, at most until the call's deadline. From the
    /// first piece on a failure can no longer be told, only shown: the connection is closed.
    ///
    /// # Errors
    /// `cancelled` when the caller has gone: there is no reason to go on.
    ///
    /// # Cancel safety
    /// A dropped future has sent nothing.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Fault> {
        let piece = piece.into();
        if piece.is_empty() {
            return Ok(());
        }
        let gone = |_| Fault::new(Code::Cancelled, "the caller has gone");
        self.pieces.send(Ok(piece)).await.map_err(gone)?;
        // Set before by every piece but the first.
        _ = self.begun.set(());
        Ok(())
    }

    /// The library's end of the same stream.
    pub(crate) fn control(&self) -> StreamControl {
        StreamControl { pieces: self.pieces.clone(), begun: Arc::clone(&self.begun) }
    }
}

/// What the library does with a streamed reply.
pub(crate) struct StreamControl {
    pieces: mpsc::Sender<Result<Bytes, ()>>,
    begun: Arc<SetOnce<()>>,
}

impl StreamControl {
    /// Returns after the first piece.
    pub(crate) async fn begun(&self) {
        self.begun.wait().await;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.get().is_some()
    }

    /// Returns when nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// Shows the caller that the reply is not whole.
    pub(crate) async fn abort(&self) {
        // Nobody reads any more when this fails, so there is nobody to show it to.
        _ = self.pieces.send(Err(())).await;
    }
}

pub(crate) type Running<T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>;
type Blocking = dyn Fn(&Context, View) -> Result<Bytes, Fault> + Send + Sync;
type Async = dyn Fn(Context, View) -> Running<Bytes> + Send + Sync;
type Streaming = dyn Fn(Context, View, ReplyStream) -> Running<()> + Send + Sync;
type Reading = dyn Fn(Context, Body) -> Running<Bytes> + Send + Sync;
type ReadingBlocking = dyn Fn(&Context, BlockingBody) -> Result<Bytes, Fault> + Send + Sync;
type Duplex = dyn Fn(Context, Body, ReplyStream) -> Running<()> + Send + Sync;

/// The author's function, without its type.
#[derive(Clone)]
pub(crate) enum Function {
    Blocking(Arc<Blocking>),
    Async(Arc<Async>),
    Streaming(Arc<Streaming>),
    Reading(Arc<Reading>),
    ReadingBlocking(Arc<ReadingBlocking>),
    Duplex(Arc<Duplex>),
}

impl Function {
    pub(crate) fn blocking<F, R>(function: F) -> Self
    where
        F: Fn(&Context, Bytes) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        Self::viewing(move |cx, body| function(cx, body.into_bytes()))
    }

    /// On a body wherever it lies.
    pub(crate) fn viewing<F, R>(function: F) -> Self
    where
        F: Fn(&Context, View) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        Self::Blocking(Arc::new(move |cx, body| function(cx, body).map(Into::into).map_err(it_ran)))
    }

    pub(crate) fn asynchronous<F, A, R>(function: F) -> Self
    where
        F: Fn(Context, Bytes) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, Fault>> + Send + 'static,
        R: Into<Bytes>,
    {
        Self::Async(Arc::new(move |cx, body| {
            let reply = function(cx, body.into_bytes());
            Box::pin(async move { reply.await.map(Into::into).map_err(it_ran) })
        }))
    }

    pub(crate) fn streaming<F, A>(function: F) -> Self
    where
        F: Fn(Context, Bytes, ReplyStream) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        Self::Streaming(Arc::new(move |cx, body, out| {
            let reply = function(cx, body.into_bytes(), out);
            Box::pin(async move { reply.await.map_err(it_ran) })
        }))
    }

    pub(crate) fn reading<F, A, R>(function: F) -> Self
    where
        F: Fn(Context, Body) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, Fault>> + Send + 'static,
        R: Into<Bytes>,
    {
        Self::Reading(Arc::new(move |cx, body| {
            let reply = function(cx, body);
            Box::pin(async move { reply.await.map(Into::into).map_err(it_ran) })
        }))
    }

    pub(crate) fn reading_blocking<F, R>(function: F) -> Self
    where
        F: Fn(&Context, BlockingBody) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        Self::ReadingBlocking(Arc::new(move |cx, body| function(cx, body).map(Into::into).map_err(it_ran)))
    }

    pub(crate) fn duplex<F, A>(function: F) -> Self
    where
        F: Fn(Context, Body, ReplyStream) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        Self::Duplex(Arc::new(move |cx, body, out| {
            let reply = function(cx, body, out);
            Box::pin(async move { reply.await.map_err(it_ran) })
        }))
    }

    /// Whether it is called before the body of its request has come.
    pub(crate) fn reads_its_body(&self) -> bool {
        matches!(self, Self::Reading(_) | Self::ReadingBlocking(_) | Self::Duplex(_))
    }
}

/// Whatever code the author chose, and whatever that says by itself: the method ran, so that nobody repeats the call.
pub(crate) fn it_ran(fault: Fault) -> Fault {
    fault.with_ran(Ran::Yes)
}
