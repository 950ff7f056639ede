//! Calls over HTTP of methods that read their bodies while they come.

use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::wire::call::DEFAULT_DEADLINE_MS;
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{ServerBody, ServerHead};
use tokio::time::Instant;

use super::head::Terms;
use super::reply::Answer;
use super::route::{NoRoute, Route, route};
use crate::body::Body;
use crate::call::{Admitted, Reply};
use crate::service::Service;

/// Answers a call whose body is still coming.
pub(super) async fn call(service: &Arc<Service>, head: &ServerHead, body: Body) -> Result<Answer, NoRoute> {
    let Route::Method(name) = route(&head.method, &head.target)? else {
        return Err(Fault::new(Code::Internal, "the request went to the wrong place").into());
    };
    let terms = Terms::of(&head.headers, service.epoch(), false)?;
    let entry = service.method(&name)?;
    let default = Duration::from_millis(entry.info.deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS));
    let deadline = head.received + terms.deadline.unwrap_or(default);
    // The runtime that a blocking one waits on.
    service.runtime();
    let admitted = Admitted::new(service, entry, deadline, Instant::now(), terms.origin)?;
    let body = match admitted.run_reading(body).await? {
        Reply::Whole(bytes) => ServerBody::Full(bytes),
        Reply::Pieces(pieces) => ServerBody::Stream(pieces),
    };
    Ok(Answer::body(body, entry.info.content_type.clone().map(Into::into)))
}
