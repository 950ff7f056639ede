//! A process that serves: what its hello said, the connections to it, and who is waiting.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use goplug_pconf_schema::admin::Transport;
use goplug_pconf_schema::wire::call::{escape, method_path};
use goplug_pconf_schema::wire::frame::FEATURE;
use goplug_pconf_schema::wire::hello::{Hello, MethodInfo};
use goplug_pconf_schema::wire::{memfd, shm};
use goplug_pconf_schema::{Code, Fault, PluginId, RollbackOn, check_call_name};
use goplug_transport::Peer;
use tokio::sync::Notify;

use crate::call::{Frames, Places, Pool};
use crate::callback::Polls;

/// The protocol that a plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The original GoPlug of 2015.
    V0,
    /// v1 over HTTP.
    V1,
    /// That of tilotech/go-plugin: JSON over HTTP, without a hello.
    Tilotech,
}

impl Wire {
    /// The number of the protocol; that of others has none.
    pub(crate) fn number(self) -> Option<u32> {
        match self {
            Self::V0 => Some(0),
            Self::V1 => Some(1),
            Self::Tilotech => None,
        }
    }
}

/// One method, ready to be called.
#[derive(Debug)]
pub(crate) struct Method {
    pub info: MethodInfo,
    /// Its place in the hello.
    pub index: u16,
    /// Its escaped path.
    pub target: String,
    /// Present when calls of it run one at a time; its queue is fair, so they run in call order.
    pub serial: Option<Places>,
}

/// A process that was activated. Shared by its supervisor and by the calls under way.
#[derive(Debug)]
pub(crate) struct Live {
    pub id: PluginId,
    pub wire: Wire,
    /// `Host` of every request.
    pub host: String,
    /// For v0, made from the answer to `Activate`.
    pub hello: Hello,
    pub methods: Vec<Method>,
    /// Where each is in `methods`, in the order of their names: a plugin that chooses its names cannot choose how long it takes
    /// to find one, which with a hash that is quick it could.
    by_name: Box<[usize]>,
    pub peer: Peer,
    /// What the activator returned, or what trailed the list of a v0 plugin.
    pub output: Bytes,
    pub pool: Pool,
    /// Of a plugin that offers frames.
    pub frames: Option<Frames>,
    /// Of a v0 plugin: the polls of its callbacks.
    pub polls: Polls,
    /// Places for calls under way.
    pub admission: Places,
    pub queued: AtomicUsize,
    /// Calls that are over.
    pub calls: AtomicU64,
    /// Calls that the plugin failed.
    pub failures: AtomicU64,
    gone: AtomicBool,
    gone_signal: Notify,
    /// Rings when a call learns something that the supervisor has to know.
    pub doubt: Notify,
    doubted: AtomicUsize,
}

/// What a call may report of the process behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    None,
    /// It is no longer active.
    Inactive,
    /// A call ended at its deadline without an answer.
    Silent,
    /// Another process, or nobody, answers.
    Lost,
}

/// Everything that a start found out.
pub(crate) struct Introduction {
    pub id: PluginId,
    pub wire: Wire,
    pub socket: PathBuf,
    pub host: String,
    pub hello: Hello,
    pub peer: Peer,
    pub output: Bytes,
    pub max_concurrent_calls: u32,
    /// Whether what is faster than HTTP is used.
    pub fast_paths: bool,
    /// Whether memory is shared with a plugin that offers it.
    pub shared_memory: bool,
}

impl Live {
    pub(crate) fn new(intro: Introduction) -> Self {
        let methods = intro.hello.methods.iter().zip(0..).map(|(info, index)| {
            let target = match intro.wire {
                Wire::V0 | Wire::Tilotech => format!("/{}", escape(&info.name)),
                Wire::V1 => method_path(&info.name),
            };
            let serial = info.serial.then(|| Places::new(1));
            Method { info: info.clone(), index, target, serial }
        });
        let mut methods: Vec<_> = methods.collect();
        if intro.wire == Wire::Tilotech {
            // One for all: it tells none.
            methods.push(Method { info: MethodInfo::named("*"), index: 0, target: String::new(), serial: None });
        }
        let by_name = by_name(&methods);
        let places = intro.hello.limits.max_concurrent_calls.min(intro.max_concurrent_calls).max(1);
        let offers = |feature| intro.fast_paths && intro.hello.features.iter().any(|offered| offered == feature);
        let is_shared = intro.shared_memory && offers(shm::FEATURE);
        Self {
            frames: offers(FEATURE).then(|| Frames::new(is_shared, offers(memfd::FEATURE))),
            polls: Polls::default(),
            pool: Pool::new(intro.socket, intro.peer.clone()),
            id: intro.id,
            wire: intro.wire,
            host: intro.host,
            hello: intro.hello,
            methods,
            by_name,
            peer: intro.peer,
            output: intro.output,
            admission: Places::new(places),
            queued: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            gone_signal: Notify::new(),
            doubt: Notify::new(),
            doubted: AtomicUsize::new(0),
        }
    }

    /// Calls that have ended, and calls under way.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.in_flight())
    }

    /// Calls that have ended, and those of them that the plugin failed.
    pub(crate) fn verdicts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Notes how a call of this process failed.
    pub(crate) fn note_failure(&self, code: Code) {
        if RollbackOn::counts(code) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the two are one process: of v1 by what it says, of v0 by what the kernel says.
    pub(crate) fn is_same_process(&self, other: &Self) -> bool {
        match (self.wire, other.wire) {
            (Wire::V1, Wire::V1) => self.epoch() == other.epoch(),
            _ => self.peer.same_process(&other.peer),
        }
    }

    /// The epoch that was activated; empty for v0.
    pub(crate) fn epoch(&self) -> &str {
        &self.hello.epoch
    }

    /// How its calls go.
    pub(crate) fn transport(&self) -> Transport {
        match (self.wire, &self.frames) {
            (Wire::V0, _) => Transport::V0,
            (Wire::V1, Some(frames)) if frames.are_used() && frames.are_shared() => Transport::Shm,
            (Wire::V1, Some(frames)) if frames.are_used() => Transport::Frames,
            (Wire::V1 | Wire::Tilotech, _) => Transport::Http,
        }
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> u64 {
        u64::from(self.admission.taken())
    }

    pub(crate) fn is_accepting(&self) -> bool {
        !self.admission.is_closed()
    }

    /// From here on new calls are `unavailable`.
    pub(crate) fn stop_accepting(&self) {
        self.admission.close();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The process is gone, or we are done with it: every call and stream ends.
    pub(crate) fn set_gone(&self) {
        self.stop_accepting();
        self.gone.store(true, Ordering::Release);
        self.gone_signal.notify_waiters();
        self.pool.close();
        if let Some(frames) = &self.frames {
            frames.close();
        }
    }

    /// Returns when [`Live::set_gone`] was called. Cancel safe.
    pub(crate) async fn wait_gone(&self) {
        let signal = self.gone_signal.notified();
        tokio::pin!(signal);
        signal.as_mut().enable();
        if !self.is_gone() {
            signal.await;
        }
    }

    /// Tells the supervisor to look at what became of the process.
    pub(crate) fn report(&self, doubt: Doubt) {
        self.doubted.fetch_max(doubt as usize, Ordering::AcqRel);
        self.doubt.notify_one();
    }

    pub(crate) fn take_doubt(&self) -> Doubt {
        match self.doubted.swap(0, Ordering::AcqRel) {
            0 => Doubt::None,
            1 => Doubt::Inactive,
            2 => Doubt::Silent,
            _ => Doubt::Lost,
        }
    }

    /// Where a method is in `methods`.
    pub(crate) fn place_of(&self, name: &str) -> Result<usize, Fault> {
        // It tells no methods: whoever calls knows them, and the plugin says what it has not.
        if self.wire == Wire::Tilotech {
            let mut parts = name.strip_prefix('/').unwrap_or(name).split('/');
            let wrong = |error: goplug_pconf_schema::NameError| Fault::new(Code::InvalidArgument, error.to_string());
            return parts.try_for_each(|part| check_call_name("method", part)).map_err(wrong).map(|()| 0);
        }
        let found = self.by_name.binary_search_by(|place| self.methods[*place].info.name.as_str().cmp(name));
        found.map(|at| self.by_name[at]).map_err(|_| {
            if let Err(error) = check_call_name("method", name) {
                return Fault::new(Code::InvalidArgument, error.to_string());
            }
            let shown = goplug_pconf_schema::printable(name);
            let text =
                format!("plugin `{}` has no method `{shown}`: `goplugctl methods {}` lists them", self.id, self.id);
            Fault::new(Code::NotFound, text)
        })
    }
}

/// The last one of each name.
fn by_name(methods: &[Method]) -> Box<[usize]> {
    let name = |place: usize| methods[place].info.name.as_str();
    let mut places: Vec<_> = (0..methods.len()).rev().collect();
    places.sort_by_key(|place| name(*place));
    places.dedup_by_key(|place| name(*place));
    places.into()
}
