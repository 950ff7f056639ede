//! The names in a request's path and query, each decoded once.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use goplug_pconf_schema::wire::call::{query_value, split_target};
use goplug_pconf_schema::{check_call_name, printable};
use goplug_registry::PluginId;

use super::error::Problem;

/// `/v1/plugins/{ns}/{name}/…`, with `-` for the empty namespace.
#[derive(Debug)]
pub(crate) struct PluginTarget(pub(crate) PluginId);

/// `/v1/plugins/{ns}/{name}/{methods,callbacks}/{call}…`.
#[derive(Debug)]
pub(crate) struct CallTarget {
    /// The plugin.
    pub(crate) plugin: PluginId,
    /// The method or callback.
    pub(crate) call: String,
}

/// The query of a request, not yet decoded.
#[derive(Debug)]
pub(crate) struct Query(Option<String>);

impl Query {
    /// The value of `key`, if it is there; an empty one is refused.
    pub(crate) fn value(&self, key: &str) -> Result<Option<String>, Problem> {
        query_value(self.0.as_deref(), key).map_err(|why| Problem::invalid(format!("query `{key}`: {why}")))
    }

    /// Whether `key` is `true`; `default` when it is not there.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, Problem> {
        match self.value(key)?.as_deref() {
            None => Ok(default),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Problem::invalid(format!("query `{key}` is `{}`: use true or false", printable(other)))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for PluginTarget {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(names(parts)?.0))
    }
}

impl<S: Sync> FromRequestParts<S> for CallTarget {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let (plugin, rest) = names(parts)?;
        let call = rest.into_iter().nth(1).unwrap_or_default();
        check_call_name("the name of the method or callback", &call)
            .map_err(|why| Problem::invalid(why.to_string()))?;
        Ok(Self { plugin, call })
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.uri.query().map(str::to_owned)))
    }
}

/// The plugin in the path and the segments behind it.
fn names(parts: &Parts) -> Result<(PluginId, Vec<String>), Problem> {
    let (segments, _) = split_target(parts.uri.path()).map_err(Problem::invalid)?;
    let mut segments = segments.into_iter().skip(2);
    let (namespace, name) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let namespace = if namespace == "-" { "" } else { namespace.as_str() };
    let plugin = PluginId::new(namespace, &name).map_err(|why| Problem::invalid(why.to_string()))?;
    Ok((plugin, segments.collect()))
}
