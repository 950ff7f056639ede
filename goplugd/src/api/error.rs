//! The one place where a failure becomes an HTTP answer.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use goplug_pconf_schema::wire::call::PROBLEM_JSON;
use goplug_registry::{Code, Error};

/// A failure on its way out of a handler.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Error,
    /// Where the vocabulary allows a second status for a code: 405 and 410.
    status: Option<StatusCode>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error, status: None }
    }
}

impl Problem {
    /// Bad input of the client.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, message).into()
    }

    /// The same failure under another status than its code's usual one.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        document(&self.error, self.status).map(Body::from)
    }
}

/// The answer that tells `error`: an `application/problem+json` document whose `status` is the answer's.
pub(crate) fn document(error: &Error, status: Option<StatusCode>) -> Response<Vec<u8>> {
    log(error);
    let usual = error.code.http_status();
    let status = status.or_else(|| StatusCode::from_u16(usual).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = error.to_problem();
    if status.as_u16() != usual
        && let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(&body)
    {
        document["status"] = status.as_u16().into();
        body = document.to_string().into_bytes();
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(ms) = error.retry_after_ms {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
    }
    if closes(error.code) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the rest of the request may be unread, so that nothing after it may be taken for another request.
fn closes(code: Code) -> bool {
    match code {
        Code::TooLarge | Code::InvalidArgument | Code::DeadlineExceeded | Code::Cancelled | Code::Overloaded => true,
        Code::NotFound
        | Code::WrongState
        | Code::Conflict
        | Code::Denied
        | Code::MethodFailed
        | Code::Panicked
        | Code::Unavailable
        | Code::PluginGone
        | Code::ProtocolError
        | Code::Internal => false,
    }
}

fn log(error: &Error) {
    match error.code {
        Code::Internal => tracing::error!("{error}"),
        Code::ProtocolError | Code::Panicked | Code::PluginGone => {
            tracing::warn!(code = error.code.as_str(), "{error}")
        }
        Code::InvalidArgument
        | Code::TooLarge
        | Code::NotFound
        | Code::WrongState
        | Code::Conflict
        | Code::Denied
        | Code::MethodFailed
        | Code::Overloaded
        | Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled => tracing::debug!(code = error.code.as_str(), "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_answered_with_its_status_and_document() {
        for code in Code::ALL {
            let error = Error::new(code, "because").with_retry_after_ms(1_200);
            let response = document(&error, None);
            assert_eq!(response.status().as_u16(), code.http_status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
            assert_eq!(response.headers()[header::RETRY_AFTER], "2");
            assert_eq!(Error::from_problem(response.body()), Some(error));
        }
    }

    #[test]
    fn a_second_status_is_in_the_document_too() {
        let response = document(&Error::new(Code::NotFound, "too old"), Some(StatusCode::GONE));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            (response.status(), &body["status"], &body["code"]),
            (StatusCode::GONE, &410.into(), &"not_found".into())
        );
    }
}
