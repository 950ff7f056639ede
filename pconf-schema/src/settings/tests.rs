use super::*;

fn refused(text: &str) -> Vec<String> {
    let problems = Settings::parse_toml(text, "goplugd.toml").expect_err(text);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_is_every_default() {
    let settings = Settings::parse_toml("# nothing\n", "goplugd.toml").unwrap();
    assert_eq!(settings, Settings::default());
    assert!(settings.auto_discover);
    assert_eq!(settings.deadlines.default_call_ms, 30_000);
}

#[test]
fn every_key_is_read_and_paths_belong_to_the_folder_of_the_file() {
    let text = r#"
        plugin_dirs = ["plugins", "/srv/plugins"]
        auto_discover = false
        extension = ".plug"
        socket = "run/goplugd.sock"
        state_dir = "/var/lib/goplug"
        hosts_dir = "/run/hosts"
        socket_dirs = ["/run/plugins"]
        allow_uids = [1000, 0xffff_ffff]
        pin_executables = true
        trust_dir = "/var/lib/trust"
        latency = "frugal"
        log = "debug"
        [trust]
        keys = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"]
        unsigned = "refuse"
        [limits]
        max_reply_bytes = 4_194_304
        max_concurrent_calls = 1
        max_plugins = 4294967295
        [deadlines]
        default_call_ms = 86400000
        drain_ms = 0
        rescan_ms = 60000
    "#;
    let settings = Settings::parse_toml(text, "/etc/goplug/goplugd.toml").unwrap();
    let expected = Settings {
        plugin_dirs: vec!["/etc/goplug/plugins".into(), "/srv/plugins".into()],
        auto_discover: false,
        extension: ".plug".into(),
        socket: Some("/etc/goplug/run/goplugd.sock".into()),
        state_dir: Some("/var/lib/goplug".into()),
        hosts_dir: Some("/run/hosts".into()),
        socket_dirs: vec!["/run/plugins".into()],
        allow_uids: vec![1000, u32::MAX],
        pin_executables: true,
        trust_dir: Some("/var/lib/trust".into()),
        latency: Latency::Frugal,
        log: Some("debug".into()),
        trust: TrustSettings {
            keys: vec!["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".into()],
            unsigned: Unsigned::Refuse,
        },
        limits: LimitSettings { max_reply_bytes: 4 << 20, max_concurrent_calls: 1, max_plugins: u32::MAX },
        deadlines: DeadlineSettings { default_call_ms: 86_400_000, drain_ms: 0, rescan_ms: 60_000 },
    };
    assert_eq!(settings, expected);
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = "plugin_dirs = [\"\", 7]\nauto-discover = true\nextension = \"pconf\"\nallow_uids = [-1]\nlog = { x = 1 }\n\
                deadlines = 5\n[limits]\nmax_plugins = 0\nmax_reply_byte = 1\nmax_concurrent_calls = \"ä\"\nzzz = 1.5\n";
    let expected = [
        "goplugd.toml:1:16: `plugin_dirs` must be a path, found an empty text or a NUL",
        "goplugd.toml:1:20: `plugin_dirs` must be a list of paths, found the number 7",
        "goplugd.toml:2:1: unknown key `auto-discover`: did you mean `auto_discover`?",
        "goplugd.toml:3:13: `extension` `pconf` must begin with a dot, as in `.pconf`",
        "goplugd.toml:4:15: `allow_uids` must be a list of integers from 0 to 4294967295, found the number -1",
        "goplugd.toml:5:7: `log` must be a string, found a table",
        "goplugd.toml:6:13: `deadlines` must be a table `[deadlines]`, found the number 5",
        "goplugd.toml:8:15: `limits.max_plugins` must be an integer from 1 to 4294967295, found the number 0",
        "goplugd.toml:9:1: unknown key `max_reply_byte` in `[limits]`: did you mean `max_reply_bytes`?",
        "goplugd.toml:10:24: `limits.max_concurrent_calls` must be an integer from 1 to 4294967295, found the string \"ä\"",
        "goplugd.toml:11:1: unknown key `zzz` in `[limits]`: there are max_reply_bytes, max_concurrent_calls, max_plugins",
    ];
    assert_eq!(refused(text), expected);
}

#[test]
fn a_word_that_is_no_level_is_refused() {
    for good in ["info", "WARN", "off", "warn,goplugd=debug", "goplugd::api=trace,error"] {
        assert_eq!(check_log(good), Ok(()), "{good}");
    }
    for wrong in ["loud", "", "goplugd", "goplugd=", "=info", "goplugd=loud", "info,", "info,debugg"] {
        assert!(check_log(wrong).is_err(), "{wrong}");
    }
    assert!(refused("log = 'loud'")[0].starts_with("goplugd.toml:1:7: `log` `loud` must be error, warn"));
}

#[test]
fn what_is_no_toml_is_refused_along_with_the_rest() {
    let problems = refused("socket = \nlog = 3\nlog = 4\n");
    assert!(problems.len() >= 3, "{problems:#?}");
    assert!(problems[0].starts_with("goplugd.toml:1:"), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.contains("`log` must be a string")), "{problems:#?}");
    let long = format!("socket = \"/{}\"", "x".repeat(MAX_SOCKET_PATH_BYTES));
    assert!(refused(&long)[0].contains("is 108 bytes, the limit is 107"));
    assert!(refused(&"#".repeat(MAX_SETTINGS_BYTES + 1))[0].contains("the limit is 1048576"));
}

#[test]
fn keys_and_what_becomes_of_the_unsigned_are_checked_where_they_stand() {
    let found = refused("[trust]\nkeys = ['RWnonsense', 7]\nunsigned = 'maybe'\nkey = 'x'\n");
    for (place, told) in [
        ("goplugd.toml:2:9", "`trust.keys` `RWnonsense` is no public key of minisign"),
        ("goplugd.toml:2:23", "`trust.keys` must be a list of strings"),
        ("goplugd.toml:3:12", "`trust.unsigned` must be one of `refuse`, `ask`, `allow`"),
        ("goplugd.toml:4:1", "unknown key `key` in `[trust]`: did you mean `keys`?"),
    ] {
        assert!(found.iter().any(|text| text.starts_with(place) && text.contains(told)), "{place} {told}: {found:?}");
    }
}
