//! The plugin's side: from the structure to safe functions, and no panic out of it.

use std::any::Any;
use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::Duration;

use super::{ABI, DONE, FAILED, PANICKED, RawContext, Set};
use crate::context::Context;

/// What the exported function does: calls the author's, and tells the host how it went. For [`crate::execute!`].
///
/// # Safety
/// `context` is NULL, or what a host has just handed to the exported function.
pub unsafe fn enter<E: Display>(
    context: *const RawContext,
    function: impl FnOnce(&Context<'_>) -> Result<(), E>,
) -> i32 {
    // SAFETY: what is not NULL is a structure of the host, which lives until this returns.
    let Some(handle) = (unsafe { Handle::new(context) }) else { return FAILED };
    // What the function has left half done is its own; the host has only what was set.
    match catch_unwind(AssertUnwindSafe(|| function(&Context::new(handle)))) {
        Ok(Ok(())) => DONE,
        Ok(Err(error)) => {
            handle.fail(&error.to_string());
            FAILED
        }
        Err(panic) => {
            handle.fail(words_of(&*panic));
            // To drop it is the author's code once more, and may panic once more.
            std::mem::forget(panic);
            PANICKED
        }
    }
}

/// The structure of a call that is not over.
#[derive(Clone, Copy)]
pub(crate) struct Handle<'a> {
    raw: NonNull<RawContext>,
    call: PhantomData<&'a RawContext>,
}

// SAFETY: the functions of a context may be called from any thread until its call is over, and its parts do not change.
unsafe impl Send for Handle<'_> {}
// SAFETY: as above.
unsafe impl Sync for Handle<'_> {}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the function panicked without a word")
}

impl<'a> Handle<'a> {
    /// `None` for NULL, and for a structure of another version, in which nothing behind its two numbers is known.
    ///
    /// # Safety
    /// `context` is NULL, or a structure of a host that lives for `'a`.
    unsafe fn new(context: *const RawContext) -> Option<Self> {
        let raw = NonNull::new(context.cast_mut())?;
        // SAFETY: every version of the structure begins with these two.
        let (abi, size) =
            unsafe { ((&raw const (*raw.as_ptr()).abi).read(), (&raw const (*raw.as_ptr()).size).read()) };
        (abi == ABI && size as usize >= size_of::<RawContext>()).then_some(Self { raw, call: PhantomData })
    }

    /// The part of the structure that this version knows. What is handed back to the host is the pointer that came from there: behind
    /// this part is more.
    fn parts(&self) -> &'a RawContext {
        // SAFETY: it was checked to be one of this version, it lives for `'a`, and nobody changes it.
        unsafe { self.raw.as_ref() }
    }

    pub(crate) fn label(&self) -> &'a str {
        let label = self.parts().label;
        if label.is_null() {
            return "";
        }
        // SAFETY: the host promises a NUL-terminated text that lives as long as the structure.
        unsafe { CStr::from_ptr(label) }.to_str().unwrap_or_default()
    }

    /// The JSON text of a value.
    pub(crate) fn get(&self, key: &str) -> String {
        let Ok(key) = CString::new(key) else { return "null".to_owned() };
        let mut text = vec![0_u8; 256];
        loop {
            // SAFETY: the context is the host's own and alive; the key is NUL-terminated, and the host writes no more bytes than the
            // buffer has.
            let length =
                unsafe { (self.parts().get)(self.raw.as_ptr(), key.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
            if length < text.len() {
                text.truncate(length);
                return String::from_utf8(text).unwrap_or_else(|_| "null".to_owned());
            }
            // Another thread may set a longer one meanwhile; then it is asked for again.
            text.resize(length.saturating_add(1), 0);
        }
    }

    pub(crate) fn set(&self, key: &str, json: &str) -> Set {
        let (Ok(key), Ok(json)) = (CString::new(key), CString::new(json)) else { return Set::Invalid };
        // SAFETY: the context is the host's own and alive; both texts are NUL-terminated and only read during the call.
        let told = unsafe { (self.parts().set)(self.raw.as_ptr(), key.as_ptr(), json.as_ptr()) };
        Set::ALL.iter().find(|(number, _)| *number == told).map_or(Set::Invalid, |(_, set)| *set)
    }

    pub(crate) fn remaining(&self) -> Duration {
        // SAFETY: the context is the host's own and alive.
        let ms = unsafe { (self.parts().remaining_ms)(self.raw.as_ptr()) };
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    pub(crate) fn cancelled(&self, limit: Duration) -> bool {
        let ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: the context is the host's own and alive.
        unsafe { (self.parts().cancelled)(self.raw.as_ptr(), ms) != 0 }
    }

    pub(crate) fn fail(&self, message: &str) {
        let text: Vec<u8> = message.bytes().filter(|byte| *byte != 0).collect();
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the context is the host's own and alive; the text is NUL-terminated and only read during the call.
        unsafe { (self.parts().fail)(self.raw.as_ptr(), text.as_ptr()) }
    }
}
