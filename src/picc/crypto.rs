//! Block ciphers, CBC, CMAC and CRCs of the card.
//!
//! Written apart from the reader side and by other means: whole messages at once, CBC as a
//! loop over the bare block ciphers, triple DES out of three single ones, CRCs bit by bit.

use alloc::boxed::Box;
use alloc::vec::Vec;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use des::Des;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::wire::KeyType;

/// The IV of either block size; an 8-byte block uses the first half, the rest stays zero.
pub(super) type Iv = [u8; 16];

/// A block cipher with its key. The ciphers wipe their key schedules when dropped.
#[derive(Clone)]
pub(super) enum Cipher {
    /// E(K1) D(K2) E(K3): three equal keys are single DES, K1 = K3 is 2K3DES.
    Des(Box<[Des; 3]>),
    Aes(Box<Aes128>),
}

impl ZeroizeOnDrop for Cipher {}

impl Cipher {
    /// The cipher of a key. DES takes the first 8 bytes, 2K3DES and AES 16, 3K3DES 24;
    /// missing bytes are zero.
    pub(super) fn new(key_type: KeyType, key: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; 24]);
        for (byte, given) in bytes.iter_mut().zip(key) {
            *byte = *given;
        }
        let [k1, k2, k3] = array_chunks(&bytes);
        let des = |keys: [[u8; 8]; 3]| {
            let keys = Zeroizing::new(keys);
            Self::Des(Box::new(keys.map(|key| Des::new(&key.into()))))
        };
        match key_type {
            KeyType::Des => des([k1, k1, k1]),
            KeyType::TwoKey3Des => des([k1, k2, k1]),
            KeyType::ThreeKey3Des => des([k1, k2, k3]),
            KeyType::Aes => {
                let mut key = Zeroizing::new([0; 16]);
                for (byte, given) in key.iter_mut().zip(bytes.iter()) {
                    *byte = *given;
                }
                Self::Aes(Box::new(Aes128::new(&(*key).into())))
            }
        }
    }

    pub(super) const fn block_len(&self) -> usize {
        match self {
            Self::Des(_) => 8,
            Self::Aes(_) => 16,
        }
    }

    /// Enciphers one block in place. A slice of another length stays as it is.
    fn encrypt_block(&self, block: &mut [u8]) {
        match self {
            Self::Des(des) => {
                let [k1, k2, k3] = &**des;
                if let Ok(block) = <&mut des::cipher::Block<Des>>::try_from(block) {
                    k1.encrypt_block(block);
                    k2.decrypt_block(block);
                    k3.encrypt_block(block);
                }
            }
            Self::Aes(aes) => {
                if let Ok(block) = block.try_into() {
                    aes.encrypt_block(block);
                }
            }
        }
    }

    /// Deciphers one block in place. A slice of another length stays as it is.
    fn decrypt_block(&self, block: &mut [u8]) {
        match self {
            Self::Des(des) => {
                let [k1, k2, k3] = &**des;
                if let Ok(block) = <&mut des::cipher::Block<Des>>::try_from(block) {
                    k3.decrypt_block(block);
                    k2.encrypt_block(block);
                    k1.decrypt_block(block);
                }
            }
            Self::Aes(aes) => {
                if let Ok(block) = block.try_into() {
                    aes.decrypt_block(block);
                }
            }
        }
    }

    /// CBC from `iv` over whole blocks; `iv` becomes the last ciphertext block.
    pub(super) fn encrypt(&self, iv: &mut Iv, data: &mut [u8]) {
        for block in data.chunks_exact_mut(self.block_len()) {
            xor(block, iv);
            self.encrypt_block(block);
            copy(iv, block);
        }
    }

    /// CBC from `iv` over whole blocks; `iv` becomes the last ciphertext block.
    pub(super) fn decrypt(&self, iv: &mut Iv, data: &mut [u8]) {
        for block in data.chunks_exact_mut(self.block_len()) {
            let mut ciphertext = [0; 16];
            copy(&mut ciphertext, block);
            self.decrypt_block(block);
            xor(block, iv);
            *iv = ciphertext;
        }
    }

    /// Undoes what a reader did to data in D40 messaging. The reader "deciphers" to send, so
    /// the card, which only ever enciphers there, enciphers to receive.
    pub(super) fn receive_d40(&self, data: &mut [u8]) {
        let mut previous = [0; 16];
        for block in data.chunks_exact_mut(self.block_len()) {
            let mut sent = [0; 16];
            copy(&mut sent, block);
            self.encrypt_block(block);
            xor(block, &previous);
            previous = sent;
        }
    }

    /// CMAC of NIST SP 800-38B, but with the CBC starting from `iv`, which becomes the whole
    /// last block.
    pub(super) fn cmac(&self, iv: &mut Iv, message: &[u8]) {
        let len = self.block_len();
        let (k1, k2) = self.cmac_subkeys();
        let mut padded = Zeroizing::new(message.to_vec());
        let whole = !message.is_empty() && message.len().is_multiple_of(len);
        if !whole {
            padded.push(0x80);
            padded.resize(message.len().saturating_add(1).next_multiple_of(len), 0);
        }
        let last = padded.len().saturating_sub(len);
        if let Some(block) = padded.get_mut(last..) {
            xor(block, if whole { &k1 } else { &k2 });
        }
        self.encrypt(iv, &mut padded);
    }

    pub(super) fn cmac_subkeys(&self) -> (Iv, Iv) {
        let mut l = [0; 16];
        if let Some(block) = l.get_mut(..self.block_len()) {
            self.encrypt_block(block);
        }
        let k1 = self.double(l);
        (k1, self.double(k1))
    }

    /// Multiplies by x in the field of the block size.
    fn double(&self, value: Iv) -> Iv {
        // An 8-byte value stands in the upper half of the number, so that it overflows alike.
        let number = u128::from_be_bytes(value);
        let reduction = match self {
            Self::Des(_) => 0x1B << 64,
            Self::Aes(_) => 0x87,
        };
        let carry = if number >> 127 == 1 { reduction } else { 0 };
        ((number << 1) ^ carry).to_be_bytes()
    }
}

/// CRC-16/ISO-IEC-14443-3-A, as it travels.
pub(super) fn crc16(data: &[u8]) -> [u8; 2] {
    let mut crc: u16 = 0x6363;
    for byte in data {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x8408 } else { 0 };
        }
    }
    crc.to_le_bytes()
}

/// CRC-32/JAMCRC (no final complement) over the parts in order, as it travels.
pub(super) fn crc32(parts: &[&[u8]]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    crc.to_le_bytes()
}

/// The session key of two nonces, for a key of `key_type`.
pub(super) fn session_key(key_type: KeyType, rnd_a: &[u8], rnd_b: &[u8]) -> Zeroizing<Vec<u8>> {
    let offsets: &[usize] = match key_type {
        KeyType::Des => &[0],
        KeyType::TwoKey3Des => &[0, 4],
        KeyType::ThreeKey3Des => &[0, 6, 12],
        KeyType::Aes => &[0, 12],
    };
    let mut key = Zeroizing::new(Vec::with_capacity(24));
    for offset in offsets {
        key.extend(rnd_a.iter().skip(*offset).take(4));
        key.extend(rnd_b.iter().skip(*offset).take(4));
    }
    key
}

/// A nonce rotated left by one byte.
pub(super) fn rotated(nonce: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut rotated = Zeroizing::new(nonce.to_vec());
    if !rotated.is_empty() {
        rotated.rotate_left(1);
    }
    rotated
}

fn xor(block: &mut [u8], with: &Iv) {
    for (byte, other) in block.iter_mut().zip(with) {
        *byte ^= other;
    }
}

fn copy(iv: &mut Iv, block: &[u8]) {
    iv.zeroize();
    for (byte, other) in iv.iter_mut().zip(block) {
        *byte = *other;
    }
}

fn array_chunks(bytes: &[u8; 24]) -> [[u8; 8]; 3] {
    let mut keys = [[0; 8]; 3];
    for (byte, given) in keys.as_flattened_mut().iter_mut().zip(bytes) {
        *byte = *given;
    }
    keys
}
