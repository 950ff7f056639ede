//! The layout of a frame: what registry and plugin say to each other after the upgrade to `frames/1`. PURE.
//!
//! A frame is a [`Header`] of 32 bytes, its metadata ([`Meta`]) and its payload. Numbers are little-endian.

use std::fmt;

use super::memfd::PLACE_BYTES;
pub use notice::NoticeMeta;

mod notice;

/// What both sides write into `features` when they speak this.
pub const FEATURE: &str = "frames/1";
/// The value of `Upgrade`.
pub const UPGRADE: &str = "goplug-frames/1";
/// Where the upgrade is asked for, with GET.
pub const PATH: &str = "/_goplug/frames";

/// The length of a header.
pub const HEADER_BYTES: usize = 32;
/// The longest payload of one frame; a longer body goes on in DATA frames.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// The longest metadata of one frame.
pub const MAX_META_BYTES: usize = 4096;
/// Bytes of the body of one call that may be on their way before the other side grants more.
pub const CALL_CREDIT: u64 = 256 * 1024;
/// Bytes of the bodies of all calls of a connection, each way, that may be on their way before the other side grants more.
pub const CONNECTION_CREDIT: u64 = 4 * 1024 * 1024;
/// Bytes of notifications of one subscription that may be on their way before the registry grants more.
pub const SUBSCRIPTION_CREDIT: u64 = 1024 * 1024;
/// Notifications and gaps of one subscription that may be on their way before the registry grants more.
pub const SUBSCRIPTION_MESSAGES: u32 = 256;

/// `length` counts what follows it.
const LENGTH_BYTES: usize = 4;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A call; `index` is the method's place in the hello, `arg` its deadline in milliseconds.
    Request = 1,
    /// The reply, or its beginning.
    Reply = 2,
    /// The problem document of a call that failed; always the last frame of its call.
    Error = 3,
    /// More of a body.
    Data = 4,
    /// The caller waits no longer.
    Cancel = 5,
    /// `arg` more bytes may be sent: of the body of call `id`, or with id 0 of all bodies together; of a subscription
    /// also `index` more messages.
    Credit = 6,
    /// To be answered with a PONG of the same payload.
    Ping = 7,
    /// The answer to a PING.
    Pong = 8,
    /// Attaches to a callback, whose place in the hello is `index`; the payload is the subscription's name, empty for an
    /// observer. The answer is the same without payload, or an ERROR.
    Subscribe = 9,
    /// A notification, or more of it; `arg` is its number.
    Event = 10,
    /// Everything up to `arg` was handled. The answer is the same; with a payload it was refused.
    Ack = 11,
    /// The notifications from `arg` to the number in the payload will not come.
    Gap = 12,
    /// The registry leaves, or somebody else has attached the name.
    Unsubscribe = 13,
    /// The plugin leaves: nothing follows for this subscription.
    Drain = 14,
    /// The last frame: its payload names the rule that was broken.
    Close = 15,
    /// The first frame of a connection, if any: frames travel through shared memory from now on ([`super::shm`]). From the
    /// registry, with the memory's descriptor; `arg` is the length of a ring. The answer is the same without descriptor, or
    /// an ERROR: nothing changes then.
    Rings = 16,
    /// The sender has bodies in segments of memory and asks whether it may lend them ([`super::memfd`]).
    Lend = 17,
    /// The answer: `index` segments of `arg` bytes altogether, at most; none if `index` is 0.
    Borrow = 18,
    /// A segment, with its descriptor: `id` is its number, counted up from 1 by its owner, `arg` its length.
    Segment = 19,
    /// `arg` bodies in segment `id` have been read and are given back.
    Release = 20,
    /// The owner lends segment `id`, in which no body is, no more.
    Forget = 21,
}

/// The fixed beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Whether this frame is the last of its body.
    pub end: bool,
    /// Whether a descriptor comes with the first byte of this frame, which only RINGS and SEGMENT have.
    pub fd: bool,
    /// Of a REQUEST or REPLY: the whole body lies in a segment, and the payload says where ([`super::memfd::Place`]).
    pub is_placed: bool,
    /// Of a REQUEST: the body of its reply may lie in a segment.
    pub takes_place: bool,
    /// The place of the method or callback in the hello.
    pub index: u16,
    /// The call or subscription, counted up from 1 by the registry; 0 for the connection itself.
    pub id: u64,
    /// What it means depends on the kind.
    pub arg: u64,
    /// How much of what follows the header is metadata.
    pub meta_bytes: usize,
    /// How much of what follows the metadata is payload.
    pub payload_bytes: usize,
    /// Of a REQUEST or REPLY that is not the end: how many bytes of its body follow in DATA frames, as far as the sender
    /// knows; 0 when it does not. A hint, so that the receiver makes room once; never a promise.
    /// (The specification had these four bytes as zero: a receiver that knows grows no buffer and lets no sender wait.)
    pub rest_bytes: u32,
}

/// Why bytes are no frame: the rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Error,
            4 => Self::Data,
            5 => Self::Cancel,
            6 => Self::Credit,
            7 => Self::Ping,
            8 => Self::Pong,
            9 => Self::Subscribe,
            10 => Self::Event,
            11 => Self::Ack,
            12 => Self::Gap,
            13 => Self::Unsubscribe,
            14 => Self::Drain,
            15 => Self::Close,
            16 => Self::Rings,
            17 => Self::Lend,
            18 => Self::Borrow,
            19 => Self::Segment,
            20 => Self::Release,
            21 => Self::Forget,
            _ => return None,
        })
    }
}

const END: u8 = 1;
const FD: u8 = 2;
const PLACED: u8 = 4;
const TAKES_PLACE: u8 = 8;

impl Kind {
    /// The flags that a frame may have.
    fn flags(self) -> u8 {
        match self {
            Self::Request => END | PLACED | TAKES_PLACE,
            Self::Reply => END | PLACED,
            Self::Rings | Self::Segment => END | FD,
            _ => END,
        }
    }
}

impl Header {
    /// A header of a frame without metadata and payload.
    pub fn new(kind: Kind, id: u64) -> Self {
        let (end, fd, is_placed, takes_place) = (false, false, false, false);
        let (index, arg, meta_bytes, payload_bytes, rest_bytes) = (0, 0, 0, 0, 0);
        Self { kind, end, fd, is_placed, takes_place, index, id, arg, meta_bytes, payload_bytes, rest_bytes }
    }

    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let length = HEADER_BYTES - LENGTH_BYTES + self.meta_bytes + self.payload_bytes;
        bytes[0..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        bytes[4] = self.kind as u8;
        let flag = |is_set: bool, flag: u8| u8::from(is_set) * flag;
        bytes[5] = flag(self.end, END)
            | flag(self.fd, FD)
            | flag(self.is_placed, PLACED)
            | flag(self.takes_place, TAKES_PLACE);
        bytes[6..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.arg.to_le_bytes());
        bytes[24..28].copy_from_slice(&u32::try_from(self.meta_bytes).unwrap_or(u32::MAX).to_le_bytes());
        bytes[28..32].copy_from_slice(&self.rest_bytes.to_le_bytes());
        bytes
    }

    /// Reads a header and checks every field of it.
    ///
    /// # Errors
    /// Names the rule that was broken.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Broken> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let u64_at = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let (length, meta_bytes) = (u32_at(0), u32_at(24));
        let rest = HEADER_BYTES - LENGTH_BYTES;
        if length < rest {
            return Err(Broken(format!("a frame's length is {length}, less than the {rest} bytes of its header")));
        }
        if meta_bytes > MAX_META_BYTES || meta_bytes > length - rest {
            return Err(Broken(format!("{meta_bytes} bytes of metadata, the limit is {MAX_META_BYTES} and the frame")));
        }
        let payload_bytes = length - rest - meta_bytes;
        if payload_bytes > MAX_PAYLOAD_BYTES {
            return Err(Broken(format!("a payload of {payload_bytes} bytes, the limit is {MAX_PAYLOAD_BYTES}")));
        }
        let Some(kind) = Kind::of(bytes[4]) else {
            return Err(Broken(format!("frame type {} is unknown", bytes[4])));
        };
        if bytes[5] & !kind.flags() != 0 {
            return Err(Broken(format!("flags {:#x} of a frame are unknown", bytes[5])));
        }
        let header = Self {
            kind,
            end: bytes[5] & END != 0,
            fd: bytes[5] & FD != 0,
            is_placed: bytes[5] & PLACED != 0,
            takes_place: bytes[5] & TAKES_PLACE != 0,
            index: u16::from_le_bytes([bytes[6], bytes[7]]),
            id: u64_at(8),
            arg: u64_at(16),
            meta_bytes,
            payload_bytes,
            rest_bytes: u32::from_le_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]),
        };
        if header.is_placed && (!header.end || payload_bytes != PLACE_BYTES) {
            return Err(Broken(format!("a placed body ends with its frame, whose payload has {PLACE_BYTES} bytes")));
        }
        if header.rest_bytes != 0 && (header.end || !matches!(kind, Kind::Request | Kind::Reply)) {
            return Err(Broken("the last four bytes of a header are zero where no body goes on".into()));
        }
        Ok(header)
    }
}

/// What a caller says about a call besides its body; unknown tags are skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta<'a> {
    /// W3C trace context, passed through.
    pub traceparent: Option<&'a str>,
    /// W3C trace context, passed through.
    pub tracestate: Option<&'a str>,
    /// Who asks.
    pub caller: Option<&'a str>,
    /// Content type of the body.
    pub content_type: Option<&'a str>,
}

impl<'a> Meta<'a> {
    /// Whether all of it goes into one frame.
    pub fn fits(&self) -> bool {
        let entries = [self.traceparent, self.tracestate, self.caller, self.content_type];
        entries.iter().flatten().map(|value| value.len() + 4).sum::<usize>() <= MAX_META_BYTES
    }

    /// Appends the metadata to `to`; answers how many bytes they are. What would go beyond [`MAX_META_BYTES`] is left
    /// out.
    pub fn encode(&self, to: &mut Vec<u8>) -> usize {
        let before = to.len();
        for (tag, value) in [self.traceparent, self.tracestate, self.caller, self.content_type].iter().enumerate() {
            let (Ok(tag), Some(value)) = (u8::try_from(tag + 1), value) else { continue };
            let room = MAX_META_BYTES.saturating_sub(to.len() - before + 4);
            if let (true, Ok(length)) = (value.len() <= room, u16::try_from(value.len())) {
                to.extend_from_slice(&[tag, 0]);
                to.extend_from_slice(&length.to_le_bytes());
                to.extend_from_slice(value.as_bytes());
            }
        }
        to.len() - before
    }

    /// Reads metadata.
    ///
    /// # Errors
    /// Names the rule that was broken.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, Broken> {
        let mut meta = Self::default();
        while !bytes.is_empty() {
            let (tag, value, rest) = entry(bytes)?;
            bytes = rest;
            let field = match tag {
                1 => &mut meta.traceparent,
                2 => &mut meta.tracestate,
                3 => &mut meta.caller,
                4 => &mut meta.content_type,
                _ => continue,
            };
            let text = std::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control));
            *field = Some(text.ok_or_else(|| Broken(format!("entry {tag} of the metadata is no text")))?);
        }
        Ok(meta)
    }
}

/// The tag and the value of the first entry of metadata, and what follows it.
fn entry(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Broken> {
    let [tag, zero, low, high, rest @ ..] = bytes else {
        return Err(Broken(format!("metadata ends within an entry ({} bytes are left)", bytes.len())));
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    if *zero != 0 || rest.len() < length {
        return Err(Broken(format!("entry {tag} of the metadata has {length} bytes of {}", rest.len())));
    }
    let (value, rest) = rest.split_at(length);
    Ok((*tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let new = Header::new(Kind::Request, 0x0102_0304_0506_0708);
        Header { end: true, index: 513, arg: 30_000, meta_bytes: 5, payload_bytes: 64, ..new }
    }

    #[test]
    fn a_header_is_written_as_documented_and_read_back() {
        let bytes = header().encode();
        assert_eq!(&bytes[..8], [28 + 5 + 64, 0, 0, 0, 1, 1, 1, 2]);
        assert_eq!(&bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Header::decode(&bytes), Ok(header()));
    }

    #[test]
    fn a_body_that_goes_on_may_say_how_far() {
        let begun = Header { end: false, rest_bytes: 700_000, ..header() };
        assert_eq!(Header::decode(&begun.encode()), Ok(begun));
        let data = Header { kind: Kind::Data, ..begun };
        assert!(Header::decode(&data.encode()).is_err());
    }

    #[test]
    fn every_bit_of_a_header_that_flips_is_another_frame_or_none() {
        let bytes = header().encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = Header::decode(&flipped) {
                assert_ne!(read, header(), "bit {bit}");
                assert!(read.payload_bytes <= MAX_PAYLOAD_BYTES && read.meta_bytes <= MAX_META_BYTES, "bit {bit}");
                assert_eq!(read.encode(), flipped, "bit {bit}");
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let with = |change: fn(&mut [u8; HEADER_BYTES])| {
            let mut bytes = header().encode();
            change(&mut bytes);
            Header::decode(&bytes).map_err(|Broken(why)| why).unwrap_err()
        };
        assert!(with(|bytes| bytes[0] = 27).contains("less than"));
        assert!(with(|bytes| bytes[0..4].copy_from_slice(&u32::MAX.to_le_bytes())).contains("payload"));
        assert!(with(|bytes| bytes[24..28].copy_from_slice(&4097_u32.to_le_bytes())).contains("metadata"));
        assert!(with(|bytes| bytes[24] = 70).contains("metadata"), "more metadata than the frame has");
        assert!(with(|bytes| bytes[4] = 22).contains("type 22"));
        assert!(with(|bytes| bytes[4] = 0).contains("type 0"));
        assert!(with(|bytes| bytes[5] = 2).contains("flags"), "a descriptor where none can be");
        assert!(with(|bytes| bytes[5] = 16).contains("flags"));
        assert!(with(|bytes| bytes[4..6].copy_from_slice(&[4, 5])).contains("flags"), "DATA is never placed");
        assert!(with(|bytes| bytes[5] = 5).contains("placed"), "a payload of 64 bytes is no place");
        assert!(with(|bytes| bytes[5] = 4).contains("placed"), "a placed body does not go on");
        assert!(with(|bytes| bytes[4..6].copy_from_slice(&[16, 4])).contains("flags"));
        assert!(with(|bytes| bytes[31] = 1).contains("zero"), "a body that has ended does not go on");
    }

    #[test]
    fn metadata_is_read_back_and_unknown_tags_are_skipped() {
        let meta = Meta { traceparent: Some("00-a-b-01"), caller: Some("cron"), ..Meta::default() };
        let mut bytes = vec![9];
        assert_eq!(meta.encode(&mut bytes), bytes.len() - 1);
        bytes.extend_from_slice(&[200, 0, 2, 0, 0xff, 0xff]);
        assert_eq!(Meta::decode(&bytes[1..]), Ok(meta));
        let long = "x".repeat(MAX_META_BYTES);
        let mut bytes = Vec::new();
        Meta { caller: Some(&long), content_type: Some("a/b"), ..Meta::default() }.encode(&mut bytes);
        let read = Meta::decode(&bytes).unwrap();
        assert_eq!((read.caller, read.content_type), (None, Some("a/b")), "what is too long is left out");
    }

    #[test]
    fn metadata_that_is_none_is_refused() {
        for bytes in
            [&[1][..], &[1, 0, 1, 0], &[1, 1, 0, 0], &[1, 0, 1, 0, 0xff], &[3, 0, 1, 0, b'\n'], &[1, 0, 255, 255]]
        {
            assert!(Meta::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
