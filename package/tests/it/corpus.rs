//! Archives that attackers make, and what the refusal of each says. The tests of the installer read this file too.

use std::io::Write;

use goplug_pconf_schema::contents::Contents;

use super::raw::{self, Entry, PROGRAM, contents, entries, gzip, packed, tar};

/// What it is, what the refusal says, and the bytes.
pub(crate) type Case = (String, &'static str, Vec<u8>);

/// The good package with one entry more.
fn with(entry: Entry) -> Vec<u8> {
    let mut all = entries();
    all.push(entry);
    tar(&all)
}

/// The good package with one more file, which its `MANIFEST` names.
pub(crate) fn listing(path: &str, more: impl FnOnce(Entry) -> Entry) -> Vec<u8> {
    let mut contents = contents();
    contents.files.push(packed(path, PROGRAM, true));
    contents.files.sort_by(|one, other| one.path.cmp(&other.path));
    let mut all = entries();
    all[0] = Entry::file("MANIFEST", contents.to_json(), "0000644");
    let name = if path.len() > 100 { &path[..100] } else { path };
    all.push(more(Entry::file(name, PROGRAM, "0000755")));
    tar(&all)
}

fn changed(change: impl FnOnce(&mut Contents)) -> Vec<u8> {
    let mut contents = contents();
    change(&mut contents);
    let mut all = entries();
    all[0] = Entry::file("MANIFEST", contents.to_json(), "0000644");
    tar(&all)
}

pub(crate) fn corpus() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |what: String, why: &'static str, bytes: Vec<u8>| cases.push((what, why, bytes));
    // Paths that lead out, or that readers understand differently.
    let paths: &[(&str, &str)] = &[
        ("/etc/passwd", "is absolute"),
        ("//etc/passwd", "is absolute"),
        ("../escape", "`..`"),
        ("../../../../../../tmp/escape", "`..`"),
        ("bin/../../escape", "`..`"),
        ("a/b/c/../../../../escape", "`..`"),
        ("bin/..", "`..`"),
        ("..", "`..`"),
        (".", "`.`"),
        ("./do", "`.`"),
        ("bin/./do", "`.`"),
        ("bin//do", "empty"),
        ("bin/do\\..\\x", "backslash"),
        ("..\\escape", "backslash"),
        ("C:\\escape", "backslash"),
        ("bin/\u{1b}[2J", "control"),
        ("new\nline", "control"),
        ("tab\there", "control"),
        ("bell\u{7}", "control"),
        ("del\u{7f}", "control"),
        ("next\u{85}line", "control"),
    ];
    for (path, why) in paths {
        case(format!("a file at {path:?}"), why, with(Entry::file(path, "x", "0000644")));
        case(format!("a folder at {path:?}"), why, with(Entry::file(path, "", "0000755").with(156, b"5")));
        let split = Entry::file("x", "y", "0000644").with(345, path.as_bytes());
        case(format!("a prefix {path:?}"), why, with(split));
    }
    let invalid = [&b"\xff\xfe"[..], b"\xc3", b"\xed\xa0\x80", b"a\xc0\xaf", b"x\0hidden", b"\0hidden"];
    for (n, name) in invalid.into_iter().enumerate() {
        let why = if n == 5 { "goes on" } else { "goes on behind its end, or is no UTF-8" };
        case(format!("name of bytes {n}"), why, with(Entry::file("", "x", "0000644").with(0, name)));
        case(format!("prefix of bytes {n}"), why, with(Entry::file("x", "x", "0000644").with(345, name)));
    }
    case("no name".into(), "is empty", with(Entry::file("", "x", "0000644")));
    case("a file with a slash".into(), "ends in a slash", with(Entry::file("dir/", "x", "0000644")));
    case(
        "a folder without one".into(),
        "does not end in a slash",
        with(Entry::file("dir", "", "0000755").with(156, b"5")),
    );
    let deep = "d/".repeat(49);
    let entry = Entry::file(&format!("{deep}f"), "x", "0000644");
    case("49 folders deep".into(), "deeper", with(entry.clone()));
    case("123 folders deep".into(), "deeper", with(entry.with(345, &b"d/".repeat(73)[..145])));

    // Kinds of entries.
    for kind in (0..=255_u8).filter(|kind| !matches!(kind, b'0' | b'5')).step_by(3).chain(*b"1234 67xgXLKSVMND") {
        let entry = Entry::file("evil", "", "0000644").with(156, &[kind]);
        case(format!("type {kind}"), "only files and folders", with(entry.clone()));
        if matches!(kind, b'1' | b'2') {
            for link in ["/etc/passwd", "../../escape", "bin/do", "plugin.json"] {
                let entry = entry.clone().with(157, link.as_bytes());
                case(format!("type {kind} to {link}"), "only files and folders", with(entry));
            }
        }
    }
    for (what, data) in [
        ("size", "19 size=99999999999\n"),
        ("path", "27 path=../../../escaped\n"),
        ("linkpath", "24 linkpath=/etc/passwd\n"),
        ("sparse", "22 GNU.sparse.major=1\n"),
    ] {
        for kind in [b"x", b"g"] {
            let entry = Entry::file("PaxHeaders/evil", data, "0000644").with(156, kind);
            let mut all = entries();
            all.insert(1, entry);
            case(format!("pax {what}"), "extension of the format", tar(&all));
        }
    }

    // Numbers and fields.
    let fields = [("mode", 100, 8), ("owner", 108, 8), ("group", 116, 8), ("size", 124, 12), ("time", 136, 12)];
    for (name, at, len) in fields {
        let values: [&[u8]; 8] = [
            b"-0000001",
            b"+0000001",
            b"0x00001\0",
            b"00000008",
            b"        ",
            b"\x80\0\0\0\0\0\0\x01",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\0\0\0\0\0",
        ];
        for (n, value) in values.into_iter().enumerate() {
            let mut whole = value.to_vec();
            whole.resize(len, if value[0] == 0xff { 0xff } else { value[7] });
            let entry = Entry::file("evil", "", "0000644").with(at, &whole);
            case(format!("{name} written as {n}"), "", with(entry));
        }
    }
    for (name, at) in [("link name", 157), ("device", 329), ("device", 337), ("rest", 500), ("rest", 511)] {
        case(
            format!("a file with a {name}"),
            "has a link, a device",
            with(Entry::file("evil", "", "0000644").with(at, b"7")),
        );
    }
    for magic in [&b"ustar  \0"[..], b"\0\0\0\0\0\0\0\0", b"ustar\x0001", b"USTAR\x0000", b"ustar000"] {
        case(format!("magic {magic:?}"), "format ustar", with(Entry::file("evil", "", "0000644").with(257, magic)));
    }
    let mut sum = Entry::file("evil", "", "0000644");
    sum.header[0] ^= 1;
    case("a wrong checksum".into(), "cannot be read", with(sum));
    let sized = Entry::file("evil", "", "0000755").with(156, b"5").with(124, b"00000001000");
    case("a folder with a size".into(), "is a folder and has a size", with(sized));

    // Names that are there twice.
    case("a file twice".into(), "there twice", with(entries()[1].clone()));
    case("plugin.json twice".into(), "there twice", with(entries()[2].clone()));
    case("MANIFEST twice".into(), "there twice", with(entries()[0].clone()));
    case("a folder twice".into(), "there twice", {
        let mut all = entries();
        let folder = Entry::file("dir/", "", "0000755").with(156, b"5");
        all.extend([folder.clone(), folder]);
        tar(&all)
    });
    case("a file and then a folder".into(), "which is a file", with(Entry::file("bin/do/x", "", "0000644")));
    case("a folder and then a file".into(), "there twice", with(Entry::file("bin", "", "0000644")));
    case("a file through another spelling".into(), "empty", with(Entry::file("bin//do", "", "0000644")));

    // What MANIFEST does not say.
    case("a file too many".into(), "does not name", with(Entry::file("more", "x", "0000644")));
    case("a signature too late".into(), "does not name", with(Entry::file("MANIFEST.minisig", "x", "0000644")));
    for gone in [1, 2] {
        let mut all = entries();
        all.remove(gone);
        case(format!("file {gone} is missing"), "is missing", tar(&all));
    }
    for (n, byte) in [(0, 0), (1, 0), (1, 5), (2, 3), (2, 40)] {
        let mut all = entries();
        all[n].data[byte] ^= 1;
        case(format!("byte {byte} of file {n} is another"), "", tar(&all));
    }
    case("another mode".into(), "may be run", {
        let mut all = entries();
        all[1] = Entry::file("bin/do", PROGRAM, "0000644");
        tar(&all)
    });
    case("setuid is no right to run".into(), "may be run", {
        let mut all = entries();
        all[2] = Entry::file("plugin.json", raw::PLUGIN_JSON, "0004744");
        tar(&all)
    });
    case("a longer file".into(), "bytes, MANIFEST says", {
        let mut all = entries();
        all[1] = Entry::file("bin/do", format!("{PROGRAM}#"), "0000755");
        tar(&all)
    });
    case("another name".into(), "another name", changed(|it| it.name = "other".into()));
    case("another namespace".into(), "another name", changed(|it| it.namespace = "other".into()));
    case("another version".into(), "another name, version", changed(|it| it.version = "1.2.1".parse().unwrap()));
    case("another build".into(), "another name, version", changed(|it| it.version = "1.2.0+x".parse().unwrap()));
    case(
        "other permissions".into(),
        "permissions",
        changed(|it| it.permissions = Some(serde_json::json!({"net": false}))),
    );
    case("a later format".into(), "format 2", changed(|it| it.format = 2));
    case("a digest of another file".into(), "is not what", changed(|it| it.files[0].sha256 = it.files[1].sha256));
    case(
        "digests exchanged".into(),
        "is not what",
        changed(|it| {
            let one = it.files[0].sha256;
            it.files[0].sha256 = std::mem::replace(&mut it.files[1].sha256, one);
        }),
    );
    for digest in ["", "00", &"A".repeat(64), &"g".repeat(64)] {
        let text = String::from_utf8(contents().to_json()).unwrap();
        let text = text.replace(&contents().files[0].sha256.to_string(), digest);
        let mut all = entries();
        all[0] = Entry::file("MANIFEST", text, "0000644");
        case(format!("the digest {digest:?}"), "64 lower-case", tar(&all));
    }
    case("a huge size".into(), "limit", changed(|it| it.files[0].size = u64::MAX));
    case("out of order".into(), "named once", changed(|it| it.files.reverse()));
    case("a path that leads out".into(), "`..`", changed(|it| it.files[0].path = "../x".into()));
    case("its own digest".into(), "digest of itself", listing("MANIFEST.minisig", |entry| entry));
    case("a long name cut".into(), "does not name", listing(&format!("p/{}", "x".repeat(110)), |entry| entry));
    for path in ["../escape", "../../escape", "../../../escape", "/tmp/escape", "bin/../../escape"] {
        let why = if path.starts_with('/') { "is absolute" } else { "`..`" };
        case(format!("MANIFEST names {path}, and it is there"), why, listing(path, |entry| entry));
    }
    for text in ["", "{", "[]", "null", r#"{"format":1}"#, "{\"format\":1,\"format\":2}"] {
        let mut all = entries();
        all[0] = Entry::file("MANIFEST", text, "0000644");
        case(format!("MANIFEST is {text:?}"), "MANIFEST", tar(&all));
    }
    for order in [[1, 0, 2], [2, 1, 0], [1, 2, 0]] {
        let all = entries();
        case(format!("order {order:?}"), "first file", tar(&order.map(|n| all[n].clone())));
    }

    // The archive as a whole.
    let good = tar(&entries());
    case("nothing".into(), "", Vec::new());
    case("zeros".into(), "empty archive", vec![0; 10_240]);
    for cut in (0..good.len() - 512).step_by(307).skip(1) {
        case(format!("cut after {cut}"), "", good[..cut].to_vec());
    }
    let whole = gzip(&good);
    for cut in (1..whole.len()).step_by(whole.len() / 12) {
        case(format!("cut after {cut} compressed"), "", whole[..cut].to_vec());
    }
    case("one empty block".into(), "its end is missing", good[..good.len() - 512].to_vec());
    case("another archive behind it".into(), "something follows", [good.clone(), good.clone()].concat());
    case("a byte behind it".into(), "something follows", [good.clone(), vec![1]].concat());
    case("two compressed members".into(), "something follows", [whole.clone(), whole.clone()].concat());
    case("text behind the compressed".into(), "something follows", [whole, b"#!/bin/sh".to_vec()].concat());
    case("compressed twice".into(), "", gzip(&gzip(&good)));
    case("no archive".into(), "", b"#!/bin/sh\nrm -rf /\n".repeat(100));
    case("zip".into(), "", [b"PK\x03\x04".to_vec(), vec![0; 2_000]].concat());

    // Bombs.
    case("600 MiB of zeros in 600 KiB".into(), "cannot be read", bomb(600));
    case("a size that is a lie".into(), "", tar(&[Entry::file("MANIFEST", "", "0000644").with(124, b"77777777777")]));
    case("20,000 files".into(), "limit", {
        let many = (0..20_000).map(|n| packed(&format!("f/{n:05}"), "", false)).collect::<Vec<_>>();
        changed(|it| it.files.splice(1..1, many).for_each(drop))
    });
    case("11,000 folders".into(), "10000", {
        let folder = |n| Entry::file(&format!("d{n}/"), "", "0000755").with(156, b"5");
        tar(&entries().into_iter().chain((0..11_000).map(folder)).collect::<Vec<_>>())
    });
    cases
}

/// The good package, with zeros behind it.
fn bomb(mib: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar(&entries())).unwrap();
    for _ in 0..mib {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}
