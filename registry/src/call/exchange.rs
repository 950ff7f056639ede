//! A call whose bodies go piece by piece, both ways at once. Never repeated: what the plugin read is gone.

mod open;

pub(crate) use open::open;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::{
    Error, ErrorKind, FrameReplyBody, FrameRequestBody, ReplyBody as HttpReply, ReplyEnd, RequestBody as HttpRequest,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::attempt::{LAST_WORDS, broken};
use super::judge::{self, Verdict};
use super::{admission, late};
use crate::supervisor::{Doubt, Live};

/// A call under way whose request is sent, and whose reply is read, piece by piece.
///
/// Memory is bounded by credit, not by the length of a body: at most 512 KiB of the reply wait to be read, and at most
/// 256 KiB, and one piece, of the request wait to be sent. A reply has no limit on its length; the deadline of the call
/// covers its last byte. Over HTTP the call has a connection of its own.
///
/// An application that sends a lot and reads nothing meanwhile waits for a plugin that waits for it to read, until the deadline:
/// with such a method, [`Exchange::split`] and do both at once.
///
/// Dropping it, or either half, before the end cancels the call.
///
/// # Example: send a file that does not fit into memory
/// ```no_run
/// use std::io::Read;
///
/// use goplug_registry::{CallOptions, Plugin};
///
/// # async fn example(plugin: Plugin, mut file: std::fs::File) -> Result<(), Box<dyn std::error::Error>> {
/// let mut call = plugin.exchange("sum", CallOptions::default()).await?;
/// let mut piece = vec![0; 256 * 1024];
/// loop {
///     let count = file.read(&mut piece)?;
///     if count == 0 {
///         break;
///     }
///     call.send(piece[..count].to_vec()).await?;
/// }
/// call.finish().await?;
/// while let Some(piece) = call.next().await? {
///     println!("{} bytes", piece.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Exchange {
    request: RequestBody,
    reply: ReplyBody,
}

/// The request of an [`Exchange`]. Dropping it before [`RequestBody::finish`] cancels the call.
#[derive(Debug)]
pub struct RequestBody {
    call: Arc<Call>,
    out: Option<Out>,
}

/// The reply of an [`Exchange`]. Dropping it before its end cancels the call.
#[derive(Debug)]
pub struct ReplyBody {
    call: Arc<Call>,
    back: Back,
    content_type: Option<String>,
    /// How it ended: told again to whoever asks again.
    end: Option<Result<(), Fault>>,
}

#[derive(Debug)]
enum Out {
    Frames(FrameRequestBody),
    Http(HttpRequest),
}

#[derive(Debug)]
enum Back {
    Frames(FrameReplyBody),
    Http {
        reply: HttpReply,
        call_id: String,
        has_begun: bool,
    },
    /// Nothing more will be read.
    Closed,
}

/// What both halves share.
#[derive(Debug)]
pub(super) struct Call {
    live: Arc<Live>,
    method: String,
    deadline: Instant,
    /// The request was given up before its end.
    is_cancelled: AtomicBool,
    /// Its failure was counted.
    has_failed: AtomicBool,
    _place: Place,
}

/// A place among the calls under way, and the turn of a serial method, as long as it is kept: a future that is polled until it has
/// them, and then rests.
pub(super) struct Place(#[expect(dead_code, reason = "kept for its drop")] Mutex<Resting>);

type Resting = Pin<Box<dyn Future<Output = Infallible> + Send>>;

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Place {
    /// Waits for them, at most until `deadline`.
    async fn of(live: &Arc<Live>, method: usize, deadline: Instant) -> Result<Self, Fault> {
        let (admitted, mut answer) = tokio::sync::oneshot::channel();
        let live = Arc::clone(live);
        let mut place: Resting = Box::pin(async move {
            // Held until the future is dropped.
            let _admitted = match admission::admit(&live, &live.methods[method], deadline).await {
                Ok(held) => {
                    _ = admitted.send(Ok(()));
                    Some(held)
                }
                Err(fault) => {
                    _ = admitted.send(Err(fault));
                    None
                }
            };
            pending().await
        });
        tokio::select! {
            biased;
            never = &mut place => match never {},
            answer = &mut answer => match answer {
                Ok(answer) => answer.map(|()| Self(Mutex::new(place))),
                Err(_) => Err(Fault::new(Code::Internal, "the admission of a call was lost")),
            },
        }
    }
}

impl Exchange {
    /// Sends the next piece of the request; waits while the plugin is slow. Pieces of some 100 KiB are the fastest; the plugin
    /// reads others than were sent. What is sent to a plugin that has answered is dropped.
    ///
    /// # Errors
    /// Why the call has ended.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped future may have sent a part of the piece, and the request cannot go on.
    pub async fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), Fault> {
        self.request.send(piece).await
    }

    /// The request is whole.
    ///
    /// # Errors
    /// As [`Exchange::send`]; `wrong_state` for the second time.
    ///
    /// # Cancel safety
    /// As [`Exchange::send`].
    pub async fn finish(&mut self) -> Result<(), Fault> {
        self.request.finish_once().await
    }

    /// The next piece of the reply, as soon as there is one; `None` when it is whole. A piece may keep a buffer of 256 KiB:
    /// copy what is to stay.
    ///
    /// # Errors
    /// As [`crate::Registry::execute`]. `ran` is `yes` once a piece has come.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        self.reply.next().await
    }

    /// What the plugin says that the reply is. Over HTTP it is known after the first [`Exchange::next`].
    pub fn content_type(&self) -> Option<&str> {
        self.reply.content_type()
    }

    /// Both directions, for tasks of their own.
    pub fn split(self) -> (RequestBody, ReplyBody) {
        (self.request, self.reply)
    }
}

impl RequestBody {
    /// As [`Exchange::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), Fault> {
        let (piece, call) = (piece.into(), &*self.call);
        let sent = match &mut self.out {
            None => return Err(finished()),
            Some(Out::Frames(body)) => {
                let sent = body.send(&piece).await.map_err(|error| call.lost(&error, false));
                sent.and_then(|()| unrefused(body))
            }
            Some(Out::Http(body)) => call.over_http(body.send(&piece), false).await,
        };
        sent.inspect_err(|fault| call.note(fault))
    }

    /// As [`Exchange::finish`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn finish(mut self) -> Result<(), Fault> {
        self.finish_once().await
    }

    pub(crate) async fn finish_once(&mut self) -> Result<(), Fault> {
        match self.out.take() {
            None => return Err(finished()),
            Some(Out::Frames(body)) => body.finish(),
            Some(Out::Http(mut body)) => {
                let finished = self.call.over_http(body.finish(), false).await;
                finished.inspect_err(|fault| self.call.note(fault))?;
            }
        }
        Ok(())
    }

    pub(crate) fn send_blocking(&mut self, piece: &Bytes) -> Option<Result<(), Fault>> {
        match &mut self.out {
            Some(Out::Frames(body)) => {
                let sent = body.send_blocking(piece).map_err(|error| self.call.lost(&error, false));
                Some(sent.and_then(|()| unrefused(body)).inspect_err(|fault| self.call.note(fault)))
            }
            _ => None,
        }
    }
}

/// Whoever sends on and on must hear that the call has failed, also when nothing is read meanwhile.
fn unrefused(body: &FrameRequestBody) -> Result<(), Fault> {
    body.problem().map_or(Ok(()), |document| Err(judge::problem(502, &document)))
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.out.is_some() {
            self.call.is_cancelled.store(true, Ordering::Release);
        }
    }
}

impl ReplyBody {
    /// As [`Exchange::next`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| None);
        }
        let next = match &mut self.back {
            Back::Frames(reply) => match reply.next().await {
                Ok(piece) => Ok(Some(piece)),
                Err(end) => self.call.ended(end).map(|()| None),
            },
            Back::Http { reply, call_id, has_begun } => {
                let next = http_next(&self.call, reply, call_id, has_begun, &mut self.content_type);
                next.await
            }
            Back::Closed => Ok(None),
        };
        self.took(next)
    }

    /// As [`Exchange::content_type`].
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    pub(crate) fn next_blocking(&mut self) -> Option<Result<Option<Bytes>, Fault>> {
        if let Some(end) = &self.end {
            return Some(end.clone().map(|()| None));
        }
        let Back::Frames(reply) = &mut self.back else { return None };
        let next = match reply.next_blocking() {
            Ok(piece) => Ok(Some(piece)),
            Err(end) => self.call.ended(end).map(|()| None),
        };
        Some(self.took(next))
    }

    fn took(&mut self, next: Result<Option<Bytes>, Fault>) -> Result<Option<Bytes>, Fault> {
        self.end = match &next {
            Ok(Some(_)) => None,
            Ok(None) => Some(Ok(())),
            Err(fault) => {
                self.call.note(fault);
                Some(Err(fault.clone()))
            }
        };
        if self.end.is_some() {
            self.back = Back::Closed;
        }
        next
    }
}

/// One piece of a reply over HTTP; with the first its head.
async fn http_next(
    call: &Call,
    reply: &mut HttpReply,
    call_id: &str,
    has_begun: &mut bool,
    content_type: &mut Option<String>,
) -> Result<Option<Bytes>, Fault> {
    if !*has_begun {
        let head = call.over_http(reply.head(), false).await?;
        match judge::v1(&head, call_id) {
            Verdict::Body => {}
            Verdict::Problem => {
                let document = call.over_http(reply.rest(MAX_PROBLEM_BYTES), false).await?;
                return Err(call.problem(head.status, &document));
            }
            Verdict::Broken(why) => {
                return Err(Fault::new(Code::ProtocolError, format!("plugin `{}`: {why}", call.live.id)));
            }
        }
        *content_type = head.header("content-type").map(str::to_owned);
        *has_begun = true;
    }
    call.over_http(reply.next(), true).await
}

impl Call {
    /// Waits for something of the HTTP connection; ends at the deadline, and soon after the plugin's death.
    async fn over_http<T>(&self, wait: impl Future<Output = Result<T, Error>>, has_begun: bool) -> Result<T, Fault> {
        // A socket that takes or gives whatever it is asked for must not keep the task from anything else.
        tokio::task::consume_budget().await;
        if Instant::now() >= self.deadline {
            return Err(self.late(has_begun));
        }
        if self.live.is_gone() {
            return Err(self.died(has_begun));
        }
        tokio::pin!(wait);
        let gone = async {
            tokio::select! {
                biased;
                done = &mut wait => Some(done),
                () = self.live.wait_gone() => timeout(LAST_WORDS, &mut wait).await.ok(),
            }
        };
        match timeout_at(self.deadline, gone).await {
            Ok(Some(done)) => done.map_err(|error| self.lost(&error, has_begun)),
            Ok(None) => Err(self.died(has_begun)),
            Err(_) => Err(self.late(has_begun)),
        }
    }

    /// Notes how it failed, of which both halves may hear.
    fn note(&self, fault: &Fault) {
        if !self.has_failed.swap(true, Ordering::AcqRel) {
            self.live.note_failure(fault.code);
        }
    }

    fn died(&self, has_begun: bool) -> Fault {
        let text = format!("plugin `{}` died, or was let go, during the call", self.live.id);
        Fault::new(Code::PluginGone, text).with_ran(ran(has_begun))
    }

    /// How a reply over frames ended.
    fn ended(&self, end: ReplyEnd) -> Result<(), Fault> {
        match end {
            ReplyEnd::Whole => Ok(()),
            ReplyEnd::Problem(document, has_begun) => Err(self.told(has_begun, self.problem(502, &document))),
            ReplyEnd::Failed(error, has_begun) => Err(self.lost(&error, has_begun)),
        }
    }

    fn problem(&self, status: u16, document: &[u8]) -> Fault {
        let fault = judge::problem(status, document);
        if fault.code == Code::WrongState && fault.ran == Ran::No {
            self.live.report(Doubt::Inactive);
        }
        fault
    }

    fn lost(&self, error: &Error, has_begun: bool) -> Fault {
        if error.kind == ErrorKind::Deadline {
            return self.late(has_begun);
        }
        let mut fault = self.told(has_begun, broken(&self.live, error));
        if self.is_cancelled.load(Ordering::Acquire) && fault.code == Code::PluginGone {
            let text = format!("the request to plugin `{}` was given up before its end", self.live.id);
            fault = Fault::new(Code::Cancelled, text);
        }
        if has_begun { fault.with_ran(Ran::Yes) } else { fault }
    }

    /// What a reply that was cut off says of its cause. The plugin counts whole milliseconds: at the deadline it cuts a
    /// reply off just before the time is over that we count.
    fn told(&self, has_begun: bool, fault: Fault) -> Fault {
        let is_deadline = has_begun && fault.code == Code::PluginGone && Instant::now() + ROUNDING >= self.deadline;
        if is_deadline { self.late(has_begun) } else { fault }
    }

    fn late(&self, has_begun: bool) -> Fault {
        self.live.report(Doubt::Silent);
        late(&self.live, &self.method, ran(has_begun))
    }
}

/// What a deadline may lose on its way to the plugin, and the plugin's answer take back.
const ROUNDING: Duration = Duration::from_millis(2);

fn ran(has_begun: bool) -> Ran {
    if has_begun { Ran::Yes } else { Ran::Unknown }
}

fn finished() -> Fault {
    Fault::new(Code::WrongState, "the request was finished before").with_ran(Ran::Unknown)
}
