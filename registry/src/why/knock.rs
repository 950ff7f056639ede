//! A knock at a socket: does somebody listen, and who? Nothing is sent.

use std::path::Path;
use std::time::Duration;

use goplug_transport::{Connection, ErrorKind};
use tokio::time::Instant;

use crate::discovery::Confinement;

/// How long a full backlog is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a knock told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Knock {
    /// Somebody listens.
    Answered { pid: u32, uid: u32 },
    /// There is nothing at the path.
    Missing,
    /// The socket is there, its process is not.
    Refused,
    /// We may not connect.
    Denied,
    /// There is something else at the path, or it leads elsewhere, or connecting fails otherwise: why.
    Unusable(String),
}

/// Connects and hangs up.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn knock(socket: &Path, confinement: Confinement) -> Knock {
    let path = socket.to_owned();
    let checked = crate::tasks::on_a_thread(move || confinement.check_on_disk(&path)).await;
    if let Ok(Err(reason)) = checked {
        return Knock::Unusable(reason);
    }
    match Connection::connect(socket, Instant::now() + PATIENCE).await {
        Ok(connection) => Knock::Answered { pid: connection.peer().pid(), uid: connection.peer().uid() },
        Err(error) => match error.kind {
            ErrorKind::Missing => Knock::Missing,
            ErrorKind::Refused => Knock::Refused,
            ErrorKind::Denied => Knock::Denied,
            _ => Knock::Unusable(error.message),
        },
    }
}
