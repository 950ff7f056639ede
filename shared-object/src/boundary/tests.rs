//! Both sides against each other, without a shared object between them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::host::execute;
use super::{Call, DONE, FAILED, PANICKED, RawContext, Set, enter};
use crate::Context;

/// A host that keeps everything in maps.
#[derive(Default)]
struct Kept {
    values: Mutex<BTreeMap<String, String>>,
    message: Mutex<String>,
    waited: Mutex<Vec<Duration>>,
}

impl Call for Kept {
    fn get(&self, key: &str, take: &mut dyn FnMut(&str)) {
        take(self.values.lock().unwrap().get(key).map_or("null", String::as_str));
    }

    fn set(&self, key: &str, json: &str) -> Set {
        if key == "large" {
            return Set::TooLarge;
        }
        self.values.lock().unwrap().insert(key.to_owned(), json.to_owned());
        Set::Done
    }

    fn remaining(&self) -> Duration {
        Duration::from_millis(1_500)
    }

    fn cancelled(&self, within: Duration) -> bool {
        self.waited.lock().unwrap().push(within);
        within > Duration::ZERO
    }

    fn fail(&self, message: String) {
        *self.message.lock().unwrap() = message;
    }
}

fn run(cx: &Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
    match cx.label() {
        "double" => {
            let number: i64 = cx.get_as("number")?;
            cx.set("number", number * 2)?;
            assert_eq!(cx.get("nothing"), serde_json::Value::Null);
            assert_eq!(cx.get_as::<Option<u8>>("nothing"), Ok(None));
            assert_eq!(cx.remaining(), Duration::from_millis(1_500));
            assert!(!cx.is_cancelled() && cx.cancelled_within(Duration::from_millis(7)));
            assert!(!std::thread::scope(|scope| scope.spawn(|| cx.is_cancelled()).join().unwrap()));
            Ok(())
        }
        "long" => Ok(cx.set("text", "é".repeat(100_000))?),
        "nul" => {
            assert_eq!(cx.get("a\0b"), serde_json::Value::Null);
            Ok(cx.set("a\0b", 1)?)
        }
        "large" => Ok(cx.set("large", 1)?),
        "panic" => panic!("at the disco"),
        "object" => std::panic::panic_any(7),
        other => Err(format!("no label `{other}`").into()),
    }
}

unsafe extern "C" fn entry(context: *const RawContext) -> i32 {
    // SAFETY: it is called by a host.
    unsafe { enter(context, run) }
}

#[test]
fn what_is_set_on_one_side_is_there_on_the_other() {
    let kept = Kept::default();
    kept.set("number", "21");
    assert_eq!(execute(entry, "double", &kept), DONE);
    assert_eq!(kept.values.lock().unwrap()["number"], "42");
    assert_eq!(*kept.waited.lock().unwrap(), [Duration::ZERO, Duration::from_millis(7), Duration::ZERO]);
    assert_eq!(execute(entry, "long", &kept), DONE);
    assert_eq!(kept.values.lock().unwrap()["text"].len(), 200_002);
}

#[test]
fn a_failure_is_told_in_its_own_words_and_a_panic_is_caught() {
    for (label, returned, message) in [
        ("", FAILED, "no label ``"),
        ("nope", FAILED, "no label `nope`"),
        ("double", FAILED, "value `number`: invalid type: null, expected i64 at line 1 column 4"),
        ("nul", FAILED, "value `a\0b`: the host does not take it"),
        ("large", FAILED, "value `large`: the key is longer than 1,024 bytes, or the values would be more than 64 MiB"),
        ("panic", PANICKED, "at the disco"),
        ("object", PANICKED, "the function panicked without a word"),
    ] {
        let kept = Kept::default();
        assert_eq!(execute(entry, label, &kept), returned, "{label}");
        assert_eq!(*kept.message.lock().unwrap(), message.replace('\0', ""), "{label}");
    }
}

#[test]
fn a_text_that_does_not_fit_is_cut_off_and_its_length_is_told() {
    let kept = Kept::default();
    kept.set("k", "\"0123456789\"");
    unsafe extern "C" fn look(context: *const RawContext) -> i32 {
        // SAFETY: it is called by a host.
        let raw = unsafe { &*context };
        let mut buffer = [b'#'; 8];
        let whole = [b'#'; 8];
        // SAFETY: the buffers are as long as is said, and the key is NUL-terminated.
        unsafe {
            assert_eq!((raw.get)(context, c"k".as_ptr(), std::ptr::null_mut(), 0), 12);
            assert_eq!((raw.get)(context, c"k".as_ptr(), buffer.as_mut_ptr().cast(), 0), 12);
            assert_eq!(buffer, whole, "a buffer of no bytes is not written");
            assert_eq!((raw.get)(context, c"k".as_ptr(), buffer.as_mut_ptr().cast(), 5), 12);
            assert_eq!(&buffer, b"\"012\0###");
            assert_eq!((raw.get)(context, std::ptr::null(), buffer.as_mut_ptr().cast(), 8), 4);
            assert_eq!(&buffer[..5], b"null\0");
            assert_eq!((raw.get)(context, c"\xff".as_ptr(), buffer.as_mut_ptr().cast(), 1), 4);
            assert_eq!(buffer[0], 0);
            assert_eq!((raw.set)(context, c"\xff".as_ptr(), c"1".as_ptr()), 1);
            assert_eq!((raw.set)(context, c"n".as_ptr(), std::ptr::null()), 0);
            (raw.fail)(context, std::ptr::null());
        }
        7
    }
    assert_eq!(execute(look, "", &kept), 7);
    assert_eq!(kept.values.lock().unwrap()["n"], "null");
    assert_eq!(*kept.message.lock().unwrap(), "");
}

/// An older or a newer host: nothing of its structure is looked at.
#[test]
fn a_structure_of_another_version_is_not_used() {
    let none = |_: &Context<'_>| -> Result<(), String> { panic!("called") };
    // SAFETY: NULL is allowed, and each other one lives long enough.
    unsafe {
        assert_eq!(enter(std::ptr::null(), none), FAILED);
        for numbers in [[2_u32, 4_096], [1, 8], [0, 4_096]] {
            assert_eq!(enter(numbers.as_ptr().cast(), none), FAILED);
        }
    }
}

/// The header is the same structure, in the same order.
#[test]
fn the_header_says_the_same() {
    let header = include_str!("../../include/goplug.h");
    let body = header.split_once("struct goplug_context_s {").unwrap().1.split_once("};").unwrap().0;
    let places: Vec<_> = [
        "uint32_t abi;",
        "uint32_t size;",
        "const char *label;",
        "(*get)",
        "(*set)",
        "(*remaining_ms)",
        "(*cancelled)",
        "(*fail)",
    ]
    .iter()
    .map(|part| body.find(part).unwrap_or_else(|| panic!("{part} is not in the header")))
    .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(header.contains(&format!("#define GOPLUG_ABI {}\n", super::ABI)));
    for (name, number) in
        [("DONE", DONE), ("FAILED", FAILED), ("PANICKED", PANICKED), ("SET", 0), ("INVALID", 1), ("TOO_LARGE", 2)]
    {
        assert!(header.contains(&format!("#define GOPLUG_{name} {number} ")), "{name}");
    }
    assert_eq!(size_of::<RawContext>(), 2 * size_of::<u32>() + 6 * size_of::<usize>());
}
