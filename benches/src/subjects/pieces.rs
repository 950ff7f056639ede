//! Bodies that go piece by piece through the public faces: summed while they come, in memory that stays warm.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, drive_blocking,
    serve_control, sum,
};
use goplug_registry::{CallOptions, Registry};

const ID: &str = "Bench/Pieces";
/// What is sent at once.
const PIECE: usize = 256 * 1024;

/// Our library, over frames or over HTTP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pieces {
    pub(crate) frames: bool,
    /// `None`: threads without a runtime.
    pub(crate) runtime: Option<Runtime>,
}

impl Subject for Pieces {
    fn name(&self) -> String {
        let transport = if self.frames { "frames" } else { "http" };
        format!("{transport}-pieces/{}", self.runtime.map_or("blocking", Runtime::name))
    }

    fn takes(&self, case: &Case) -> bool {
        case.work != Work::Echo && case.in_flight == 1
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let registry = Registry::builder(plugin.dir()).fast_paths(self.frames);
        let exchange = Exchange::new(job.case);
        let work = job.case.work;
        let Some(runtime) = self.runtime else {
            let registry = registry.open_blocking()?;
            registry.load(ID)?;
            let mut callers = [|| {
                let mut call = registry.exchange(ID, "work", CallOptions::default())?;
                for piece in pieces(&exchange.request) {
                    call.send(piece)?;
                }
                call.finish()?;
                let mut reply = Reply::new(work);
                while let Some(piece) = call.next_piece()? {
                    reply.take(&piece);
                }
                reply.check(&exchange)
            }];
            return drive_blocking(job, Some(&mut plugin), &mut callers);
        };
        runtime.build()?.block_on(async {
            let registry = registry.open().await?;
            registry.load(ID).await?;
            let caller = One { plugin: registry.get(ID)?, exchange, work };
            let measured = drive(job, Some(&mut plugin), vec![caller]).await?;
            registry.close().await;
            Ok(measured)
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        let payload = Answering::new(work, size).payload().clone();
        let plugin = goplug_plugin_impl::Plugin::builder(dir).namespace("Bench").name("Pieces");
        let plugin = plugin.method_duplex("work", move |_cx, mut body, out| {
            let payload = payload.clone();
            async move {
                let mut total = Sum::default();
                while let Some(piece) = body.next().await? {
                    total.add(&piece);
                }
                if work == Work::Upload {
                    return out.send(total.0.to_le_bytes().to_vec()).await;
                }
                for piece in pieces(&payload) {
                    out.send(piece).await?;
                }
                Ok(())
            }
        });
        let plugin = plugin.build()?;
        self.runtime.unwrap_or(Runtime::CurrentThread).build()?.block_on(async {
            let running = plugin.start().await?;
            serve_control()?;
            running.wait().await;
            Ok(())
        })
    }
}

fn pieces(body: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let body = body.clone();
    (0..body.len()).step_by(PIECE).map(move |at| body.slice(at..body.len().min(at + PIECE)))
}

/// The sum of what comes in pieces of any size.
#[derive(Debug, Default)]
struct Sum(u64, Vec<u8>);

impl Sum {
    fn add(&mut self, piece: &[u8]) {
        let mut piece = piece;
        if !self.1.is_empty() {
            // A word that was cut.
            let missing = piece.len().min(8 - self.1.len());
            self.1.extend_from_slice(&piece[..missing]);
            piece = &piece[missing..];
            if self.1.len() < 8 {
                return;
            }
            self.0 = self.0.wrapping_add(sum(&self.1));
            self.1.clear();
        }
        let whole = piece.len() / 8 * 8;
        self.0 = self.0.wrapping_add(sum(&piece[..whole]));
        self.1.extend_from_slice(&piece[whole..]);
    }
}

/// A reply as it comes: summed, or kept if it is a sum itself.
struct Reply {
    work: Work,
    sum: Sum,
    kept: Vec<u8>,
}

impl Reply {
    fn new(work: Work) -> Self {
        Self { work, sum: Sum::default(), kept: Vec::new() }
    }

    fn take(&mut self, piece: &[u8]) {
        match self.work {
            Work::Download => self.sum.add(piece),
            _ => self.kept.extend_from_slice(piece),
        }
    }

    fn check(&self, exchange: &Exchange) -> Result<()> {
        match self.work {
            Work::Download => exchange.check_sum(self.sum.0),
            _ => exchange.check(&self.kept),
        }
    }
}

struct One {
    plugin: goplug_registry::Plugin,
    exchange: Exchange,
    work: Work,
}

impl Caller for One {
    async fn call(&mut self) -> Result<()> {
        let mut call = self.plugin.exchange("work", CallOptions::default()).await?;
        for piece in pieces(&self.exchange.request) {
            call.send(piece).await?;
        }
        call.finish().await?;
        let mut reply = Reply::new(self.work);
        while let Some(piece) = call.next().await? {
            reply.take(&piece);
        }
        reply.check(&self.exchange)
    }
}
