//! What is kept of a plugin's output: the newest lines of each stream, in bounded memory. Pure.

use std::collections::VecDeque;

use goplug_pconf_schema::wire::host::{LogLine, OutputLimits, Stream};

/// What a line costs besides its text, so that empty lines do not fill the memory.
const LINE_OVERHEAD: usize = 64;

/// Both streams of one plugin.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Ring,
    stderr: Ring,
    limits: OutputLimits,
    /// Lines so far, of both streams together.
    lines: u64,
    dropped_lines: u64,
    cut_bytes: u64,
}

/// The newest lines of one stream.
#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    cost: usize,
    /// The line that has no end yet.
    open: Vec<u8>,
    open_cut: u64,
}

impl Output {
    pub(crate) fn new(limits: OutputLimits) -> Self {
        let (stdout, stderr) = (Ring::default(), Ring::default());
        Self { stdout, stderr, limits, lines: 0, dropped_lines: 0, cut_bytes: 0 }
    }

    /// Takes what was read from a stream.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], now_ms: u64) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let limit = self.limits.line_bytes;
            let ring = self.ring(stream);
            let kept = text.len().min(limit - ring.open.len());
            ring.open.extend_from_slice(&text[..kept]);
            ring.open_cut += (text.len() - kept) as u64;
            if ended {
                self.end_line(stream, now_ms);
            }
        }
    }

    /// The stream has ended: what has no newline is a line too.
    pub(crate) fn end(&mut self, stream: Stream, now_ms: u64) {
        if !self.ring(stream).open.is_empty() {
            self.end_line(stream, now_ms);
        }
    }

    fn end_line(&mut self, stream: Stream, now_ms: u64) {
        self.lines += 1;
        let (number, limit) = (self.lines, self.limits.ring_bytes);
        let ring = self.ring(stream);
        let cut_bytes = std::mem::take(&mut ring.open_cut);
        let text = String::from_utf8_lossy(&ring.open).into_owned();
        ring.open.clear();
        ring.cost += cost(&text);
        ring.lines.push_back(LogLine { number, at_ms: now_ms, stream, text, cut_bytes });
        let mut dropped = 0;
        while ring.cost > limit
            && let Some(line) = ring.lines.pop_front()
        {
            ring.cost -= cost(&line.text);
            dropped += 1;
        }
        self.dropped_lines += dropped;
        self.cut_bytes += cut_bytes;
    }

    /// The oldest line above `after` that is kept, of either stream.
    pub(crate) fn next(&self, after: u64) -> Option<&LogLine> {
        let of = |ring: &Ring| ring.lines.partition_point(|line| line.number <= after);
        let (out, err) = (self.stdout.lines.get(of(&self.stdout)), self.stderr.lines.get(of(&self.stderr)));
        match (out, err) {
            (Some(out), Some(err)) => Some(if out.number < err.number { out } else { err }),
            (line, None) | (None, line) => line,
        }
    }

    /// The last lines of standard error: at most `lines`, together at most `bytes`.
    pub(crate) fn last_of_stderr(&self, lines: usize, bytes: usize) -> Vec<String> {
        let mut left = bytes;
        let fits = |line: &&LogLine| {
            let fits = line.text.len() <= left;
            left = left.saturating_sub(line.text.len());
            fits
        };
        let last: Vec<_> = self.stderr.lines.iter().rev().take(lines).take_while(fits).collect();
        if last.is_empty() {
            // A single line that is longer: its beginning says most.
            let begin = |line: &LogLine| line.text.chars().take(bytes / 4).collect();
            return self.stderr.lines.back().map(begin).into_iter().collect();
        }
        last.iter().rev().map(|line| line.text.clone()).collect()
    }

    /// The number of the newest line.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn dropped_lines(&self) -> u64 {
        self.dropped_lines
    }

    pub(crate) fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    fn ring(&mut self, stream: Stream) -> &mut Ring {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

fn cost(text: &str) -> usize {
    text.len() + LINE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(ring_bytes: usize, line_bytes: usize) -> Output {
        Output::new(OutputLimits { ring_bytes, line_bytes })
    }

    fn numbers(output: &Output, after: u64) -> Vec<(u64, String)> {
        let mut seen = Vec::new();
        let mut after = after;
        while let Some(line) = output.next(after) {
            after = line.number;
            seen.push((line.number, line.text.clone()));
        }
        seen
    }

    #[test]
    fn lines_come_whole_and_in_the_order_of_their_ends() {
        let mut output = output(1000, 100);
        for (stream, bytes) in [
            (Stream::Stdout, &b"a"[..]),
            (Stream::Stderr, b"b\nc"),
            (Stream::Stdout, b"d\n\n"),
            (Stream::Stderr, b"\xff\n"),
            (Stream::Stdout, b"no newline"),
        ] {
            output.push(stream, bytes, 7);
        }
        output.end(Stream::Stdout, 8);
        output.end(Stream::Stderr, 8);
        let expected = [(1, "b"), (2, "ad"), (3, ""), (4, "c\u{fffd}"), (5, "no newline")];
        assert_eq!(numbers(&output, 0), expected.map(|(number, text)| (number, text.to_owned())));
        assert_eq!(numbers(&output, 4).len(), 1);
        assert_eq!(output.next(1).map(|line| (line.stream, line.at_ms)), Some((Stream::Stdout, 7)));
        assert_eq!((output.lines(), output.dropped_lines(), output.cut_bytes()), (5, 0, 0));
    }

    #[test]
    fn old_lines_go_and_are_counted_and_the_other_stream_keeps_its_own() {
        let mut output = output(3 * (LINE_OVERHEAD + 1), 100);
        output.push(Stream::Stderr, b"e\n", 0);
        for _ in 0..10 {
            output.push(Stream::Stdout, b"x\n", 0);
        }
        let kept: Vec<u64> = numbers(&output, 0).into_iter().map(|(number, _)| number).collect();
        assert_eq!(kept, [1, 9, 10, 11]);
        assert_eq!((output.lines(), output.dropped_lines()), (11, 7));
    }

    #[test]
    fn a_line_without_an_end_costs_no_more_than_the_limit() {
        let mut output = output(1000, 10);
        for _ in 0..1000 {
            output.push(Stream::Stdout, &[b'x'; 1000], 0);
        }
        assert!(output.stdout.open.capacity() <= 64, "{}", output.stdout.open.capacity());
        output.push(Stream::Stdout, b"\nnext\n", 0);
        assert_eq!(numbers(&output, 0), [(1, "x".repeat(10)), (2, "next".to_owned())]);
        assert_eq!(output.next(0).map(|line| line.cut_bytes), Some(999_990));
        assert_eq!(output.cut_bytes(), 999_990);
    }

    #[test]
    fn the_last_words_are_short() {
        let mut output = output(100_000, 10_000);
        assert_eq!(output.last_of_stderr(3, 100), [""; 0]);
        for n in 0..10 {
            output.push(Stream::Stderr, format!("line {n}\n").as_bytes(), 0);
        }
        assert_eq!(output.last_of_stderr(3, 100), ["line 7", "line 8", "line 9"]);
        assert_eq!(output.last_of_stderr(10, 13), ["line 8", "line 9"]);
        output.push(Stream::Stderr, &[&[b'x'; 5000][..], b"\n"].concat(), 0);
        assert_eq!(output.last_of_stderr(3, 100), ["x".repeat(25)]);
    }

    #[test]
    fn a_line_beyond_the_whole_ring_is_dropped() {
        let mut output = output(70, 1000);
        output.push(Stream::Stdout, &[&[b'x'; 500][..], b"\n"].concat(), 0);
        assert_eq!((numbers(&output, 0).len(), output.dropped_lines()), (0, 1));
    }
}
