//! The floor: the block cipher and the CRC over the bytes that a protection is about, called directly, with
//! the key schedule ready and the bytes laid out as the calls want them, and nothing else.

#![allow(
    dead_code,
    clippy::expect_used,
    reason = "shared by three programs, each of which uses a part; they are allowed to fail loudly"
)]

use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt,
    BlockModeDecrypt as _, BlockSizeUser, InnerIvInit as _, KeyInit, array::ArraySize,
};
use crc::{CRC_16_ISO_IEC_14443_3_A, CRC_32_JAMCRC, Crc, Table};
use std::hint::black_box;

static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_ISO_IEC_14443_3_A);
static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_JAMCRC);

/// A block cipher with its key schedule.
pub trait Bare {
    fn block_len(&self) -> usize;
    fn encrypt(&self, data: &mut [u8]);
    /// The same, of which only the last block is wanted.
    fn chain(&self, data: &[u8]);
    fn decrypt(&self, data: &[u8], out: &mut [u8]);
    /// D40's direction of the reader.
    fn send(&self, data: &mut [u8]);
}

struct Chain<'a, N: ArraySize>(&'a [Array<u8, N>]);

impl<N: ArraySize> BlockSizeUser for Chain<'_, N> {
    type BlockSize = N;
}

impl<N: ArraySize> BlockCipherEncClosure for Chain<'_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = N>>(self, backend: &B) {
        let mut state = Array::<u8, N>::default();
        for block in self.0 {
            for (state, byte) in state.iter_mut().zip(block) {
                *state ^= byte;
            }
            backend.encrypt_block((&mut state).into());
        }
        black_box(state);
    }
}

/// As `cbc::Encryptor`, which is slower.
struct Encrypt<'a, N: ArraySize>(&'a mut [Array<u8, N>]);

impl<N: ArraySize> BlockSizeUser for Encrypt<'_, N> {
    type BlockSize = N;
}

impl<N: ArraySize> BlockCipherEncClosure for Encrypt<'_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = N>>(self, backend: &B) {
        let mut state = Array::<u8, N>::default();
        for block in self.0 {
            for (state, byte) in state.iter_mut().zip(block.iter()) {
                *state ^= byte;
            }
            backend.encrypt_block((&mut state).into());
            block.clone_from(&state);
        }
    }
}

impl<C: BlockCipherEncrypt + BlockCipherDecrypt> Bare for C {
    fn block_len(&self) -> usize {
        <C as BlockSizeUser>::block_size()
    }

    fn encrypt(&self, data: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        self.encrypt_with_backend(Encrypt(blocks));
    }

    fn chain(&self, data: &[u8]) {
        let (blocks, _) = Array::slice_as_chunks(data);
        self.encrypt_with_backend(Chain(blocks));
    }

    fn decrypt(&self, data: &[u8], out: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks(data);
        let (out, _) = Array::slice_as_chunks_mut(out);
        cbc::Decryptor::inner_iv_init(self, &Array::default())
            .decrypt_blocks_b2b(blocks, out)
            .expect("as many blocks");
    }

    fn send(&self, data: &mut [u8]) {
        let (blocks, _) = Array::<u8, C::BlockSize>::slice_as_chunks_mut(data);
        let mut previous = Array::default();
        for block in blocks {
            for (byte, previous) in block.iter_mut().zip(&previous) {
                *byte ^= previous;
            }
            self.decrypt_block(block);
            previous.clone_from(block);
        }
    }
}

/// From a key's bytes.
pub fn cipher<C: KeyInit>(key: &[u8]) -> C {
    C::new_from_slice(key).expect("as long as the key")
}

pub fn crc16(data: &[u8]) {
    black_box(CRC16.checksum(black_box(data)));
}

pub fn crc32(data: &[u8]) {
    black_box(CRC32.checksum(black_box(data)));
}
