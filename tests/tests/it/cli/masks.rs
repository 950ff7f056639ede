//! What differs between two runs of the same thing: times, process ids, users, epochs, column widths.

use std::sync::LazyLock;

use regex::Regex;

static MASKS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let masks = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
        (r"\b0{64}\b", "[ZEROS]"),
        (r"\b[0-9a-f]{64}\b", "[SHA256]"),
        (r"(sha256 |  )[0-9a-f]{16}(…|  )", "$1[SHA256]$2"),
        (r"\b[0-9a-f]{32}\b", "[EPOCH]"),
        (r"\.[0-9a-f]{8}\.sock", ".[EPOCH].sock"),
        (r"-[0-9a-f]{8}\.plugin", "-[INSTANCE].plugin"),
        // A table is as wide as its longest path or number.
        (r"(\S) {2,}", "$1  "),
        (r"\b(pid|process|uid) \d+", "$1 [$1]"),
        (r"(?m)^(  (pid|uid))  \d+$", "$1  [$2]"),
        (r#""(pid|Pid|uid|hostPid)": ?\d+"#, "\"$1\": [$1]"),
        (r"(?m)^(\s*)(pid|uid): \d+$", "$1$2: [$2]"),
        (r"\buid:\d+", "uid:[uid]"),
        (r"(?m)^(\S+/\S+  \w+  \S+  v\d  \S+  )\d+", "$1[pid]"),
        (r#""(\w+Ns)": ?\d+"#, "\"$1\": [NS]"),
        (r"(?m)^(\s*)(\w+Ns): \d+$", "$1$2: [NS]"),
        (r#""callsPerSecond": ?[\d.e]+"#, "\"callsPerSecond\": [N]"),
        (r"(p50|p99|max) [\d.]+ ?\S+,", "$1 [DURATION],"),
        (r"\d+ calls/s", "[N] calls/s"),
        (r#""bytesPerSecond": ?[\d.e]+"#, "\"bytesPerSecond\": [N]"),
        // Whoever waits before it tries again does so every now and then.
        (r"again in \d+ ms", "again in [N] ms"),
        (r"\b(backoff|starting) since", "[TRYING] since"),
        // How many calls `bench` made.
        (r#""calls": \d+(,\s+"failed": 0,\s+"errors": \{\},\s+"unfinished")"#, "\"calls\": [N]$1"),
        (r"(?m)^(  calls)  \d+, \[N\]", "$1  [N], [N]"),
        (r"(?m)^(  bodies)  [\d.]+ MB/s", "$1  [N] MB/s"),
        (r"(?m)^(  time)  [\d.]+ (ns|µs|ms|s), after", "$1  [DURATION], after"),
        (r"(?m)^(  (p\d\d(\.\d)?|max))  [\d.]+ (ns|µs|ms|s)$", "$1  [DURATION]"),
        (r"(?m)^(\S+/\S+) [\d.]+ (ns|µs|ms|s)$", "$1 [DURATION]"),
    ];
    masks.into_iter().map(|(pattern, mask)| (Regex::new(pattern).expect("a pattern"), mask)).collect()
});

/// The longest text that is masked.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The text with everything masked that another run would say otherwise; `places` are paths and their masks.
pub(super) fn masked(text: &str, places: &[(String, &str)]) -> String {
    // A reply that is longer is nothing that stands in a snapshot.
    if text.len() > MAX_TEXT_BYTES {
        return text.to_owned();
    }
    let placed = places.iter().fold(text.to_owned(), |text, (path, mask)| text.replace(path, mask));
    let versioned = placed.replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
    MASKS.iter().fold(versioned, |text, (pattern, mask)| pattern.replace_all(&text, *mask).into_owned())
}

#[test]
fn what_differs_is_masked_and_nothing_else() {
    let places = [("/tmp/gpAb".to_owned(), "[DIR]")];
    for (text, expected) in [
        ("Test/Do  loaded      -        v1        36       11703\n", "Test/Do  loaded  -  v1  36  [pid]\n"),
        ("  socket       /tmp/gpAb/TestDo.e1fcb612.sock", "  socket  [DIR]/TestDo.[EPOCH].sock"),
        ("  pid          11703\n", "  pid  [pid]\n"),
        ("Test/Do 356 µs\n", "Test/Do [DURATION]\n"),
        ("  calls       12, 2 under way\n", "  calls  12, 2 under way\n"),
        ("  calls       12, 34 calls/s\n  p99.9       1.2 ms\n", "  calls  [N], [N] calls/s\n  p99.9  [DURATION]\n"),
        ("3 calls, 2 under way", "3 calls, 2 under way"),
        ("the limit is 107 bytes, not done after 200 ms", "the limit is 107 bytes, not done after 200 ms"),
    ] {
        assert_eq!(masked(text, &places), expected);
    }
}
