//! Methods on types: from the bytes of a request to a value, and from the value of a reply to bytes.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::wire::hello::MethodInfo;
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::View;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::method::{Function, ReplyStream, it_ran};

/// Makes a function on bytes of one on types, and describes the types in `info`. An empty body reads as `null`, so that
/// a method may take `()` or an `Option`.
pub(crate) fn blocking<I, O, F>(info: &mut MethodInfo, function: F) -> Function
where
    I: DeserializeOwned + JsonSchema + 'static,
    O: Serialize + JsonSchema + 'static,
    F: Fn(&Context, I) -> Result<O, Fault> + Send + Sync + 'static,
{
    describe::<I, O>(info);
    // Not by way of `Function::blocking`: of a body that cannot be decoded the author's function sees nothing.
    Function::Blocking(Arc::new(move |cx: &Context, body: View| {
        let output = function(cx, decoded(cx.method(), &body.into_bytes())?).map_err(it_ran)?;
        encoded(cx.method(), &output)
    }))
}

/// As [`blocking`], of an async function.
pub(crate) fn asynchronous<I, O, F, A>(info: &mut MethodInfo, function: F) -> Function
where
    I: DeserializeOwned + JsonSchema + 'static,
    O: Serialize + JsonSchema + 'static,
    F: Fn(Context, I) -> A + Send + Sync + 'static,
    A: Future<Output = Result<O, Fault>> + Send + 'static,
{
    describe::<I, O>(info);
    Function::Async(Arc::new(move |cx: Context, body: View| {
        let running = decoded(cx.method(), &body.into_bytes()).map(|input| function(cx.clone(), input));
        Box::pin(async move {
            let output = running?.await.map_err(it_ran)?;
            encoded(cx.method(), &output)
        })
    }))
}

/// As [`asynchronous`], with a reply that is sent piece by piece.
pub(crate) fn streaming<I, F, A>(info: &mut MethodInfo, function: F) -> Function
where
    I: DeserializeOwned + JsonSchema + 'static,
    F: Fn(Context, I, ReplyStream) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), Fault>> + Send + 'static,
{
    info.input = Some(schemars::schema_for!(I).to_value());
    Function::Streaming(Arc::new(move |cx: Context, body: View, out| {
        let running = decoded(cx.method(), &body.into_bytes()).map(|input| function(cx, input, out));
        Box::pin(async move { running?.await.map_err(it_ran) })
    }))
}

fn describe<I: JsonSchema, O: JsonSchema>(info: &mut MethodInfo) {
    info.input = Some(schemars::schema_for!(I).to_value());
    info.output = Some(schemars::schema_for!(O).to_value());
    info.content_type = Some("application/json".to_owned());
}

fn decoded<I: DeserializeOwned>(method: &str, body: &[u8]) -> Result<I, Fault> {
    let text: &[u8] = if body.is_empty() { b"null" } else { body };
    // Read again only to say where it is wrong: to keep the path while reading costs every call.
    serde_json::from_slice(text).map_err(|error| {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let at = serde_path_to_error::deserialize::<_, I>(&mut reader).err().map(|error| error.path().to_string());
        let place = at.filter(|path| path != ".").map(|path| format!("at `{path}`: ")).unwrap_or_default();
        let text = format!("the body of method `{method}` is not the JSON it takes: {place}{error}");
        Fault::new(Code::InvalidArgument, text)
    })
}

fn encoded<O: Serialize>(method: &str, output: &O) -> Result<Bytes, Fault> {
    serde_json::to_vec(output).map(Bytes::from).map_err(|error| {
        let text = format!("the reply of method `{method}` cannot be written as JSON: {error}");
        Fault::new(Code::MethodFailed, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Order {
        lines: Vec<Line>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Line {
        count: u8,
    }

    #[test]
    fn a_body_that_does_not_fit_is_told_by_the_path_of_its_field() {
        for (body, expected) in [
            (r#"{"lines": [{"count": 1}, {"count": "two"}]}"#, "at `lines[1].count`: invalid type: string"),
            (r#"{"lines": [{"count": 300}]}"#, "at `lines[0].count`: invalid value: integer `300`"),
            (r#"{"lines": [{}]}"#, "at `lines[0]`: missing field `count`"),
            ("", "is not the JSON it takes: invalid type: null, expected struct Order"),
        ] {
            let fault = decoded::<Order>("order", body.as_bytes()).unwrap_err();
            assert_eq!(fault.code, Code::InvalidArgument);
            assert!(fault.message.contains(expected), "{body}: {fault}");
        }
        assert!(decoded::<()>("ping", b"").is_ok());
    }
}
