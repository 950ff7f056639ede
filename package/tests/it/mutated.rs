//! What is accepted after random changes is listed by others just as we read it: GNU tar and Python's `tarfile`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use goplug_pconf_schema::contents::{CONTENTS_NAME, SIGNATURE_NAME};

use crate::raw::{Entry, Random, entries, open, tar};

/// Reads names of archives, and prints the path, size and SHA-256 of every file in each, in the order of the archive.
const LIST: &str = r#"
import sys, tarfile, hashlib
for line in sys.stdin:
    name = line.rstrip("\n")
    out = []
    try:
        with tarfile.open(name, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                if not member.isreg():
                    out.append("other " + member.name)
                    continue
                data = archive.extractfile(member).read()
                out.append(f"{member.name} {member.size} {hashlib.sha256(data).hexdigest()}")
    except Exception as error:
        out.append("refused " + str(error))
    print("\t".join(out))
"#;

fn ours(bytes: &[u8]) -> Option<Vec<String>> {
    let package = open(bytes).ok()?;
    let files = package.contents().files.iter();
    let mut listed: Vec<_> = files.map(|file| format!("{} {} {}", file.path, file.size, file.sha256)).collect();
    listed.sort();
    Some(listed)
}

/// What others list, without `MANIFEST` and its signature, of which there is no digest.
fn theirs<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let own =
        |line: &str| line.starts_with(&format!("{CONTENTS_NAME} ")) || line.starts_with(&format!("{SIGNATURE_NAME} "));
    let mut listed: Vec<_> = lines.filter(|line| !own(line)).map(str::to_owned).collect();
    listed.sort();
    listed
}

fn mutate(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        // Most of an archive is padding: headers are where readers differ.
        let header = random.below(4) * 512 + random.below(512);
        let at = if random.below(4) > 0 { header.min(bytes.len() - 1) } else { at };
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = b"\0 0157/.x\x80\xff"[random.below(11)],
            2 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            3 => {
                let block = at / 512 * 512;
                let copy = bytes[block..(block + 512).min(bytes.len())].to_vec();
                bytes.splice(block..block, copy);
            }
            4 => drop(bytes.drain(at / 512 * 512..(at / 512 * 512 + 512).min(bytes.len()))),
            _ => bytes.truncate(at.max(600)),
        }
    }
    // A checksum that is right: else every change would end there.
    for block in 0..bytes.len() / 512 {
        let header = &mut bytes[block * 512..block * 512 + 512];
        if header[257..262] == *b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

fn gnu_tar(path: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("--list").arg("--quoting-style=literal").arg("-f").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter(|name| !name.ends_with('/'));
    let failed = (!output.status.success()).then(|| format!("tar: {}", String::from_utf8_lossy(&output.stderr)));
    names.map(str::to_owned).chain(failed).collect()
}

#[test]
fn what_is_accepted_is_listed_identically() {
    let wanted = if std::env::var_os("GOPLUG_DEEP").is_some() { 20_000 } else { 1_000 };
    let seed = std::env::var("GOPLUG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0f7a_2026);
    println!("seed: mutated_archives GOPLUG_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let mut all = entries();
    all.insert(1, Entry::file("bin/", "", "0000755").with(156, b"5"));
    let good = tar(&all);
    let mut accepted = Vec::new();
    for n in 0..wanted {
        let bytes = mutate(&good, &mut random);
        if let Some(listed) = ours(&bytes) {
            let path = folder.path().join(format!("{n}.tar"));
            fs::write(&path, &bytes).unwrap();
            accepted.push((path, listed));
        }
    }
    let mut python =
        Command::new("python3").arg("-c").arg(LIST).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let names: String = accepted.iter().map(|(path, _)| format!("{}\n", path.display())).collect();
    let mut input = python.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || input.write_all(names.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    feeder.join().unwrap();
    let listings = String::from_utf8(output.stdout).unwrap();
    let mut differ = Vec::new();
    assert_eq!(listings.lines().count(), accepted.len());
    for ((path, listed), line) in accepted.iter().zip(listings.lines()) {
        let python = theirs(line.split('\t'));
        let mut gnu = gnu_tar(path);
        gnu.retain(|name| ![CONTENTS_NAME, SIGNATURE_NAME].contains(&name.as_str()));
        gnu.sort();
        let paths: Vec<_> = listed.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        if python != *listed || gnu != paths {
            differ.push(format!("{path:?}\n  ours   {listed:?}\n  python {python:?}\n  tar    {gnu:?}"));
        }
    }
    println!(
        "figure: mutated_archives {wanted} made, {} accepted, {} listed differently (goal 0)",
        accepted.len(),
        differ.len()
    );
    // What could not have been accepted proves nothing.
    assert!(accepted.len() > wanted / 20, "{} of {wanted} accepted", accepted.len());
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
