//! A plugin of a few threads, whose every answer a test may replace.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// One request, and the connection to answer it on.
pub(crate) struct Asked<'a> {
    /// Verb and target, such as `POST /_goplug/activate`.
    pub(crate) line: String,
    call_id: Option<String>,
    stream: &'a mut UnixStream,
}

/// What a script did with a request.
pub(crate) enum Done {
    /// Nothing: the plugin answers as it should.
    No,
    /// It answered.
    Answered,
    /// The connection is to be closed.
    Close,
}

type Script = dyn Fn(&mut Asked<'_>) -> Done + Send + Sync;

impl Asked<'_> {
    pub(crate) fn reply(&mut self, body: &str) -> Done {
        self.say(200, "", "application/octet-stream", body)
    }

    pub(crate) fn problem(&mut self, status: u16, document: &Value) -> Done {
        self.say(status, "", "application/problem+json", &document.to_string())
    }

    /// `fields` are further lines of the head, each with its CR LF.
    pub(crate) fn say(&mut self, status: u16, fields: &str, content_type: &str, body: &str) -> Done {
        let id = self.call_id.iter().map(|id| format!("Goplug-Call-Id: {id}\r\n")).collect::<String>();
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 {status} X\r\n{id}{fields}Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub(crate) fn write(&mut self, text: &str) -> Done {
        match self.stream.write_all(text.as_bytes()) {
            Ok(()) => Done::Answered,
            Err(_) => Done::Close,
        }
    }

    /// The head of an event stream, which ends with the connection.
    pub(crate) fn stream(&mut self) {
        let id = self.call_id.clone().unwrap_or_default();
        self.write(&format!(
            "HTTP/1.1 200 OK\r\nGoplug-Call-Id: {id}\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
    }

    pub(crate) fn event(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len()));
    }

    pub(crate) fn message(&mut self, epoch: &str, seq: u64) {
        self.event(&format!("id: {epoch}:{seq}\nevent: message\ndata: {{\"dataBase64\":\"aGk=\"}}\n\n"));
    }

    /// Blocks until the other side closes.
    pub(crate) fn until_closed(&mut self) -> Done {
        let mut byte = [0; 1];
        while self.stream.read(&mut byte).is_ok_and(|count| count > 0) {}
        Done::Close
    }
}

/// 32 times the same digit.
pub(crate) fn epoch(digit: char) -> String {
    digit.to_string().repeat(32)
}

struct Shared {
    hello: Mutex<Value>,
    script: Box<Script>,
    seen: Mutex<Vec<String>>,
    news: Condvar,
    connections: Mutex<Vec<UnixStream>>,
    closed: AtomicBool,
}

/// The plugin `Test/Fake`.
pub(crate) struct Fake {
    shared: Arc<Shared>,
    socket: PathBuf,
    epoch: String,
}

impl Fake {
    /// Listens, with a method `do`, an idempotent method `again`, a callback `news` and a state `level`; the file is not
    /// written yet.
    pub(crate) fn start(
        dir: &Path,
        digit: char,
        script: impl Fn(&mut Asked<'_>) -> Done + Send + Sync + 'static,
    ) -> Self {
        let (socket, epoch) = (dir.join(format!("{digit}.sock")), epoch(digit));
        let listener = UnixListener::bind(&socket).unwrap();
        let hello = json!({
            "protocols": [1], "namespace": "Test", "name": "Fake", "epoch": epoch, "active": false,
            "methods": [{"name": "do"}, {"name": "again", "idempotent": true}],
            "callbacks": [{"name": "news"}, {"name": "level", "class": "state"}],
        });
        let shared = Arc::new(Shared {
            hello: Mutex::new(hello),
            script: Box::new(script),
            seen: Mutex::default(),
            news: Condvar::new(),
            connections: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.closed.load(Ordering::Acquire) {
                    return;
                }
                served.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&served);
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { shared, socket, epoch }
    }

    /// Starts, and writes the file.
    pub(crate) fn published(
        dir: &Path,
        digit: char,
        script: impl Fn(&mut Asked<'_>) -> Done + Send + Sync + 'static,
    ) -> Self {
        let fake = Self::start(dir, digit, script);
        fake.publish(dir, json!({}));
        fake
    }

    /// Writes the file, with `more` keys.
    pub(crate) fn publish(&self, dir: &Path, more: Value) {
        let mut file = json!({
            "Name": "Fake", "NameSpace": "Test", "Sock": self.socket, "Protocol": 1, "Epoch": self.epoch,
        });
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        write_file(dir, &file.to_string());
    }

    pub(crate) fn set_hello(&self, key: &str, value: Value) {
        self.shared.hello.lock().unwrap()[key] = value;
    }

    /// How many requests began so.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.shared.seen.lock().unwrap().iter().filter(|seen| seen.starts_with(line)).count()
    }

    /// Blocks until `count` requests began so; false if they do not within `limit`.
    pub(crate) async fn sees(&self, line: &str, count: usize, limit: Duration) -> bool {
        let (shared, line, until) = (Arc::clone(&self.shared), line.to_owned(), Instant::now() + limit);
        let wait = move || {
            let mut seen = shared.seen.lock().unwrap();
            while seen.iter().filter(|seen| seen.starts_with(&line)).count() < count {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                seen = shared.news.wait_timeout(seen, left).unwrap().0;
            }
            true
        };
        tokio::task::spawn_blocking(wait).await.unwrap()
    }

    /// Closes the socket and every connection, as a process does that dies.
    pub(crate) fn die(&self) {
        self.shared.closed.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        _ = UnixStream::connect(&self.socket);
        _ = std::fs::remove_file(&self.socket);
        self.cut();
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.die();
    }
}

/// Writes `Fake.pconf` whole.
pub(crate) fn write_file(dir: &Path, text: &str) {
    let draft = dir.join(".draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, dir.join("Fake.pconf")).unwrap();
}

fn serve(shared: &Shared, mut stream: UnixStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((line, call_id)) = read_request(&mut reader) {
        {
            shared.seen.lock().unwrap().push(line.clone());
            shared.news.notify_all();
        }
        let mut asked = Asked { line, call_id, stream: &mut stream };
        let done = match (shared.script)(&mut asked) {
            Done::No => answer(shared, &mut asked),
            done => done,
        };
        if matches!(done, Done::Close) {
            break;
        }
    }
    _ = stream.shutdown(std::net::Shutdown::Both);
}

fn answer(shared: &Shared, asked: &mut Asked<'_>) -> Done {
    match asked.line.as_str() {
        "GET /_goplug/hello" => {
            let hello = shared.hello.lock().unwrap().to_string();
            asked.reply(&hello)
        }
        "POST /_goplug/activate" => {
            shared.hello.lock().unwrap()["active"] = true.into();
            asked.reply("")
        }
        "POST /_goplug/deactivate" | "POST /_goplug/stop" => {
            shared.hello.lock().unwrap()["active"] = false.into();
            asked.reply(r#"{"cancelled":0,"unacknowledged":0}"#)
        }
        line if line.starts_with("GET /_goplug/events/") => {
            asked.stream();
            asked.until_closed()
        }
        _ => asked.reply("done"),
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Option<String>)> {
    let (mut first, mut call_id, mut length) = (String::new(), None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            first = line.strip_suffix(" HTTP/1.1")?.to_owned();
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "goplug-call-id" => call_id = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, call_id))
}
