//! The body of a call: text, a file or standard input, in the encoding that was said.

use std::io::{self, Read};

use bytes::Bytes;
use goplug_pconf_schema::wire::event::from_base64;
use goplug_pconf_schema::{Code, Fault};

use crate::args::BodyArgs;
use crate::output::{escape, text};

/// The largest body that is read from a file or from standard input.
const MAX_BODY_BYTES: u64 = 1024 * 1024 * 1024;

/// The body that the arguments mean.
///
/// # Errors
/// `invalid_argument`: it cannot be read, or is not what it is said to be; `too_large`.
pub(crate) fn body(args: &BodyArgs) -> Result<Bytes, Fault> {
    let given = match args.data.as_deref() {
        None => Vec::new(),
        Some("-") => read("standard input", io::stdin().lock())?,
        Some(data) => match data.strip_prefix('@') {
            None => data.as_bytes().to_vec(),
            Some(path) => {
                let refused = |error: io::Error| {
                    Fault::new(Code::InvalidArgument, format!("`{}` cannot be read: {error}", escape(path)))
                };
                read(path, std::fs::File::open(path).map_err(refused)?)?
            }
        },
    };
    decode(given, args).map(Bytes::from)
}

fn read(name: &str, source: impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let refused =
        |error: io::Error| Fault::new(Code::InvalidArgument, format!("`{}` cannot be read: {error}", escape(name)));
    source.take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > MAX_BODY_BYTES {
        return Err(Fault::new(Code::TooLarge, format!("`{}` is larger than {MAX_BODY_BYTES} bytes", escape(name))));
    }
    Ok(bytes)
}

fn decode(given: Vec<u8>, args: &BodyArgs) -> Result<Vec<u8>, Fault> {
    let wrong = |why: String| Fault::new(Code::InvalidArgument, format!("DATA: {why}"));
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| wrong("no text".into()));
    if args.json {
        serde_json::from_slice::<serde::de::IgnoredAny>(&given).map_err(|error| wrong(format!("no JSON: {error}")))?;
        return Ok(given);
    }
    if args.hex {
        return text::from_hex(&text(&given)?).map_err(wrong);
    }
    if args.base64 {
        return from_base64(text(&given)?.trim()).map_err(wrong);
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn sent(line: &[&str]) -> Result<Vec<u8>, Code> {
        let words = ["goplugctl", "execute", "Test/Do", "Do"].iter().chain(line);
        let Verb::Execute(args) = Cli::try_parse_from(words).unwrap().verb else { panic!("another verb") };
        body(&args.body).map(Into::into).map_err(|fault| fault.code)
    }

    #[test]
    fn data_is_taken_as_it_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xffx").unwrap();
        let at_file = format!("@{}", file.path().display());
        let wrong = Err(Code::InvalidArgument);
        for (line, expected) in [
            (vec![], Ok(vec![])),
            (vec!["hello"], Ok(b"hello".to_vec())),
            (vec![at_file.as_str()], Ok(b"\xffx".to_vec())),
            (vec!["@/nothing/there"], wrong.clone()),
            (vec!["--hex", "ff 00"], Ok(vec![255, 0])),
            (vec!["--hex", "f"], wrong.clone()),
            (vec!["--base64", "/w=="], Ok(vec![255])),
            (vec!["--base64", "?"], wrong.clone()),
            (vec!["--json", "{\"a\": 1}"], Ok(b"{\"a\": 1}".to_vec())),
            (vec!["--json", "{"], wrong.clone()),
            (vec!["--json"], wrong),
        ] {
            assert_eq!(sent(&line), expected, "{line:?}");
        }
    }
}
