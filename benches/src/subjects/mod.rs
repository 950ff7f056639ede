//! What this program measures: bare references, and our library through its public faces.

mod bare;
mod daemon;
mod in_place;
mod library;
mod memory;
mod pieces;
mod ring;
mod tokio_socket;
mod v0_plugin;

use goplug_benches::{Runtime, Subject};
use goplug_registry::Latency;

use bare::{Bare, Waiting};
use daemon::Daemon;
pub(crate) use daemon::run as daemon;
use in_place::{InPlace, Written};
use library::{Face, Handler, Library, Transport};
use memory::Memory;
use pieces::Pieces;
use ring::BareRing;
use tokio_socket::TokioSocket;

/// Every subject; references first.
pub(crate) fn all() -> Vec<Box<dyn Subject>> {
    let mut all: Vec<Box<dyn Subject>> = vec![
        Box::new(Bare { waiting: Waiting::Blocking, large_buffers: false }),
        Box::new(Bare { waiting: Waiting::Polling, large_buffers: false }),
        Box::new(Bare { waiting: Waiting::Blocking, large_buffers: true }),
        Box::new(BareRing),
        Box::new(Memory::Copy),
        Box::new(Memory::Touch),
    ];
    for runtime in [Runtime::CurrentThread, Runtime::MultiThread] {
        all.push(Box::new(TokioSocket { runtime }));
        for transport in Transport::ALL {
            all.push(Box::new(Library { transport, face: Face::Async(runtime), handler: Handler::Async }));
        }
    }
    let frames = Transport::Frames(Latency::Balanced);
    for (transport, face, handler) in [
        (Transport::Http, Face::Async(Runtime::MultiThread), Handler::Blocking),
        (frames, Face::Async(Runtime::CurrentThread), Handler::Blocking),
        (frames, Face::Async(Runtime::MultiThread), Handler::Blocking),
        (frames, Face::Blocking, Handler::Async),
        (frames, Face::Blocking, Handler::Blocking),
        (Transport::Frames(Latency::Low), Face::Blocking, Handler::Async),
        (Transport::Shm, Face::Blocking, Handler::Async),
    ] {
        all.push(Box::new(Library { transport, face, handler }));
    }
    for frames in [true, false] {
        for runtime in [Some(Runtime::CurrentThread), Some(Runtime::MultiThread), None] {
            all.push(Box::new(Pieces { frames, runtime }));
        }
    }
    for written in [Written::Before, Written::EachTime, Written::EachTimeAndCopied] {
        all.push(Box::new(InPlace { written }));
    }
    all.push(Box::new(Daemon));
    all
}
