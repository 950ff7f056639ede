//! Both sides of the C interface, and all unsafe code of it: the structure that is handed over, as `include/goplug.h` has it.
//!
//! `plugin` is what the macro's function does with it, `host` (feature `host`) opens a shared object and makes it.

#![allow(unsafe_code, reason = "C is on the other side; each block has its argument")]

#[cfg(feature = "host")]
mod host;
mod plugin;
#[cfg(test)]
#[cfg(feature = "host")]
mod tests;

use std::ffi::c_char;

#[cfg(feature = "host")]
pub use host::{Call, Library, LoadError};
pub(crate) use plugin::Handle;
pub use plugin::enter;

/// The version of the interface.
pub const ABI: u32 = 1;

/// The exported function.
pub const ENTRY: &str = "Execute";
/// The exported number that says which [`ABI`] a shared object was built for; one without it was built for 1.
pub const ABI_SYMBOL: &str = "goplug_abi";

/// What the entry function returns when it is done, when it has failed, and when it has panicked.
pub const DONE: i32 = 0;
/// See [`DONE`]. Every number that is none of these means the same.
pub const FAILED: i32 = 1;
/// See [`DONE`].
pub const PANICKED: i32 = 2;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// What is kept of the text of a failure, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// `goplug_context` of `goplug.h`, which says what each of its parts does. Only a host makes one, and it lives as long as its
/// call.
#[repr(C)]
#[derive(Debug)]
pub struct RawContext {
    abi: u32,
    size: u32,
    label: *const c_char,
    get: unsafe extern "C" fn(*const RawContext, *const c_char, *mut c_char, usize) -> usize,
    set: unsafe extern "C" fn(*const RawContext, *const c_char, *const c_char) -> i32,
    remaining_ms: unsafe extern "C" fn(*const RawContext) -> i64,
    cancelled: unsafe extern "C" fn(*const RawContext, u32) -> i32,
    fail: unsafe extern "C" fn(*const RawContext, *const c_char),
}

/// What became of a value that was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// It is kept, or its key was blank.
    Done,
    /// It is no JSON text.
    Invalid,
    /// It would be too much.
    TooLarge,
}

impl Set {
    const ALL: [(i32, Self); 3] = [(0, Self::Done), (1, Self::Invalid), (2, Self::TooLarge)];
}
