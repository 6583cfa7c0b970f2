//! Reading an input from its front to its end, and writing one, for the seeds.
//!
//! `arbitrary` does the reading; where it would take lengths from the end of the input, a length
//! byte in place keeps what belongs together together, so that a fuzzer can cut and join inputs.

use arbitrary::Unstructured;

/// An input; zeros follow its end.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    /// All of it.
    pub fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    /// Nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Less than `end`, from one byte.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Up to 255 bytes: a length byte, then so many.
    pub fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        self.0.bytes(len).unwrap_or_default()
    }

    /// Exactly so many; zeros where the input ends.
    pub fn exactly(&mut self, len: usize) -> Vec<u8> {
        let there = len.min(self.0.len());
        let mut bytes = self.0.bytes(there).unwrap_or_default().to_vec();
        bytes.resize(len, 0);
        bytes
    }
}

/// Appends what [`Input::chunk`] reads.
///
/// # Panics
/// If it is longer than 255 bytes.
pub fn put_chunk(out: &mut Vec<u8>, chunk: &[u8]) {
    out.push(u8::try_from(chunk.len()).expect("a short chunk"));
    out.extend_from_slice(chunk);
}

/// A number below `end` out of the front of `data` from `at` on, as `arbitrary` takes it: the fewest
/// bytes that can hold it.
pub fn draw(data: &[u8], at: &mut usize, end: u64) -> u64 {
    let mut rest = Unstructured::new(data.get(*at..).unwrap_or_default());
    let drawn = rest.int_in_range(0..=end - 1).unwrap_or_default();
    *at = data.len() - rest.len();
    drawn
}

/// Appends what [`draw`] reads as `drawn`.
pub fn put_draw(out: &mut Vec<u8>, drawn: u64, end: u64) {
    let len = (u64::BITS - (end - 1).leading_zeros()).div_ceil(8) as usize;
    out.extend_from_slice(&drawn.to_be_bytes()[8 - len..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_there_and_back() {
        for end in [1, 2, 3, 100, 255, 256, 257, 40_000, 65_537, 1 << 40] {
            for drawn in [0, 1, end / 3, end / 2, end - 1] {
                if drawn >= end {
                    continue;
                }
                let mut bytes = Vec::new();
                put_draw(&mut bytes, drawn, end);
                let len = bytes.len();
                bytes.push(0xFF);
                let mut at = 0;
                assert_eq!(draw(&bytes, &mut at, end), drawn, "below {end}");
                assert_eq!(at, len);
            }
        }
    }
}
