//! For an author's own tests: a plugin in a folder of its own, called over its real socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::{self, DEADLINE_MS, path};
use goplug_pconf_schema::wire::event::{Message, Position, from_base64};
use goplug_pconf_schema::wire::hello::{Hello, MAX_HELLO_BYTES};
use goplug_pconf_schema::wire::sse::{SseEvent, SseReader};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{Connection, ReplyHead, Request};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::plugin::PluginBuilder;
use crate::running::Running;
use crate::{CallbackStatus, Drained};

/// How long a call of a test may take when it says nothing else.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest reply that a test may read.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// A plugin in this process, in a folder of its own, that is removed when this is dropped.
///
/// # Example: a notification that a method sends is seen
/// ```
/// use bytes::Bytes;
/// use goplug_plugin_impl::testing::InProcess;
/// use goplug_plugin_impl::{Error, Plugin};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Error> {
/// let plugin = InProcess::start(|dir| {
///     Plugin::builder(dir).name("door").callback("opened").method("open", |cx, _body| {
///         cx.notifier().try_notify("opened", "front")?;
///         Ok(Bytes::new())
///     })
/// })
/// .await?;
/// let mut opened = plugin.notifications("opened").await?;
/// plugin.call("open", "").await?;
/// assert_eq!(opened.next().await?.data, "front");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct InProcess {
    running: Option<Running>,
    socket: PathBuf,
    epoch: String,
    dir: Folder,
}

impl InProcess {
    /// Builds the plugin for a fresh folder, starts it, and activates it without settings.
    ///
    /// # Errors
    /// As [`crate::Plugin::start`], and what the activator says.
    pub async fn start(make: impl FnOnce(&Path) -> PluginBuilder) -> Result<Self, Fault> {
        let plugin = Self::start_inactive(make).await?;
        plugin.activate(json!({})).await?;
        Ok(plugin)
    }

    /// As [`InProcess::start`], but leaves the activation to the test.
    ///
    /// # Errors
    /// As [`crate::Plugin::start`].
    pub async fn start_inactive(make: impl FnOnce(&Path) -> PluginBuilder) -> Result<Self, Fault> {
        let dir = Folder::new()?;
        let running = make(&dir.0).build()?.start().await?;
        let (socket, epoch) = (running.socket_path().to_owned(), running.epoch().to_owned());
        Ok(Self { running: Some(running), socket, epoch, dir })
    }

    /// Activates with `settings`, a JSON object, and returns the activator's output.
    ///
    /// # Errors
    /// What the activator says; `wrong_state` when it is active with other settings.
    pub async fn activate(&self, settings: Value) -> Result<Bytes, Fault> {
        self.post(path::ACTIVATE, &[], settings.to_string().as_bytes()).await
    }

    /// Ends the activation, with at most `drain` for what is under way.
    ///
    /// # Errors
    /// What the plugin answers.
    pub async fn deactivate(&self, drain: Duration) -> Result<Drained, Fault> {
        let body = json!({"drainMs": drain.as_millis()}).to_string();
        json_of(&self.post(path::DEACTIVATE, &[], body.as_bytes()).await?)
    }

    /// Calls a method, with its own deadline.
    ///
    /// # Errors
    /// What the caller of the method would be told.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call, as a caller that goes away does.
    pub async fn call(&self, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        self.post(&call::method_path(method), &[], &body.into()).await
    }

    /// Calls a method that must be done within `deadline`.
    ///
    /// # Errors
    /// What the caller of the method would be told; `deadline_exceeded` comes from the plugin.
    pub async fn call_within(&self, deadline: Duration, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        let ms = deadline.as_millis().to_string();
        self.post(&call::method_path(method), &[(DEADLINE_MS, &ms)], &body.into()).await
    }

    /// Reads the notifications of `callback` from now on, as an observer, which holds nothing back.
    ///
    /// # Errors
    /// `not_found` for a callback that was not declared.
    pub async fn notifications(&self, callback: &str) -> Result<Notifications, Fault> {
        self.events(&call::observer_path(callback, None), callback, None).await
    }

    /// Reads the notifications of `callback` as the subscription `name`, whose acknowledgements are up to the test.
    ///
    /// # Errors
    /// As [`InProcess::notifications`]; `overloaded` for the 65th subscription.
    pub async fn subscribe(&self, callback: &str, name: &str) -> Result<Notifications, Fault> {
        self.events(&call::subscription_path(callback, name), callback, Some(name)).await
    }

    /// What the plugin says of itself.
    ///
    /// # Errors
    /// `protocol_error` when it is no hello.
    pub async fn hello(&self) -> Result<Hello, Fault> {
        let body = self.request("GET", path::HELLO, &[], &[], MAX_HELLO_BYTES).await?;
        Hello::read(&body).map_err(|error| Fault::new(Code::ProtocolError, format!("{error:?}")))
    }

    /// The plugin itself; `None` after [`InProcess::stop`].
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Every callback with its subscriptions.
    pub fn callbacks(&self) -> Vec<CallbackStatus> {
        self.running.as_ref().map(Running::callbacks).unwrap_or_default()
    }

    /// The plugin directory of this test.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// The plugin's socket, for a test that speaks for itself.
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// Stops the plugin as its author would; the folder stays until this is dropped.
    pub async fn stop(&mut self, drain: Duration) -> Drained {
        match self.running.take() {
            Some(running) => running.stop(drain).await,
            None => Drained::default(),
        }
    }

    async fn post(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Bytes, Fault> {
        self.request("POST", target, headers, body, MAX_REPLY_BYTES).await
    }

    async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        max_reply_bytes: usize,
    ) -> Result<Bytes, Fault> {
        let epoch = [(call::EPOCH, self.epoch.as_str())];
        let headers = [&epoch[..], headers].concat();
        let request = Request { method, target, host: call::HOST, headers: &headers, content_type: None, body };
        let mut connection = self.connect().await?;
        let reply = connection.exchange(&request, max_reply_bytes).await.map_err(broken)?;
        check(&reply.head, &reply.body)?;
        Ok(reply.body)
    }

    async fn events(&self, target: &str, callback: &str, name: Option<&str>) -> Result<Notifications, Fault> {
        let mut connection = self.connect().await?;
        let request = Request { method: "GET", target, host: call::HOST, headers: &[], content_type: None, body: &[] };
        let head = connection.open(&request).await.map_err(broken)?;
        if head.status != 200 {
            let body = connection.read_body(MAX_REPLY_BYTES).await.map_err(broken)?;
            check(&head, &body)?;
        }
        let ack = name.map(|name| (callback.to_owned(), name.to_owned()));
        let socket = self.socket.clone();
        Ok(Notifications { connection, reader: SseReader::default(), events: Vec::new(), socket, ack })
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        Connection::connect(&self.socket, Instant::now() + PATIENCE).await.map_err(broken)
    }
}

/// The notifications of one callback, as a test sees them.
#[derive(Debug)]
pub struct Notifications {
    connection: Connection,
    reader: SseReader,
    /// Read and not returned yet, the next one last.
    events: Vec<SseEvent>,
    socket: PathBuf,
    ack: Option<(String, String)>,
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Where it stands in its callback.
    pub position: Position,
    /// Class `state`: its key.
    pub key: Option<String>,
    /// Class `lossy`: how many were dropped just before it.
    pub dropped: u64,
    /// The payload.
    pub data: Bytes,
}

impl Notifications {
    /// The next notification; waits at most 30 s.
    ///
    /// # Errors
    /// `deadline_exceeded` when none came; `plugin_gone` when the stream ended, with what it said last, such as
    /// `replaced` or a `gap`.
    pub async fn next(&mut self) -> Result<Notification, Fault> {
        let silent = |_| Fault::new(Code::DeadlineExceeded, format!("no notification within {PATIENCE:?}"));
        let event = tokio::time::timeout(PATIENCE, self.next_event()).await.map_err(silent)??;
        let over = || Fault::new(Code::PluginGone, format!("event `{}` {}", event.event, event.data));
        if event.event != "message" {
            return Err(over());
        }
        let message: Message = json_of(event.data.as_bytes())?;
        let data = from_base64(&message.data_base64).map_err(|_| over())?;
        let position = event.id.parse().map_err(|_| over())?;
        Ok(Notification { position, key: message.key, dropped: message.dropped, data: data.into() })
    }

    /// Acknowledges everything up to `position`; only for [`InProcess::subscribe`].
    ///
    /// # Errors
    /// What the plugin answers; `invalid_argument` for an observer.
    pub async fn ack(&self, position: &Position) -> Result<(), Fault> {
        let Some((callback, subscription)) = &self.ack else {
            return Err(Fault::new(Code::InvalidArgument, "an observer acknowledges nothing"));
        };
        let body = json!({"callback": callback, "subscription": subscription, "position": position}).to_string();
        let mut connection = Connection::connect(&self.socket, Instant::now() + PATIENCE).await.map_err(broken)?;
        let body = body.as_bytes();
        let request =
            Request { method: "POST", target: path::ACK, host: call::HOST, headers: &[], content_type: None, body };
        let reply = connection.exchange(&request, MAX_REPLY_BYTES).await.map_err(broken)?;
        check(&reply.head, &reply.body)
    }

    async fn next_event(&mut self) -> Result<SseEvent, Fault> {
        loop {
            if let Some(event) = self.events.pop() {
                return Ok(event);
            }
            let Some(bytes) = self.connection.chunk().await.map_err(broken)? else {
                return Err(Fault::new(Code::PluginGone, "the event stream has ended"));
            };
            let wrong = |text| Fault::new(Code::ProtocolError, text);
            self.reader.push(&bytes, &mut self.events).map_err(wrong)?;
            self.events.reverse();
        }
    }
}

/// A fresh folder, removed on drop.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Fault> {
        let failed = |error| Fault::new(Code::Internal, format!("no folder for the test: {error}"));
        let name = format!("goplug-{}", &crate::plugin::fresh_epoch()?[..12]);
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that is left behind in the temporary folder harms nobody.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn check(head: &ReplyHead, body: &[u8]) -> Result<(), Fault> {
    if head.status == 200 {
        return Ok(());
    }
    let strange = || Fault::new(Code::ProtocolError, format!("status {} without a document", head.status));
    Err(Fault::from_problem(body).unwrap_or_else(strange))
}

fn broken(error: goplug_transport::Error) -> Fault {
    Fault::new(Code::PluginGone, error.message)
}

fn json_of<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(text).map_err(|error| Fault::new(Code::ProtocolError, error.to_string()))
}
