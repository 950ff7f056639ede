//! The host's side: opens a shared object, and makes the structure that it is handed for each call.

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use libloading::os::unix::{Library as Opened, RTLD_LOCAL, RTLD_NOW};

use super::{ABI, ABI_SYMBOL, ENTRY, RawContext, Set};

type Entry = unsafe extern "C" fn(*const RawContext) -> i32;

/// What a host does for a call; from any thread.
pub trait Call: Sync {
    /// Hands the JSON text of a value to `take`: `null` for one that is not there.
    fn get(&self, key: &str, take: &mut dyn FnMut(&str));
    /// Keeps a value.
    fn set(&self, key: &str, json: &str) -> Set;
    /// How long the caller still waits.
    fn remaining(&self) -> Duration;
    /// Whether nobody waits any more; waits for it at most so long.
    fn cancelled(&self, within: Duration) -> bool;
    /// Keeps the reason of a failure.
    fn fail(&self, message: String);
}

/// A shared object that is open. It stays so until the process ends: what it has left behind in threads and in handlers at
/// the end of the process must not lead into nothing.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    entry: Entry,
}

/// Why a shared object cannot be used: a fragment with its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError(String);

impl Library {
    /// Opens a shared object, which runs what it wants to be run then.
    ///
    /// # Errors
    /// It cannot be opened, has no entry function, or was built for another version of the interface.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let shown = path.display();
        // SAFETY: it runs code of the plugin, which is what this process is there for: it holds nothing of anybody else, and
        // whatever that code breaks is the plugin's.
        let opened = unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let opened = opened.map_err(|error| {
            // What the loader said is below the error.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            LoadError(format!("shared object {shown} cannot be opened: {why}"))
        })?;
        // SAFETY: whoever exports a datum of this name means a number of this size, as `goplug.h` says; nobody writes it.
        let abi = unsafe { opened.get::<*const u32>(ABI_SYMBOL) };
        // SAFETY: as above; it is not NULL, and the object stays open.
        let abi = abi.ok().filter(|abi| !abi.is_null()).map_or(ABI, |abi| unsafe { abi.read() });
        if abi != ABI {
            return Err(LoadError(format!(
                "shared object {shown} was built for version {abi} of goplug.h, this goplug-host has version {ABI}"
            )));
        }
        // SAFETY: whoever exports a function of this name means the one that `goplug.h` declares.
        let entry = unsafe { opened.get::<Entry>(ENTRY) }
            .map_err(|_| LoadError(format!("there is no function `{ENTRY}` in shared object {shown}")))?;
        let entry = *entry;
        std::mem::forget(opened);
        Ok(Self { entry })
    }

    /// Calls the entry function; what it returned.
    pub fn execute(&self, label: &str, call: &dyn Call) -> i32 {
        execute(self.entry, label, call)
    }
}

/// The structure, and behind it what the plugin does not see.
#[repr(C)]
struct Handed<'a> {
    raw: RawContext,
    call: &'a dyn Call,
}

pub(super) fn execute(entry: Entry, label: &str, call: &dyn Call) -> i32 {
    // A label with a NUL in it was refused by whoever took it.
    let label = CString::new(label).unwrap_or_default();
    let raw = RawContext {
        abi: ABI,
        size: u32::try_from(size_of::<RawContext>()).unwrap_or(u32::MAX),
        label: label.as_ptr(),
        get,
        set,
        remaining_ms,
        cancelled,
        fail,
    };
    let handed = Handed { raw, call };
    // SAFETY: it is the function that `goplug.h` declares, and the structure lives until it returns, after which it may not be used.
    unsafe { entry((&raw const handed).cast()) }
}

/// The call behind a structure that was handed out.
///
/// # Safety
/// `context` is one that [`execute`] made, and its call is not over.
unsafe fn call_of<'a>(context: *const RawContext) -> &'a dyn Call {
    // SAFETY: every structure that is handed out is the first part of a `Handed`, and the pointer is to all of it.
    unsafe { (*context.cast::<Handed<'a>>()).call }
}

/// # Safety
/// `text` is NULL, or NUL-terminated and stays as it is during the call.
unsafe fn text_of<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: it is not NULL, and the plugin promises the rest.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

unsafe extern "C" fn get(
    context: *const RawContext,
    key: *const c_char,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    // SAFETY: the plugin hands back the structure that it was handed, during its call, and a text as `goplug.h` asks.
    let (call, key) = unsafe { (call_of(context), text_of(key)) };
    let mut length = 0;
    let mut copy = |text: &str| {
        length = text.len();
        if buffer.is_null() || capacity == 0 {
            return;
        }
        let count = length.min(capacity - 1);
        // SAFETY: the plugin promises a buffer of `capacity` bytes, of which one more than `count` are written; it is the
        // plugin's, and so none of the text.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), count);
            buffer.add(count).write(0);
        }
    };
    match key.map(CStr::to_str) {
        Some(Ok(key)) => call.get(key, &mut copy),
        _ => copy("null"),
    }
    length
}

unsafe extern "C" fn set(context: *const RawContext, key: *const c_char, json: *const c_char) -> i32 {
    // SAFETY: as in `get`.
    let (call, key, json) = unsafe { (call_of(context), text_of(key), text_of(json)) };
    let set = match (key.unwrap_or_default().to_str(), json.unwrap_or(c"null").to_str()) {
        (Ok(key), Ok(json)) => call.set(key, json),
        _ => Set::Invalid,
    };
    Set::ALL.iter().find(|(_, known)| *known == set).map_or(1, |(number, _)| *number)
}

unsafe extern "C" fn remaining_ms(context: *const RawContext) -> i64 {
    // SAFETY: as in `get`.
    let call = unsafe { call_of(context) };
    i64::try_from(call.remaining().as_millis()).unwrap_or(i64::MAX)
}

unsafe extern "C" fn cancelled(context: *const RawContext, wait_ms: u32) -> i32 {
    // SAFETY: as in `get`.
    let call = unsafe { call_of(context) };
    i32::from(call.cancelled(Duration::from_millis(wait_ms.into())))
}

unsafe extern "C" fn fail(context: *const RawContext, message: *const c_char) {
    // SAFETY: as in `get`.
    let (call, message) = unsafe { (call_of(context), text_of(message)) };
    let bytes = message.unwrap_or_default().to_bytes();
    let kept = &bytes[..bytes.len().min(super::MAX_MESSAGE_BYTES)];
    call.fail(String::from_utf8_lossy(kept).into_owned());
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}
