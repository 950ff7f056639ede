//! Calls of methods that read their bodies while they come.

use std::pin::pin;
use std::sync::Arc;

use goplug_pconf_schema::{Code, Fault, Ran};

use super::{Admitted, Limits, Reply, blocking, caught, poll_once, streaming};
use crate::body::{BlockingBody, Body};
use crate::method::{Function, ReplyStream};

impl Admitted {
    /// As [`Admitted::run`], with a body that is still coming.
    pub(crate) async fn run_reading(self, body: Body) -> Result<Reply, Fault> {
        let Self { mut held, cancel } = self;
        held.wait_turn(&cancel.0).await?;
        let entry = cancel.0.entry();
        match &entry.function {
            Function::Reading(function) => {
                let mut limits = Limits::of(&cancel.0);
                let mut run = pin!(caught(&entry.name, || function(cancel.0.clone(), body)));
                let reply = match poll_once(run.as_mut()).await {
                    Some(reply) => reply,
                    None => tokio::select! {
                        biased;
                        end = limits.pass() => Err(end.fault(&limits.method, Ran::Unknown)),
                        reply = run => reply,
                    },
                };
                reply.map(Reply::Whole)
            }
            Function::ReadingBlocking(function) => {
                let limits = Limits::of(&cancel.0);
                let (function, cx) = (Arc::clone(function), cancel.0.clone());
                let run = move || {
                    let body = BlockingBody::new(body, cx.clone());
                    function(&cx, body)
                };
                blocking(limits, held, run).await.map(Reply::Whole)
            }
            Function::Duplex(function) => {
                let limits = Limits::of(&cancel.0);
                let (out, pieces) = ReplyStream::new();
                let (function, cx) = (Arc::clone(function), cancel.0.clone());
                streaming(limits, held, cancel, out, pieces, move |out| function(cx, body, out)).await
            }
            Function::Blocking(_) | Function::Async(_) | Function::Streaming(_) => {
                Err(Fault::new(Code::Internal, "the body went to the wrong method"))
            }
        }
    }
}
