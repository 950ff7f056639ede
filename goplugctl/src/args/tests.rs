use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("goplugctl").chain(line.split(' ')))
}

/// The verbs of this version, in the order of `--help`: a verb that does not exist yet is absent.
const VERBS: [&str; 46] = [
    "list",
    "status",
    "inspect",
    "cat",
    "methods",
    "callbacks",
    "why",
    "doctor",
    "events",
    "is-discovered",
    "is-loaded",
    "wait",
    "load",
    "unload",
    "reload",
    "start",
    "stop",
    "restart",
    "enable",
    "disable",
    "logs",
    "rescan",
    "ping",
    "execute",
    "run",
    "bench",
    "listen",
    "install",
    "remove",
    "upgrade",
    "rollback",
    "pin",
    "diff",
    "lint",
    "pack",
    "build",
    "search",
    "pull",
    "push",
    "trust",
    "daemon",
    "completion",
    "man",
    "demo",
    "version",
    "help",
];

#[test]
fn a_script_is_known_by_its_format_even_where_nothing_else_makes_sense() {
    let asks = |line: &str| asks_for_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
    for line in ["list -o json", "list -ojsonl --bogus", "--output json", "--bogus --output=jsonl", "x -o=json"] {
        assert!(asks(line), "{line}");
    }
    for line in ["list", "list -o yaml", "-o", "execute a b -- -o json", "list json", "--output=xml"] {
        assert!(!asks(line), "{line}");
    }
}

#[test]
fn exactly_these_verbs_exist() {
    let command = Cli::command();
    command.clone().debug_assert();
    let verbs: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(verbs, VERBS);
}

#[test]
fn every_verb_and_every_argument_has_help() {
    fn check(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no help");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    let mut command = Cli::command();
    command.build();
    check(&command);
}

#[test]
fn verbs_have_their_other_names() {
    for (line, verb) in [("ls", "List"), ("exec a b", "Execute"), ("call a b", "Execute"), ("plugin x", "External")] {
        let shown = format!("{:?}", parse(line).unwrap().verb);
        assert!(shown.starts_with(verb), "{line}: {shown}");
    }
}

#[test]
fn flags_of_every_verb_stand_before_or_after_it() {
    for line in ["-d x -o json --timeout 2s list", "list -d x -o json --timeout 2s", "-d x list -o json --timeout=2s"] {
        let global = parse(line).unwrap().global;
        assert_eq!(global.dir, Some(PathBuf::from("x")), "{line}");
        assert_eq!(global.output, Some(Format::Json), "{line}");
        assert_eq!(global.timeout, Some(Duration::from_secs(2)), "{line}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "load",
        "load x --all",
        "execute x",
        "execute x y --json --hex z",
        "execute x y --count 0",
        "execute x y --parallel 2000",
        "--timeout 2 list",
        "-o xml list",
        "bench x",
        "bench x y --size 67108865",
        "bench x y z --size 1",
        "bench x y --parallel 1025",
        "bench x y -P 0",
        "bench x y -t 0s",
        "bench x y -t 61m",
        "bench x y --warmup 61m",
        "wait x --for=born",
        "trust",
        "trust approve x --sha256 00",
        "trust revoke",
        "wait x --for=callback=",
        "listen x y --after 7",
        "completion smallsh",
        "upgrade x --rollback-on err>1",
        "pin x",
        "pin x ^1 --clear",
    ] {
        assert_eq!(parse(line).map(|cli| format!("{cli:?}")).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn what_to_wait_for_is_read() {
    assert_eq!(awaited("callback=main.tick"), Ok(Awaited::Callback("main.tick".into())));
    assert_eq!(awaited("gone"), Ok(Awaited::Gone));
    let Verb::Wait(args) = parse("wait x").unwrap().verb else { panic!("another verb") };
    assert_eq!(args.what, Awaited::Loaded);
}

#[test]
fn arguments_of_the_daemon_are_passed_on() {
    let Verb::Daemon(DaemonVerb::Run(args)) = parse("daemon run --plugin-dir x --auto-discover=false").unwrap().verb
    else {
        panic!("another verb")
    };
    assert_eq!(args.arguments, ["--plugin-dir", "x", "--auto-discover=false"]);
}

#[test]
fn a_plugin_without_a_namespace_is_no_flag() {
    let words = ["goplugctl", "execute", "-/Do", "echo", "-/x", "--timeout", "1s"].map(OsString::from);
    let Verb::Execute(args) = Cli::try_parse_from(words.map(shielded)).unwrap().verb else { panic!("another verb") };
    assert_eq!((args.plugin.as_str(), args.body.data.as_deref()), ("-/Do", Some("-/x")));
    let words = ["goplugctl", "unload", "a/b", "-/Do", "--stop"].map(OsString::from);
    let Verb::Unload(args) = Cli::try_parse_from(words.map(shielded)).unwrap().verb else { panic!("another verb") };
    assert_eq!((args.plugins.plugins, args.stop), (vec!["a/b".to_owned(), "-/Do".to_owned()], true));
    assert_eq!(unshielded(&shielded("-/x".into())), "-/x");
}
