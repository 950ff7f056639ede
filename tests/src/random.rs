//! Random numbers from a printed seed: the same seed gives the same run.

/// SplitMix64: small, and good enough to choose faults.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % bound.max(1) as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::with_capacity(count + 8);
        while out.len() < count {
            out.extend(self.next_u64().to_le_bytes());
        }
        out.truncate(count);
        out
    }

    /// `valid` with one to four wounds: bits flipped, pieces cut out, doubled, swapped, or replaced by what parsers fear;
    /// never as it was.
    pub fn mutate(&mut self, valid: &[u8]) -> Vec<u8> {
        loop {
            let wounded = self.wound(valid);
            if wounded != valid {
                return wounded;
            }
        }
    }

    fn wound(&mut self, valid: &[u8]) -> Vec<u8> {
        const FEARED: [&[u8]; 14] = [
            b"\0",
            b"\r\n\r\n",
            b"\n",
            b"-1",
            b"18446744073709551616",
            b"99999999999999999999999",
            b"{",
            b"[[[[[[[[",
            b"\"",
            b"\xff\xfe",
            b"\\u0000",
            b"%00",
            b": ",
            b"\r",
        ];
        let mut out = valid.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len() + 1);
            let end = (at + self.below(16)).min(out.len());
            match self.below(6) {
                0 if at < out.len() => out[at] ^= 1 << self.below(8),
                1 => drop(out.drain(at..end)),
                2 => out.truncate(at),
                3 => {
                    let piece = out[at..end].to_vec();
                    out.splice(at..at, piece);
                }
                4 => {
                    let piece = *self.pick(&FEARED);
                    out.splice(at..end, piece.iter().copied());
                }
                _ => {
                    let count = self.below(24);
                    let noise = self.bytes(count);
                    out.splice(at..at, noise);
                }
            }
        }
        out
    }
}
