//! What a plugin answers on its socket: v1 as `docs/protocol.md` says, and the five requests of v0.

mod control;
mod frames;
mod head;
mod reading;
mod reply;
mod route;
mod v0;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::{DEFAULT_DEADLINE_MS, MAX_PING_BYTES};
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::{FrameServer, Handler, IncomingBody, ServerBody, ServerHead, ServerRequest, ServerResponse};
use tokio::time::Instant;

use crate::body::Body;
use crate::call::{Reply, call};
use crate::service::Service;
pub(crate) use frames::stand_by;
use head::{Caller, Terms};
use reply::{Answer, problem};
use route::{NoRoute, Route, route};

/// The largest document of the protocol that is read: a hello, an acknowledgement, a drain, the name of a callback.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
/// The largest settings that are read.
const MAX_SETTINGS_BYTES: usize = 4 * 1024 * 1024;

/// Answers the requests of one plugin.
pub(crate) struct Server {
    service: Arc<Service>,
    frames: Arc<FrameServer>,
}

/// A request whose head was understood.
struct Asked {
    route: Route,
    terms: Terms,
    body: Bytes,
    /// When its head had come.
    received: Instant,
    /// Who it is, in its own words or by its process.
    caller: String,
}

impl Server {
    /// Has to be called on the runtime on which methods are to run.
    pub(crate) fn new(service: Arc<Service>) -> Self {
        let frames = frames::server(&service);
        Self { service, frames }
    }

    /// Connections that speak frames; they end with the process, or when this is dropped.
    pub(crate) fn frames(&self) -> &Arc<FrameServer> {
        &self.frames
    }

    async fn answer(&self, request: ServerRequest) -> Result<Answer, NoRoute> {
        // Whether the method exists is asked last: to a caller that means another process it says nothing.
        let route = route(&request.method, &request.target)?;
        let any_epoch = matches!(route, Route::Hello { .. });
        let terms = Terms::of(&request.headers, self.service.epoch(), any_epoch)?;
        let caller = terms.origin.caller.clone().unwrap_or_else(|| format!("pid {}", request.peer.pid()));
        if route == Route::Frames {
            return frames::upgrade(&self.service, &self.frames, &request);
        }
        let asked = Asked { route, terms, body: request.body, received: request.received, caller };
        Ok(match asked.route.clone() {
            Route::Method(name) => self.call(&name, asked).await?,
            Route::V0Activate => v0::activate(&self.service).await?,
            Route::V0Ping => Answer::bytes(asked.body),
            Route::V0RegisterCallback => v0::poll(&self.service, &asked.body, asked.caller).await?,
            Route::V0Stop => v0::stop(&self.service).await,
            _ => control::answer(&self.service, asked).await?,
        })
    }

    async fn call(&self, name: &str, asked: Asked) -> Result<Answer, Fault> {
        let entry = self.service.method(name)?;
        let default = Duration::from_millis(entry.info.deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS));
        let deadline = asked.received + asked.terms.deadline.unwrap_or(default);
        let body = match call(&self.service, entry, deadline, asked.terms.origin, asked.body.into()).await? {
            Reply::Whole(bytes) => ServerBody::Full(bytes),
            Reply::Pieces(pieces) => ServerBody::Stream(pieces),
        };
        Ok(Answer::body(body, entry.info.content_type.clone().map(Into::into)))
    }

    /// What speaks against a request whatever its body is.
    fn refusal(&self, head: &ServerHead) -> Option<NoRoute> {
        let route = match route(&head.method, &head.target) {
            Ok(route) => route,
            Err(no) => return Some(no),
        };
        let terms = Terms::of(&head.headers, self.service.epoch(), matches!(route, Route::Hello { .. }));
        terms.err().map(NoRoute::from).or_else(|| self.check(&head.method, &head.target).err())
    }

    /// The route, with a method that exists.
    fn check(&self, verb: &str, target: &str) -> Result<Route, NoRoute> {
        let route = route(verb, target)?;
        if let Route::Method(name) = &route {
            self.service.method(name)?;
        }
        Ok(route)
    }
}

impl Handler for Server {
    fn max_body(&self, head: &ServerHead) -> usize {
        match self.check(&head.method, &head.target) {
            Ok(Route::Method(_) | Route::V0Ping) => self.service.max_request_bytes(),
            Ok(Route::Activate) => MAX_SETTINGS_BYTES,
            Ok(Route::Ping) => MAX_PING_BYTES,
            Ok(_) | Err(_) => MAX_DOCUMENT_BYTES,
        }
    }

    fn too_large(&self, head: &ServerHead, declared: u64) -> ServerResponse {
        let no = self.refusal(head).unwrap_or_else(|| {
            let most = self.max_body(head);
            let text = format!("the body is {declared} bytes, the limit is {most}; send less");
            let fault = Fault::new(Code::TooLarge, text);
            // Of a length that was not declared the method has read the beginning by then.
            let has_run = head.header("content-length").is_none() && self.is_streamed(head);
            if has_run { fault.with_ran(Ran::Yes).into() } else { fault.into() }
        });
        problem(&no, &Caller::of(&head.target, &head.headers))
    }

    fn bad_request(&self, head: Option<&ServerHead>, why: String) -> ServerResponse {
        let caller = head.map(|head| Caller::of(&head.target, &head.headers)).unwrap_or_default();
        let fault = Fault::new(Code::InvalidArgument, why);
        // A method that reads its body may have read the beginning by then.
        let may_have_run = head.is_some_and(|head| self.is_streamed(head));
        let fault = if may_have_run { fault.with_ran(Ran::Unknown) } else { fault };
        problem(&fault.into(), &caller)
    }

    fn is_streamed(&self, head: &ServerHead) -> bool {
        let reads = |name: &str| self.service.method(name).is_ok_and(|entry| entry.function.reads_its_body());
        matches!(route(&head.method, &head.target), Ok(Route::Method(name)) if reads(&name))
    }

    async fn handle_streamed(&self, head: ServerHead, body: IncomingBody) -> ServerResponse {
        let caller = Caller::of(&head.target, &head.headers);
        match reading::call(&self.service, &head, Body::of_http(body)).await {
            Ok(answer) => answer.into_response(&caller),
            Err(no) => problem(&no, &caller),
        }
    }

    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        let caller = Caller::of(&request.target, &request.headers);
        match self.answer(request).await {
            Ok(answer) => answer.into_response(&caller),
            Err(no) => problem(&no, &caller),
        }
    }
}
