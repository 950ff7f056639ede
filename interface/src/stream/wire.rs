//! Streams over a connection: what was received as items, and items as what is sent.

use std::future::Future;

use goplug_pconf_schema::{Code, Fault};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lines::{FAILURE, Line, Lines, MAX_ITEM_BYTES};
use super::{Items, Next};

/// Bytes that come piece by piece.
pub(crate) trait Pieces: Send {
    /// Adds the next piece to `lines`; false at the end. A dropped future has taken nothing.
    fn receive(&mut self, lines: &mut Lines) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// What an item that is none is: whoever sent it broke the rules.
    fn misread(&self, what: &str, why: &dyn std::fmt::Display) -> Fault;
}

/// Items that are received.
pub(crate) struct Incoming<P> {
    pub(crate) pieces: P,
    lines: Lines,
}

impl<P: Pieces> Incoming<P> {
    pub(crate) fn new(pieces: P) -> Self {
        Self { pieces, lines: Lines::default() }
    }

    /// Received before somebody asked for an item.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.lines.push(piece);
    }

    /// The next item; `None` when the stream is whole.
    pub(crate) async fn item<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Fault> {
        loop {
            if let Some(line) = self.lines.next()? {
                return match line {
                    Line::Item(item) => serde_json::from_slice(item).map(Some).map_err(|error| {
                        self.pieces.misread("an item of the stream is not the JSON it should be", &error)
                    }),
                    Line::Failure(document) => Err(match Fault::from_problem(document) {
                        Some(fault) => Fault { reason: None, ..fault },
                        None => self.pieces.misread("the stream ends with a failure", &"which cannot be read"),
                    }),
                };
            }
            if self.pieces.receive(&mut self.lines).await? {
                continue;
            }
            return match self.lines.is_whole() {
                true => Ok(None),
                false => Err(self.pieces.misread("the stream ends", &"in the middle of an item")),
            };
        }
    }
}

impl<P: Pieces, T: DeserializeOwned + Send + 'static> Items<T> for Incoming<P> {
    fn next(&mut self) -> Next<'_, T> {
        Box::pin(self.item())
    }
}

/// An item as a line.
pub(crate) fn line(item: &impl Serialize) -> Result<Vec<u8>, Fault> {
    let mut line = serde_json::to_vec(item)
        .map_err(|error| Fault::new(Code::InvalidArgument, format!("an item cannot be written as JSON: {error}")))?;
    if line.len() > MAX_ITEM_BYTES {
        let text = format!("an item of the stream is {} bytes, the limit is {MAX_ITEM_BYTES}", line.len());
        return Err(Fault::new(Code::TooLarge, text));
    }
    line.push(b'\n');
    Ok(line)
}

/// A failure as the last line.
pub(crate) fn failure(fault: &Fault) -> Vec<u8> {
    // A problem document is one line: JSON escapes line feeds.
    [&[FAILURE][..], &fault.to_problem(), b"\n"].concat()
}
