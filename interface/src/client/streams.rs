//! Calls that take or give streams: what is sent is sent while the reply is waited for, in the caller's own task.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};

use goplug_pconf_schema::wire::failure::Failure;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_registry::{Exchange, ReplyBody, RequestBody};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Caller;
use crate::stream::{Incoming, Lines, Pieces, Stream, failure, line};

/// The largest reply that is no stream, of a method that takes one.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

impl Caller {
    /// Calls a method that gives a stream.
    #[doc(hidden)]
    pub async fn call_giving<I, O, E>(&self, method: &str, input: &I) -> Result<Stream<O>, E::Seen>
    where
        I: Serialize + Sync,
        O: DeserializeOwned + Send + 'static,
        E: Failure,
    {
        let body = self.written(method, input).map_err(E::seen)?;
        let work = async {
            let mut exchange = self.begin(method).await?;
            exchange.send(body).await?;
            exchange.finish().await?;
            let (request, reply) = exchange.split();
            drop(request);
            self.replied(method, None, reply).await
        };
        work.await.map_err(E::seen)
    }

    /// Calls a method that takes a stream, after `input` if there is any.
    #[doc(hidden)]
    pub async fn call_taking<I, T, O, E>(&self, method: &str, input: Option<&I>, items: Stream<T>) -> Result<O, E::Seen>
    where
        I: Serialize + Sync,
        T: Serialize + Send + 'static,
        O: DeserializeOwned,
        E: Failure,
    {
        let work = async {
            let (request, mut reply) = self.begin(method).await?.split();
            let mut sending = Some(send(request, self.first_line(method, input)?, items));
            let mut whole = Vec::new();
            while let Some(piece) = beside(&mut sending, reply.next()).await? {
                if whole.len() + piece.len() > MAX_REPLY_BYTES {
                    let text = format!("the reply of method `{method}` is larger than {MAX_REPLY_BYTES} bytes");
                    return Err(Fault::new(Code::TooLarge, text).with_ran(Ran::Yes));
                }
                whole.extend_from_slice(&piece);
            }
            self.understood(method, &whole)
        };
        work.await.map_err(E::seen)
    }

    /// Calls a method that takes a stream, after `input` if there is any, and gives one.
    #[doc(hidden)]
    pub async fn call_taking_and_giving<I, T, O, E>(
        &self,
        method: &str,
        input: Option<&I>,
        items: Stream<T>,
    ) -> Result<Stream<O>, E::Seen>
    where
        I: Serialize + Sync,
        T: Serialize + Send + 'static,
        O: DeserializeOwned + Send + 'static,
        E: Failure,
    {
        let work = async {
            let (request, reply) = self.begin(method).await?.split();
            let sending = send(request, self.first_line(method, input)?, items);
            self.replied(method, Some(sending), reply).await
        };
        work.await.map_err(E::seen)
    }

    async fn begin(&self, method: &str) -> Result<Exchange, Fault> {
        self.plugin.exchange(method, self.options.clone()).await
    }

    fn first_line<I: Serialize + Sync>(&self, method: &str, input: Option<&I>) -> Result<Vec<u8>, Fault> {
        let Some(input) = input else { return Ok(Vec::new()) };
        let mut line = self.written(method, input)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Waits until the method has begun, or failed.
    async fn replied<O: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        mut sending: Option<Sending>,
        mut reply: ReplyBody,
    ) -> Result<Stream<O>, Fault> {
        let first = beside(&mut sending, reply.next()).await?;
        let what = format!("the reply of method `{method}` of plugin `{}`", self.plugin.id());
        let mut items = Incoming::new(Reply { sending, reply, what });
        if let Some(piece) = first {
            items.push(&piece);
        }
        Ok(Stream::of(items))
    }
}

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends a request to its end. Why that fails, if it does, is told by the reply.
fn send<T: Serialize + Send + 'static>(mut request: RequestBody, first: Vec<u8>, mut items: Stream<T>) -> Sending {
    Box::pin(async move {
        if !first.is_empty() && request.send(first).await.is_err() {
            return;
        }
        loop {
            let next = match items.next().await {
                Ok(Some(item)) => line(&item),
                Ok(None) => break,
                Err(fault) => Err(fault),
            };
            let (piece, is_last) = match next {
                Ok(line) => (line, false),
                Err(fault) => (failure(&fault), true),
            };
            if request.send(piece).await.is_err() {
                return;
            }
            if is_last {
                break;
            }
        }
        _ = request.finish().await;
    })
}

/// Waits for `main`, and goes on with what is being sent meanwhile.
async fn beside<R>(sending: &mut Option<Sending>, main: impl Future<Output = R>) -> R {
    let mut main = pin!(main);
    poll_fn(|cx| {
        if let Some(work) = sending
            && work.as_mut().poll(cx).is_ready()
        {
            *sending = None;
        }
        main.as_mut().poll(cx)
    })
    .await
}

/// The reply of a call, and the request that is still being sent.
struct Reply {
    sending: Option<Sending>,
    reply: ReplyBody,
    /// For people.
    what: String,
}

impl Pieces for Reply {
    async fn receive(&mut self, lines: &mut Lines) -> Result<bool, Fault> {
        let Some(piece) = beside(&mut self.sending, self.reply.next()).await? else { return Ok(false) };
        lines.push(&piece);
        Ok(true)
    }

    fn misread(&self, what: &str, why: &dyn std::fmt::Display) -> Fault {
        Fault::new(Code::ProtocolError, format!("{}: {what}: {why}", self.what)).with_ran(Ran::Yes)
    }
}
