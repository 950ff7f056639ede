//! Typed interfaces: a plugin found by type, mismatches, errors with data, notifications, and the same in process.

use std::future::Future;
use std::time::Duration;

use goplug_examples::interface::{Calculator, MathClient, MathError, Quotient};
use goplug_interface::{Client, Context, Error, Failed, Find, Implement, interface};
use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{InterfaceInfo, Plugin};
use goplug_registry::{CallOptions, Code, Ran, Registry};
use goplug_tests::{LONG, PluginDir, Process};
use tokio::sync::mpsc;

use crate::support::{example_plugin, fault, fixture, goplugctl, quiet, text};

/// The calculator in a process of its own, and a registry that has loaded it.
async fn calculator() -> (PluginDir, Process, Registry) {
    let dir = PluginDir::new();
    let process = example_plugin(&dir, "interface", "Examplemath.pconf");
    let registry = quiet(&dir).await;
    registry.load("Example/math").await.unwrap();
    (dir, process, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_found_by_type_and_called() {
    let (dir, _process, registry) = calculator().await;
    // A plugin that implements nothing is not found.
    let _other = fixture(&dir, &["Test/Do"]);
    registry.load("Test/Do").await.unwrap();
    let found = registry.find::<MathClient>();
    assert_eq!(found.iter().map(|math| math.plugin().id().to_string()).collect::<Vec<_>>(), ["Example/math"]);
    let math = &found[0];
    assert_eq!(math.divide(1.0, 4.0).await, Ok(Quotient { quotient: 0.25 }));
    let no = math.divide(7.5, 0.0).await;
    assert_eq!(no, Err(Failed::Method(MathError::DivisionByZero { dividend: 7.5 })));
    assert_eq!(no.unwrap_err().to_string(), "7.5 cannot be divided by 0");
    assert_eq!(math.clear().await, Ok(0.25));

    let error = MathClient::connect(&registry, "Test/Do").unwrap_err();
    let told = "plugin `Test/Do` does not implement interface `example.math`";
    assert_eq!((error.code, error.message.as_str()), (Code::Conflict, told));
    assert_eq!(MathClient::connect(&registry, "None/Such").unwrap_err().code, Code::NotFound);
    registry.unload("Example/math", goplug_registry::Unload::default()).await.unwrap();
    assert!(registry.find::<MathClient>().is_empty());
    assert_eq!(MathClient::connect(&registry, "Example/math").unwrap_err().code, Code::WrongState);
    assert_eq!(math.check().unwrap_err().code, Code::WrongState);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_types_sees_the_schemas_and_is_told_what_is_wrong() {
    let (dir, _process, registry) = calculator().await;
    let divide = async |body: &str| registry.execute("math", "divide", body.to_owned()).await;
    assert_eq!(text(divide(r#"{"dividend": 1, "divisor": 4}"#).await.unwrap()), r#"{"quotient":0.25}"#);
    let error = fault(divide(r#"{"dividend": 1, "divisor": "four"}"#).await);
    assert_eq!((error.code, error.ran), (Code::InvalidArgument, Ran::No));
    assert!(error.message.contains("method `divide`") && error.message.contains("at `divisor`"), "{error}");
    let error = fault(divide(r#"{"dividend": 1, "divisor": 0}"#).await);
    assert_eq!((error.code, error.message.as_str()), (Code::MethodFailed, "1 cannot be divided by 0"));
    assert_eq!(*error.data.unwrap(), serde_json::json!({"DivisionByZero": {"dividend": 1.0}}));

    let list = registry.methods("math").unwrap();
    let divide = &list.methods[0];
    assert!(divide.idempotent && divide.input.is_some() && divide.output.is_some() && divide.error.is_some());
    assert_eq!(divide.description.as_deref(), Some("Divides"));
    let interface = &list.interfaces[0];
    assert_eq!((interface.name.as_str(), interface.version.as_str()), ("example.math", "1.2.0"));
    assert_eq!(
        (&*interface.methods, &*interface.callbacks),
        (&["divide".into(), "clear".into()][..], &["cleared".into()][..])
    );
    let ctl = |args: &[&str]| goplugctl(&[&["--dir", dir.text()], args].concat()).out;
    let inspected = ctl(&["inspect", "Example/math"]);
    assert!(
        inspected.lines().any(|line| line.trim().starts_with("interfaces") && line.ends_with("example.math 1.2.0"))
    );
    let methods: serde_json::Value = serde_json::from_str(&ctl(&["methods", "Example/math", "-o", "json"])).unwrap();
    assert_eq!(methods["interfaces"][0]["name"], "example.math", "{methods}");
    registry.close().await;
}

/// What an application of the year before wanted: less, and an earlier version.
mod earlier {
    use super::*;

    #[interface(name = "example.math", version = "1.1.0")]
    pub(super) trait Math {
        async fn clear(&self) -> Result<f64, Error>;
    }
}

/// What the calculator does not offer.
mod other {
    use super::*;

    #[interface(name = "example.math", version = "2.0.0")]
    pub(super) trait Math {
        async fn divide(&self, dividend: f64, divisor: String) -> Result<f64, Error>;
        #[goplug(serial)]
        async fn clear(&self) -> Result<f64, Error>;
        async fn multiply(&self, a: f64, b: f64) -> Result<f64, Error>;
        #[goplug(notification, lossy)]
        fn cleared(event: String);
        #[goplug(notification)]
        fn multiplied(product: f64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_is_told_method_by_method() {
    let (_dir, _process, registry) = calculator().await;
    let math = earlier::MathClient::connect(&registry, "Example/math").unwrap();
    assert_eq!(math.clear().await, Ok(0.0));
    assert!(registry.find::<other::MathClient>().is_empty());
    let error = other::MathClient::connect(&registry, "math").unwrap_err();
    let mismatches = serde_json::json!([
        "version 1.2.0 is offered, 2.0.0 is wanted",
        "method `divide` would refuse a request: at `divisor`: string is given, number is expected",
        "method `divide` may give a reply that cannot be read: object is given, number is expected",
        "method `clear` is not serial",
        "method `multiply` is missing",
        "callback `cleared` is of class event, lossy is wanted",
        "callback `cleared` may send what cannot be read: object is given, string is expected",
        "callback `multiplied` is missing",
    ]);
    assert_eq!(error.code, Code::Conflict);
    assert_eq!(error.data.as_ref().unwrap()["mismatches"], mismatches);
    for mismatch in mismatches.as_array().unwrap() {
        assert!(error.message.contains(mismatch.as_str().unwrap()), "{error}");
    }
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_process_is_as_over_the_wire() {
    let (_dir, _process, registry) = calculator().await;
    let over_the_wire = MathClient::connect(&registry, "Example/math").unwrap();
    let in_process = MathClient::in_process(Calculator::default()).await.unwrap();
    let mut told = Vec::new();
    for math in [over_the_wire, in_process] {
        let (heard, mut cleared) = mpsc::unbounded_channel();
        let hears = math.on_cleared(move |event| {
            let heard = heard.clone();
            async move { heard.send(event.sum).map_err(|error| error.to_string()) }
        });
        let hears = hears.await.unwrap();
        let mut answers =
            vec![format!("{:?}", math.divide(9.0, 2.0).await), format!("{:?}", math.divide(9.0, 0.0).await)];
        // JSON has no such number: it travels as null.
        answers.push(format!("{:?}", math.divide(f64::NAN, 1.0).await));
        answers.push(format!("{:?}", math.with_deadline(Duration::ZERO).clear().await.map_err(|error| error.code)));
        answers.push(format!("{:?}", math.clear().await));
        answers.push(format!("{:?}", in_time(cleared.recv()).await));
        hears.close().await;
        told.push(answers);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0][0], "Ok(Quotient { quotient: 4.5 })");
    assert!(told[0][2].contains("invalid_argument") && told[0][2].contains("at `dividend`"), "{}", told[0][2]);
    assert_eq!(told[0][3..], ["Err(DeadlineExceeded)", "Ok(4.5)", "Some(4.5)"]);
    registry.close().await;
}

/// Everything that an interface may have besides.
#[interface(name = "test.all", version = "0.1.0")]
trait All {
    async fn nothing(&self) -> Result<(), Error>;
    #[goplug(name = "who is it?")]
    fn who(&self, context: Context) -> Result<Option<String>, Error>;
    #[goplug(serial, deadline_ms = 50)]
    async fn forever(&self) -> Result<(), String>;
    async fn panics(&self, words: Vec<String>) -> Result<(), String>;
    async fn fails(&self, code: String) -> Result<(), Error>;
    async fn tell(&self, context: Context, text: String) -> Result<u64, Error>;
    fn set(&self, context: Context, key: String, value: Option<u8>) -> Result<(), Error>;
    #[goplug(notification)]
    fn told(text: String);
    #[goplug(notification, state)]
    fn values(value: Option<u8>);
    #[goplug(notification, lossy, name = "some noise")]
    fn noise(loudness: u64);
}

struct Everything;

impl All for Everything {
    async fn nothing(&self) -> Result<(), Error> {
        Ok(())
    }

    fn who(&self, context: Context) -> Result<Option<String>, Error> {
        Ok(context.caller().map(str::to_owned))
    }

    async fn forever(&self) -> Result<(), String> {
        std::future::pending().await
    }

    async fn panics(&self, words: Vec<String>) -> Result<(), String> {
        panic!("{}", words.join(" "))
    }

    async fn fails(&self, code: String) -> Result<(), Error> {
        Err(Error::new(Code::from_wire(&code), "as asked"))
    }

    async fn tell(&self, context: Context, text: String) -> Result<u64, Error> {
        let notifier = AllNotifier::of(&context);
        notifier.noise(&7)?;
        Ok(notifier.told_acked(&text).await?.seq)
    }

    fn set(&self, context: Context, key: String, value: Option<u8>) -> Result<(), Error> {
        AllNotifier::of(&context).values(&key, &value)?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_end_in_every_way() {
    let all = AllClient::in_process(Everything).await.unwrap();
    assert_eq!(all.nothing().await, Ok(()));
    let options = CallOptions { caller: Some("billing".into()), ..CallOptions::default() };
    assert_eq!(all.with_options(options).who().await, Ok(Some("billing".into())));
    let code = |failed: Failed<String>| failed.call().map(|fault| fault.code);
    assert_eq!(all.forever().await.map_err(code), Err(Some(Code::DeadlineExceeded)));
    let panicked = all.panics(vec!["at the".into(), "disco".into()]).await.unwrap_err().call().unwrap();
    assert_eq!(panicked.code, Code::Panicked);
    assert!(panicked.message.contains("at the disco"), "{panicked}");
    assert_eq!(
        all.fails("denied".into()).await.map_err(|error| (error.code, error.ran)),
        Err((Code::Denied, Ran::Yes))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_have_types_and_keep_what_their_class_promises() {
    let all = AllClient::in_process(Everything).await.unwrap();
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let listen = |heard: mpsc::UnboundedSender<String>, line: String| async move {
        heard.send(line).map_err(|error| error.to_string())
    };
    let to = heard.clone();
    let told = all.on_told_as("reader", move |text| listen(to.clone(), format!("told {}", *text))).await.unwrap();
    assert_eq!(told.name(), "reader");
    let to = heard.clone();
    let noise = all.on_noise(move |noise| listen(to.clone(), format!("noise {}", noise.value))).await.unwrap();
    // Acknowledged by the handler when this returns.
    assert_eq!(all.tell("a".into()).await, Ok(1));
    let mut lines = vec![in_time(hearing.recv()).await, in_time(hearing.recv()).await];
    lines.sort();
    assert_eq!(lines, [Some("noise 7".into()), Some("told a".into())]);

    all.set("speed".into(), Some(1)).await.unwrap();
    all.set("speed".into(), None).await.unwrap();
    let to = heard.clone();
    let values = all.on_values(move |value| {
        listen(to.clone(), format!("{} = {:?}", value.key.clone().unwrap_or_default(), value.value))
    });
    let values = values.await.unwrap();
    assert_eq!(in_time(hearing.recv()).await.as_deref(), Some("speed = None"));
    for subscription in [told, noise, values] {
        subscription.close().await;
    }
}

/// A plugin in another language may have no schemas; what it sends then is another matter.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_another_shape_names_its_method() {
    let plugin = InProcess::start(|dir| {
        let interface = InterfaceInfo {
            name: "example.math".into(),
            version: "1.3.0".into(),
            methods: vec!["clear".into()],
            callbacks: vec![],
        };
        Plugin::builder(dir).name("odd").interface(interface).method("clear", |_cx, _body| Ok("a lot"))
    });
    let plugin = plugin.await.unwrap();
    let registry = Registry::open(plugin.dir()).await.unwrap();
    registry.load("odd").await.unwrap();
    let error = earlier::MathClient::connect(&registry, "odd").unwrap().clear().await.unwrap_err();
    assert_eq!((error.code, error.ran), (Code::ProtocolError, Ran::Yes));
    assert!(error.message.starts_with("the reply of method `clear` of plugin `-/odd`"), "{error}");
    registry.close().await;
}

#[test]
fn two_interfaces_of_one_plugin_must_not_share_a_name() {
    let dir = PluginDir::new();
    let twice = Plugin::builder(dir.path()).name("all");
    let twice = twice.implement(AllServer::new(Everything)).implement(AllServer::new(Everything));
    let error = twice.build().unwrap_err();
    assert!(error.message.contains("method `nothing` is there twice"), "{error}");
    let unknown = InterfaceInfo { name: "i".into(), version: "1.0".into(), methods: vec![], callbacks: vec![] };
    let error = Plugin::builder(dir.path()).name("all").interface(unknown).build().unwrap_err();
    assert!(error.message.contains("version `1.0` of interface `i` is not SemVer"), "{error}");
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("in time")
}
