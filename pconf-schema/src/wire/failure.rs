//! A method's own errors: how a type of the author's travels as the data of `method_failed`, and comes back.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fault::{Code, Fault, Ran};

/// What a method of an interface may fail with: a [`Fault`], or any type that is `Display` and JSON.
///
/// A type of one's own travels as `method_failed`, with its text as the message and itself as `data`; its caller sees it
/// again as [`Failed::Method`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel as the error of a method",
    note = "use `Error`, or a type that is `Display`, `Serialize`, `Deserialize` and `JsonSchema`"
)]
pub trait Failure: Sized + Send + 'static {
    /// What the caller of the method is told.
    type Seen: Send + 'static;

    /// As it leaves the plugin.
    fn into_fault(self) -> Fault;

    /// As it is when it has arrived.
    fn seen(fault: Fault) -> Self::Seen;

    /// JSON Schema of the data, if its shape is known.
    fn schema() -> Option<Value>;
}

/// Why a call of a method with errors of its own failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed<E> {
    /// The method ran, and this is its answer.
    Method(E),
    /// Everything else: the plugin is gone, the time is over, or the error is none that this side knows.
    Call(Fault),
}

impl Failure for Fault {
    type Seen = Self;

    fn into_fault(self) -> Fault {
        self
    }

    fn seen(fault: Fault) -> Self {
        fault
    }

    fn schema() -> Option<Value> {
        None
    }
}

impl<E> Failure for E
where
    E: fmt::Display + Serialize + DeserializeOwned + JsonSchema + Send + 'static,
{
    type Seen = Failed<E>;

    fn into_fault(self) -> Fault {
        let fault = Fault::new(Code::MethodFailed, self.to_string()).with_ran(Ran::Yes);
        match serde_json::to_value(&self) {
            Ok(data) => fault.with_data(data),
            // Its text still says what happened.
            Err(_) => fault,
        }
    }

    fn seen(fault: Fault) -> Failed<E> {
        let own = match (&fault.data, fault.code) {
            (Some(data), Code::MethodFailed) => E::deserialize(&**data).ok(),
            _ => None,
        };
        own.map_or(Failed::Call(fault), Failed::Method)
    }

    fn schema() -> Option<Value> {
        Some(schemars::schema_for!(E).to_value())
    }
}

impl<E> Failed<E> {
    /// The method's own error, if it is one.
    pub fn method(self) -> Option<E> {
        match self {
            Self::Method(error) => Some(error),
            Self::Call(_) => None,
        }
    }

    /// What else went wrong, if it was not the method's own error.
    pub fn call(self) -> Option<Fault> {
        match self {
            Self::Method(_) => None,
            Self::Call(fault) => Some(fault),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(error) => error.fmt(f),
            Self::Call(fault) => fault.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Failed<E> {}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
    enum MathError {
        DivisionByZero { dividend: i64 },
    }

    impl fmt::Display for MathError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self::DivisionByZero { dividend } = self;
            write!(f, "{dividend} divided by 0")
        }
    }

    #[test]
    fn an_error_of_ones_own_survives_the_wire() {
        let error = MathError::DivisionByZero { dividend: 7 };
        let fault = error.clone().into_fault();
        assert_eq!((fault.code, fault.ran, fault.message.as_str()), (Code::MethodFailed, Ran::Yes, "7 divided by 0"));
        let arrived = Fault::from_problem(&fault.to_problem()).unwrap();
        assert_eq!(MathError::seen(arrived), Failed::Method(error));
        assert!(MathError::schema().unwrap().to_string().contains("DivisionByZero"));
    }

    #[test]
    fn whatever_else_fails_is_told_as_it_is() {
        let of = |code, data: Value| Fault::new(code, "why").with_data(data);
        let known = serde_json::json!({"DivisionByZero": {"dividend": 7}});
        for fault in [
            Fault::new(Code::MethodFailed, "no data"),
            of(Code::MethodFailed, serde_json::json!({"Newer": {}})),
            of(Code::PluginGone, known),
        ] {
            assert_eq!(MathError::seen(fault.clone()), Failed::Call(fault));
        }
        let fault = Fault::new(Code::NotFound, "no such number");
        assert_eq!(Fault::seen(fault.clone().into_fault()), fault);
    }
}
