//! What szlabs/go-plugin checks of a plugin before it loads it, case by case: `lint` and `install` tell the same, with the place, and
//! all of it at once. `docs/szlabs.md` is the table for people; it is read here.

use std::path::Path;

use goplug_tests::PluginDir;

use crate::support::{Ran, goplugctl};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/szlabs.md");

/// The folder of a plugin `do`, with this manifest and these files.
fn folder(dir: &PluginDir, manifest: &str, files: &[&str]) -> String {
    let folder = dir.join("do");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("plugin.json"), manifest).unwrap();
    for file in files {
        std::fs::write(folder.join(file), "").unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.out, ran.err)
}

/// Problems, each with its place.
type Expected<'a> = &'a [(&'a str, &'a str)];

/// Each text of the chain, what it is said of, and the problems that are told instead, with their places.
#[test]
fn each_check_of_the_chain_has_its_counterpart() {
    let source = r#""source":{"mode":"local_so","path":"none.so"}"#;
    let so = "shared object DIR/none.so does not exist";
    let cases: [(&str, String, Expected<'_>); 9] = [
        ("JSON error", r#"{"name": "do","#.to_owned(), &[("1:15", "the file ends before the object does")]),
        (
            "missing plugin name",
            format!(r#"{{"version":"1.0.0",{source}}}"#),
            &[("1:1", "`name` is missing: it is the name of the plugin's folder"), ("1:55", so)],
        ),
        (
            "SemVer error",
            format!("{{\"name\":\"do\",\n \"version\":\"1.0\",{source}}}"),
            &[("2:12", "`version` `1.0` is no SemVer version"), ("2:53", so)],
        ),
        (
            "SemVer error",
            format!("{{\"name\":\"do\",\n \"version\":\"v1.2.3\",{source}}}"),
            &[("2:12", "write `1.2.3`"), ("2:56", so)],
        ),
        (
            "plugin source missing",
            r#"{"name":"do","version":"1.0.0"}"#.to_owned(),
            &[(
                "1:1",
                "`source` is missing: say what to run, such as {\"mode\": \"local_exec\", \"path\": \"bin/run\"}",
            )],
        ),
        (
            "Only support mode [local_so, remote_git]",
            r#"{"name":"do","version":"1.0.0","source":{"mode":"local_s","path":"a.so"}}"#.to_owned(),
            &[(
                "1:49",
                "`source.mode` must be one of `local_exec`, `local_so`, `remote_git`, `remote_url`, found `local_s`: did you mean `local_so`?",
            )],
        ),
        (
            "plugin so file %s is not existing",
            format!(r#"{{"name":"do","version":"1.0.0",{source}}}"#),
            &[("1:67", so)],
        ),
        (
            "%s.so file is missing",
            r#"{"name":"do","version":"1.0.0","source":{"mode":"local_so","path":"do.go"}}"#.to_owned(),
            &[("1:67", "shared object `do.go` does not end in .so"), ("1:67", "is no ELF file")],
        ),
        (
            "all of them at once",
            format!("{{\"version\":\"one\",\n \"maintainers\":7,\n {source}}}"),
            &[
                ("1:1", "`name` is missing"),
                ("1:12", "`version` `one` is no SemVer version"),
                ("2:16", "`maintainers` must be an array, found the number 7"),
                ("3:37", so),
            ],
        ),
    ];
    let docs = std::fs::read_to_string(DOCS).unwrap();
    for (theirs, manifest, ours) in cases {
        let dir = PluginDir::new();
        let folder = folder(&dir, &manifest, &["do.go"]);
        let shown = |text: &str| text.replace("DIR", &folder);
        let lint = goplugctl(&["lint", &folder]);
        assert_eq!(lint.code, 10, "{theirs}: {lint:?}");
        let told: Vec<_> = lint.out.lines().filter(|line| line.contains(": error: ")).collect();
        assert_eq!(told.len(), ours.len(), "{theirs}: {told:#?}");
        for (line, (place, text)) in told.iter().zip(ours) {
            assert!(line.starts_with(&format!("{folder}/plugin.json:{place}: error: ")), "{theirs}: {line}");
            assert!(line.contains(&shown(text)), "{theirs}: {line}");
        }
        // The same, word by word, where it is refused.
        let install = goplugctl(&["--dir", dir.text(), "install", &folder]);
        assert_eq!(install.code, 10, "{theirs}: {install:?}");
        for line in told {
            let (place, text) = line.split_once(": error: ").unwrap();
            let place = place.strip_prefix(&format!("{folder}/")).unwrap();
            assert!(install.err.contains(&format!("{place}: {text}")), "{theirs}: {line} not in {install:?}");
        }
        if theirs != "all of them at once" {
            assert!(docs.contains(&format!("`{theirs}`")) || docs.contains(theirs), "{theirs} is not in the table");
        }
    }
}

/// What is wrong before a manifest is read.
#[test]
fn what_is_no_plugin_is_told_by_its_path() {
    let dir = PluginDir::new();
    let (empty, none, file) = (dir.join("empty"), dir.join("none"), dir.join("file"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&file, "text").unwrap();
    let both = |path: &Path| {
        let path = path.to_str().unwrap();
        (goplugctl(&["lint", path]), goplugctl(&["--dir", dir.text(), "install", path]))
    };
    let docs = std::fs::read_to_string(DOCS).unwrap();
    for (theirs, path, lint, install) in [
        ("File %s is not existsing", &none, "none: error: does not exist", "none does not exist"),
        ("File %s is not a dir", &file, "file: ", "file: "),
        (
            "plugin.json is not found under plugin dir %s",
            &empty,
            "empty: warning: holds no plugin.json, no folder with one and no file *.pconf",
            "plugin.json does not exist",
        ),
    ] {
        let (linted, installed) = both(path);
        assert!(said(&linted).contains(lint), "{theirs}: {linted:?}");
        assert!(installed.code != 0 && installed.err.contains(install), "{theirs}: {installed:?}");
        assert!(docs.contains(&format!("`{theirs}`")), "{theirs} is not in the table");
    }
    // Nothing is named at all.
    for verb in ["lint", "install"] {
        let ran = goplugctl(&["--dir", dir.text(), verb]);
        assert!(ran.code == 2 && ran.err.contains("required arguments were not provided"), "{ran:?}");
    }
    // A folder of another name: told where names must agree, and no matter where a copy is made.
    let folder = folder(&dir, r#"{"name":"other","version":"1.0.0","exec":{"command":"sh"}}"#, &[]);
    let linted = goplugctl(&["lint", &folder]);
    let text =
        "plugin.json:1:9: error: name conflict: the folder is named `do`, the file says `other`: rename one of the two";
    assert!(linted.code == 10 && linted.out.contains(text), "{linted:?}");
    let plugins = PluginDir::new();
    let installed = goplugctl(&["--dir", plugins.text(), "install", &folder]);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(plugins.join("other/plugin.json").exists());
}
