//! HTTP/1.1: axum serves, hyper's pooling client calls through hyperlocal's connector.

use std::path::Path;

use anyhow::Result;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use bytes::Bytes;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, serve_control,
};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyperlocal::{UnixConnector, Uri};
use tokio::net::UnixListener;

pub(crate) struct AxumHyperlocal {
    pub(crate) runtime: Runtime,
}

impl Subject for AxumHyperlocal {
    fn name(&self) -> String {
        format!("axum+hyperlocal/{}", self.runtime.name())
    }

    fn takes(&self, _case: &Case) -> bool {
        true
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let uri: hyper::Uri = Uri::new(plugin.dir().join("peer.sock"), "/echo").into();
        self.runtime.build()?.block_on(async {
            let client = Client::builder(TokioExecutor::new()).build(UnixConnector);
            let exchange = Exchange::new(job.case);
            let caller = || OneClient { client: client.clone(), uri: uri.clone(), exchange: exchange.clone() };
            drive(job, Some(&mut plugin), (0..job.case.in_flight).map(|_| caller()).collect()).await
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        let answering = Answering::new(work, size);
        let echo = post(move |body: Bytes| async move { answering.answer(body) });
        self.runtime.build()?.block_on(async {
            let listener = UnixListener::bind(dir.join("peer.sock"))?;
            let router: Router = Router::new().route("/echo", echo).layer(DefaultBodyLimit::disable());
            serve_control()?;
            Ok(axum::serve(listener, router).await?)
        })
    }
}

struct OneClient {
    client: Client<UnixConnector, Full<Bytes>>,
    uri: hyper::Uri,
    exchange: Exchange,
}

impl Caller for OneClient {
    async fn call(&mut self) -> Result<()> {
        let body = Full::new(self.exchange.request.clone());
        let request = Request::builder().method(Method::POST).uri(self.uri.clone()).body(body)?;
        let reply = self.client.request(request).await?;
        self.exchange.check(&reply.into_body().collect().await?.to_bytes())
    }
}
