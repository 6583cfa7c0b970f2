//! A protected request as a stream of bytes, made as the frames ask for them.
//!
//! `data ‖ trailer`, where the trailer (MAC, or CRCs and padding) is known before the first byte
//! goes out; enciphered requests are enciphered block by block on the way. So a request of any
//! length needs no buffer but the frame's own and one block.

use super::Padding;
use crate::pcd::bytes::{Wiped, copy};
use crate::pcd::crypto::cipher::{Iv, MAX_BLOCK};

/// Two CRC32 and a block of padding.
const MAX_TRAILER: usize = 4 + 4 + MAX_BLOCK;

/// What is left to send of a protected request. Of this only the trailer tells of the data in clear;
/// the rest is lengths, and ciphertext that goes out.
pub(in crate::pcd) struct Sealed {
    trailer: Wiped<MAX_TRAILER>,
    trailer_len: usize,
    data_len: usize,
    /// How much of `data ‖ trailer` has been taken.
    position: usize,
    /// D40 keeps its chaining value here, as it lives for one operation only.
    pub(super) iv: Iv,
    /// Ciphertext of a block that did not fit into the frame.
    carry: [u8; MAX_BLOCK],
    carry_from: usize,
    carry_to: usize,
    enciphered: bool,
}

impl Sealed {
    /// Nothing to send.
    pub(in crate::pcd) const fn empty() -> Self {
        Self {
            trailer: Wiped::new([0; MAX_TRAILER]),
            trailer_len: 0,
            data_len: 0,
            position: 0,
            iv: Iv::ZERO,
            carry: [0; MAX_BLOCK],
            carry_from: 0,
            carry_to: 0,
            enciphered: false,
        }
    }

    /// Becomes data in clear, with a MAC or nothing behind it.
    #[inline]
    pub(super) fn clear(&mut self, data_len: usize, mac: &[u8]) {
        self.begin(data_len, [mac, &[]], false);
    }

    /// Becomes data to be enciphered, with CRCs and padding behind them.
    pub(super) fn enciphered(
        &mut self,
        data_len: usize,
        crcs: [&[u8]; 2],
        padding: Padding,
        block_len: usize,
    ) {
        self.begin(data_len, crcs, true);
        if padding == Padding::Marked {
            self.push(0x80);
        }
        let len = self.data_len + self.trailer_len;
        self.trailer_len += len.next_multiple_of(block_len) - len;
        debug_assert!(self.trailer_len <= MAX_TRAILER);
    }

    #[inline]
    fn begin(&mut self, data_len: usize, parts: [&[u8]; 2], enciphered: bool) {
        *self.trailer = [0; MAX_TRAILER];
        self.trailer_len = 0;
        self.data_len = data_len;
        self.position = 0;
        self.iv = Iv::ZERO;
        self.carry_from = 0;
        self.carry_to = 0;
        self.enciphered = enciphered;
        for part in parts {
            let room = self.trailer.get_mut(self.trailer_len..);
            copy(part, room.unwrap_or_default());
            self.trailer_len += part.len();
        }
        debug_assert!(self.trailer_len <= MAX_TRAILER);
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.trailer.get_mut(self.trailer_len) {
            *place = byte;
        }
        self.trailer_len += 1;
        debug_assert!(self.trailer_len <= MAX_TRAILER);
    }

    /// How many bytes are still to be sent.
    pub(in crate::pcd) const fn remaining(&self) -> usize {
        self.data_len + self.trailer_len - self.position + self.carry_to - self.carry_from
    }

    /// Copies the next bytes of `data ‖ trailer` into all of `out`, which must not be longer
    /// than what is left.
    fn fill(&mut self, data: &[u8], out: &mut [u8]) {
        let rest_of_data = data.get(self.position..).unwrap_or_default();
        let (from_data, from_trailer) = out.split_at_mut(rest_of_data.len().min(out.len()));
        copy(rest_of_data, from_data);
        self.position += from_data.len();
        let taken = self.position - self.data_len.min(self.position);
        copy(self.trailer.get(taken..).unwrap_or_default(), from_trailer);
        self.position += from_trailer.len();
    }

    /// The next bytes of a request in clear; returns how many.
    #[inline]
    pub(super) fn take_clear(&mut self, data: &[u8], out: &mut [u8]) -> usize {
        let len = out.len().min(self.remaining());
        let (out, _) = out.split_at_mut(len);
        self.fill(data, out);
        len
    }

    /// The next bytes of any request; `encipher` enciphers whole blocks in place, two runs of them.
    pub(super) fn take(
        &mut self,
        data: &[u8],
        out: &mut [u8],
        block_len: usize,
        encipher: impl FnOnce(&mut Iv, [&mut [u8]; 2]),
    ) -> usize {
        if !self.enciphered {
            return self.take_clear(data, out);
        }
        let len = out.len().min(self.remaining());
        let (out, _) = out.split_at_mut(len);
        let (carried, out) = out.split_at_mut((self.carry_to - self.carry_from).min(len));
        copy(
            self.carry.get(self.carry_from..).unwrap_or_default(),
            carried,
        );
        self.carry_from += carried.len();

        let (blocks, rest) = out.split_at_mut(out.len() / block_len * block_len);
        self.fill(data, blocks);
        let mut block = [0; MAX_BLOCK];
        let last_len = if rest.is_empty() { 0 } else { block_len };
        let last = block.get_mut(..last_len).unwrap_or_default();
        self.fill(data, last);
        if !(blocks.is_empty() && last.is_empty()) {
            encipher(&mut self.iv, [blocks, last]);
        }
        if !rest.is_empty() {
            copy(&block, rest);
            self.carry = block;
            self.carry_from = rest.len();
            self.carry_to = block_len;
        }
        len
    }
}
