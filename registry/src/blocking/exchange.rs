//! Streamed calls from threads without a runtime.

use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::Fault;
use tokio::runtime::Runtime;

use crate::call::{Exchange, ReplyBody, RequestBody};

/// As [`Exchange`], for threads without a runtime.
#[derive(Debug)]
pub struct BlockingExchange {
    request: BlockingRequestBody,
    reply: BlockingReplyBody,
}

/// As [`RequestBody`], for threads without a runtime.
#[derive(Debug)]
pub struct BlockingRequestBody {
    body: RequestBody,
    runtime: Arc<Runtime>,
}

/// As [`ReplyBody`], for threads without a runtime.
#[derive(Debug)]
pub struct BlockingReplyBody {
    body: ReplyBody,
    runtime: Arc<Runtime>,
}

impl BlockingExchange {
    pub(super) fn new(exchange: Exchange, runtime: &Arc<Runtime>) -> Self {
        let (request, reply) = exchange.split();
        let request = BlockingRequestBody { body: request, runtime: Arc::clone(runtime) };
        Self { request, reply: BlockingReplyBody { body: reply, runtime: Arc::clone(runtime) } }
    }

    /// As [`Exchange::send`]; waits at most until the call's deadline.
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), Fault> {
        self.request.send(piece)
    }

    /// As [`Exchange::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.request.finish_once()
    }

    /// As [`Exchange::next`]; waits at most until the call's deadline.
    ///
    /// # Errors
    /// As there.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Fault> {
        self.reply.next_piece()
    }

    /// As [`Exchange::content_type`].
    pub fn content_type(&self) -> Option<&str> {
        self.reply.body.content_type()
    }

    /// Both directions, for threads of their own.
    pub fn split(self) -> (BlockingRequestBody, BlockingReplyBody) {
        (self.request, self.reply)
    }
}

impl BlockingRequestBody {
    /// As [`BlockingExchange::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), Fault> {
        let piece = piece.into();
        match self.body.send_blocking(&piece) {
            Some(done) => done,
            None => self.runtime.block_on(self.body.send(piece)),
        }
    }

    /// As [`BlockingExchange::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(mut self) -> Result<(), Fault> {
        self.finish_once()
    }

    fn finish_once(&mut self) -> Result<(), Fault> {
        self.runtime.block_on(self.body.finish_once())
    }
}

impl BlockingReplyBody {
    /// As `next` of both directions together.
    ///
    /// # Errors
    /// As there.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, Fault> {
        match self.body.next_blocking() {
            Some(next) => next,
            None => self.runtime.block_on(self.body.next()),
        }
    }

    /// As [`BlockingExchange::content_type`].
    pub fn content_type(&self) -> Option<&str> {
        self.body.content_type()
    }
}
