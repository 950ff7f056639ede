use super::*;

fn parse(text: &str) -> Manifest {
    Manifest::parse(text.as_bytes(), Folder::default()).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn refused(text: &str, folder: Folder<'_>) -> Vec<String> {
    let problems = Manifest::parse(text.as_bytes(), folder).expect_err(text).problems;
    problems.into_iter().map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.message)).collect()
}

fn problem_of(text: &str) -> String {
    let problems = refused(text, Folder::default());
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

const SMALL: &str = r#"{"name":"do","version":"1.0.0","source":{"mode":"local_exec","path":"run"}"#;

fn with(more: &str) -> String {
    format!("{SMALL},{more}}}")
}

#[test]
fn the_smallest_file_has_every_default() {
    let manifest = parse(&format!("{SMALL}}}"));
    assert_eq!((manifest.id.as_str(), manifest.version.to_string().as_str()), ("-/do", "1.0.0"));
    assert_eq!((manifest.exec.command.as_str(), manifest.wire), ("./run", ManifestWire::V1));
    assert_eq!(manifest.restart, Restart::default());
    assert_eq!((manifest.restart.max, manifest.restart.window), (5, Duration::from_secs(10)));
    assert_eq!(manifest.restart.backoff.first, Duration::from_millis(100));
    assert_eq!(manifest.health, Health::default());
    assert!(
        manifest.health.interval + manifest.health.timeout * manifest.health.failures <= Duration::from_millis(3_500)
    );
    assert!(!manifest.lazy_load && manifest.idle_stop.is_none() && manifest.warnings.is_empty());
    assert_eq!(manifest.not_runnable(), None);
    assert_eq!(manifest.program(Path::new("/p/do")).unwrap(), Path::new("/p/do/./run"));
}

#[test]
fn a_command_alone_is_enough_and_a_bare_one_is_found_in_path() {
    let manifest = parse(r#"{"name":"do","version":"1.0.0","exec":{"command":"python3","args":["main.py"]}}"#);
    assert_eq!(manifest.program(Path::new("/p/do")), None);
    assert_eq!((manifest.exec.command.as_str(), manifest.exec.args), ("python3", vec!["main.py".to_owned()]));
}

/// What szlabs/go-plugin checks, each with our counterpart.
#[test]
fn the_validation_chain_of_the_predecessor_is_covered() {
    let folder = Folder { name: Some("other"), namespace: None };
    assert_eq!(
        refused(&format!("{SMALL}}}"), folder),
        ["1:9 name conflict: the folder is named `other`, the file says `do`: rename one of the two"]
    );
    for (text, expected) in [
        (
            r#"{"version":"1.0.0","source":{"mode":"local_exec","path":"x"}}"#,
            "1:1 `name` is missing: it is the name of the plugin's folder",
        ),
        (
            r#"{"name":"do","source":{"mode":"local_exec","path":"x"}}"#,
            "1:1 `version` is missing: write a SemVer version such as `1.0.0`",
        ),
        (
            r#"{"name":"do","version":"1.0.0"}"#,
            "1:1 `source` is missing: say what to run, such as {\"mode\": \"local_exec\", \"path\": \"bin/run\"}",
        ),
        (
            r#"{"name":"do","version":"1.0.0","source":{"path":"x"}}"#,
            "1:41 `source.mode` is missing: one of `local_exec`, `local_so`, `remote_git`, `remote_url`",
        ),
        (
            r#"{"name":"do","version":"1.0.0","source":{"mode":"local_so"}}"#,
            "1:41 `source.path` is missing: a file of the plugin's folder, or where to get the plugin from",
        ),
        (
            r#"{"name":"do","version":"1.0.0","source":{"mode":"local_exe","path":"x"}}"#,
            "1:49 `source.mode` must be one of `local_exec`, `local_so`, `remote_git`, `remote_url`, found `local_exe`: did you mean `local_exec`?",
        ),
    ] {
        assert_eq!(problem_of(text), expected);
    }
    for (version, hint) in
        [("1.0", ": write `1.0.0`"), ("v1.2.3", ": write `1.2.3`"), ("v2", ": write `2.0.0`"), ("latest", ")")]
    {
        let text = format!(r#"{{"name":"do","version":"{version}","source":{{"mode":"local_exec","path":"x"}}}}"#);
        let problem = problem_of(&text);
        assert!(
            problem.starts_with(&format!("1:24 `version` `{version}` is no SemVer version")) && problem.ends_with(hint),
            "{problem}"
        );
    }
}

#[test]
fn what_can_be_understood_is_told_in_spite_of_problems() {
    let text = "{\"Version\": \"1.0\",\n \"source\": {\"mode\": \"local_so\", \"PATH\": \"a.so\"}}";
    let (manifest, problems) = Manifest::understand(text.as_bytes(), Folder::default());
    let manifest = manifest.unwrap();
    assert_eq!((problems.len(), manifest.id.as_str(), manifest.source.path.as_str()), (2, "-/unknown", "a.so"));
    assert_eq!(Manifest::place_of(text.as_bytes(), &["source", "path"]), Some((2, 41)));
    assert_eq!(Manifest::place_of(text.as_bytes(), &["version"]), Some((1, 13)));
    assert_eq!(Manifest::place_of(text.as_bytes(), &["exec", "command"]), None);
    let (manifest, problems) = Manifest::understand(b"{\"source\": {\"mode\": \"so\"}}", Folder::default());
    assert!(manifest.is_none() && problems.len() == 4, "{problems:?}");
}

#[test]
fn a_namespace_folder_must_agree_too() {
    let folder = Folder { name: Some("do"), namespace: Some("Test") };
    let problems = refused(&format!("{SMALL}}}"), folder);
    assert_eq!(
        problems,
        ["1:1 namespace conflict: the folder is named `Test`, the file says ``: rename one of the two"]
    );
    let text = with(r#""namespace":"Test""#);
    assert_eq!(Manifest::parse(text.as_bytes(), folder).unwrap().id.as_str(), "Test/do");
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = r#"{
  "name": "a/b", "namespace": "-", "version": 1,
  "source": {"mode": "local_exec", "path": "../x"},
  "exec": {"command": "../run", "args": [1, "a\u0000b"], "env": {"1A": "x", "GOPLUG_X": "y", "B": 2}, "workdir": "/tmp"},
  "lazy_load": "no", "idle_stop": "0s", "wire": "v2", "maintainers": "me",
  "restart": {"policy": "sometimes", "max": 0, "window": "10", "backoff": {"first": "1ms"}},
  "health": {"interval": 5, "timeout": "2d", "failures": 0},
  "limits": {"memory": "12MB", "open_files": 1, "processes": -1, "cpu": 0},
  "hooks": {"pre_start": ["x/../../y"], "post_stop": "rm"},
  "requires": ["Test/Do@nope", {"range": "1"}, {"plugin": "x", "range": "^^1"}, 7],
  "interfaces": ["calc", "calc@1"], "settings": [], "settings_schema": "x", "permissions": 1, "http_services": []
}"#;
    let problems = refused(text, Folder::default());
    let expected = [
        "2:11 name `a/b` holds a `/`",
        "2:31 namespace `-` is reserved: it stands for the empty namespace",
        "2:47 `version` must be a string, found the number 1",
        "3:44 `source.path` `../x` leads out of the plugin's folder: use a path inside, or an absolute one",
        "4:23 `exec.command` `../run` leads out of the plugin's folder: use a path inside, or an absolute one",
        "4:42 `exec.args` must be a string, found the number 1",
        "4:45 `exec.args` `a\\u{0}b` holds a NUL, which no process can be given",
        "4:66 `exec.env` `1A` is no name of a variable: expected [A-Za-z_][A-Za-z0-9_]*",
        "4:77 `exec.env` `GOPLUG_X` is set by the registry: use another name",
        "4:99 `exec.env` of `B` must be a string, found the number 2",
        "4:114 `exec.workdir` `/tmp` is absolute: use a path inside of the plugin's folder",
        "5:16 `lazy_load` must be true or false, found the string \"no\"",
        "5:35 `idle_stop` must be a duration from 1s to 24h, such as \"500ms\" or \"10s\", found the string \"0s\"",
        "5:49 `wire` must be one of `v0`, `v1`, `tilotech`, found `v2`: did you mean `v0`?",
        "5:70 `maintainers` must be an array, found the string \"me\"",
        "6:25 `restart.policy` must be one of `always`, `on_failure`, `never`, found `sometimes`",
        "6:45 `restart.max` must be an integer from 1 to 1000, found the number 0",
        "6:58 `restart.window` must be a duration from 1s to 24h, such as \"500ms\" or \"10s\", found the string \"10\"",
        "6:85 `restart.backoff.first` must be a duration from 10ms to 24h, such as \"500ms\" or \"10s\", found the string \"1ms\"",
        "7:26 `health.interval` must be a duration from 100ms to 24h, such as \"500ms\" or \"10s\", found the number 5",
        "7:40 `health.timeout` must be a duration from 100ms to 24h, such as \"500ms\" or \"10s\", found the string \"2d\"",
        "7:58 `health.failures` must be an integer from 1 to 100, found the number 0",
        "8:24 `limits.memory` must be a size from 1048576 to 1125899906842624 bytes, such as \"512MiB\", found the string \"12MB\"",
        "8:46 `limits.open_files` must be an integer from 16 to 1048576, found the number 1",
        "8:62 `limits.processes` must be an integer from 1 to 4194304, found the number -1",
        "8:73 `limits.cpu` must be a number from 0.01 to 1000, found the number 0",
        "9:27 `hooks.pre_start` `x/../../y` leads out of the plugin's folder: use a path inside, or an absolute one",
        "9:54 `hooks.post_stop` must be an array, found the string \"rm\"",
        "10:16 `requires` `nope` behind the last `@` is no version range (unexpected character 'n' while parsing major version number): write `^1.2`, `>=1, <3` or `*`",
        "10:32 `requires` must say which `plugin`",
        "10:48 `requires` `^^1` behind the last `@` is no version range (unexpected character '^' while parsing major version number): write `^1.2`, `>=1, <3` or `*`",
        "10:81 `requires` must hold strings such as \"Test/Do@^1.2\", or objects {\"plugin\": …, \"range\": …}",
        "11:18 `interfaces` `calc` has no version: write NAME@VERSION, such as `calculator@1.0.0`",
        "11:26 `interfaces` `calc@1` names no SemVer version behind the `@` (unexpected end of input while parsing major version number)",
        "11:49 `settings` must be an object, found an array",
        "11:72 `settings_schema` must be a JSON Schema, which is an object or a boolean, found the string \"x\"",
        "11:92 `permissions` must be an object, found the number 1",
        "11:112 `http_services` must be an object, found an array",
    ];
    for (found, expected) in problems.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn the_reader_is_as_tolerant_as_that_of_a_pconf() {
    let text = "\u{feff}// how to run me\n{ \"NAME\": \"do\", /* x */ \"Version\": \"1.0.0\",\n \"exec\": {\"command\": \"./a\", \"Command\": \"./b\",},\n\
                \"restrat\": {}, \"home\": null, } tail";
    let manifest = parse(text);
    assert_eq!((manifest.exec.command.as_str(), manifest.home), ("./b", None));
    assert_eq!(manifest.unknown.keys().collect::<Vec<_>>(), ["restrat"]);
    assert_eq!(
        manifest.warnings,
        [
            "line 3 column 29: key `exec.Command` is there again, the last one wins",
            "line 4 column 1: unknown key `restrat`: did you mean `restart`?",
            "line 4 column 32: what follows the first value is ignored",
        ]
    );
    assert_eq!(problem_of(""), "1:1 the file is empty: expected a JSON object");
    assert_eq!(problem_of("{\"name\": "), "1:9 the file ends before the object does");
    assert!(problem_of(&" ".repeat(crate::MAX_PCONF_BYTES + 1)).contains("the limit is 65536"));
}

#[test]
fn every_key_is_read() {
    let manifest = parse(&with(
        r#""namespace":"Test","description":"d","maintainers":["a"],"home":"h","lazy_load":true,
        "exec":{"command":"/usr/bin/env","env":{"A":"b"},"workdir":"data"},"wire":"tilotech","idle_stop":"5m",
        "restart":{"policy":"never","max":3,"window":"1m","backoff":{"first":"1m","longest":"1s"}},
        "health":{"interval":"10s","timeout":"2s","failures":5},"hooks":{"pre_start":["./check","-v"]},
        "limits":{"memory":"512MiB","open_files":100,"processes":10,"cpu":0.5},
        "requires":["Test/Do@^1.2",{"plugin":"x"}],"interfaces":["calc@1.0.0"],"settings":{"a":1},
        "settings_schema":true,"permissions":{"net":false},"http_services":{"driver":"beego"}"#,
    ));
    assert_eq!(manifest.restart.backoff, Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(60) });
    assert_eq!((manifest.restart.policy, manifest.restart.max), (RestartPolicy::Never, 3));
    assert_eq!(
        manifest.limits,
        MaxUse { memory: Some(512 << 20), open_files: Some(100), processes: Some(10), cpu_milli: Some(500) }
    );
    assert_eq!((manifest.hooks.pre_start.len(), manifest.health.failures), (2, 5));
    assert_eq!(manifest.requires[0].range.to_string(), "^1.2");
    assert_eq!((manifest.requires[1].plugin.as_str(), manifest.requires[1].range.to_string().as_str()), ("-/x", "*"));
    assert_eq!((manifest.exec.env["A"].as_str(), manifest.idle_stop), ("b", Some(Duration::from_secs(300))));
    assert_eq!(manifest.http_services.unwrap()["driver"], "beego");
    assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
}

#[test]
fn what_is_not_a_program_is_understood_and_says_why_it_is_not_run() {
    let hex = "0".repeat(64);
    let repository = r#""mode":"remote_git","path":"https://example.org/do.git#v1""#;
    for (source, expected) in [
        (repository.to_owned(), "does not say what to run"),
        (format!(r#""mode":"remote_url","path":"https://example.org/x","sha256":"{hex}""#), "does not say what to run"),
    ] {
        let manifest = parse(&format!(r#"{{"name":"do","version":"1.0.0","source":{{{source}}}}}"#));
        let reason = manifest.not_runnable().unwrap();
        assert!(reason.contains(expected) && manifest.lint().contains(&reason), "{reason}");
    }
    let text = format!(r#"{{"name":"do","version":"1.0.0","source":{{{repository}}},"exec":{{"command":"./do"}}}}"#);
    assert_eq!(parse(&text).not_runnable(), None, "once it is installed");
}

#[test]
fn where_it_is_from_is_read_as_on_the_command_line() {
    let hex = "0".repeat(64);
    let with_all = with;
    let with = |source: &str| format!(r#"{{"name":"do","version":"1.0.0","source":{{{source}}}}}"#);
    for (source, expected) in [
        (
            r#""mode":"remote_git","path":"https://example.org/a/do""#.to_owned(),
            "git+https://example.org/a/do".to_owned(),
        ),
        (r#""mode":"remote_git","path":"git@example.org:do#v1""#.to_owned(), "git@example.org:do#v1".to_owned()),
        (
            format!(r#""mode":"remote_url","path":"https://example.org/x","sha256":"{hex}""#),
            format!("https://example.org/x#sha256={hex}"),
        ),
        (
            format!(r#""mode":"remote_url","path":"https://example.org/x#sha256={hex}""#),
            format!("https://example.org/x#sha256={hex}"),
        ),
    ] {
        assert_eq!(parse(&with(&source)).elsewhere().unwrap().to_string(), expected);
    }
    assert_eq!(parse(&format!("{SMALL}}}")).elsewhere(), None);
    for (source, expected) in [
        (r#""mode":"remote_url","path":"https://example.org/x""#, "needs a checksum: write `source.sha256`"),
        (r#""mode":"remote_url","path":"x.plg""#, "is no address"),
        (r#""mode":"remote_url","path":"ftp://x/y""#, "is no address: `ftp://` is not fetched"),
        (r#""mode":"remote_git","path":"x""#, "names no repository"),
        (r#""mode":"remote_git","path":"--upload-pack=x""#, "names no repository"),
        (r#""mode":"remote_git","path":"ext::sh -c x""#, "names no repository"),
        (r#""mode":"local_exec","path":"x","sha256":"12""#, "is no SHA-256"),
    ] {
        let problem = problem_of(&with(source));
        assert!(problem.contains(expected), "{problem}");
    }
    let build = parse(&with_all(r#""build":{"command":["make"],"include":["out"]}"#)).build;
    assert_eq!((build.command, build.include), (Some(vec!["make".to_owned()]), vec!["out".to_owned()]));
    assert!(problem_of(&with_all(r#""build":{"include":["/etc"]}"#)).contains("`build.include` `/etc` is absolute"));
}

#[test]
fn the_methods_of_a_shared_object_are_its_labels() {
    let so = |more: &str| {
        format!(r#"{{"name":"do","version":"1.0.0","source":{{"mode":"local_so","path":"do.so"}}{more}}}"#)
    };
    let plain = parse(&so(""));
    assert_eq!((plain.not_runnable(), plain.labels(), plain.command_line()), (None, vec![], vec!["do.so".to_owned()]));
    assert_eq!(plain.shared_object, SharedObject { labels: vec![], concurrent: false, grace: Duration::from_secs(10) });
    assert_eq!(plain.lint(), [""; 0]);
    let both = parse(&so(
        r#","http_services":{"driver":"beego","Routes":[{"Label":"get"},{"label":"put"},{"label":7},{},{"label":""},
        {"label":"Execute"},{"label":"."}]},"shared_object":{"labels":["put","del/ete"],"concurrent":true,"grace":"2s"},
        "exec":{"command":"./x"},"wire":"v0""#,
    ));
    assert_eq!(both.labels(), ["get", "put", "del/ete"]);
    assert_eq!((both.shared_object.concurrent, both.shared_object.grace), (true, Duration::from_secs(2)));
    let notes = both.lint().join("\n");
    for part in [
        "`Execute` is the method that takes any label: it is no method",
        "`.` is a relative path",
        "`exec.command`",
        "`wire`",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    for (more, expected) in [
        (r#""labels":[""]"#, "`shared_object.labels` label is empty"),
        (r#""labels":["Execute"]"#, "`shared_object.labels` `Execute` is the method that takes any label"),
        (r#""labels":[1]"#, "`shared_object.labels` must be a string, found the number 1"),
        (r#""grace":"1ms""#, "`shared_object.grace` must be a duration from 100ms to 24h"),
    ] {
        let told = problem_of(&so(&format!(r#","shared_object":{{{more}}}"#)));
        assert!(told.contains(expected), "{told}");
    }
}
