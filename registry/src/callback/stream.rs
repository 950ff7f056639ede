//! One attachment of a feed: a subscription on the frame connection, a v1 event stream of its own, or a share in the polls
//! of v0.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::{CALL_ID, EPOCH, HELLO_MS, HOST, observer_path, subscription_path};
use goplug_pconf_schema::wire::event::{EpochChange, Gap, KEEP_ALIVE_MS, Message, Position, from_base64};
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::wire::sse::{SseEvent, SseReader};
use goplug_pconf_schema::{Code, Fault, printable};
use goplug_transport::{Acknowledger, Connection, Request};
use tokio::time::{Instant, timeout, timeout_at};

use super::feed::Reader;
use super::frames::{self, Attached};
use super::v0::{self, Heard};
use crate::call::{Verdict, broken, judge_v1, next_call_id, not_connected, read_problem};
use crate::supervisor::{Live, Shared, Wire};

/// A stream that is silent for this long, without even a comment, is broken.
const SILENCE: Duration = Duration::from_millis(3 * KEEP_ALIVE_MS);

/// What comes out of a stream.
#[derive(Debug)]
pub(crate) enum Raw {
    Message { position: Option<Position>, key: Option<String>, dropped: u64, data: Bytes },
    Gap(Gap),
    Epoch(EpochChange),
    Replaced,
}

/// An open attachment.
#[derive(Debug)]
pub(crate) struct Stream {
    pub live: Arc<Live>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Frames(Attached),
    V1 { connection: Box<Connection>, reader: SseReader, pending: VecDeque<SseEvent> },
    V0(Heard),
}

impl Stream {
    /// Attaches to `callback`: over frames, with credit of its own, or on a connection of its own. Notifications and calls
    /// never wait for each other.
    pub(crate) async fn open(
        shared: &Shared,
        live: Arc<Live>,
        callback: &str,
        reader: &Reader,
        last: Option<&Position>,
    ) -> Result<Self, Fault> {
        let max_bytes = shared.options.load().max_reply_bytes;
        if live.wire == Wire::V0 {
            let waits = matches!(reader, Reader::Subscription(_));
            let heard = v0::listen(shared, &live, callback, waits, max_bytes).await?;
            return Ok(Self { live, kind: Kind::V0(heard) });
        }
        let target = match reader {
            Reader::Subscription(name) => subscription_path(callback, name),
            Reader::Observer { .. } => observer_path(callback, last),
        };
        let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
        let late = |_| Fault::new(Code::Unavailable, format!("no answer to the subscription within {HELLO_MS} ms"));
        let attaching = frames::attach(shared, &live, callback, reader, last, deadline);
        if let Some(attached) = timeout_at(deadline, attaching).await.map_err(late)?? {
            return Ok(Self { live, kind: Kind::Frames(attached) });
        }
        let mut connection = live.pool.connect(deadline).await.map_err(|error| not_connected(&live, error))?;
        timeout_at(deadline, attach(&live, &mut connection, &target)).await.map_err(late)??;
        let connection = Box::new(connection);
        Ok(Self { live, kind: Kind::V1 { connection, reader: line_reader(max_bytes), pending: VecDeque::new() } })
    }

    /// The next thing that the plugin says.
    ///
    /// # Errors
    /// The stream is broken and must be opened again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn next(&mut self) -> Result<Raw, Fault> {
        let live = Arc::clone(&self.live);
        tokio::select! {
            raw = self.read() => raw,
            () = live.wait_gone() => Err(Fault::new(Code::PluginGone, format!("plugin `{}` is gone", live.id))),
        }
    }

    /// Acknowledges what comes, if that can be done where it comes.
    pub(crate) fn acknowledger(&self) -> Option<Acknowledger> {
        match &self.kind {
            Kind::Frames(attached) => Some(attached.acknowledger()),
            Kind::V1 { .. } | Kind::V0(_) => None,
        }
    }

    async fn read(&mut self) -> Result<Raw, Fault> {
        let Self { live, kind } = self;
        match kind {
            Kind::Frames(attached) => attached.next(live).await,
            Kind::V0(heard) => heard.next().await,
            Kind::V1 { connection, reader, pending } => loop {
                while let Some(event) = pending.pop_front() {
                    if let Some(raw) = decode(event).map_err(|why| Fault::new(Code::ProtocolError, why))? {
                        return Ok(raw);
                    }
                }
                let piece = timeout(SILENCE, connection.chunk()).await;
                let piece = piece.map_err(|_| Fault::new(Code::Unavailable, "the event stream fell silent"))?;
                let Some(piece) = piece.map_err(|error| broken(live, &error))? else {
                    return Err(Fault::new(Code::Unavailable, "the plugin ended the event stream"));
                };
                let mut events = Vec::new();
                reader.push(&piece, &mut events).map_err(|why| Fault::new(Code::ProtocolError, why))?;
                pending.extend(events);
            },
        }
    }
}

async fn attach(live: &Live, connection: &mut Connection, target: &str) -> Result<(), Fault> {
    let call_id = next_call_id();
    let headers = [(CALL_ID, call_id.as_str()), (EPOCH, live.epoch())];
    let request = Request { method: "GET", target, host: HOST, headers: &headers, content_type: None, body: b"" };
    let head = connection.open(&request).await.map_err(|error| broken(live, &error))?;
    match judge_v1(&head, &call_id) {
        Verdict::Body => Ok(()),
        Verdict::Problem => {
            let body = connection.read_body(MAX_PROBLEM_BYTES).await.map_err(|error| broken(live, &error))?;
            Err(read_problem(head.status, &body))
        }
        Verdict::Broken(why) => Err(Fault::new(Code::ProtocolError, why)),
    }
}

fn line_reader(max_bytes: usize) -> SseReader {
    // Base64 takes four bytes for three; the rest is the wrapping.
    SseReader::new(max_bytes / 3 * 4 + 16 * 1024)
}

/// Reads one event; `None` for a kind that is not known.
fn decode(event: SseEvent) -> Result<Option<Raw>, String> {
    let broken = |error: serde_json::Error| format!("event `{}` cannot be read: {error}", printable(&event.event));
    let raw = match event.event.as_str() {
        "message" => {
            let message: Message = serde_json::from_str(&event.data).map_err(broken)?;
            let position = Some(event.id.parse()?);
            let data = from_base64(&message.data_base64)?.into();
            Raw::Message { position, key: message.key, dropped: message.dropped, data }
        }
        "gap" => Raw::Gap(serde_json::from_str(&event.data).map_err(broken)?),
        "epoch" => Raw::Epoch(serde_json::from_str(&event.data).map_err(broken)?),
        "replaced" => Raw::Replaced,
        _ => return Ok(None),
    };
    Ok(Some(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: &str, data: &str) -> SseEvent {
        SseEvent { id: id.into(), event: kind.into(), data: data.into() }
    }

    #[test]
    fn events_are_read_and_nonsense_is_refused() {
        let id = format!("{}:7", "a".repeat(32));
        let read = decode(event("message", &id, r#"{"dataBase64":"aGk=","key":"k","future":1}"#)).unwrap();
        assert!(matches!(read, Some(Raw::Message { data, key: Some(key), .. }) if &data[..] == b"hi" && key == "k"));
        assert!(matches!(decode(event("replaced", "", "")), Ok(Some(Raw::Replaced))));
        assert!(matches!(decode(event("from the future", "", "")), Ok(None)));
        for (kind, id, data) in [
            ("message", "", r#"{"dataBase64":""}"#),
            ("message", id.as_str(), "{}"),
            ("message", id.as_str(), r#"{"dataBase64":"*"}"#),
            ("gap", "", "{}"),
            ("epoch", "", "[]"),
        ] {
            assert!(decode(event(kind, id, data)).is_err(), "{kind} {data}");
        }
    }
}
