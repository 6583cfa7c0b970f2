//! A protected request as a stream of bytes, made as the frames ask for them.
//!
//! `data ‖ trailer`, where the trailer (MAC, or CRCs and padding) is known before the first byte
//! goes out; enciphered requests are enciphered block by block on the way. So a request of any
//! length needs no buffer but the frame's own and one block.

use zeroize::ZeroizeOnDrop;

use super::Padding;
use crate::pcd::crypto::cipher::{Iv, MAX_BLOCK};

/// Two CRC32 and a block of padding.
const MAX_TRAILER: usize = 4 + 4 + MAX_BLOCK;

/// What is left to send of a protected request. Of this only the trailer tells of the data in clear;
/// the rest is lengths, and ciphertext that goes out.
#[derive(ZeroizeOnDrop)]
pub(in crate::pcd) struct Sealed {
    trailer: [u8; MAX_TRAILER],
    #[zeroize(skip)]
    trailer_len: usize,
    #[zeroize(skip)]
    data_len: usize,
    /// How much of `data ‖ trailer` has been taken.
    #[zeroize(skip)]
    position: usize,
    /// D40 keeps its chaining value here, as it lives for one operation only.
    #[zeroize(skip)]
    pub(super) iv: Iv,
    /// Ciphertext of a block that did not fit into the frame.
    #[zeroize(skip)]
    carry: [u8; MAX_BLOCK],
    #[zeroize(skip)]
    carry_from: usize,
    #[zeroize(skip)]
    carry_to: usize,
    #[zeroize(skip)]
    enciphered: bool,
}

impl Sealed {
    /// Data in clear, with a MAC or nothing behind it.
    pub(super) fn clear(data_len: usize, mac: &[u8]) -> Self {
        Self::new(data_len, [mac, &[]], false)
    }

    /// Data to be enciphered, with CRCs and padding behind them.
    pub(super) fn enciphered(
        data_len: usize,
        crcs: [&[u8]; 2],
        padding: Padding,
        block_len: usize,
    ) -> Self {
        let mut sealed = Self::new(data_len, crcs, true);
        if padding == Padding::Marked {
            sealed.push(0x80);
        }
        while !(sealed.data_len + sealed.trailer_len).is_multiple_of(block_len) {
            sealed.push(0);
        }
        sealed
    }

    fn new(data_len: usize, parts: [&[u8]; 2], enciphered: bool) -> Self {
        let mut trailer = [0; MAX_TRAILER];
        let mut trailer_len = 0;
        for part in parts {
            for (to, from) in trailer.iter_mut().skip(trailer_len).zip(part) {
                *to = *from;
            }
            trailer_len += part.len();
        }
        debug_assert!(trailer_len <= MAX_TRAILER);
        Self {
            trailer,
            trailer_len,
            data_len,
            position: 0,
            iv: Iv::ZERO,
            carry: [0; MAX_BLOCK],
            carry_from: 0,
            carry_to: 0,
            enciphered,
        }
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
        for (to, from) in from_data.iter_mut().zip(rest_of_data) {
            *to = *from;
        }
        self.position += from_data.len();
        let taken = self.position - self.data_len.min(self.position);
        for (to, from) in from_trailer.iter_mut().zip(self.trailer.iter().skip(taken)) {
            *to = *from;
        }
        self.position += from_trailer.len();
    }

    /// The next bytes of a request in clear; returns how many.
    pub(super) fn take_clear(&mut self, data: &[u8], out: &mut [u8]) -> usize {
        let len = out.len().min(self.remaining());
        let (out, _) = out.split_at_mut(len);
        self.fill(data, out);
        len
    }

    /// The next bytes of any request; `encipher` enciphers whole blocks in place.
    pub(super) fn take(
        &mut self,
        data: &[u8],
        out: &mut [u8],
        block_len: usize,
        mut encipher: impl FnMut(&mut Iv, &mut [u8]),
    ) -> usize {
        if !self.enciphered {
            return self.take_clear(data, out);
        }
        let len = out.len().min(self.remaining());
        let (out, _) = out.split_at_mut(len);
        let (carried, out) = out.split_at_mut((self.carry_to - self.carry_from).min(len));
        for (to, from) in carried
            .iter_mut()
            .zip(self.carry.iter().skip(self.carry_from))
        {
            *to = *from;
        }
        self.carry_from += carried.len();

        let (blocks, rest) = out.split_at_mut(out.len() / block_len * block_len);
        self.fill(data, blocks);
        if !blocks.is_empty() {
            encipher(&mut self.iv, blocks);
        }
        if !rest.is_empty() {
            let mut block = [0; MAX_BLOCK];
            if let Some(block) = block.get_mut(..block_len) {
                self.fill(data, block);
                encipher(&mut self.iv, block);
            }
            for (to, from) in rest.iter_mut().zip(block) {
                *to = from;
            }
            self.carry = block;
            self.carry_from = rest.len();
            self.carry_to = block_len;
        }
        len
    }
}
