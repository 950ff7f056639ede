//! tarpc over its own Unix transport with bincode; bodies as `serde_bytes`, without which each byte is an item of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, serve_control,
};
use serde_bytes::ByteBuf;
use tarpc::serde_transport::unix;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context};
use tokio_stream::StreamExt;

#[tarpc::service]
trait Echo {
    async fn call(body: ByteBuf) -> ByteBuf;
}

pub(crate) struct Tarpc {
    pub(crate) runtime: Runtime,
}

impl Subject for Tarpc {
    fn name(&self) -> String {
        format!("tarpc/{}", self.runtime.name())
    }

    fn takes(&self, _case: &Case) -> bool {
        true
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let path = plugin.dir().join("peer.sock");
        self.runtime.build()?.block_on(async {
            let mut connecting = unix::connect(path, Bincode::default);
            connecting.config_mut().max_frame_length(usize::MAX);
            let client = EchoClient::new(client::Config::default(), connecting.await?).spawn();
            let exchange = Exchange::new(job.case);
            let caller = || OneClient { client: client.clone(), exchange: exchange.clone() };
            drive(job, Some(&mut plugin), (0..job.case.in_flight).map(|_| caller()).collect()).await
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        self.runtime.build()?.block_on(async {
            let mut incoming = unix::listen(dir.join("peer.sock"), Bincode::default).await?;
            incoming.config_mut().max_frame_length(usize::MAX);
            serve_control()?;
            let server = Server(Answering::new(work, size));
            while let Some(transport) = incoming.next().await {
                let requests = BaseChannel::with_defaults(transport?).execute(server.clone().serve());
                tokio::spawn(async move {
                    let mut requests = std::pin::pin!(requests);
                    while let Some(handling) = requests.next().await {
                        tokio::spawn(handling);
                    }
                });
            }
            Ok(())
        })
    }
}

#[derive(Clone)]
struct Server(Answering);

impl Echo for Server {
    async fn call(self, _: context::Context, body: ByteBuf) -> ByteBuf {
        let reply = self.0.answer(Bytes::from(body.into_vec()));
        ByteBuf::from(reply)
    }
}

struct OneClient {
    client: EchoClient,
    exchange: Exchange,
}

impl Caller for OneClient {
    async fn call(&mut self) -> Result<()> {
        let mut context = context::current();
        context.deadline = Instant::now() + Duration::from_secs(60);
        // Its messages own their bytes: what the application holds is copied.
        let reply = self.client.call(context, ByteBuf::from(self.exchange.request.to_vec())).await?;
        self.exchange.check(&reply)
    }
}
