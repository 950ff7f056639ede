//! The reference of every ratio: two processes, one Unix socket, messages of a length that both know.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use goplug_benches::{
    Case, Exchange, Job, Measured, PluginProcess, Subject, Work, drive_blocking, payload, request_len, response_len,
    serve_control, sum,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use rustix::thread::sched_yield;

/// How long a polling side polls before it sleeps.
const WINDOW: Duration = Duration::from_micros(50);
/// What is received at once: it stays in a cache until it is summed.
const PIECE: usize = 256 * 1024;
/// What the kernel may keep of either direction of a socket with large buffers.
const LARGE_BUFFER: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Blocking,
    /// Polls the socket, giving way in between, for a window, and only then sleeps.
    Polling,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare {
    pub(crate) waiting: Waiting,
    pub(crate) large_buffers: bool,
}

impl Subject for Bare {
    fn name(&self) -> String {
        let waiting = match self.waiting {
            Waiting::Blocking => "bare-blocking",
            Waiting::Polling => "bare-polling",
        };
        format!("{waiting}{}", if self.large_buffers { "/large-buffers" } else { "" })
    }

    fn takes(&self, case: &Case) -> bool {
        case.in_flight == 1 && (!self.large_buffers || case.size >= 1 << 20)
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let mut socket = self.socket(UnixStream::connect(plugin.dir().join("bare.sock"))?)?;
        let exchange = Exchange::new(job.case);
        let mut reply = vec![0; response_len(job.case.work, job.case.size)];
        let call = || {
            socket.write(&exchange.request)?;
            if job.case.work == Work::Download {
                return exchange.check_sum(socket.read_sum(reply.len(), &mut reply)?);
            }
            socket.read(&mut reply)?;
            exchange.check(&reply)
        };
        drive_blocking(job, Some(&mut plugin), &mut [call])
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        let listener = UnixListener::bind(dir.join("bare.sock"))?;
        serve_control()?;
        let mut socket = self.socket(listener.accept()?.0)?;
        let download = if work == Work::Download { payload(size) } else { payload(0) };
        let mut request = vec![0; request_len(work, size)];
        loop {
            if work == Work::Upload {
                let sum = socket.read_sum(size, &mut request)?;
                socket.write(&sum.to_le_bytes())?;
                continue;
            }
            socket.read(&mut request)?;
            socket.write(if work == Work::Download { &download } else { &request })?;
        }
    }
}

impl Bare {
    fn socket(&self, stream: UnixStream) -> Result<Socket> {
        if self.large_buffers {
            sockopt::set_socket_send_buffer_size(&stream, LARGE_BUFFER)?;
            sockopt::set_socket_recv_buffer_size(&stream, LARGE_BUFFER)?;
        }
        Ok(Socket { stream, waiting: self.waiting })
    }
}

struct Socket {
    stream: UnixStream,
    waiting: Waiting,
}

impl Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < into.len() {
            filled += self.receive(&mut into[filled..])?;
        }
        Ok(())
    }

    /// Sums `size` bytes as they come.
    fn read_sum(&mut self, size: usize, buffer: &mut [u8]) -> Result<u64> {
        let (mut total, mut left) = (0_u64, size);
        while left > 0 {
            let piece = &mut buffer[..left.min(PIECE)];
            self.read(piece)?;
            total = total.wrapping_add(sum(piece));
            left -= piece.len();
        }
        Ok(total)
    }

    /// At least one byte.
    fn receive(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.waiting == Waiting::Polling {
            let start = Instant::now();
            loop {
                match recv(&self.stream, &mut *into, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => break,
                    Ok((received, _)) => return Ok(received),
                    Err(Errno::AGAIN) => sched_yield(),
                    Err(error) => return Err(error.into()),
                }
                if start.elapsed() > WINDOW {
                    break;
                }
            }
        }
        match self.stream.read(into)? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            received => Ok(received),
        }
    }
}
