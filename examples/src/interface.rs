//! One trait for both sides: a plugin implements it, an application calls it.
//!
//! In a real project the trait and its types are a crate of their own, on which plugin and application depend.

use std::fmt;
use std::path::Path;

use goplug_interface::{Client, Context, Error, Failed, Find, Implement, interface};
use goplug_plugin_impl::Plugin;
use goplug_registry::Registry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arithmetic.
#[interface(name = "example.math", version = "1.2.0")]
pub trait Math {
    /// Divides.
    #[goplug(idempotent)]
    async fn divide(&self, dividend: f64, divisor: f64) -> Result<Quotient, MathError>;

    /// Forgets the sum and returns it.
    fn clear(&self, context: Context) -> Result<f64, Error>;

    /// The sum was cleared.
    #[goplug(notification)]
    fn cleared(event: Cleared);
}

/// What `divide` gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quotient {
    /// The dividend divided by the divisor.
    pub quotient: f64,
}

/// Why `divide` fails; it travels as data and is this type again at the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub enum MathError {
    /// The divisor is 0.
    DivisionByZero {
        /// What was to be divided.
        dividend: f64,
    },
}

/// The sum was cleared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {
    /// What it was.
    pub sum: f64,
}

impl fmt::Display for MathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::DivisionByZero { dividend } = self;
        write!(f, "{dividend} cannot be divided by 0")
    }
}

/// The plugin's side: divides, and sums up the quotients.
#[derive(Debug, Default)]
pub struct Calculator {
    sum: std::sync::Mutex<f64>,
}

impl Math for Calculator {
    async fn divide(&self, dividend: f64, divisor: f64) -> Result<Quotient, MathError> {
        if divisor == 0.0 {
            return Err(MathError::DivisionByZero { dividend });
        }
        let quotient = dividend / divisor;
        *self.sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += quotient;
        Ok(Quotient { quotient })
    }

    fn clear(&self, context: Context) -> Result<f64, Error> {
        let sum = std::mem::take(&mut *self.sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        MathNotifier::of(&context).try_cleared(&Cleared { sum })?;
        Ok(sum)
    }
}

/// The plugin: runs until a signal or a `stop`.
///
/// # Errors
/// When the plugin cannot be built or cannot listen.
pub fn run(dir: &Path) -> Result<(), Error> {
    Plugin::builder(dir)
        .namespace("Example")
        .name("math")
        .implement(MathServer::new(Calculator::default()))
        .build()?
        .run_blocking()
}

/// The application: finds whoever implements the trait, calls and listens.
///
/// # Errors
/// When no plugin implements it, or a call fails.
#[tokio::main]
pub async fn run_app(dir: &Path) -> Result<(), Error> {
    let registry = Registry::open(dir).await?;
    registry.load("Example/math").await?;
    for math in registry.find::<MathClient>() {
        let (heard, mut cleared) = tokio::sync::mpsc::channel(16);
        let subscription = math
            .on_cleared(move |event| {
                let heard = heard.clone();
                async move { heard.send(event.sum).await.map_err(|_| "nobody listens any more".to_owned()) }
            })
            .await?;
        match math.divide(1.0, 4.0).await {
            Ok(quotient) => println!("{} says {}", math.plugin().id(), quotient.quotient),
            Err(error) => println!("{error}"),
        }
        match math.divide(1.0, 0.0).await {
            Err(Failed::Method(MathError::DivisionByZero { dividend })) => println!("no: {dividend} by 0"),
            other => println!("unexpected: {other:?}"),
        }
        math.clear().await?;
        if let Some(sum) = cleared.recv().await {
            println!("cleared {sum}");
        }
        subscription.close().await;
    }
    registry.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An author's own test: the same trait, the same client, no process.
    #[tokio::test]
    async fn a_quotient_is_summed_up() -> Result<(), Error> {
        let math = MathClient::in_process(Calculator::default()).await?;
        assert_eq!(math.divide(3.0, 2.0).await, Ok(Quotient { quotient: 1.5 }));
        assert_eq!(math.clear().await?, 1.5);
        Ok(())
    }
}
