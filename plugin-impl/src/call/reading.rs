//! Calls of methods that read their bodies while they come.

use std::pin::pin;
use std::sync::Arc;

use goplug_pconf_schema::{Code, Fault, Ran};

use super::{Admitted, Limits, Reply, begin, blocking, caught, poll_once, streaming};
use crate::body::{BlockingBody, Body};
use crate::method::{Function, ReplyStream};

impl Admitted {
    /// As [`Admitted::run`], with a body that is still coming.
    pub(crate) async fn run_reading(mut self, body: Body) -> Result<Reply, Fault> {
        self.wait_turn().await?;
        let entry = self.ending.cx.entry();
        match &entry.function {
            Function::Reading(function) => {
                let mut limits = Limits::of(&self.ending.cx);
                let mut run = pin!(caught(&entry.name, begin(&entry.name, || function(self.ending.cx.clone(), body))));
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
                let limits = Limits::of(&self.ending.cx);
                let (function, cx) = (Arc::clone(function), self.ending.cx.clone());
                let run = move || {
                    let body = BlockingBody::new(body, cx.clone());
                    function(&cx, body)
                };
                blocking(limits, self.held(), run).await.map(Reply::Whole)
            }
            Function::Duplex(function) => {
                let limits = Limits::of(&self.ending.cx);
                let (out, pieces) = ReplyStream::new();
                let (function, cx) = (Arc::clone(function), self.ending.cx.clone());
                let held = self.held();
                streaming(limits, held, self.ending, out, pieces, move |out| function(cx, body, out)).await
            }
            Function::Blocking(_) | Function::Async(_) | Function::Streaming(_) => {
                Err(Fault::new(Code::Internal, "the body went to the wrong method"))
            }
        }
    }
}
