//! A file is fetched by `curl`, and is what its checksum says or is gone.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use goplug_package::Hashed;
use goplug_pconf_schema::locator::FileUrl;
use goplug_pconf_schema::{Code, Fault, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use super::plan::{NETWORK, Scratch, announced, fetch_file};
use super::run::{Ran, passed_on, run};
use super::{FILE_TOO_LARGE, Fetch, Progress, Tell};
use crate::installed::blocking;
use crate::options::Builder;

/// How often it is told how much is there.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Fetches `url` to the scratch folder; its digest, which is what `how` says if it says so.
///
/// # Errors
/// `unavailable`, `not_found`, `deadline_exceeded`, `too_large` or `denied` with the address, when it cannot be had; `denied`
/// when it is another file than expected.
///
/// # Cancel safety
/// Dropping the future ends what it started.
pub(super) async fn fetch(
    options: &Builder,
    url: &FileUrl,
    how: Fetch,
    scratch: &Scratch,
    tell: Tell<'_>,
) -> Result<Sha256, Fault> {
    let program = fetch_file(url, how.max_bytes, scratch, passed_on(&NETWORK));
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let fetching = run(options, program, |_| ());
    tokio::pin!(fetching);
    let ran = loop {
        tokio::select! {
            ran = &mut fetching => break ran.map_err(|fault| missing(fault, &url.address))?,
            _ = ticks.tick() => tell(progress(scratch)),
        }
    };
    if !ran.succeeded() {
        return Err(refusal(&ran, &url.address, how.max_bytes));
    }
    tell(progress(scratch));
    let file = scratch.file();
    let found = blocking(move || digest(&file)).await?;
    match how.sha256 {
        Some(expected) if expected != found => {
            let text = format!("{} is another file than expected: its SHA-256 is {found}, not {expected}", url.address);
            Err(Fault::new(Code::Denied, text))
        }
        _ => Ok(found),
    }
}

fn progress(scratch: &Scratch) -> Progress {
    let bytes = scratch.file().metadata().map_or(0, |status| status.len());
    let total = std::fs::read_to_string(scratch.heads()).ok().and_then(|heads| announced(&heads));
    Progress::Fetching { bytes, total: total.filter(|total| *total >= bytes) }
}

fn digest(path: &Path) -> Result<Sha256, Fault> {
    let unreadable =
        |error: std::io::Error| Fault::new(Code::Internal, format!("what was fetched cannot be read: {error}"));
    let mut hashed = Hashed::new(File::open(path).map_err(unreadable)?);
    std::io::copy(&mut hashed, &mut std::io::sink()).map_err(unreadable)?;
    Ok(hashed.finish().1)
}

fn missing(fault: Fault, address: &str) -> Fault {
    match fault.code {
        Code::NotFound => {
            Fault::new(Code::NotFound, "there is no `curl` in PATH, by which files are fetched: install it")
        }
        Code::DeadlineExceeded => {
            Fault::new(Code::DeadlineExceeded, format!("{address} took too long, and was given up"))
        }
        _ => fault,
    }
}

/// What an exit code of `curl` means.
fn refusal(ran: &Ran, address: &str, max_bytes: u64) -> Fault {
    let (code, what) = match (ran.exit.code, ran.exit.signal) {
        (Some(1), _) => (Code::Denied, "sends us on to something that is not fetched: https and, from http, http only"),
        (Some(5), _) => (Code::Unavailable, "is behind a proxy whose name is not known"),
        (Some(6), _) => (Code::Unavailable, "names a host that is not known here: is there a network?"),
        (Some(7), _) => (Code::Unavailable, "cannot be reached: nobody answers there"),
        (Some(18 | 52 | 55 | 56 | 92), _) => (Code::Unavailable, "was cut off before its end"),
        (Some(22), _) => {
            let status = status(ran).unwrap_or_default();
            let code = match status {
                404 | 410 => Code::NotFound,
                401 | 403 | 407 => Code::Denied,
                _ => Code::Unavailable,
            };
            return Fault::new(code, format!("{address} is not given to us: the server answers {status}"));
        }
        (Some(23), _) => (Code::Internal, "cannot be written to the disk"),
        (Some(28), _) => (Code::DeadlineExceeded, "took too long, and was given up"),
        (Some(35 | 51 | 58 | 60 | 77 | 83 | 90 | 91), _) => {
            (Code::Denied, "does not prove who it is: its certificate is not believed here")
        }
        (Some(47), _) => (Code::Denied, "sends us on again and again"),
        (Some(63), _) | (_, Some(FILE_TOO_LARGE)) => {
            return Fault::new(Code::TooLarge, format!("{address} is larger than {max_bytes} bytes"));
        }
        _ => {
            let (how, said) = (&ran.exit, ran.last_word());
            return Fault::new(Code::Unavailable, format!("{address} cannot be fetched: {how}: {said}"));
        }
    };
    Fault::new(code, format!("{address} {what}"))
}

/// The status in "The requested URL returned error: 404".
fn status(ran: &Ran) -> Option<u16> {
    ran.last_word()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .find(|n| (400..600).contains(n))
}
