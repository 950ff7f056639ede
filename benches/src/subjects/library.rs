//! Our library, as an application and a plugin author use it: a plugin directory, a registry, a held handle.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, drive_blocking,
    serve_control,
};
use goplug_registry::{Builder, Latency, Registry};

use super::v0_plugin;

pub(super) const ID: &str = "Bench/Echo";

/// What the two libraries speak to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// What the original GoPlug speaks; the plugin is one of those.
    V0,
    Http,
    /// Frames through the socket, with what a waiting caller does.
    Frames(Latency),
    /// Frames through shared memory, which only `low` has.
    Shm,
}

/// How the application calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// From tasks of this runtime; the plugin has one of the same kind.
    Async(Runtime),
    /// From threads without a runtime; the plugin's runtime is of one thread.
    Blocking,
}

/// What the author's function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handler {
    Async,
    /// A plain function, which may block.
    Blocking,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Library {
    pub(crate) transport: Transport,
    pub(crate) face: Face,
    pub(crate) handler: Handler,
}

impl Transport {
    pub(crate) const ALL: [Self; 6] = [
        Self::V0,
        Self::Http,
        Self::Frames(Latency::Balanced),
        Self::Frames(Latency::Low),
        Self::Frames(Latency::Frugal),
        Self::Shm,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::V0 => "v0",
            Self::Http => "http",
            Self::Frames(Latency::Balanced) => "frames",
            Self::Frames(Latency::Low) => "frames-low",
            Self::Frames(Latency::Frugal) => "frames-frugal",
            Self::Shm => "shm",
        }
    }

    /// A registry that comes to speak this with the plugin.
    fn registry(self, dir: &Path) -> Builder {
        match self {
            Self::V0 | Self::Http => Registry::builder(dir).fast_paths(false),
            Self::Frames(latency) => Registry::builder(dir).latency(latency),
            Self::Shm => Registry::builder(dir).latency(Latency::Low),
        }
    }
}

impl Subject for Library {
    fn name(&self) -> String {
        let handler = if self.handler == Handler::Blocking { "/plain-fn" } else { "" };
        let face = match self.face {
            Face::Async(runtime) => runtime.name(),
            Face::Blocking => "blocking",
        };
        format!("{}/{face}{handler}", self.transport.name())
    }

    fn takes(&self, case: &Case) -> bool {
        // An original plugin's memory for 64 MiB is not what anybody asks about.
        self.transport != Transport::V0 || case.size <= 1 << 20
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let registry = self.transport.registry(plugin.dir());
        let exchange = Exchange::new(job.case);
        let Face::Async(runtime) = self.face else {
            let registry = registry.open_blocking()?;
            registry.load(ID)?;
            let caller = || {
                let reply = registry.execute(ID, "echo", exchange.request.clone())?;
                exchange.check(&reply)
            };
            let mut callers = vec![caller; job.case.in_flight];
            return drive_blocking(job, Some(&mut plugin), &mut callers);
        };
        runtime.build()?.block_on(async {
            let registry = registry.open().await?;
            registry.load(ID).await?;
            let caller = || Ok(OneHandle { plugin: registry.get(ID)?, exchange: exchange.clone() });
            let callers = (0..job.case.in_flight).map(|_| caller()).collect::<Result<_>>()?;
            let measured = drive(job, Some(&mut plugin), callers).await?;
            registry.close().await;
            Ok(measured)
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        let answering = Answering::new(work, size);
        if self.transport == Transport::V0 {
            return v0_plugin::run(dir, ID, &answering);
        }
        let plugin = goplug_plugin_impl::Plugin::builder(dir).namespace("Bench").name("Echo");
        let plugin = plugin.shared_memory(self.transport == Transport::Shm);
        let plugin = match self.handler {
            Handler::Blocking => plugin.method("echo", move |_cx, body: Bytes| Ok(answering.answer(body))),
            Handler::Async => plugin.method_async("echo", move |_cx, body: Bytes| {
                let reply = answering.answer(body);
                async move { Ok(reply) }
            }),
        };
        let plugin = plugin.build()?;
        let runtime = if let Face::Async(runtime) = self.face { runtime } else { Runtime::CurrentThread };
        runtime.build()?.block_on(async {
            let running = plugin.start().await?;
            serve_control()?;
            running.wait().await;
            Ok(())
        })
    }
}

struct OneHandle {
    plugin: goplug_registry::Plugin,
    exchange: Exchange,
}

impl Caller for OneHandle {
    async fn call(&mut self) -> Result<()> {
        let reply = self.plugin.execute("echo", self.exchange.request.clone()).await?;
        self.exchange.check(&reply)
    }
}
