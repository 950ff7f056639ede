//! A plugin whose methods take and give JSON of known shape: the schemas are published with the methods.

use std::path::Path;

use goplug_plugin_impl::{Code, Error, Method, Plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `divide` takes.
#[derive(Deserialize, JsonSchema)]
struct Division {
    dividend: f64,
    divisor: f64,
}

/// What `divide` gives.
#[derive(Serialize, JsonSchema)]
struct Quotient {
    quotient: f64,
}

/// Runs until a signal or a `stop`.
///
/// # Errors
/// When the plugin cannot be built or cannot listen.
pub fn run(dir: &Path) -> Result<(), Error> {
    Plugin::builder(dir)
        .namespace("Example")
        .name("typed")
        .typed(Method::new("divide").description("divides").idempotent(), |_cx, input: Division| {
            if input.divisor == 0.0 {
                return Err(Error::new(Code::MethodFailed, "the divisor is 0"));
            }
            Ok(Quotient { quotient: input.dividend / input.divisor })
        })
        .build()?
        .run_blocking()
}
