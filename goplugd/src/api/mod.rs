//! The HTTP API: its routes, and what is refused before a route is looked for.

mod body;
mod callbacks;
mod calls;
mod document;
pub(crate) mod error;
mod events;
mod health;
mod plugins;
mod process;
mod target;
#[cfg(test)]
mod tests;
mod trust;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::{Stream, StreamExt as _};
use goplug_pconf_schema::wire::call::split_target;
use goplug_registry::{Code, Error};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service as _;

use crate::accept::{MAX_CONNECTIONS, Peer};
use crate::fleet::{Fleet, now_text};
use error::Problem;

/// Event streams at once; the other connections are left for requests that end.
const MAX_STREAMS: usize = MAX_CONNECTIONS / 4 * 3;

/// What every handler shares.
#[derive(Debug)]
pub(crate) struct App {
    /// The plugin directories.
    pub(crate) fleet: Fleet,
    since: String,
    ready: AtomicBool,
    auto_discover: AtomicBool,
    stopping: watch::Receiver<bool>,
    streams: Arc<Semaphore>,
    bodies: body::Budget,
}

impl App {
    /// An app that is not ready; its streams end when `stopping` becomes true.
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self {
            fleet: Fleet::new(),
            since: now_text(),
            ready: AtomicBool::new(false),
            auto_discover: AtomicBool::new(true),
            stopping,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            bodies: body::Budget::default(),
        }
    }

    /// Every directory has been read once.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// What `healthz` shows.
    pub(crate) fn set_auto_discover(&self, on: bool) {
        self.auto_discover.store(on, Ordering::Release);
    }

    /// Takes one of the places for event streams.
    fn stream_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| {
            Error::new(
                Code::Overloaded,
                format!("{MAX_STREAMS} event streams are open, the limit is {MAX_STREAMS}: close one"),
            )
        };
        Ok(Arc::clone(&self.streams).try_acquire_owned().map_err(full)?)
    }

    /// Ends `stream` when the daemon stops, and gives the place back with it.
    fn until_stopping<S: Stream>(
        &self,
        stream: S,
        place: OwnedSemaphorePermit,
    ) -> impl Stream<Item = S::Item> + use<S> {
        let mut stopping = self.stopping.clone();
        let stop = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        stream.take_until(Box::pin(stop)).map(move |item| {
            let _held = &place;
            item
        })
    }
}

/// The routes, ready to answer.
#[derive(Debug, Clone)]
pub(crate) struct Api(Router);

impl Api {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self(router(app))
    }

    /// Answers one request of `peer`. Dropping the future cancels what the request asked for.
    pub(crate) async fn answer(mut self, mut request: axum::http::Request<Incoming>, peer: Peer) -> Response {
        request.extensions_mut().insert(peer);
        let Ok(response) = self.0.call(request.map(Body::new)).await;
        response
    }
}

fn router(app: Arc<App>) -> Router {
    let plugin = |rest: &str| format!("/v1/plugins/{{ns}}/{{name}}{rest}");
    Router::new()
        .route("/v1/plugins", get(plugins::list).post(plugins::install))
        .route(&plugin(""), get(plugins::inspect).delete(plugins::remove))
        .route(&plugin("/load"), post(plugins::load))
        .route(&plugin("/unload"), post(plugins::unload))
        .route(&plugin("/reload"), post(plugins::reload))
        .route(&plugin("/start"), post(process::start))
        .route(&plugin("/stop"), post(process::stop))
        .route(&plugin("/restart"), post(process::restart))
        .route(&plugin("/enable"), post(process::enable))
        .route(&plugin("/disable"), post(process::disable))
        .route(&plugin("/upgrade"), post(versions::upgrade))
        .route(&plugin("/rollback"), post(versions::rollback))
        .route(&plugin("/pin"), post(versions::pin))
        .route(&plugin("/diff"), post(versions::diff))
        .route(&plugin("/logs"), get(process::logs))
        .route(&plugin("/ping"), post(plugins::ping))
        .route(&plugin("/methods"), get(plugins::methods))
        .route(&plugin("/methods/{method}"), post(calls::execute))
        .route(&plugin("/callbacks"), get(plugins::callbacks))
        .route(&plugin("/callbacks/{callback}"), get(callbacks::listen))
        .route(&plugin("/callbacks/{callback}/ack"), post(callbacks::ack))
        .route(&plugin("/why"), get(plugins::why))
        .route(&plugin("/wait"), get(plugins::wait))
        .route(&plugin("/trust"), get(trust::show))
        .route(&plugin("/trust/approve"), post(trust::approve))
        .route(&plugin("/trust/revoke"), post(trust::revoke))
        .route("/v1/trust", get(trust::list))
        .route("/v1/trust/keys", get(trust::keys).post(trust::add_key).delete(trust::remove_key))
        .route("/v1/why", get(plugins::why_subject))
        .route("/v1/deadletters", get(callbacks::dead_letters))
        .route("/v1/events", get(events::follow))
        .route("/v1/rescan", post(plugins::rescan))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(unknown_route)
        .method_not_allowed_fallback(other_verb)
        .layer(from_fn(check))
        .with_state(app)
}

/// What is refused, or changed, whatever the route: names that do not decode, HEAD (it would open streams), and reusing a
/// connection after a chunked body (a length sent beside it is ignored, as HTTP says; closing makes sure that bytes that
/// somebody took for the body are never taken for a request).
async fn check(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path != "/"
        && let Err(why) = split_target(path)
    {
        return Problem::invalid(why).into_response();
    }
    if request.method() == Method::HEAD {
        // The only answer without a document: an answer to HEAD has no body.
        return (
            [(header::ALLOW, "GET, POST")],
            Problem::invalid("HEAD is not answered: use GET").with_status(StatusCode::METHOD_NOT_ALLOWED),
        )
            .into_response()
            .map(|_| Body::empty());
    }
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = next.run(request).await;
    if chunked {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn unknown_route(request: Request) -> Problem {
    let shown = goplug_pconf_schema::printable(request.uri().path());
    Error::new(Code::NotFound, format!("no route {} {shown}: see /v1/plugins", request.method())).into()
}

/// The answer gets its `Allow` from the router.
async fn other_verb(request: Request) -> Problem {
    let shown = goplug_pconf_schema::printable(request.uri().path());
    Problem::invalid(format!("{} is no verb of {shown}", request.method())).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
