//! gRPC: tonic over one HTTP/2 connection. The message and its service are written as the generator would write them, so that no
//! `protoc` is needed.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use goplug_benches::{
    Answering, Caller, Case, Exchange, Job, Measured, PluginProcess, Runtime, Subject, Work, drive, serve_control,
};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const METHOD: &str = "/bench.Echo/Call";

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

pub(crate) struct Tonic {
    pub(crate) runtime: Runtime,
}

impl Subject for Tonic {
    fn name(&self) -> String {
        format!("tonic/{}", self.runtime.name())
    }

    fn takes(&self, _case: &Case) -> bool {
        true
    }

    fn host(&self, job: &Job) -> Result<Measured> {
        let mut plugin = PluginProcess::start(job)?;
        let path = plugin.dir().join("peer.sock");
        self.runtime.build()?.block_on(async {
            let connect = move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            };
            let endpoint = Endpoint::try_from("http://peer")?;
            let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await?;
            let exchange = Exchange::new(job.case);
            let caller = || OneClient { channel: channel.clone(), exchange: exchange.clone() };
            drive(job, Some(&mut plugin), (0..job.case.in_flight).map(|_| caller()).collect()).await
        })
    }

    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()> {
        self.runtime.build()?.block_on(async {
            let incoming = UnixListenerStream::new(UnixListener::bind(dir.join("peer.sock"))?);
            serve_control()?;
            let echo = Echo(Answering::new(work, size));
            Ok(Server::builder().add_service(echo).serve_with_incoming(incoming).await?)
        })
    }
}

struct OneClient {
    channel: Channel,
    exchange: Exchange,
}

impl Caller for OneClient {
    async fn call(&mut self) -> Result<()> {
        let mut client = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        client.ready().await?;
        let request = Request::new(Message { body: self.exchange.request.clone() });
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let reply: Response<Message> = client.unary(request, path, ProstCodec::<Message, Message>::default()).await?;
        self.exchange.check(&reply.into_inner().body)
    }
}

#[derive(Clone)]
struct Echo(Answering);

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Message, Message>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(usize::MAX);
            Ok(grpc.unary(echo, request).await)
        })
    }
}

impl UnaryService<Message> for Echo {
    type Response = Message;
    type Future = Ready<Result<Response<Message>, Status>>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        ready(Ok(Response::new(Message { body: self.0.answer(request.into_inner().body) })))
    }
}
