//! The body of a request, for a method that reads it while it comes.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{FrameBody, IncomingBody};
use tokio::runtime::Handle;

use crate::call::must_end;
use crate::context::Context;

/// The body of a request as it comes, piece by piece. At most 512 KiB that the method has not taken are kept (over HTTP: two pieces, each
/// at most as large): a method that reads slowly holds back its own caller and nobody else.
///
/// Dropping it before its end takes no more of it; the call goes on.
///
/// # Example: a method whose body need not fit into memory
/// ```
/// use goplug_plugin_impl::testing::InProcess;
/// use goplug_plugin_impl::{Error, Plugin};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Error> {
/// let plugin = InProcess::start(|dir| {
///     Plugin::builder(dir).name("tally").method_body("count", |_cx, mut body| async move {
///         let mut count = 0;
///         while let Some(piece) = body.next().await? {
///             count += piece.len();
///         }
///         Ok(count.to_string())
///     })
/// })
/// .await?;
/// assert_eq!(plugin.call("count", "hello").await?, "5");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Body {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Frames(FrameBody),
    Http(IncomingBody),
}

impl Body {
    pub(crate) fn of_frames(body: FrameBody) -> Self {
        Self { source: Source::Frames(body) }
    }

    pub(crate) fn of_http(body: IncomingBody) -> Self {
        Self { source: Source::Http(body) }
    }

    /// The next piece, as soon as there is one; `None` when the body is whole. Pieces are of any size up to 256 KiB, and
    /// not those that were sent. They keep a buffer of that size: copy what is to stay.
    ///
    /// # Errors
    /// `cancelled` when the caller has gone: the body will not become whole.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let next = match &mut self.source {
            Source::Frames(body) => body.next().await,
            Source::Http(body) => body.next().await,
        };
        next.map_err(|_| Fault::new(Code::Cancelled, "the caller has gone before its body was whole"))
    }
}

/// As [`Body`], for a method that blocks. It is read piece by piece, or as [`Read`].
///
/// # Example: a line at a time
/// ```
/// use std::io::{BufRead, BufReader};
///
/// use goplug_plugin_impl::testing::InProcess;
/// use goplug_plugin_impl::{Error, Plugin};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Error> {
/// let plugin = InProcess::start(|dir| {
///     Plugin::builder(dir).name("tally").method_body_blocking("lines", |_cx, body| {
///         Ok(BufReader::new(body).lines().count().to_string())
///     })
/// })
/// .await?;
/// assert_eq!(plugin.call("lines", "one\ntwo\nthree").await?, "3");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlockingBody {
    body: Body,
    cx: Context,
    runtime: Handle,
    /// What was not read yet of the last piece.
    rest: Bytes,
}

impl BlockingBody {
    pub(crate) fn new(body: Body, cx: Context) -> Self {
        let runtime = cx.service().runtime().clone();
        Self { body, cx, runtime, rest: Bytes::new() }
    }

    /// As [`Body::next`]; waits at most until the call must end.
    ///
    /// # Errors
    /// As there; `deadline_exceeded` when the caller's time is up, `unavailable` when the plugin is deactivated.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Fault> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let (body, cx) = (&mut self.body, &self.cx);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                piece = body.next() => piece,
                () = cx.cancelled() => Err(Fault::new(Code::Cancelled, "nobody waits for the reply any more")),
                fault = must_end(cx) => Err(fault),
            }
        })
    }
}

impl Read for BlockingBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.next_piece().map_err(io::Error::other)?.unwrap_or_default();
        }
        let count = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
