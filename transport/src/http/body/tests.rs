use super::*;

/// The body, and what is left of the wire behind it; `None` if the body is not whole.
type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, Refused>;

/// How the body ends, the wire, the body in it, and what is left.
type Case<'a> = (Framing, &'a [u8], &'a [u8], &'a [u8]);

/// Feeds `wire` in pieces of `slice` bytes.
fn collect(framing: Framing, wire: &[u8], slice: usize, max: usize) -> Outcome {
    let mut collector = Collector::new(Decoder::new(framing), max);
    let mut input = BytesMut::new();
    let mut rest = wire;
    loop {
        if collector.absorb(&mut input)? {
            input.extend_from_slice(rest);
            return Ok(Some((collector.finish().to_vec(), input.to_vec())));
        }
        if rest.is_empty() {
            return Ok(collector.ends_with_connection().then(|| (collector.finish().to_vec(), Vec::new())));
        }
        let direct = match collector.room() {
            Some(mut room) if input.is_empty() => {
                let count = rest.len().min(slice).min(room.remaining_mut());
                room.put_slice(&rest[..count]);
                Some(count)
            }
            _ => None,
        };
        let count = direct.unwrap_or_else(|| rest.len().min(slice));
        match direct {
            Some(count) => collector.filled(count),
            None => input.extend_from_slice(&rest[..count]),
        }
        rest = &rest[count..];
    }
}

fn whole(body: &[u8], left: &[u8]) -> Outcome {
    Ok(Some((body.to_vec(), left.to_vec())))
}

#[test]
fn bodies_are_whole_however_they_are_sliced() {
    let long = vec![7; 300_000];
    let mut chunked_long = format!("{:x}\r\n", long.len()).into_bytes();
    chunked_long.extend_from_slice(&long);
    chunked_long.extend_from_slice(b"\r\n0\r\n\r\n!");
    let exact_long = [&long[..], b"!"].concat();
    let cases: [Case<'_>; 9] = [
        (Framing::Exact(0), b"next", b"", b"next"),
        (Framing::Exact(5), b"hello, next", b"hello", b", next"),
        (Framing::Exact(300_000), &exact_long, &long, b"!"),
        (Framing::Chunked, b"0\r\n\r\nnext", b"", b"next"),
        (Framing::Chunked, b"5\r\nhello\r\n0001;a=\"b\"\r\n!\r\n00\r\n\r\n", b"hello!", b""),
        (Framing::Chunked, b"A ;x\r\n0123456789\r\n0\r\nTrailer: x\r\nB: y\r\n\r\nnext", b"0123456789", b"next"),
        (Framing::Chunked, &chunked_long, &long, b"!"),
        (Framing::UntilClose, b"all of it", b"all of it", b""),
        (Framing::UntilClose, &long, &long, b""),
    ];
    for (framing, wire, body, left) in cases {
        for slice in [1, 2, 3, 7, 8192, usize::MAX] {
            assert_eq!(collect(framing, wire, slice, 300_000), whole(body, left), "{framing:?} by {slice}");
        }
    }
}

#[test]
fn a_body_that_stops_early_is_not_whole() {
    for (framing, wire) in [
        (Framing::Exact(5), &b"hell"[..]),
        (Framing::Chunked, b"5\r\nhello\r\n"),
        (Framing::Chunked, b"5\r\nhello\r\n0\r\n"),
        (Framing::Chunked, b""),
    ] {
        assert_eq!(collect(framing, wire, 1, 100), Ok(None), "{wire:?}");
    }
}

#[test]
fn broken_chunks_are_refused() {
    let long_extension = format!("1;{}\r\n", "x".repeat(MAX_CHUNK_LINE_BYTES));
    let long_trailers = format!("0\r\n{}", "A: b\r\n".repeat(MAX_HEAD_BYTES / 6 + 1));
    for wire in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5 x\r\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "00000000000000005\r\nhello\r\n",
        "0\r\nA: b\n\r\n",
        &long_extension,
        &long_trailers,
    ] {
        for slice in [1, usize::MAX] {
            let refused = collect(Framing::Chunked, wire.as_bytes(), slice, 1 << 20);
            assert!(matches!(refused, Err(Refused::Malformed(_))), "{wire:?} by {slice}: {refused:?}");
        }
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused_as_soon_as_that_is_known() {
    let refused = |framing, wire: &[u8]| collect(framing, wire, usize::MAX, 10).unwrap_err();
    assert_eq!(refused(Framing::Exact(11), b""), Refused::TooLarge(11));
    assert_eq!(refused(Framing::Exact(u64::MAX), b"x"), Refused::TooLarge(u64::MAX));
    assert_eq!(refused(Framing::Chunked, b"b\r\n"), Refused::TooLarge(11));
    assert_eq!(refused(Framing::Chunked, b"6\r\nabcdef\r\n5\r\n"), Refused::TooLarge(11));
    assert_eq!(refused(Framing::Chunked, b"ffffffffffffffff\r\n"), Refused::TooLarge(u64::MAX));
    assert_eq!(refused(Framing::Chunked, b"6\r\nabcdef\r\nffffffffffffffff\r\n"), Refused::TooLarge(u64::MAX));
    assert_eq!(refused(Framing::UntilClose, b"0123456789a"), Refused::TooLarge(11));
    assert_eq!(collect(Framing::UntilClose, b"0123456789", 3, 10), whole(b"0123456789", b""));
    assert_eq!(collect(Framing::Chunked, b"a\r\n0123456789\r\n0\r\n\r\n", 3, 10), whole(b"0123456789", b""));
}

#[test]
fn memory_follows_what_was_received() {
    let four_gb = 4 << 30;
    let mut collector = Collector::new(Decoder::new(Framing::Exact(four_gb)), usize::MAX);
    assert_eq!(collector.absorb(&mut BytesMut::from(&b"x"[..])), Ok(false));
    let _ = collector.room();
    assert!(collector.bytes.capacity() <= FIRST_BYTES, "{}", collector.bytes.capacity());

    for total in [1, 100, FIRST_BYTES, 1 << 20, 64 << 20, (64 << 20) + 1, 100_000_007, usize::MAX] {
        let (mut received, mut steps) = (0, Vec::new());
        while received < total {
            let capacity = next_capacity(received, total);
            assert!(capacity > received && capacity <= total, "{received} of {total}: {capacity}");
            assert!(capacity <= FIRST_BYTES.max(received.saturating_mul(17)), "{received} of {total}: {capacity}");
            steps.push(capacity);
            received = capacity;
        }
        if let [.., before, _] = steps[..] {
            assert!(before <= FIRST_BYTES.max(total / 16), "the last copy is small: {steps:?}");
        }
    }
}
