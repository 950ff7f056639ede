//! What a call means does not depend on how its bytes travel.

use goplug_tests::fast_paths;

/// The modules whose tests make calls through a registry.
const MODULES: [&str; 5] = ["calls::", "hostile::", "identity::", "leaks::", "life::"];

/// Those tests run once more, in a process of their own, with every call on HTTP.
#[test]
fn everything_holds_over_http_too() {
    if !fast_paths() {
        // This is that process.
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(MODULES)
        .args(["--skip", "cli::"])
        .env("GOPLUG_TRANSPORT", "http")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "over HTTP: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary = text.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    let passed: u32 = summary.split(' ').nth(3).and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(passed > 30, "the tests ran: {summary}");
}
