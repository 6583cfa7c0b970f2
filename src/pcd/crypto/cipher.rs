//! The four block ciphers behind one type, in CBC.
//!
//! A [`Cipher`] is a key schedule: it is made once a session (or once a handshake) and used for
//! every block. An [`Iv`] is the CBC chaining value and belongs to whoever keeps the chain.

use core::mem::ManuallyDrop;

use aes::Aes128;
use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt,
    BlockModeDecrypt as _, BlockSizeUser, InnerIvInit as _, IvState as _, KeyInit,
    array::ArraySize,
};
use des::{Des, TdesEde2, TdesEde3};

use super::cmac::Subkeys;
use super::work::{CbcDirection, CbcWork};
use crate::pcd::bytes::{copy, keep_zeros, wipe};
use crate::pcd::key::Key;
use crate::wire::KeyType;

/// The longest block.
pub(in crate::pcd) const MAX_BLOCK: usize = 16;

/// CBC chaining value; a cipher with 8-byte blocks uses the first half.
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq, Eq))]
pub(in crate::pcd) struct Iv([u8; MAX_BLOCK]);

impl Iv {
    /// All zero: the start of every chain.
    pub(in crate::pcd) const ZERO: Self = Self([0; MAX_BLOCK]);

    /// The bytes that matter for blocks of `block_len`.
    pub(in crate::pcd) fn bytes(&self, block_len: usize) -> &[u8] {
        self.0.get(..block_len).unwrap_or_default()
    }

    /// From at most a block's bytes.
    pub(in crate::pcd) fn from_slice(bytes: &[u8]) -> Self {
        let mut iv = Self::ZERO;
        copy(bytes, &mut iv.0);
        iv
    }

    /// As the block that a cipher takes.
    fn block<N: ArraySize>(&mut self) -> Option<&mut Array<u8, N>> {
        Array::slice_as_chunks_mut(&mut self.0).0.first_mut()
    }
}

impl Drop for Iv {
    #[inline]
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// A key schedule. Its own `drop` would write it over byte by byte, and part of the room only.
pub(crate) struct Cipher(ManuallyDrop<Schedule>);

enum Schedule {
    Des(Des),
    TwoKey3Des(TdesEde2),
    ThreeKey3Des(TdesEde3),
    Aes(Aes128),
    /// All of the room that any of them takes.
    Gone([u8; ROOM]),
}

/// As [`Schedule`] is without `Gone`: its size differs from machine to machine.
#[allow(dead_code, reason = "for its size")]
enum Room {
    Des(Des),
    TwoKey3Des(TdesEde2),
    ThreeKey3Des(TdesEde3),
    Aes(Aes128),
}

/// All but the tag.
const ROOM: usize = size_of::<Room>() - 1;

// `Gone` begins right behind the tag and covers the rest.
const _: () = assert!(size_of::<Schedule>() == ROOM + 1);

impl Drop for Cipher {
    /// All of the room: a small schedule leaves much of it unused, and when it was moved here, parts of
    /// schedules that had been on the stack may have come along.
    fn drop(&mut self) {
        self.0 = ManuallyDrop::new(Schedule::Gone([0; ROOM]));
        if let Schedule::Gone(room) = &mut *self.0 {
            keep_zeros(room);
        }
    }
}

/// Calls a generic function with the cipher inside.
macro_rules! with_cipher {
    ($self:expr, $function:ident($($argument:expr),*)) => {
        match &*$self.0 {
            Schedule::Des(cipher) => $function(cipher, $($argument),*),
            Schedule::TwoKey3Des(cipher) => $function(cipher, $($argument),*),
            Schedule::ThreeKey3Des(cipher) => $function(cipher, $($argument),*),
            Schedule::Aes(cipher) => $function(cipher, $($argument),*),
            // Between `drop` and the end of it.
            Schedule::Gone(_) => {}
        }
    };
}

impl Cipher {
    /// Sets up the key schedule.
    pub(crate) fn new(key: &Key) -> Self {
        #[cfg(test)]
        testing::count_schedule();
        Self(ManuallyDrop::new(match key.key_type() {
            KeyType::Des => Schedule::Des(schedule(key)),
            KeyType::TwoKey3Des => Schedule::TwoKey3Des(schedule(key)),
            KeyType::ThreeKey3Des => Schedule::ThreeKey3Des(schedule(key)),
            KeyType::Aes => Schedule::Aes(schedule(key)),
        }))
    }

    /// Length of a block in bytes.
    pub(in crate::pcd) fn block_len(&self) -> usize {
        match *self.0 {
            Schedule::Aes(_) => 16,
            _ => 8,
        }
    }

    /// Encrypts whole blocks in place.
    pub(in crate::pcd) fn cbc_encrypt(&self, iv: &mut Iv, data: &mut [u8]) {
        self.cbc_encrypt_both(iv, [data, &mut []]);
    }

    /// The same with two runs of whole blocks, one chain: to get at a cipher is not for nothing.
    pub(in crate::pcd) fn cbc_encrypt_both(&self, iv: &mut Iv, data: [&mut [u8]; 2]) {
        with_cipher!(self, encrypt(iv, data));
    }

    /// Decrypts whole blocks in place.
    pub(in crate::pcd) fn cbc_decrypt(&self, iv: &mut Iv, data: &mut [u8]) {
        with_cipher!(self, decrypt(iv, data));
    }

    /// Runs data through CBC encryption and keeps only the chaining value. A last block that is not
    /// whole is filled up with zeros.
    pub(in crate::pcd) fn cbc_absorb(&self, iv: &mut Iv, data: &[u8]) {
        with_cipher!(self, absorb(iv, &[data], None));
    }

    /// The same with the joined `parts` and the end of a CMAC: K1 goes into the last block if it is
    /// whole, otherwise a mark and K2.
    #[inline]
    pub(in crate::pcd) fn cmac_absorb(&self, iv: &mut Iv, parts: &[&[u8]], subkeys: &Subkeys) {
        with_cipher!(self, absorb(iv, parts, Some(subkeys)));
    }

    /// Does all that a computation asks of this key.
    pub(in crate::pcd) fn work(&self, work: &mut impl CbcWork) {
        while let Some(task) = work.task() {
            self.cbc(task.direction, task.iv, task.data);
            work.done();
        }
    }

    /// CBC over whole blocks in place, from an IV that is carried nowhere.
    pub(crate) fn cbc(&self, direction: CbcDirection, iv: &[u8], data: &mut [u8]) {
        let mut iv = Iv::from_slice(iv);
        match direction {
            CbcDirection::Encrypt => self.cbc_encrypt(&mut iv, data),
            CbcDirection::Decrypt => self.cbc_decrypt(&mut iv, data),
        }
    }

    /// D40 "send mode" over whole blocks in place: y = D(x ⊕ y of the block before), the
    /// reader's half of a protocol in which the card only ever encrypts.
    pub(in crate::pcd) fn send_mode(&self, iv: &mut Iv, data: &mut [u8]) {
        with_cipher!(self, send(iv, data));
    }
}

/// Takes as many of the key's bytes as the cipher wants.
#[inline]
fn schedule<C: KeyInit>(key: &Key) -> C {
    let mut bytes = cbc::cipher::Key::<C>::default();
    copy(key.cipher_bytes(), &mut bytes);
    let cipher = C::new(&bytes);
    wipe(&mut bytes);
    cipher
}

/// CBC encryption, inside the cipher's own loop.
struct Encrypt<'a, N: ArraySize> {
    state: &'a mut Array<u8, N>,
    data: [&'a mut [u8]; 2],
}

impl<N: ArraySize> BlockSizeUser for Encrypt<'_, N> {
    type BlockSize = N;
}

impl<N: ArraySize> BlockCipherEncClosure for Encrypt<'_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = N>>(self, backend: &B) {
        // A value of its own, so that it can stay in registers.
        let mut state = self.state.clone();
        for data in self.data {
            let (blocks, rest) = Array::<u8, N>::slice_as_chunks_mut(data);
            debug_assert!(rest.is_empty(), "whole blocks only");
            for block in blocks {
                add(state.iter_mut(), block);
                backend.encrypt_block((&mut state).into());
                *block = state.clone();
            }
        }
        *self.state = state;
    }
}

fn encrypt<C: BlockCipherEncrypt>(cipher: &C, iv: &mut Iv, data: [&mut [u8]; 2]) {
    if let Some(state) = iv.block() {
        cipher.encrypt_with_backend(Encrypt { state, data });
    }
}

fn decrypt<C: BlockCipherDecrypt>(cipher: &C, iv: &mut Iv, data: &mut [u8]) {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    debug_assert!(rest.is_empty(), "whole blocks only");
    if let Some(state) = iv.block() {
        let mut mode = cbc::Decryptor::inner_iv_init(cipher, state);
        mode.decrypt_blocks(blocks);
        *state = mode.iv_state();
    }
}

/// CBC-MAC over joined parts, inside the cipher's own loop: no dispatch and no copy for each block.
struct Absorb<'a, N: ArraySize> {
    state: &'a mut Array<u8, N>,
    parts: &'a [&'a [u8]],
    subkeys: Option<&'a Subkeys>,
}

impl<N: ArraySize> BlockSizeUser for Absorb<'_, N> {
    type BlockSize = N;
}

impl<N: ArraySize> BlockCipherEncClosure for Absorb<'_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = N>>(self, backend: &B) {
        // A value of its own, so that it can stay in registers. That is why a block that comes in parts is
        // put together beside it: bytes written one by one cannot be read as a block before they have
        // reached the cache, and beside the chain nobody waits for that.
        let mut state = self.state.clone();
        let mut block = Array::<u8, N>::default();
        // How much of it is there. A full one waits until more bytes come: before, it may be the last.
        let mut fill = 0;
        for part in self.parts {
            let mut rest = *part;
            if fill > 0 {
                let (start, later) = rest.split_at(rest.len().min(N::USIZE - fill));
                add(block.iter_mut().skip(fill), start);
                fill += start.len();
                rest = later;
            }
            if rest.is_empty() {
                continue;
            }
            if fill != 0 {
                add(state.iter_mut(), &block);
                backend.encrypt_block((&mut state).into());
            }
            let (blocks, last) = rest.split_at((rest.len() - 1) / N::USIZE * N::USIZE);
            for block in Array::<u8, N>::slice_as_chunks(blocks).0 {
                add(state.iter_mut(), block);
                backend.encrypt_block((&mut state).into());
            }
            block = Array::default();
            add(block.iter_mut(), last);
            fill = last.len();
        }
        match self.subkeys {
            Some(subkeys) => {
                let complete = fill == N::USIZE;
                if !complete {
                    add(block.iter_mut().skip(fill), &[0x80]);
                }
                add(state.iter_mut(), subkeys.for_last(complete));
            }
            None if fill == 0 => return,
            None => {}
        }
        add(state.iter_mut(), &block);
        backend.encrypt_block((&mut state).into());
        *self.state = state;
    }
}

/// Addition in GF(2).
#[inline(always)]
fn add<'a>(to: impl Iterator<Item = &'a mut u8>, bytes: &[u8]) {
    for (to, byte) in to.zip(bytes) {
        *to ^= byte;
    }
}

fn absorb<C: BlockCipherEncrypt>(
    cipher: &C,
    iv: &mut Iv,
    parts: &[&[u8]],
    subkeys: Option<&Subkeys>,
) {
    if let Some(state) = iv.block() {
        cipher.encrypt_with_backend(Absorb {
            state,
            parts,
            subkeys,
        });
    }
}

fn send<C: BlockCipherDecrypt>(cipher: &C, iv: &mut Iv, data: &mut [u8]) {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    debug_assert!(rest.is_empty(), "whole blocks only");
    let Some(previous) = iv.block::<C::BlockSize>() else {
        return;
    };
    for block in blocks {
        add(block.iter_mut(), previous);
        cipher.decrypt_block(block);
        previous.clone_from(block);
    }
}

/// How many key schedules this thread has set up.
#[cfg(test)]
pub(in crate::pcd) mod testing {
    use core::cell::Cell;

    std::thread_local! {
        static SCHEDULES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count_schedule() {
        SCHEDULES.set(schedules() + 1);
    }

    pub(in crate::pcd) fn schedules() -> usize {
        SCHEDULES.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The DES key of the reference's D40 examples (proxmark3 and nfcjlib agree on the rule).
    fn key() -> Cipher {
        Cipher::new(&Key::des([0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]))
    }

    /// Nothing absorbed, nothing enciphered: the MAC of no data is the IV, under every key.
    #[test]
    fn no_data() {
        let mut iv = Iv::ZERO;
        key().cbc_absorb(&mut iv, &[]);
        assert_eq!(iv.bytes(8), [0; 8]);
        key().cbc_absorb(&mut iv, &[0]);
        assert_ne!(iv.bytes(8), [0; 8]);
    }

    #[test]
    fn send_mode_is_undone_by_the_cards_encryption() {
        let plain = *b"0123456789abcdef01234567";
        let cipher = key();
        let mut data = plain;
        cipher.send_mode(&mut Iv::ZERO.clone(), &mut data);
        assert_ne!(data, plain);
        // The card: x = E(y) ⊕ previous y.
        let mut previous = [0; 8];
        for (y, x) in data.chunks_exact(8).zip(plain.chunks_exact(8)) {
            let mut block = [0; 8];
            block.copy_from_slice(y);
            cipher.cbc_encrypt(&mut Iv::ZERO.clone(), &mut block);
            for (byte, previous) in block.iter_mut().zip(previous) {
                *byte ^= previous;
            }
            assert_eq!(block, x);
            previous.copy_from_slice(y);
        }
    }

    #[test]
    fn the_chain_goes_on_across_calls() {
        for key in [
            Key::des([1, 2, 3, 4, 5, 6, 7, 8]),
            Key::two_key_3des(*b"0123456789abcdef").unwrap(),
            Key::three_key_3des(*b"0123456789abcdefghijklmn"),
            Key::aes(*b"0123456789abcdef"),
        ] {
            let cipher = Cipher::new(&key);
            let mut whole = [0x5A; 64];
            let mut parts = whole;
            let (mut iv1, mut iv2) = (Iv::ZERO, Iv::ZERO);
            cipher.cbc_encrypt(&mut iv1, &mut whole);
            for part in parts.chunks_exact_mut(16) {
                cipher.cbc_encrypt(&mut iv2, part);
            }
            assert_eq!(whole, parts);
            assert!(iv1 == iv2);
            assert_eq!(
                iv1.bytes(cipher.block_len()),
                &whole[64 - cipher.block_len()..]
            );
            let mut absorbed = Iv::ZERO;
            cipher.cbc_absorb(&mut absorbed, &[0x5A; 64]);
            assert!(absorbed == iv1);
            let (mut iv1, mut iv2) = (Iv::ZERO, Iv::ZERO);
            cipher.cbc_decrypt(&mut iv1, &mut whole);
            cipher.cbc_decrypt(&mut iv2, &mut parts[..16]);
            cipher.cbc_decrypt(&mut iv2, &mut parts[16..]);
            assert_eq!((whole, parts), ([0x5A; 64], [0x5A; 64]));
            assert!(iv1 == iv2);
        }
    }
}
