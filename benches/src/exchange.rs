//! What is sent and what must come back, the same for every subject: a subject that loses bytes is not fast.

use anyhow::{Result, ensure};
use bytes::Bytes;

use crate::{Case, Work};

/// The request of one case, and the check of its reply.
#[derive(Debug, Clone)]
pub struct Exchange {
    case: Case,
    /// What every call sends; cloning it copies nothing.
    pub request: Bytes,
    sum: u64,
}

impl Exchange {
    /// The exchange of that case.
    pub fn new(case: Case) -> Self {
        let payload = payload(case.size);
        let sum = sum(&payload);
        let request = match case.work {
            Work::Echo | Work::Upload => payload,
            Work::Download => Bytes::from_static(&[7; 8]),
        };
        Self { case, request, sum }
    }

    /// Checks a reply that is here whole. For an echo its length and its ends, since comparing all of it would be measured, too.
    ///
    /// # Errors
    /// When it is not the reply to this request.
    pub fn check(&self, reply: &[u8]) -> Result<()> {
        let expected = response_len(self.case.work, self.case.size);
        ensure!(reply.len() == expected, "a reply of {} bytes instead of {expected}", reply.len());
        match self.case.work {
            Work::Echo => {
                let ends = reply.len().min(8);
                ensure!(reply[..ends] == self.request[..ends], "a reply that begins otherwise than its request");
                let at = reply.len() - ends;
                ensure!(reply[at..] == self.request[at..], "a reply that ends otherwise than its request");
            }
            Work::Upload => ensure!(*reply == self.sum.to_le_bytes(), "the plugin summed up other bytes"),
            Work::Download => self.check_sum(sum(reply))?,
        }
        Ok(())
    }

    /// Checks the sum of a reply that was summed while it came.
    ///
    /// # Errors
    /// When it is another one.
    pub fn check_sum(&self, sum: u64) -> Result<()> {
        ensure!(sum == self.sum, "the reply is made of other bytes");
        Ok(())
    }
}

/// The plugin's half of an [`Exchange`].
#[derive(Debug, Clone)]
pub struct Answering {
    work: Work,
    payload: Bytes,
}

impl Answering {
    /// How to answer this work.
    pub fn new(work: Work, size: usize) -> Self {
        Self { work, payload: if work == Work::Download { payload(size) } else { Bytes::new() } }
    }

    /// What a download answers.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The reply to `request`; copies nothing.
    pub fn answer(&self, request: Bytes) -> Bytes {
        match self.work {
            Work::Echo => request,
            Work::Upload => Bytes::copy_from_slice(&sum(&request).to_le_bytes()),
            Work::Download => self.payload.clone(),
        }
    }
}

/// Bytes that both sides can make for themselves.
pub fn payload(size: usize) -> Bytes {
    (0..size).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8).collect::<Vec<u8>>().into()
}

/// Sums words of eight bytes, which reads memory as fast as it comes. Slices may be summed one after the other if all but the
/// last are of whole words.
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(whole, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// The bytes of a request.
pub fn request_len(work: Work, size: usize) -> usize {
    if work == Work::Download { 8 } else { size }
}

/// The bytes of a reply.
pub fn response_len(work: Work, size: usize) -> usize {
    if work == Work::Upload { 8 } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_reply_passes() {
        for (work, size) in [(Work::Echo, 64), (Work::Echo, 3), (Work::Upload, 1000), (Work::Download, 1000)] {
            let exchange = Exchange::new(Case { work, size, in_flight: 1 });
            let reply = Answering::new(work, size).answer(exchange.request.clone());
            assert_eq!((exchange.request.len(), reply.len()), (request_len(work, size), response_len(work, size)));
            exchange.check(&reply).unwrap();
            let mut wrong = reply.to_vec();
            *wrong.last_mut().unwrap() ^= 1;
            assert!(exchange.check(&wrong).is_err(), "{work:?}");
            assert!(exchange.check(&reply[1..]).is_err(), "{work:?}");
        }
    }
}
