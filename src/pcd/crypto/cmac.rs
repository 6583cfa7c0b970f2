//! CMAC (NIST SP 800-38B) with a chaining value that runs on from message to message.
//!
//! EV1 starts each CMAC where the last one ended instead of at zero, which the `cmac` crate
//! cannot do; with an IV of zero both agree, and the tests hold one against the other.

use super::cipher::{Cipher, Iv, MAX_BLOCK};
use crate::pcd::bytes::{Wiped, copy};

/// The two subkeys of a key, made once a session.
pub(in crate::pcd) struct Subkeys {
    k1: Wiped<MAX_BLOCK>,
    k2: Wiped<MAX_BLOCK>,
}

impl Subkeys {
    /// Before there are any.
    pub(in crate::pcd) const NONE: Self = Self {
        k1: Wiped::new([0; MAX_BLOCK]),
        k2: Wiped::new([0; MAX_BLOCK]),
    };

    /// K1 and K2 of SP 800-38B, 6.1.
    pub(in crate::pcd) fn new(cipher: &Cipher) -> Self {
        let len = cipher.block_len();
        let mut l = Iv::ZERO;
        cipher.cbc_absorb(&mut l, [0; MAX_BLOCK].get(..len).unwrap_or_default());
        Self::from_enciphered_zero(l.bytes(len))
    }

    /// The same from E(0), one block.
    pub(in crate::pcd) fn from_enciphered_zero(l: &[u8]) -> Self {
        let k1 = double(l);
        let k2 = double(k1.get(..l.len()).unwrap_or_default());
        Self { k1, k2 }
    }

    /// The one that goes into a last block, `complete` or padded.
    #[inline]
    pub(in crate::pcd) fn for_last(&self, complete: bool) -> &[u8; MAX_BLOCK] {
        if complete { &self.k1 } else { &self.k2 }
    }

    #[cfg(feature = "internals")]
    pub(in crate::pcd) fn bytes(&self, block_len: usize) -> [&[u8]; 2] {
        [&self.k1, &self.k2].map(|subkey| subkey.get(..block_len).unwrap_or_default())
    }
}

/// Doubling in GF(2^64) or GF(2^128), in constant time: the top bit of a secret decides.
fn double(block: &[u8]) -> Wiped<MAX_BLOCK> {
    let mut out = Wiped::default();
    if let Ok(block) = block.try_into() {
        let value = u64::from_be_bytes(block);
        let doubled = (value << 1) ^ (0x1B & 0_u64.wrapping_sub(value >> 63));
        copy(&doubled.to_be_bytes(), &mut *out);
    } else if let Ok(block) = block.try_into() {
        let value = u128::from_be_bytes(block);
        let doubled = (value << 1) ^ (0x87 & 0_u128.wrapping_sub(value >> 127));
        *out = doubled.to_be_bytes();
    }
    out
}

/// Replaces `iv` by the CMAC, started at `iv`, over the joined `parts`.
#[inline]
pub(in crate::pcd) fn cmac(cipher: &Cipher, subkeys: &Subkeys, iv: &mut Iv, parts: &[&[u8]]) {
    cipher.cmac_absorb(iv, parts, subkeys);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcd::key::Key;
    use cmac::{Cmac, KeyInit as _, Mac as _};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn oracle(key: &Key, message: &[u8]) -> Vec<u8> {
        use crate::wire::KeyType;
        let bytes = key.cipher_bytes();
        macro_rules! run {
            ($cipher:ty, $len:literal) => {{
                let mut mac = Cmac::<$cipher>::new_from_slice(&bytes[..$len]).unwrap();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }};
        }
        match key.key_type() {
            KeyType::Des => run!(des::Des, 8),
            KeyType::TwoKey3Des => run!(des::TdesEde2, 16),
            KeyType::ThreeKey3Des => run!(des::TdesEde3, 24),
            KeyType::Aes => run!(aes::Aes128, 16),
        }
    }

    proptest! {
        #[test]
        fn with_iv_zero_it_is_the_published_cmac(
            key: [u8; 24],
            message in proptest::collection::vec(any::<u8>(), 0..200),
            cuts: [proptest::sample::Index; 2],
        ) {
            let mut two = [0; 16];
            two.copy_from_slice(&key[..16]);
            two[0] ^= 2;
            let keys = [
                Key::des(key[..8].try_into().unwrap()),
                Key::two_key_3des(two).unwrap(),
                Key::three_key_3des(key),
                Key::aes(key[..16].try_into().unwrap()),
            ];
            let mut cuts = cuts.map(|cut| cut.index(message.len() + 1));
            cuts.sort_unstable();
            let [a, b] = cuts;
            for key in keys {
                let cipher = Cipher::new(&key);
                let subkeys = Subkeys::new(&cipher);
                let mut iv = Iv::ZERO;
                cmac(&cipher, &subkeys, &mut iv, &[&message[..a], &message[a..b], &message[b..]]);
                prop_assert_eq!(iv.bytes(cipher.block_len()), oracle(&key, &message));
            }
        }
    }

    #[test]
    fn published_subkeys() {
        // NXP AN10922, AES and 2TDEA examples.
        let bytes = [
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD,
            0xEE, 0xFF,
        ];
        let aes = Subkeys::new(&Cipher::new(&Key::aes(bytes)));
        assert_eq!(aes.k1[..4], [0xFB, 0xC9, 0xF7, 0x5C]);
        assert_eq!(aes.k2[12..], [0x7E, 0x0E, 0x0D, 0x25]);
        let two = Subkeys::new(&Cipher::new(&Key::two_key_3des(bytes).unwrap()));
        assert_eq!(
            two.k1[..8],
            [0xF6, 0x12, 0xEB, 0x32, 0xE4, 0x60, 0x35, 0xF3]
        );
        assert_eq!(
            two.k2[..8],
            [0xEC, 0x25, 0xD6, 0x65, 0xC8, 0xC0, 0x6B, 0xFD]
        );
    }
}
