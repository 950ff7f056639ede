//! Bodies that stay in a segment of shared memory: written there by whoever sends them, and summed there by whoever receives
//! them, both over frames through a held handle.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use goplug_benches::{
    Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, payload, serve_control,
};
use goplug_registry::{CallOptions, Registry, View};

use super::library::ID;

/// When a body was written, and how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// When its segment was new: what is measured is the way, and the reading.
    Before,
    /// For every call, from memory of the sender's own.
    EachTime,
    /// As that, and the receiver wants bytes of its own.
    EachTimeAndCopied,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct InPlace {
    pub(crate) written: Written,
}

impl InPlace {
    /// Writes to a segment what has to be written.
    fn write(self, segment: &mut [u8], payload: &Bytes) {
        // A segment that is new is full of zeros, which the payload does not end with.
        let ends = payload.len().saturating_sub(8);
        if self.written != Written::Before || segment[ends..] != payload[ends..] {
            segment.copy_from_slice(payload);
        }
    }
}

/// As the harness sums bytes.
fn sum(view: &View) -> u64 {
    if view.len().is_multiple_of(8) {
        return view.words().map(u64::from_le).fold(0, u64::wrapping_add);
    }
    goplug_benches::sum(&view.clone().into_bytes())
}

impl Subject for InPlace {
    fn name(&self) -> String {
        match self.written {
            Written::Before => "in-place".into(),
            Written::EachTime => "in-place/written".into(),
            Written::EachTimeAndCopied => "in-place/written-and-copied".into(),
        }
    }

    fn takes(&self, case: &Case) -> bool {
        case.work != Work::Echo && case.in_flight == 1
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        Runtime::CurrentThread.build()?.block_on(async {
            let registry = Registry::open(plugin.dir()).await?;
            registry.load(ID).await?;
            let handle = registry.get(ID)?;
            let exchange = Exchange::new(job.case);
            let caller = One { plugin: handle, exchange, job: job.case, subject: *self };
            let measured = drive(job, Some(&mut plugin), vec![caller]).await?;
            registry.close().await;
            Ok(measured)
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        let subject = *self;
        let download = if work == Work::Download { payload(size) } else { Bytes::new() };
        let plugin = goplug_plugin_impl::Plugin::builder(dir).namespace("Bench").name("Echo");
        let plugin = plugin.method_view("work", move |cx, body| {
            if work == Work::Upload {
                let sum = match subject.written {
                    Written::EachTimeAndCopied => goplug_benches::sum(&body.into_bytes()),
                    _ => sum(&body),
                };
                return Ok(Bytes::copy_from_slice(&sum.to_le_bytes()));
            }
            let mut segment = cx.segment(download.len());
            subject.write(&mut segment, &download);
            Ok(segment.into())
        });
        let plugin = plugin.build()?;
        Runtime::CurrentThread.build()?.block_on(async {
            let running = plugin.start().await?;
            serve_control()?;
            running.wait().await;
            Ok(())
        })
    }
}

struct One {
    plugin: goplug_registry::Plugin,
    exchange: Exchange,
    job: Case,
    subject: InPlace,
}

impl Caller for One {
    async fn call(&mut self) -> Result<()> {
        let options = CallOptions::default();
        if self.job.work == Work::Upload {
            let mut segment = self.plugin.segment(self.exchange.request.len());
            self.subject.write(&mut segment, &self.exchange.request);
            let reply = self.plugin.execute("work", segment).await?;
            return self.exchange.check(&reply);
        }
        if self.subject.written == Written::EachTimeAndCopied {
            let reply = self.plugin.execute("work", self.exchange.request.clone()).await?;
            return self.exchange.check(&reply);
        }
        let reply = self.plugin.execute_view("work", self.exchange.request.clone(), options).await?;
        self.exchange.check_sum(sum(&reply))
    }
}
