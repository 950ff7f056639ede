//! The reference of shared memory: two processes, a plain ring each way, both sides polling, and nothing else: no frames, no
//! checks, no sleep, no end.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use goplug_benches::{
    Case, Exchange, Job, Measured, PluginProcess, Subject, Work, drive_blocking, request_len, response_len,
    serve_control,
};
use goplug_transport::SharedMemory;
use rustix::thread::sched_yield;

/// How many words each ring has.
const WORDS: usize = RING_BYTES as usize / 8;
const RING_BYTES: u64 = 1 << 20;
/// Words that are written before the other side may begin to read them.
const STEP: usize = 4096;
/// Where the rings begin, and how far apart their positions are.
const FIRST: usize = 512;
const LINE: usize = 16;

#[derive(Debug, Clone, Copy)]
pub(crate) struct BareRing;

impl Subject for BareRing {
    fn name(&self) -> String {
        "bare-ring".into()
    }

    fn takes(&self, case: &Case) -> bool {
        case.in_flight == 1 && case.work == Work::Echo
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let path = std::fs::read_to_string(plugin.dir().join("memory"))?;
        let memfd = OpenOptions::new().read(true).write(true).open(path)?.into();
        let memory = SharedMemory::open(&memfd, RING_BYTES)?;
        let (mut there, mut back) = (Ring::new(&memory, 0), Ring::new(&memory, 1));
        let exchange = Exchange::new(job.case);
        let mut reply = vec![0; response_len(job.case.work, job.case.size)];
        let call = || {
            there.write(&exchange.request);
            back.read(&mut reply);
            exchange.check(&reply)
        };
        drive_blocking(job, Some(&mut plugin), &mut [call])
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        let (memory, memfd) = SharedMemory::create(RING_BYTES)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&memfd);
        std::fs::write(dir.join("memory"), format!("/proc/{}/fd/{fd}", std::process::id()))?;
        if !request_len(work, size).is_multiple_of(8) {
            bail!("{size} bytes are no whole words");
        }
        serve_control()?;
        let (mut there, mut back) = (Ring::new(&memory, 0), Ring::new(&memory, 1));
        let mut request = vec![0; request_len(work, size)];
        loop {
            there.read(&mut request);
            back.write(&request);
        }
    }
}

/// One end of one direction.
struct Ring<'a> {
    tail: &'a AtomicU64,
    head: &'a AtomicU64,
    data: &'a [AtomicU64],
    /// In words.
    at: usize,
}

impl<'a> Ring<'a> {
    fn new(memory: &'a [AtomicU64], direction: usize) -> Self {
        let positions = &memory[direction * 4 * LINE..];
        let data = &memory[FIRST + direction * WORDS..][..WORDS];
        Self { tail: &positions[0], head: &positions[LINE], data, at: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.as_chunks::<8>().0.chunks(STEP) {
            while self.at + piece.len() - position(self.head) > WORDS {
                sched_yield();
            }
            let start = self.at % WORDS;
            let (wrapped, here) = self.data.split_at(start);
            for (word, chunk) in here.iter().chain(wrapped).zip(piece) {
                word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
            }
            self.at += piece.len();
            self.tail.store(self.at as u64, Ordering::Release);
        }
    }

    fn read(&mut self, into: &mut [u8]) {
        for piece in into.as_chunks_mut::<8>().0.chunks_mut(STEP) {
            while position(self.tail) - self.at < piece.len() {
                sched_yield();
            }
            let start = self.at % WORDS;
            let (wrapped, here) = self.data.split_at(start);
            for (word, chunk) in here.iter().chain(wrapped).zip(&mut *piece) {
                *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            }
            self.at += piece.len();
            self.head.store(self.at as u64, Ordering::Release);
        }
    }
}

fn position(word: &AtomicU64) -> usize {
    usize::try_from(word.load(Ordering::Acquire)).unwrap_or(usize::MAX)
}
