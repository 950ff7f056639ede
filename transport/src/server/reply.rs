//! Writes answers: at once, or piece by piece while the caller is watched.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::{ServerBody, ServerResponse, stopped};
use crate::http::write::{Announce, chunk_line, response_head};
use crate::send::poll_send;

/// How long a streamed body may go on after the server was told to stop.
const STREAM_GRACE: Duration = Duration::from_secs(1);

/// What the request says about its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    /// No chunks: a stream ends with the connection.
    pub(super) http10: bool,
    /// The request was HEAD.
    pub(super) bodiless: bool,
    pub(super) close: bool,
}

/// Writes the whole answer; a streamed one until `left`, which returns when the caller has gone.
pub(super) async fn write(
    stream: &UnixStream,
    left: impl Future<Output = ()>,
    output: &mut Vec<u8>,
    mut response: ServerResponse,
    how: Reply,
    patience: Duration,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let bodiless = how.bodiless || matches!(response.status, 204 | 304);
    let announce = match &response.body {
        _ if bodiless && !how.bodiless => Announce::Nothing,
        ServerBody::Full(body) => Announce::Length(body.len() as u64),
        ServerBody::Stream(_) | ServerBody::Endless(_) if how.http10 => Announce::Nothing,
        ServerBody::Upgrade(_) => Announce::Nothing,
        ServerBody::Stream(_) | ServerBody::Endless(_) => Announce::Chunked,
    };
    response_head(output, &response, announce, how.close);
    let waits = matches!(response.body, ServerBody::Endless(_));
    match &mut response.body {
        _ if bodiless => write_all(stream, [output, &[], &[]], patience).await,
        ServerBody::Full(body) => write_all(stream, [output, body, &[]], patience).await,
        ServerBody::Upgrade(_) => write_all(stream, [output, &[], &[]], patience).await,
        ServerBody::Stream(pieces) | ServerBody::Endless(pieces) => {
            write_all(stream, [output, &[], &[]], patience).await?;
            let chunked = announce == Announce::Chunked;
            let patience = if waits { Duration::MAX } else { patience };
            tokio::select! {
                biased;
                written = write_pieces(stream, left, output, pieces, chunked, patience) => written,
                () = grace(stop) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

async fn write_pieces(
    stream: &UnixStream,
    left: impl Future<Output = ()>,
    line: &mut Vec<u8>,
    pieces: &mut mpsc::Receiver<Result<Bytes, ()>>,
    chunked: bool,
    patience: Duration,
) -> io::Result<()> {
    let mut left = pin!(left);
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.recv() => piece,
            () = &mut left => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let piece = match piece {
            Some(Ok(piece)) if piece.is_empty() => continue,
            Some(Ok(piece)) => piece,
            Some(Err(())) => return Err(io::ErrorKind::ConnectionAborted.into()),
            None if chunked => return write_all(stream, [b"0\r\n\r\n", &[], &[]], patience).await,
            None => return Ok(()),
        };
        let parts: [&[u8]; 3] = if chunked {
            chunk_line(line, piece.len());
            [line, &piece, b"\r\n"]
        } else {
            [&piece, &[], &[]]
        };
        tokio::select! {
            biased;
            written = write_all(stream, parts, patience) => written?,
            // A reader that takes nothing may leave all the same.
            () = &mut left => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Writes all parts, gathered, and waits at most `patience` for each bit of progress.
pub(super) async fn write_all(stream: &UnixStream, parts: [&[u8]; 3], patience: Duration) -> io::Result<()> {
    let mut slices = parts.map(IoSlice::new);
    let mut rest = &mut slices[..];
    // Drops the empty parts, so that nothing left means nothing to write.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match timeout(patience, poll_fn(|cx| poll_send(stream, cx, rest))).await?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => IoSlice::advance_slices(&mut rest, count),
        }
    }
    Ok(())
}

/// Returns a while after the server was told to stop.
async fn grace(stop: &mut watch::Receiver<bool>) {
    stopped(stop).await;
    sleep(STREAM_GRACE).await;
}
