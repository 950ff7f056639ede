//! A request on its way out, while the reply may already be on its way in.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::send::poll_send;

/// What is still to be written of a request, and how much the kernel has taken.
#[derive(Debug, Default)]
pub(super) struct Outgoing<'a> {
    head: Vec<u8>,
    body: &'a [u8],
    sent: usize,
    /// The other side reads no more. What it had written before is still to be read.
    broken: bool,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(head: Vec<u8>, body: &'a [u8]) -> Self {
        Self { head, body, sent: 0, broken: false }
    }

    pub(super) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    pub(super) fn is_whole(&self) -> bool {
        self.sent == self.head.len() + self.body.len()
    }

    /// The buffer of the head, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.head
    }

    fn poll_write(&mut self, stream: &UnixStream, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.broken && !self.is_whole() {
            let head = self.head.get(self.sent..).unwrap_or_default();
            let body = &self.body[self.sent.saturating_sub(self.head.len())..];
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            match poll_send(stream, cx, &parts) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.broken = true,
                Poll::Ready(Ok(count)) => self.sent += count,
                Poll::Ready(Err(error)) => match error.raw_os_error() {
                    // Whatever waits to be read now was written before the request: it is no answer to it.
                    Some(libc::EPIPE | libc::ECONNRESET) if self.has_sent() => self.broken = true,
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// Reads once into `into`, which must have room, and meanwhile writes what can be written of `outgoing`: a plugin that
/// answers while it reads would otherwise wait for us as we wait for it. 0 is the end of the stream.
pub(super) async fn receive(
    stream: &mut UnixStream,
    outgoing: &mut Outgoing<'_>,
    into: &mut impl BufMut,
) -> io::Result<usize> {
    poll_fn(|cx| {
        outgoing.poll_write(stream, cx)?;
        // `read_buf` keeps nothing between polls, so a new one for each is as good.
        let read = pin!(stream.read_buf(into));
        read.poll(cx)
    })
    .await
}
