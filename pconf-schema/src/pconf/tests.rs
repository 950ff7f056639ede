use super::*;

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

/// The documented example of the original GoPlug, as it stands in its README.
const ORIGINAL: &str = r#"{
  "Name": "NameOfPlugin",
  "NameSpace": "NamespaceOfPlugin",
  "Url": "unix://PluginUrl",
  "sock": "unixSockLocation.sock",
  "LazyLoad": false,
}
"#;

fn parse(text: &str) -> Pconf {
    Pconf::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn refused(text: &[u8]) -> Vec<(usize, usize, String)> {
    let problems = Pconf::parse(text).expect_err(&String::from_utf8_lossy(text)).problems;
    problems.into_iter().map(|problem| (problem.line, problem.column, problem.message)).collect()
}

#[test]
fn the_documented_example_of_the_original_loads() {
    let pconf = parse(ORIGINAL);
    let mut expected = Pconf::new(PluginId::new("NamespaceOfPlugin", "NameOfPlugin").unwrap(), "unixSockLocation.sock");
    expected.url = "unix://PluginUrl".into();
    assert_eq!(pconf, expected);
    assert_eq!(pconf.host(), "PluginUrl");
}

#[test]
fn the_smallest_file_has_every_default() {
    let pconf = parse(r#"{"Name":"Do","Sock":"a.sock"}"#);
    assert_eq!(pconf, Pconf::new(PluginId::new("", "Do").unwrap(), "a.sock"));
    assert_eq!((pconf.url.as_str(), pconf.lazy_load, pconf.protocol), ("unix://Do", false, None));
    assert_eq!(parse(r#"{"Name":"Do","NameSpace":"Test","Sock":"a"}"#).url, "unix://TestDo");
}

#[test]
fn what_we_write_is_what_we_read() {
    let mut pconf = Pconf::new(PluginId::new("Tést", "D\"o").unwrap(), "/run/x.sock");
    assert_eq!(parse(std::str::from_utf8(&pconf.to_json()).unwrap()), pconf);
    pconf.protocol = Some(1);
    pconf.epoch = Some(EPOCH.into());
    pconf.version = Some("1.2.3-rc.1+b".into());
    pconf.description = Some("line\nbreak".into());
    pconf.pid = Some(u64::MAX);
    pconf.lazy_load = true;
    let json = pconf.to_json();
    assert_eq!(Pconf::parse(&json).unwrap(), pconf);
    let strict: Value = serde_json::from_slice(&json).unwrap();
    let mut keys: Vec<_> = strict.as_object().unwrap().keys().collect();
    keys.sort();
    let mut expected =
        ["Name", "NameSpace", "Url", "Sock", "LazyLoad", "Protocol", "Epoch", "Version", "Description", "Pid"];
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn more_than_json_is_accepted() {
    let all = "\u{feff}// hello\n# and\n/* a\n * \"b\" */ {\"NAME\": \"Do\", // x, }\n \"sock\" /**/ : \"a#//b.sock\" /* , */ , # \"\n} trailing ] text";
    let pconf = parse(all);
    assert_eq!((pconf.id.as_str(), pconf.sock.as_str()), ("-/Do", "a#//b.sock"));
    assert_eq!(pconf.warnings, ["line 6 column 3: what follows the first value is ignored"]);
    for tail in ["", "{}", "/x", "\"", "/* open", "\0", "}}}}", "[[[["] {
        parse(&format!(r#"{{"Name":"Do","Sock":"a"}}{tail}"#));
    }
    let mut binary = br#"{"Name":"Do","Sock":"a"}"#.to_vec();
    binary.extend(b" \xff\xfe");
    assert_eq!(Pconf::parse(&binary).unwrap().warnings.len(), 1);
    assert_eq!(parse("{\"Name\":\"Do\",\"Sock\":\"a\"} // end\n").warnings, [""; 0]);
}

#[test]
fn the_last_duplicate_wins_and_null_is_missing() {
    let pconf = parse("{\"Name\":\"a\",\"sock\":\"1\",\n\"SOCK\":\"2\", \"nAme\":\"b\", \"x\":1, \"X\":2}");
    assert_eq!((pconf.id.name(), pconf.sock.as_str()), ("b", "2"));
    assert_eq!(pconf.unknown, BTreeMap::from([("X".to_owned(), Value::from(2))]));
    assert_eq!(
        pconf.warnings,
        [
            "line 2 column 13: key `nAme` is there again, the last one wins",
            "line 2 column 1: key `SOCK` is there again, the last one wins",
            "line 2 column 32: key `X` is there again, the last one wins",
        ]
    );
    let pconf = parse(
        r#"{"Name":"a","Sock":"1","sock":null,"Url":null,"LazyLoad":null,"Protocol":null,"Epoch":null,"Pid":null}"#,
    );
    assert_eq!(pconf, Pconf::new(PluginId::new("", "a").unwrap(), "1"));
    assert_eq!(refused(br#"{"Name":null,"Sock":"a"}"#), [(1, 1, "`Name` is missing".to_owned())]);
}

#[test]
fn unknown_keys_are_kept() {
    let pconf = parse(r#"{"Name":"a","Sock":"1","Extra":{"a":[1,null]},"no":null,"big":1e999}"#);
    assert_eq!(pconf.unknown["Extra"], serde_json::json!({"a": [1, null]}));
    assert_eq!(pconf.unknown["no"], Value::Null);
    assert_eq!(pconf.unknown["big"], "1e999");
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = "{\n  \"Name\": \"ä/b\", \"NameSpace\": \"-\",\n  \"Sock\": [],\n  \"LazyLoad\": \"no\", \"Epoch\": \"xyz\",\n  \
                \"Version\": \"1.2\", \"Protocol\": -1, \"Pid\": 1.5, \"Url\": {}, \"Description\": 7\n}";
    let problems = refused(text.as_bytes());
    let expected = [
        (2, 11, "name `ä/b` holds a `/`"),
        (2, 31, "namespace `-` is reserved: it stands for the empty namespace"),
        (3, 11, "`Sock` must be a string, found an array"),
        (4, 15, "`LazyLoad` must be true or false, found the string \"no\""),
        (4, 30, "`Epoch` `xyz` is not 32 lower-case hex digits"),
        (5, 14, "`Version` `1.2` is no SemVer version"),
        (5, 33, "`Protocol` must be an integer from 0 to 4294967295, found the number -1"),
        (5, 44, "`Pid` must be a process id, found the number 1.5"),
        (5, 56, "`Url` must be a string, found an object"),
        (5, 75, "`Description` must be a string, found the number 7"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for ((line, column, message), expected) in problems.iter().zip(expected) {
        assert_eq!((*line, *column), (expected.0, expected.1), "{message}");
        assert!(message.starts_with(expected.2), "{message}");
    }
}

#[test]
fn problems_before_a_syntax_error_are_told_too() {
    let problems = refused(b"{\"Name\": 1,\n \"Sock\": \"a\" \"Url\": 1}");
    assert_eq!(
        problems,
        [(1, 10, "`Name` must be a string, found the number 1".to_owned()), (2, 14, "expected `,` or `}`".to_owned()),]
    );
}

#[test]
fn what_is_no_pconf_is_refused_with_place_and_reason() {
    let deep = format!("{{\"x\":{}", "[".repeat(64));
    let big = format!(r#"{{"Name":"a","Sock":"b","x":"{}"}}"#, "x".repeat(MAX_PCONF_BYTES));
    let long_name = format!(r#"{{"Name":"{}","Sock":"b"}}"#, "n".repeat(129));
    let cases: &[(&[u8], usize, usize, &str)] = &[
        (b"", 1, 1, "the file is empty"),
        (b" \n // x", 1, 1, "the file is empty"),
        (b"null", 1, 1, "expected a JSON object"),
        (b"\n  [1]", 2, 3, "expected a JSON object"),
        (b"{}", 1, 1, "`Name` is missing"),
        (b"{\"Name\":\"a\"", 1, 12, "the file ends before the object does"),
        (b"{\"Name\":\"a\",\"Sock\":\"b", 1, 22, "the file ends before the object does"),
        (b"{\"Name\":\"a\" /* \"Sock\":\"b\"}", 1, 12, "the file ends before the object does"),
        (b"{\"Name\":\"a\",\n\"Sock\":/ \"b\"}", 2, 8, "expected value"),
        (b"{\"Name\":\"a\",\n\"Sock\":\"\xff\"}", 2, 9, "not UTF-8"),
        (b"{\"Name\":\"a\",,\"Sock\":\"b\"}", 1, 13, "key must be a string"),
        (b"{'Name':1}", 1, 2, "key must be a string"),
        (b"{\"Name\":\"a\nb\"}", 1, 10, "control character"),
        (b"{\"Name\":\"\\ud800\",\"Sock\":\"b\"}", 1, 9, "half a character"),
        (b"{\"Name\":\"\",\"Sock\":\"b\"}", 1, 9, "name is empty"),
        (b"{\"Name\":\".a\",\"Sock\":\"b\"}", 1, 9, "begins with a dot"),
        (b"{\"Name\":\"a\\u001b[1m\",\"Sock\":\"b\"}", 1, 9, "control character"),
        (b"{\"Name\":\"a\",\"Sock\":\"\"}", 1, 20, "`Sock` is empty"),
        (b"{\"Name\":\"a\",\"Sock\":\"@x\"}", 1, 20, "abstract"),
        (b"{\"Name\":\"a\",\"Sock\":\"\\u0000x\"}", 1, 20, "abstract"),
        (b"{\"Name\":\"a\",\"Sock\":\"x\\u0000\"}", 1, 20, "NUL"),
        (b"{\"Name\":\"a\",\"Sock\":\"b\",\"Protocol\":4294967296}", 1, 35, "`Protocol` must be"),
        (b"{\"Name\":\"a\",\"Sock\":\"b\",\"Protocol\":1.0}", 1, 35, "`Protocol` must be"),
        (b"{\"Name\":\"a\",\"Sock\":\"b\",\"Protocol\":1e999}", 1, 35, "out of range"),
        (b"{\"Name\":\"a\",\"Sock\":\"b\",\"Epoch\":\"0123456789ABCDEF0123456789ABCDEF\"}", 1, 32, "`Epoch`"),
        (deep.as_bytes(), 1, 69, "nested deeper than 64 levels"),
        (big.as_bytes(), 1, 1, "the limit is 65536"),
        (long_name.as_bytes(), 1, 9, "129 bytes, the limit is 128"),
    ];
    for (text, line, column, reason) in cases {
        let problems = refused(text);
        let shown = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
        assert!(problems.iter().any(|problem| problem.2.contains(reason)), "{shown}: {problems:?}");
        let found = problems.iter().find(|problem| problem.2.contains(reason)).unwrap();
        assert_eq!((found.0, found.1), (*line, *column), "{shown}: {problems:?}");
    }
    assert_eq!(
        Pconf::parse(b"{}").unwrap_err().to_string(),
        "line 1 column 1: `Name` is missing; line 1 column 1: `Sock` is missing"
    );
}

#[test]
fn a_file_of_exactly_the_limit_and_depth_is_read() {
    let head = r#"{"Name":"a","Sock":"b","x":""#;
    let text = format!("{head}{}\"}}", "x".repeat(MAX_PCONF_BYTES - head.len() - 2));
    assert_eq!(text.len(), MAX_PCONF_BYTES);
    parse(&text);
    let nested = format!(r#"{{"Name":"a","Sock":"b","x":{}{}}}"#, "[".repeat(63), "]".repeat(63));
    parse(&nested);
}

#[test]
fn the_host_is_the_authority_of_the_url() {
    for (url, host) in [
        ("unix://TestDo", "TestDo"),
        ("unix://a.b_c-9/x?y", "a.b_c-9"),
        ("unix://", "goplug"),
        ("unix:///x", "goplug"),
        ("TestDo", "goplug"),
        ("unix://a b", "goplug"),
        ("unix://a\r\nX: y", "goplug"),
        ("unix://u@h:80", "goplug"),
        ("unix://ä", "goplug"),
    ] {
        let mut pconf = Pconf::new(PluginId::new("", "a").unwrap(), "b");
        pconf.url = url.into();
        assert_eq!(pconf.host(), host, "{url}");
    }
}

#[test]
fn sockets_are_resolved_by_their_text() {
    let path =
        |sock: &str, folder: &str| Pconf::new(PluginId::new("", "a").unwrap(), sock).socket_path(Path::new(folder));
    for (sock, folder, expected) in [
        ("a.sock", "/plugins", "/plugins/a.sock"),
        ("/run/a.sock", "/plugins", "/run/a.sock"),
        ("./x/../a.sock", "/plugins", "/plugins/a.sock"),
        ("../../../../run/a.sock", "/plugins/b", "/run/a.sock"),
        ("../a.sock", "plugins", "a.sock"),
        ("../a.sock", ".", "../a.sock"),
        ("../../a.sock", "../b", "../../a.sock"),
    ] {
        assert_eq!(path(sock, folder).unwrap(), Path::new(expected), "{sock} in {folder}");
    }
    let longest = "x".repeat(MAX_SOCKET_PATH_BYTES - "/plugins/".len());
    assert!(path(&longest, "/plugins").is_ok());
    assert!(path(&format!("{longest}x"), "/plugins").unwrap_err().contains("108 bytes, the limit is 107"));
    for (sock, reason) in
        [("", "empty"), ("@a", "abstract"), ("\0a", "abstract"), ("a\0", "NUL"), ("..", "names no file")]
    {
        assert!(path(sock, "/").unwrap_err().contains(reason), "{sock:?}");
    }
}

#[test]
fn lint_recommends() {
    let pconf = parse(r#"{"Name":"Do","NameSpace":"-x","Sock":"a","Url":"http://x","Socket":1,"Zebra":1,"Protocl":1}"#);
    let found = pconf.lint();
    for expected in [
        "name `Do`",
        "namespace `-x`",
        "no `Protocol`",
        "`Url` `http://x`",
        "unknown key `Zebra`",
        "did you mean `Protocol`?",
    ] {
        assert_eq!(found.iter().filter(|text| text.contains(expected)).count(), 1, "{expected}: {found:?}");
    }
    let clean = format!(r#"{{"Name":"do","Sock":"a","Protocol":1,"Epoch":"{EPOCH}"}}"#);
    assert_eq!(parse(&clean).lint(), [""; 0]);
}
