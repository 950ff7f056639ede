#!/usr/bin/env python3
"""A GoPlug plugin in one file: protocol v1 over HTTP on a Unix socket, standard library of Python 3.11 only.

    python3 notifier.py PLUGIN_DIR

Methods: `greet` answers `hello, <body>`; `announce` notifies its body; `fail` fails. Callback: `news`, class `event`.
Read from the bottom: `main` listens, publishes the .pconf and leaves on SIGTERM; `Connection` is HTTP; `Plugin` is what
the protocol asks for; `News` keeps every notification until each subscription has acknowledged it.
"""
import base64, collections, json, os, re, secrets, signal, socketserver, sys, threading, time

NAMESPACE, NAME, EPOCH = "Example", "notifier", secrets.token_hex(16)
MAX_HEAD, MAX_HEADERS, MAX_BODY, MAX_CALLS = 16 * 1024, 64, 64 * 1024 * 1024, 256
WINDOW, WINDOW_BYTES, RETAIN_S, KEEP_ALIVE_S, MAX_SUBSCRIPTIONS = 1024, 4 * 1024 * 1024, 60, 15, 64
STATUS = {"invalid_argument": 400, "not_found": 404, "wrong_state": 409, "conflict": 409, "too_large": 413, "panicked": 502,
          "method_failed": 422, "overloaded": 503, "unavailable": 503, "deadline_exceeded": 504}


class Fault(Exception):
    """One failure: the code and whether the method ran travel in a problem document (RFC 9457)."""

    def __init__(self, code, detail, ran="no", **more):
        self.status = STATUS[code]
        self.document = {"type": "about:blank", "status": self.status, "code": code, "ran": ran, "detail": detail, **more}


class Subscription:
    def __init__(self, acknowledged):
        self.acknowledged = self.sent = acknowledged
        self.stream, self.detached_at = None, time.monotonic()


class News:
    """The window of one `event` callback. A message leaves it when every subscription has acknowledged it."""

    def __init__(self):
        self.changed, self.ended = threading.Condition(), False
        self.kept, self.size, self.seq = collections.deque(), 0, 0  # (seq, bytes, time); sum of bytes; last seq
        self.subscriptions, self.observers, self.dropped_from = {}, 0, None

    def trim(self):
        now = time.monotonic()
        for name, sub in list(self.subscriptions.items()):
            if not sub.stream and now - sub.detached_at > RETAIN_S:
                del self.subscriptions[name]
        released = min((sub.acknowledged for sub in self.subscriptions.values()), default=0)
        full = lambda: len(self.kept) > WINDOW or self.size > WINDOW_BYTES or now - self.kept[0][2] > RETAIN_S
        while self.kept and (self.kept[0][0] <= released or (not self.subscriptions and full())):
            if not self.subscriptions:  # nobody waits for it: dropped, and told as a gap
                self.dropped_from = self.dropped_from or self.kept[0][0]
            self.size -= len(self.kept.popleft()[1])

    def notify(self, data, deadline):
        with self.changed:
            self.trim()
            while self.subscriptions and self.kept and (len(self.kept) >= WINDOW or self.size + len(data) > WINDOW_BYTES):
                if time.monotonic() >= deadline or self.ended:
                    raise Fault("deadline_exceeded", "a subscription is too slow: the window is full", "yes")
                self.changed.wait(min(1.0, deadline - time.monotonic()))
                self.trim()
            self.seq += 1
            self.kept.append((self.seq, data, time.monotonic()))
            self.size += len(data)
            self.trim()
            self.changed.notify_all()
            return self.seq

    def attach(self, name, stream):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
            raise Fault("invalid_argument", "a subscription is 1 to 64 characters of A-Z a-z 0-9 . _ -")
        with self.changed:
            self.trim()
            first, gap = (self.kept[0][0] if self.kept else self.seq + 1), None
            if name not in self.subscriptions:
                if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
                    raise Fault("overloaded", f"{MAX_SUBSCRIPTIONS} subscriptions, the limit")
                self.subscriptions[name] = Subscription(first - 1)
                gap, self.dropped_from = (self.dropped_from and (self.dropped_from, first - 1)), None
            sub = self.subscriptions[name]
            sub.stream, sub.sent = stream, sub.acknowledged
            self.changed.notify_all()  # the earlier stream of this name sees that it was replaced
            return sub, gap

    def acknowledge(self, name, seq):
        with self.changed:
            sub = self.subscriptions.get(name)
            if not sub:
                raise Fault("not_found", f"no subscription `{name}`")
            if seq > sub.sent:
                raise Fault("invalid_argument", f"position {seq} is beyond {sub.sent}, the last one sent")
            sub.acknowledged = max(sub.acknowledged, seq)
            self.trim()
            self.changed.notify_all()

    def status(self):
        with self.changed:
            self.trim()
            subs = [{"name": name, "attached": bool(sub.stream), "acknowledged": sub.acknowledged,
                     "pending": self.seq - sub.acknowledged} for name, sub in self.subscriptions.items()]
            return {"name": "news", "class": "event", "subscriptions": subs, "observers": self.observers}


class Plugin:
    def __init__(self):
        self.lock, self.idle = threading.Lock(), threading.Condition()
        self.news, self.settings, self.output, self.draining, self.calls = News(), None, b"", False, 0
        self.methods = {"greet": lambda body, deadline: b"hello, " + body, "announce": self.announce, "fail": self.fail}

    def announce(self, body, deadline):
        return f"{EPOCH}:{self.news.notify(body, deadline)}".encode()

    def fail(self, body, deadline):
        raise Fault("method_failed", "as asked", "yes", data={"dataBase64": base64.b64encode(body).decode()})

    def hello(self, asked=None):
        document = {"protocols": [1], "features": [], "namespace": NAMESPACE, "name": NAME, "version": "1.0.0",
                    "description": "greets, and announces news", "epoch": EPOCH, "pid": os.getpid(),
                    "active": self.settings is not None, "methods": [{"name": name} for name in self.methods],
                    "callbacks": [{"name": "news", "class": "event"}],
                    "limits": {"maxRequestBytes": MAX_BODY, "maxConcurrentCalls": MAX_CALLS}}
        if asked is not None:
            if 1 not in (asked.get("protocols") or []):
                raise Fault("conflict", "this plugin speaks protocol 1", data={"protocols": [1]})
            document["protocol"] = 1
        return document

    def activate(self, settings):
        with self.lock:  # again with the same settings: the first reply again, nothing runs
            if self.settings is None:
                self.settings, self.output, self.draining = settings, b"ready\n", False
            elif self.settings != settings:
                raise Fault("wrong_state", "already active with other settings")
            return self.output

    def deactivate(self, drain_ms):
        deadline = time.monotonic() + drain_ms / 1000
        with self.lock, self.idle:
            self.draining = True
            self.idle.wait_for(lambda: self.calls == 0, deadline - time.monotonic())
            pending = lambda: sum(s["pending"] for s in self.news.status()["subscriptions"] if s["attached"])
            with self.news.changed:
                self.news.changed.wait_for(lambda: pending() == 0, max(0, deadline - time.monotonic()))
            self.settings, self.draining = None, False
            return {"cancelled": self.calls, "unacknowledged": pending()}

    def call(self, name, body, headers):
        left = headers.get("goplug-deadline-ms", "30000")
        if not re.fullmatch(r"[0-9]{1,8}", left) or int(left) > 86_400_000:
            raise Fault("invalid_argument", "Goplug-Deadline-Ms is an integer from 0 to 86400000")
        if left.strip("0") == "":
            raise Fault("deadline_exceeded", "no time is left")
        if name not in self.methods:
            raise Fault("not_found", f"no method `{name}`")
        with self.idle:
            if self.draining:
                raise Fault("unavailable", "draining", retryAfterMs=100)
            if self.settings is None:
                raise Fault("wrong_state", "not active")
            if self.calls >= MAX_CALLS:
                raise Fault("overloaded", f"{MAX_CALLS} calls at once, the limit", retryAfterMs=10)
            self.calls += 1
        try:
            return self.methods[name](body, time.monotonic() + int(left) / 1000)
        except Fault:
            raise
        except Exception as error:
            raise Fault("panicked", str(error), "yes")
        finally:
            with self.idle:
                self.calls -= 1
                self.idle.notify_all()


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while self.exchange():
                pass
        except OSError:
            pass  # the other side is gone

    def exchange(self):
        self.headers, self.close = {}, False
        try:
            head = self.read_head()
            if not head:
                return False
            body = self.read_body()
            answer = self.answer(*head, body)
            if answer is None:  # an event stream, now over
                return False
            self.reply(200, *answer)
        except Fault as fault:
            self.reply(fault.status, json.dumps(fault.document).encode(), "application/problem+json")
        if self.close == "leave":
            threading.Thread(target=self.server.shutdown).start()
        return not self.close

    def read_head(self):
        lines, size = [], 0
        while not lines or lines[-1]:
            line = self.rfile.readline(MAX_HEAD + 1 - size)
            if not line:
                return None
            size += len(line)
            if size > MAX_HEAD or len(lines) > MAX_HEADERS + 1 or not line.endswith(b"\r\n"):
                self.refuse("the head is no HTTP/1.1, over 16 KiB or over 64 fields")
            lines.append(line[:-2].decode("latin-1"))
        request = re.fullmatch(r"([A-Z]+) (/[!-~]*) HTTP/1\.([01])", lines[0])
        for line in lines[1:-1]:
            field = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*", line)
            if not field or (field[1].lower() in ("content-length", "transfer-encoding") and field[1].lower() in self.headers):
                self.refuse("a header field is malformed or comes twice")
            self.headers[field[1].lower()] = field[2]
        if not request:
            self.refuse("the request line is no HTTP/1.1")
        if request[1] not in ("GET", "POST"):
            self.refuse("use GET or POST")  # also ends the connection, as no reply to HEAD has a body
        self.http10 = request[3] == "0"
        self.close = self.http10 or self.headers.get("connection", "").lower() == "close"
        return request[1], request[2]

    def read_body(self):
        length, coding = self.headers.get("content-length"), self.headers.get("transfer-encoding")
        if coding is None:
            if length is not None and not re.fullmatch(r"[0-9]{1,19}", length):
                self.refuse("Content-Length is no number")
            return self.read_exactly(int(length or 0))
        if length is not None or coding.lower() != "chunked":
            self.refuse("a length together with Transfer-Encoding, or a coding but chunked")
        body = b""
        while True:
            size = re.fullmatch(rb"([0-9A-Fa-f]{1,8})(;[^\r]*)?\r\n", self.rfile.readline(1024))
            if not size:
                self.refuse("a chunk's size is malformed")
            if int(size[1], 16) == 0:
                while self.rfile.readline(MAX_HEAD) not in (b"\r\n", b""):
                    pass  # trailers are ignored
                return body
            body += self.read_exactly(int(size[1], 16), len(body))
            if self.rfile.read(2) != b"\r\n":
                self.refuse("a chunk does not end where it says")

    def read_exactly(self, size, before=0):
        if before + size > MAX_BODY:
            self.close = True
            raise Fault("too_large", f"the body is over {MAX_BODY} bytes")
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("the body ends early")
        return data

    def refuse(self, why):
        self.close = True
        raise Fault("invalid_argument", why)

    def answer(self, verb, target, body):
        plugin, (path, _, query) = self.server.plugin, target.partition("?")
        segments = [decode(segment) for segment in path[1:].split("/")]
        route = (verb, *segments[1:]) if segments[0] == "_goplug" else None
        if route is None or (len(route) == 3 and route[1] == "methods"):
            name = segments[-1]
            if route is None and (len(segments) != 1 or name in ("Activate", "Ping", "RegisterCallback", "Stop")):
                raise Fault("not_found", "no such path")
            if verb != "POST":
                raise Fault("invalid_argument", "a method is called with POST")
            self.check_epoch()
            return plugin.call(name, body, self.headers), "application/octet-stream"
        match route:
            case ("GET", "hello"): return as_json(plugin.hello())
            case ("POST", "hello"): return as_json(plugin.hello(from_json(body)))
            case ("POST", "activate"): return plugin.activate(from_json(body)), "application/octet-stream"
            case ("POST", "deactivate"): return as_json(plugin.deactivate(drain_ms(body)))
            case ("POST", "stop"):
                answer = plugin.deactivate(drain_ms(body))
                self.close = "leave"
                return as_json(answer)
            case ("POST", "ping"):
                if len(body) > 65536:
                    raise Fault("too_large", "a ping is at most 65536 bytes")
                return body, "application/octet-stream"
            case ("GET", "health"): return as_json({"status": "ok"})
            case ("GET", "callbacks"): return as_json([plugin.news.status()])
            case ("POST", "events", "ack"): return self.acknowledge(from_json(body))
            case ("GET", "events", name): return self.stream(name, query)
        raise Fault("not_found", "no such path")

    def check_epoch(self):
        if self.headers.get("goplug-epoch", EPOCH) != EPOCH:
            raise Fault("unavailable", "this is another process than the one activated", retryAfterMs=0)

    def acknowledge(self, ack):
        self.check_epoch()
        epoch, seq = position(ack.get("position"))
        if ack.get("callback") != "news":
            raise Fault("not_found", "the only callback is `news`")
        if epoch != EPOCH:
            raise Fault("conflict", "the position is of another epoch")
        self.server.plugin.news.acknowledge(ack.get("subscription"), seq)
        return b"", None

    def stream(self, name, query):
        """Server-sent events until the reader goes, another stream takes the name, or the plugin leaves."""
        if name != "news":
            raise Fault("not_found", "the only callback is `news`")
        news, params, me = self.server.plugin.news, dict(p.partition("=")[::2] for p in query.split("&") if p), object()
        named, after, first = "subscription" in params, None, []
        if named:
            sub, gap = news.attach(decode(params["subscription"]), me)
            at, first = sub.acknowledged, [("gap", gap)] if gap else []
        else:
            sub, at = None, news.seq
            if params.get("after"):
                epoch, at = position(decode(params["after"]))
                if epoch != EPOCH:
                    at, first = 0, [("epoch", epoch)]
            news.observers += 1
        self.reply_head(200, "text/event-stream", None)
        threading.Thread(target=self.watch_for_eof, args=(news,), daemon=True).start()
        self.gone, self.close = False, True
        try:
            for kind, value in first:
                self.chunk(event(kind, {"epoch": EPOCH, "previous": value} if kind == "epoch" else gap_document(*value)))
            while True:
                with news.changed:
                    ready = lambda: self.gone or news.ended or (sub and sub.stream is not me) or news.seq > at
                    quiet = not news.changed.wait_for(ready, KEEP_ALIVE_S)
                    if self.gone:
                        return None
                    replaced, ended = sub and sub.stream is not me, news.ended
                    oldest = news.kept[0][0] if news.kept else news.seq + 1
                    lost = (at + 1, oldest - 1) if oldest > at + 1 and not replaced else None
                    messages = [(seq, data) for seq, data, _ in news.kept if seq > at]
                    if not replaced:
                        at = news.seq
                        if sub:
                            sub.sent = max(sub.sent, at)
                if replaced:
                    self.chunk(event("replaced", {}))
                else:
                    self.chunk(b": still here\n\n" if quiet else b"")
                    self.chunk(event("gap", gap_document(*lost)) if lost else b"")
                    for seq, data in messages:
                        self.chunk(event("message", {"dataBase64": base64.b64encode(data).decode()}, f"{EPOCH}:{seq}"))
                if replaced or ended:
                    self.wfile.write(b"" if self.http10 else b"0\r\n\r\n")
                    return None
        finally:
            with news.changed:
                if sub and sub.stream is me:
                    sub.stream, sub.detached_at = None, time.monotonic()
                news.observers -= 0 if sub else 1
                news.changed.notify_all()

    def watch_for_eof(self, news):
        try:
            self.connection.recv(1)  # a reader of events has nothing to say: whatever comes ends the stream
        except OSError:
            pass
        with news.changed:
            self.gone = True
            news.changed.notify_all()

    def chunk(self, data):
        if data:
            self.wfile.write(data if self.http10 else b"%x\r\n%b\r\n" % (len(data), data))

    def reply(self, status, body, content_type):
        self.reply_head(status, content_type, len(body), body)

    def reply_head(self, status, content_type, length, body=b""):
        head = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}"]
        head += [f"Content-Type: {content_type}"] if content_type else []
        head += [f"Content-Length: {length}"] if length is not None else [] if self.http10 else ["Transfer-Encoding: chunked"]
        head += [f"Goplug-Call-Id: {self.headers['goplug-call-id']}"] if "goplug-call-id" in self.headers else []
        head += ["Connection: close"] if self.close else []
        self.wfile.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)


def decode(raw):
    if not re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})+", raw):
        raise Fault("invalid_argument", "an empty segment or a bad escape in the path")
    try:
        return re.sub(rb"%(..)", lambda hit: bytes.fromhex(hit[1].decode()), raw.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("invalid_argument", "the path is no UTF-8")


def from_json(body):
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Fault("invalid_argument", "the body is no JSON object")
    return value


def drain_ms(body):
    value = from_json(body).get("drainMs", 10_000)
    if not isinstance(value, int) or not 0 <= value <= 86_400_000:
        raise Fault("invalid_argument", "drainMs is an integer from 0 to 86400000")
    return value


def position(text):
    found = re.fullmatch(r"([0-9a-f]{32}):([0-9]{1,20})", text if isinstance(text, str) else "")
    if not found:
        raise Fault("invalid_argument", "a position is EPOCH:SEQ")
    return found[1], int(found[2])


def as_json(value):
    return json.dumps(value).encode(), "application/json"


def event(kind, data, id=None):
    return f"{f'id: {id}' + chr(10) if id else ''}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def gap_document(first, last):
    return {"from": f"{EPOCH}:{first}", "to": f"{EPOCH}:{last}"}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size, daemon_threads, block_on_close = 128, True, False


def main(folder):
    sock = os.environ.get("GOPLUG_PLUGIN_SOCKET") or os.path.abspath(f"{folder}/{NAMESPACE}{NAME}.{EPOCH[:8]}.sock")
    conf, half = f"{folder}/{NAMESPACE}{NAME}.pconf", f"{folder}/.{NAMESPACE}{NAME}.{EPOCH[:8]}.tmp"
    server = Server(sock, Connection, bind_and_activate=False)
    server.plugin = Plugin()
    os.fchmod(server.socket.fileno(), 0o600)  # before bind: at no moment may another user connect
    server.server_bind()
    server.server_activate()
    ours = os.stat(sock)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    with open(half, "w") as file:  # a reader of the directory never sees half a file
        json.dump({"Name": NAME, "NameSpace": NAMESPACE, "Url": f"unix://{NAMESPACE}{NAME}", "Sock": sock, "LazyLoad": False,
                   "Protocol": 1, "Epoch": EPOCH, "Version": "1.0.0", "Pid": os.getpid()}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.rename(half, conf)
    server.serve_forever(poll_interval=0.1)
    server.plugin.deactivate(10_000)
    with server.plugin.news.changed:
        server.plugin.news.ended = True
        server.plugin.news.changed.notify_all()
    try:
        if json.load(open(conf)).get("Epoch") == EPOCH:
            os.unlink(conf)
        now = os.stat(sock)
        if (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino):
            os.unlink(sock)
    except (OSError, ValueError):
        pass  # a successor was faster: what lies there now is not ours


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
