//! Connecting, with patience for a full backlog only.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind};
use crate::socket::check_path;

/// The first and the longest pause before another look at a full backlog.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

pub(super) async fn connect(path: &Path, deadline: Instant) -> Result<UnixStream, Error> {
    if let Err(why) = check_path(path) {
        return Err(Error::new(ErrorKind::Io, false, why));
    }
    if deadline <= Instant::now() {
        return Err(Error::new(
            ErrorKind::Deadline,
            false,
            "the deadline had passed before the plugin could be reached",
        ));
    }
    let mut pause = PAUSES.0;
    loop {
        let error = match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => Error::from_io(&error, false, &format!("connect to {}", path.display())),
        };
        // A full backlog is the only failure that time alone can heal; nothing tells when it does.
        if error.kind != ErrorKind::Busy || Instant::now() >= deadline {
            return Err(error);
        }
        sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = PAUSES.1.min(pause * 2);
    }
}
