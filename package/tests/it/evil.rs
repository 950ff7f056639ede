//! Archives that attackers make: each is refused, with a code and a reason, and none is refused for the wrong one.

use goplug_pconf_schema::Code;

use crate::corpus::{corpus, listing};
use crate::raw::{Entry, PROGRAM, entries, open, tar};

#[test]
fn every_one_is_refused_for_its_own_reason() {
    open(&tar(&entries())).unwrap();
    let corpus = corpus();
    println!("figure: evil_archives {} (goal 200)", corpus.len());
    assert!(corpus.len() >= 200);
    let mut wrong = Vec::new();
    for (what, why, bytes) in corpus {
        match open(&bytes) {
            Ok(_) => wrong.push(format!("{what}: accepted")),
            Err(fault) if !matches!(fault.code, Code::InvalidArgument | Code::TooLarge) => {
                wrong.push(format!("{what}: {fault:?}"));
            }
            Err(fault) if !fault.message.contains(why) => {
                wrong.push(format!("{what}: {} (not {why:?})", fault.message))
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_good_neighbour_of_each_trick_is_taken() {
    let folder = Entry::file("bin/", "", "0000755").with(156, b"5");
    let mut all = entries();
    all.insert(1, folder);
    open(&tar(&all)).unwrap();
    let prefix = "p".repeat(150);
    open(&listing(&format!("{prefix}/do"), |_| Entry::file("do", PROGRAM, "0000755").with(345, prefix.as_bytes())))
        .unwrap();
    let spaces = Entry::file("plugin.json", crate::raw::PLUGIN_JSON, "000644 ").with(329, &[0; 16]);
    let mut all = entries();
    all[2] = spaces;
    open(&tar(&all)).unwrap();
    // Padding up to the size of a tape's block, as every tar writes it.
    let mut padded = tar(&entries());
    padded.resize(padded.len().next_multiple_of(10_240), 0);
    open(&padded).unwrap();
}
