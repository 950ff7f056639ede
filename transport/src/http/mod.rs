//! HTTP/1.1 as bytes: heads and bodies, read and written, without a socket and without a clock.

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod pieces;
pub(crate) mod write;

/// The longest head (first line and fields) that is read, in bytes; trailers have the same limit.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The most fields that a head may have.
pub const MAX_FIELDS: usize = 64;

/// Room for one read: a small message, head and body, comes with a single system call.
pub(crate) const READ_BYTES: usize = 8 * 1024;

/// Bytes that are not HTTP as we take it, and why: a lowercase fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    fn because<T>(why: impl Into<String>) -> Result<T, Self> {
        Err(Self(why.into()))
    }
}

/// The value of the first field called `name`, which is in lower case as all names in `fields` are.
pub(crate) fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

/// Makes room for the next read without moving or growing more than needed.
pub(crate) fn make_room(input: &mut bytes::BytesMut) {
    // With nothing left in it, `reserve` takes the front of the buffer back into use and allocates nothing.
    input.reserve(if input.is_empty() { READ_BYTES } else { READ_BYTES / 2 });
}
