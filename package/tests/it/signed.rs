//! Who signed a package, and who did not.

use goplug_package::{Key, Keys, Signer};
use goplug_pconf_schema::Code;
use minisign::KeyPair;

use crate::raw::{Entry, contents, entries, open_with, tar};

fn sign(pair: &KeyPair, text: &[u8]) -> String {
    minisign::sign(None, &pair.sk, text, Some("test/do 1.2.0"), Some("a package")).unwrap().into_string()
}

fn key(pair: &KeyPair) -> Key {
    Key::parse(&pair.pk.to_box().unwrap().into_string()).unwrap()
}

/// The package with this text as its signature.
fn signed(signature: &str) -> Vec<u8> {
    let mut all = entries();
    all.insert(1, Entry::file("MANIFEST.minisig", signature, "0000644"));
    tar(&all)
}

#[test]
fn only_what_a_trusted_key_signed_is_taken() {
    let (ours, other) =
        (KeyPair::generate_unencrypted_keypair().unwrap(), KeyPair::generate_unencrypted_keypair().unwrap());
    let keys = Keys::new(vec![key(&other), key(&ours)]).unwrap();
    let good = sign(&ours, &contents().to_json());
    let package = open_with(&signed(&good), &keys).unwrap();
    assert_eq!(*package.signer(), Signer::Trusted(key(&ours)));

    let another = {
        let mut contents = contents();
        contents.version = "9.9.9".parse().unwrap();
        sign(&ours, &contents.to_json())
    };
    let refused = [
        ("nobody is trusted", Keys::default(), good.clone()),
        ("nobody is trusted, unsigned is allowed", Keys::default().allow_unsigned(), good.clone()),
        ("the key is another one", Keys::new(vec![key(&other)]).unwrap(), good.clone()),
        ("the signature is of another package", keys.clone(), another),
        ("the comment was changed", keys.clone(), good.replace("test/do 1.2.0", "test/do 1.2.1")),
    ];
    for (what, keys, signature) in refused {
        assert_eq!(open_with(&signed(&signature), &keys).unwrap_err().code, Code::Denied, "{what}");
    }
    for signature in ["", "not a signature", &good[..good.len() / 2], &good.replace("trusted comment", "comment")] {
        let refused = open_with(&signed(signature), &keys).unwrap_err();
        assert!(matches!(refused.code, Code::InvalidArgument | Code::Denied), "{signature}: {refused}");
    }
    // Nothing is signed, with keys that are trusted.
    assert_eq!(open_with(&tar(&entries()), &keys).unwrap_err().code, Code::Denied);
    let nobody = open_with(&tar(&entries()), &keys.allow_unsigned()).unwrap();
    assert_eq!(*nobody.signer(), Signer::Nobody);
}

#[test]
fn every_bit_of_a_signature_and_of_what_it_signs_counts() {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let keys = Keys::new(vec![key(&pair)]).unwrap();
    let text = contents().to_json();
    let good = sign(&pair, &text);
    for at in (0..text.len()).step_by(7) {
        let mut all = entries();
        all[0].data[at] ^= 1;
        all.insert(1, Entry::file("MANIFEST.minisig", &good, "0000644"));
        assert_eq!(open_with(&tar(&all), &keys).unwrap_err().code, Code::Denied, "byte {at}");
    }
    // The untrusted comment, on the first line, is not signed.
    let start = good.find('\n').unwrap() + 1;
    for at in (start..good.trim_end().len()).step_by(5) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 2;
        let Ok(signature) = String::from_utf8(bytes) else { continue };
        assert!(open_with(&signed(&signature), &keys).is_err(), "byte {at} of the signature");
    }
}

#[test]
fn keys_are_read_as_minisign_writes_them() {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let file = pair.pk.to_box().unwrap().into_string();
    assert_eq!(Key::parse(&file).unwrap().as_str(), pair.pk.to_base64());
    for wrong in ["", "RW", "x".repeat(56).as_str(), &file[..file.len() - 5]] {
        assert_eq!(Key::parse(wrong).unwrap_err().code, Code::InvalidArgument);
    }
}
