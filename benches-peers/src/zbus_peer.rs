//! D-Bus without a bus: zbus peer to peer.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, serve_control,
};
use tokio::net::{UnixListener, UnixStream};
use zbus::connection::Builder;
use zbus::{Connection, Guid};

const PATH: &str = "/bench";
const INTERFACE: &str = "bench.Echo";

pub(crate) struct Zbus {
    pub(crate) runtime: Runtime,
}

impl Subject for Zbus {
    fn name(&self) -> String {
        format!("zbus/{}", self.runtime.name())
    }

    fn takes(&self, case: &Case) -> bool {
        // An array of D-Bus is at most 64 MiB, a message with its header at most 128.
        case.size <= 1 << 20
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let path = plugin.dir().join("peer.sock");
        self.runtime.build()?.block_on(async {
            let stream = UnixStream::connect(path).await?;
            let connection = Builder::unix_stream(stream).p2p().build().await?;
            let exchange = Exchange::new(job.case);
            let caller = || OneClient { connection: connection.clone(), exchange: exchange.clone() };
            drive(job, Some(&mut plugin), (0..job.case.in_flight).map(|_| caller()).collect()).await
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        self.runtime.build()?.block_on(async {
            let listener = UnixListener::bind(dir.join("peer.sock"))?;
            serve_control()?;
            let (stream, _) = listener.accept().await?;
            let guid = Guid::generate();
            let builder = Builder::unix_stream(stream).server(guid)?.p2p();
            let echo = Echo(Answering::new(work, size));
            let _connection = builder.serve_at(PATH, echo)?.build().await.context("no D-Bus connection")?;
            std::future::pending().await
        })
    }
}

struct Echo(Answering);

#[zbus::interface(name = "bench.Echo")]
impl Echo {
    fn call(&self, body: serde_bytes_array::Owned) -> serde_bytes_array::Owned {
        serde_bytes_array::Owned(self.0.answer(Bytes::from(body.0)).into())
    }
}

struct OneClient {
    connection: Connection,
    exchange: Exchange,
}

impl Caller for OneClient {
    async fn call(&mut self) -> Result<()> {
        let body = serde_bytes_array::Borrowed(&self.exchange.request);
        let reply = self.connection.call_method(None::<&str>, PATH, Some(INTERFACE), "Call", &body).await?;
        let body = reply.body();
        let reply: serde_bytes_array::Owned = body.deserialize()?;
        self.exchange.check(&reply.0)
    }
}

/// Bytes that are read and written at once, not one by one.
mod serde_bytes_array {
    use serde::{Deserialize, Serialize};
    use zbus::zvariant::Type;

    #[derive(Serialize, Deserialize, Type)]
    #[zvariant(signature = "ay")]
    #[serde(transparent)]
    pub(super) struct Owned(#[serde(with = "serde_bytes")] pub(super) Vec<u8>);

    #[derive(Serialize, Type)]
    #[zvariant(signature = "ay")]
    #[serde(transparent)]
    pub(super) struct Borrowed<'a>(#[serde(with = "serde_bytes")] pub(super) &'a [u8]);
}
