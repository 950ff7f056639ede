//! The same bare socket through tokio: what every async library stands on. Each caller has a connection of its own.

use std::path::Path;

use anyhow::Result;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, request_len,
    response_len, serve_control,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioSocket {
    pub(crate) runtime: Runtime,
}

impl Subject for TokioSocket {
    fn name(&self) -> String {
        format!("bare-tokio/{}", self.runtime.name())
    }

    fn takes(&self, _case: &Case) -> bool {
        true
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let path = plugin.dir().join("bare.sock");
        self.runtime.build()?.block_on(async {
            let exchange = Exchange::new(job.case);
            let mut callers = Vec::new();
            for _ in 0..job.case.in_flight {
                let stream = UnixStream::connect(&path).await?;
                let reply = vec![0; response_len(job.case.work, job.case.size)];
                callers.push(OneConnection { stream, exchange: exchange.clone(), reply });
            }
            drive(job, Some(&mut plugin), callers).await
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        self.runtime.build()?.block_on(async {
            let listener = UnixListener::bind(dir.join("bare.sock"))?;
            serve_control()?;
            loop {
                let (stream, _) = listener.accept().await?;
                // Its end is the host's end, which ends us, too.
                tokio::spawn(answer(stream, work, size));
            }
        })
    }
}

async fn answer(mut stream: UnixStream, work: Work, size: usize) -> Result<()> {
    let answering = Answering::new(work, size);
    let mut request = vec![0; request_len(work, size)];
    loop {
        stream.read_exact(&mut request).await?;
        match work {
            Work::Echo => stream.write_all(&request).await?,
            // Bytes of a vector that is used again cannot be given away; a word's copy is nothing beside its call.
            Work::Upload => stream.write_all(&goplug_benches::sum(&request).to_le_bytes()).await?,
            Work::Download => stream.write_all(&answering.answer(bytes::Bytes::new())).await?,
        }
    }
}

struct OneConnection {
    stream: UnixStream,
    exchange: Exchange,
    reply: Vec<u8>,
}

impl Caller for OneConnection {
    async fn call(&mut self) -> Result<()> {
        self.stream.write_all(&self.exchange.request).await?;
        self.stream.read_exact(&mut self.reply).await?;
        self.exchange.check(&self.reply)
    }
}
