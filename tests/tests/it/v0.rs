//! The original GoPlug 0.1.0, both ways.

use std::sync::mpsc;

use goplug_registry::admin::State;
use goplug_registry::{Code, FeedItem, Ran, Subscribe, Unload};
use goplug_tests::raw::listen;
use goplug_tests::v0app::V0App;
use goplug_tests::{LONG, PluginDir, note, write_atomically};

use crate::support::{fault, fixture, loaded, quiet, row, socket_in, state_of, text, v0_plugin, watching};

#[tokio::test(flavor = "multi_thread")]
async fn a_v0_plugin_does_everything_while_a_callback_waits() {
    let dir = PluginDir::new();
    let mut plugin = v0_plugin(&dir, "Test", "Old", &["--output", "hello from the activator"]);
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Old").await;
    assert_eq!(registry.activation_output("Test/Old").map(text).as_deref(), Some("hello from the activator"));
    let methods = registry.methods("Test/Old").unwrap();
    let mut names: Vec<_> = methods.methods.iter().map(|method| method.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["lib/x.Far", "main.Do", "main.Echo", "main.Notify", "main.Pid"], "four empty names are dropped");
    assert_eq!(methods.protocol, 0);
    let row = row(&registry, "Test/Old").unwrap();
    assert_eq!((row.protocol, row.pid), (Some(0), Some(plugin.pid())));

    let (heard, hears) = mpsc::channel();
    let subscription = registry
        .register_callback("Test/Old", "main.callBack", Subscribe::default(), move |notice| {
            heard.send(text(&notice.data)).unwrap();
            async { Ok(()) }
        })
        .await
        .unwrap();
    // The plugin answers this when a poll has come; from here on another one waits.
    registry.execute("Test/Old", "main.Notify", "main.callBack first").await.unwrap();
    assert_eq!(tokio::task::block_in_place(|| hears.recv_timeout(LONG)).unwrap(), "first");
    let begin = std::time::Instant::now();
    for n in 0..10_000 {
        let body = format!("call {n}");
        assert_eq!(text(registry.execute("Test/Old", "main.Do", body.clone()).await.unwrap()), body.to_uppercase());
    }
    note("v0_calls_per_second", format_args!("{:.0}", 10_000.0 / begin.elapsed().as_secs_f64()));
    for n in 0..20 {
        let told = registry.execute("Test/Old", "main.Notify", format!("main.callBack news {n}")).await.unwrap();
        assert_eq!(text(told), "notified");
        let message = tokio::task::block_in_place(|| hears.recv_timeout(LONG)).unwrap();
        assert_eq!(message, format!("news {n}"));
    }
    let big = vec![b'z'; 1 << 20];
    assert_eq!(registry.execute("Test/Old", "main.Echo", big.clone()).await.unwrap(), big, "chunks from Go's server");
    let error = fault(registry.execute("Test/Old", "lib/x.Far", "").await);
    assert_eq!((error.code, error.ran), (Code::InvalidArgument, Ran::No), "{error:?}");
    assert_eq!(fault(registry.execute("Test/Old", "main.Nothing", "").await).code, Code::NotFound);
    registry.ping("Test/Old").await.unwrap();

    // It dies while the callback waits: the application goes on and is told.
    let mut feed = registry.observe("Test/Old", "main.other", None).await.unwrap();
    let mut events = registry.events();
    let waiting = tokio::spawn(async move {
        loop {
            match feed.next().await {
                Some(FeedItem::Lost(why)) => return why,
                Some(_) => {}
                None => return String::new(),
            }
        }
    });
    // The plugin answers this when a poll of the callback has come, and is polled again at once.
    registry.execute("Test/Old", "main.Notify", "main.other hello").await.unwrap();
    plugin.kill();
    let gone = tokio::time::timeout(LONG, events.next()).await.unwrap().unwrap();
    assert_eq!(gone.plugin.map(|id| id.to_string()).as_deref(), Some("Test/Old"));
    assert_ne!(tokio::time::timeout(LONG, waiting).await.unwrap().unwrap(), "", "the application is told why");
    assert_eq!(fault(registry.execute("Test/Old", "main.Do", "x").await).ran, Ran::No);

    // Its successor is found, the callback is registered again, and it is unloaded by a `Stop` that breaks the line.
    let mut plugin = v0_plugin(&dir, "Test", "Old", &[]);
    loaded(&registry, "Test/Old").await;
    let told = registry.execute("Test/Old", "main.Notify", "main.callBack again").await.unwrap();
    assert_eq!(text(told), "notified");
    assert_eq!(tokio::task::block_in_place(|| hears.recv_timeout(LONG)).unwrap(), "again");
    registry.unload("Test/Old", Unload::default()).await.unwrap();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert!(!registry.is_loaded("Test/Old"));
    subscription.close().await;
    registry.close().await;
}

/// A later poll of a name takes the place of an earlier one, so two applications on one callback would rob each other; two
/// subscriptions of one registry must not.
#[tokio::test(flavor = "multi_thread")]
async fn two_subscriptions_of_one_v0_callback_both_hear() {
    let dir = PluginDir::new();
    let _plugin = v0_plugin(&dir, "Test", "Old", &[]);
    let registry = quiet(&dir).await;
    registry.load("Test/Old").await.unwrap();
    let (heard, hears) = mpsc::channel();
    let mut subscriptions = Vec::new();
    for name in ["a", "b"] {
        let heard = heard.clone();
        let how = Subscribe { name: Some(name.into()) };
        let handler = move |_| {
            heard.send(name).unwrap();
            async { Ok(()) }
        };
        subscriptions.push(registry.register_callback("Test/Old", "main.callBack", how, handler).await.unwrap());
    }
    registry.execute("Test/Old", "main.Notify", "main.callBack x").await.unwrap();
    let mut both = [0; 2].map(|_| tokio::task::block_in_place(|| hears.recv_timeout(LONG)).unwrap());
    both.sort_unstable();
    assert_eq!(both, ["a", "b"]);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v0_application_drives_our_plugin_on_one_connection() {
    let dir = PluginDir::new();
    let mut plugin = fixture(&dir, &["--output", "must not be seen", "Test/Do"]);
    let socket = socket_in(&dir.join("TestDo.pconf"));
    let run = move || {
        let mut app = V0App::connect(&socket, "TestDo").unwrap();
        let methods = app.activate().unwrap();
        assert!(methods.contains(&"echo".to_owned()) && !methods.contains(&String::new()), "{methods:?}");
        assert_eq!(app.activate().unwrap(), methods, "again: only the list");
        assert_eq!(app.post("Ping", b"Test Data").unwrap().body, b"Test Data");
        assert_eq!(app.execute("echo", b"bytes \0\xff").unwrap(), b"bytes \0\xff");
        let refused = app.post("Nothing", b"").unwrap();
        assert_eq!((refused.status_line.as_str(), refused.body.len()), ("HTTP/1.1 400 Bad Request", 0));

        // One waiter: each notification is told before the next poll; the plugin keeps them in between.
        app.execute("notify-later", b"events 1 5").unwrap();
        for n in 1..=5 {
            assert_eq!(app.poll("events").unwrap(), n.to_string().as_bytes());
        }
        let stopped = app.post("Stop", b"");
        assert!(stopped.is_ok_and(|reply| reply.status_line == "HTTP/1.1 200 OK"));
    };
    tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert_eq!(dir.names(), Vec::<String>::new(), "file and socket are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_pconf_loads_trailing_comma_included() {
    let dir = PluginDir::new();
    let _plugin = v0_plugin(&dir, "", "unpublished", &[]);
    std::fs::rename(dir.join("unpublished.sock"), dir.join("unixSockLocation.sock")).unwrap();
    std::fs::remove_file(dir.join("unpublished.pconf")).unwrap();
    let text = r#"{ "Name": "NameOfPlugin", "NameSpace": "NamespaceOfPlugin", "Url": "unix://PluginUrl",
  "sock": "unixSockLocation.sock", "LazyLoad": false, }"#;
    dir.write("anything.pconf", text);
    let registry = watching(&dir).await;
    loaded(&registry, "NamespaceOfPlugin/NameOfPlugin").await;
    assert_eq!(registry.execute("NameOfPlugin", "main.Do", "works").await.unwrap(), "WORKS");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v0_plugin_is_activated_only_when_it_is_wanted() {
    let dir = PluginDir::new();
    let activations = dir.join("activations");
    let _plugin = v0_plugin(&dir, "Test", "Old", &["--lazy", "--activations", activations.to_str().unwrap()]);
    let registry = watching(&dir).await;
    let mut events = registry.events_after(0).unwrap();
    state_of(&mut events, "Test/Old", State::Discovered).await;
    registry.look().await;
    registry.why("Test/Old").await;
    assert!(!activations.exists(), "looking activates nothing");
    assert_eq!(fault(registry.methods("Test/Old")).code, Code::WrongState);
    registry.load("Test/Old").await.unwrap();
    assert_eq!(std::fs::read_to_string(&activations).unwrap().lines().count(), 1);
    registry.close().await;
}

/// Any status line but `200 OK` is a failure, whatever comes behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_v0_failure_is_one_however_long_its_body_is() {
    let dir = PluginDir::new();
    let (socket, pconf) = (dir.join("long.sock"), dir.join("OldLong.pconf"));
    let (up, is_up) = mpsc::channel();
    std::thread::spawn(move || {
        let text = format!(r#"{{"Name":"Long","NameSpace":"Old","Sock":"{}"}}"#, socket.display());
        let published = move || {
            write_atomically(&pconf, text.as_bytes());
            up.send(()).unwrap();
        };
        listen(&socket, published, |mut peer| {
            while let Some(request) = peer.request() {
                let (status, body) = match request.target.as_str() {
                    "/Activate" => ("200 OK", br#"["main.Long","main.Odd","","","",""]"#.to_vec()),
                    "/main.Long" => ("500 Internal Server Error", vec![b'x'; 1 << 20]),
                    "/main.Odd" => ("200 Okay", b"odd".to_vec()),
                    _ => ("400 Bad Request", Vec::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                if peer.send(&[head.as_bytes(), &body].concat()).is_none() {
                    return;
                }
            }
        })
    });
    is_up.recv_timeout(LONG).unwrap();
    let registry = quiet(&dir).await;
    registry.load("Old/Long").await.unwrap();
    for (method, said) in [("main.Long", "500 Internal Server Error"), ("main.Odd", "200 Okay")] {
        let error = fault(registry.execute("Old/Long", method, "x").await);
        assert_eq!((error.code, error.ran), (Code::MethodFailed, Ran::Unknown), "{error:?}");
        assert!(error.message.contains(said), "{error:?}");
    }
    registry.close().await;
}
