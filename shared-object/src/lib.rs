//! For plugin authors: a plugin that is a shared object with one exported function, `Execute`.
//!
//! `goplug-host` opens it in a process of its own and calls the function once for each call. A function becomes a plugin by
//! [`execute!`]; what it may ask of its call is [`Context`]. Other languages do the same with `include/goplug.h`;
//! `docs/shared-objects.md` says how such a plugin is installed and called.
//!
//! In reading order: `context` (what an author sees), `boundary` (both sides of the C interface, and all unsafe code).
//!
//! # Example: a whole plugin
//! In `Cargo.toml`: `[lib] crate-type = ["cdylib"]`.
//! ```
//! use std::error::Error;
//! use goplug_shared_object::Context;
//!
//! goplug_shared_object::execute!(greet);
//!
//! fn greet(cx: &Context<'_>) -> Result<(), Box<dyn Error>> {
//!     let name: String = cx.get_as("name")?;
//!     cx.set("greeting", format!("hello {name}"))?;
//!     Ok(())
//! }
//! # fn main() {}
//! ```

pub mod boundary;
mod context;

pub use context::{Context, Error};

/// Exports a function as the `Execute` of this shared object; once in a crate.
///
/// The function takes a [`Context`] and returns a `Result<(), E>`, of which `E` can be shown: its text is what the caller is told, as
/// `method_failed`. A panic is caught (unless the crate is built with `panic = "abort"`) and told as `panicked`; the plugin goes on.
#[macro_export]
macro_rules! execute {
    ($function:expr) => {
        const _: () = {
            #[allow(unsafe_code, non_upper_case_globals, reason = "how C finds it")]
            #[unsafe(no_mangle)]
            pub static goplug_abi: u32 = $crate::boundary::ABI;

            #[allow(unsafe_code, non_snake_case, reason = "how C finds it; what it does is in the library")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn Execute(context: *const $crate::boundary::RawContext) -> i32 {
                // SAFETY: the host calls it with a context that lives until it returns.
                unsafe { $crate::boundary::enter(context, $function) }
            }
        };
    };
}
