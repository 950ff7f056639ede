//! Whose packages are taken, as the options and the configuration say.

use std::path::Path;

use goplug_registry::{Code, Install, Reason, Unsigned};
use goplug_tests::PluginDir;

use super::{KEY, PUBLIC, package};
use crate::supervision::Home;
use crate::support::{Daemon, fault, goplugctl};

fn key() -> String {
    std::fs::read_to_string(PUBLIC).unwrap().lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_what_becomes_of_the_unsigned_are_options() {
    let home = Home::new();
    let signed = package(&home.dir, "1.0.0", &[], Some(KEY));
    let unsigned = package(&home.dir, "1.1.0", &[], None);
    let open = async |policy, keys: &[String]| {
        let builder = home.builder().trust_dir(home.dir.join(".trust")).trust_keys(keys).unsigned(policy);
        builder.open().await.unwrap()
    };
    let dry = |allow_unsigned| Install { allow_unsigned, dry_run: true, ..Install::default() };
    for (policy, asked, expected) in [
        (Unsigned::Refuse, false, Some("the configuration refuses")),
        (Unsigned::Refuse, true, Some("the configuration refuses")),
        (Unsigned::Ask, false, Some("signed")),
        (Unsigned::Ask, true, None),
        (Unsigned::Allow, false, None),
        (Unsigned::Allow, true, None),
    ] {
        let registry = open(policy, &[]).await;
        let done = registry.install(&unsigned, dry(asked)).await;
        match (done, expected) {
            (Ok(_), None) => {}
            (Err(fault), Some(why)) => assert!(fault.code == Code::Denied && fault.message.contains(why), "{fault}"),
            (done, _) => panic!("{policy:?} {asked}: {done:?}"),
        }
        assert_eq!(fault(registry.install(&signed, dry(false)).await).reason, Some(Reason::UntrustedKey));
        registry.close().await;
    }
    let registry = open(Unsigned::Refuse, &[key()]).await;
    registry.install(&signed, dry(false)).await.unwrap();
    let known = registry.trusted_keys().await.unwrap();
    assert_eq!((known.len(), known[0].comment.as_str()), (1, "configuration"));
    assert_eq!(fault(registry.distrust_key(&key()).await).code, Code::WrongState);
    registry.close().await;
    let registry = open(Unsigned::Ask, &["RWnonsense".to_owned()]).await;
    assert_eq!(fault(registry.install(&signed, dry(false)).await).code, Code::InvalidArgument);
    registry.close().await;
}

#[test]
fn the_configuration_says_so_to_a_daemon() {
    let dir = PluginDir::new();
    let signed = package(&dir, "1.0.0", &[], Some(KEY));
    let unsigned = package(&dir, "1.1.0", &[], None);
    let home = PluginDir::new();
    let text = format!("plugin_dirs = ['{}']\n[trust]\nkeys = ['{}']\nunsigned = 'refuse'\n", dir.text(), key());
    std::fs::write(home.join("goplugd.toml"), text).unwrap();
    let config = home.join("goplugd.toml");
    let trust = dir.join(".trust");
    let variables = [("GOPLUG_CONFIG", config.as_path()), ("GOPLUG_TRUST_DIR", Path::new(&trust))];
    let daemon = Daemon::at(home, &["--auto-discover=false"], &variables);
    let socket = daemon.socket();
    let run = |words: &[&str]| goplugctl(&[&["--socket", socket.to_str().unwrap()], words].concat());
    let signed = signed.to_str().unwrap();
    let refused = run(&["install", "--allow-unsigned", unsigned.to_str().unwrap()]);
    assert!(refused.code == 8 && refused.err.contains("`unsigned` in `[trust]`"), "{refused:?}");
    let installed = run(&["install", signed]);
    assert_eq!((installed.code, installed.out.trim()), (0, "Test/Do"), "{installed:?}");
    let keys = run(&["trust", "list", "--keys"]);
    assert!(keys.out.contains("configuration"), "{keys:?}");
}
