//! AN10922: a key of its own for every card, made from a master key and the card's UID.
//!
//! CMAC from a zero IV over `constant ‖ input`, one run per 8 or 16 bytes of the new key, with one
//! deviation from SP 800-38B that programs often miss: a short message is padded to *two* whole
//! blocks, not to the end of the block it ends in.
//!
//! | key | constants | input | padded to |
//! |---|---|---|---|
//! | AES | `01` | 1–31 bytes | 32 bytes |
//! | 2K3DES | `21`, `22` | 1–15 bytes | 16 bytes |
//! | 3K3DES | `31`, `32`, `33` | 1–15 bytes | 16 bytes |
//!
//! Source: NXP AN10922, with all its examples and those of AN10957 in `tests/published.rs`.

use zeroize::{Zeroize as _, Zeroizing};

use crate::pcd::crypto::cipher::{Cipher, Iv};
use crate::pcd::crypto::cmac::{Subkeys, absorb_last};
use crate::pcd::key::{Key, KeyError};
use crate::wire::KeyType;

/// Two AES blocks.
const MAX_MESSAGE: usize = 32;

impl Key {
    /// The key that AN10922 derives from this master key and `input`, usually
    /// `UID ‖ AID ‖ system identifier`.
    ///
    /// AES keys come with version 0, DES-family keys with whatever version their bits hold; give
    /// them the one you want with [`Key::with_version`] (many systems copy the master key's).
    ///
    /// ```
    /// use desfire_ev1::Key;
    ///
    /// let master = Key::aes([0x42; 16]).with_version(3);
    /// let uid = [0x04, 0x78, 0x2E, 0x21, 0x80, 0x1D, 0x80];
    /// let card_key = master.diversify(&uid)?.with_version(master.version());
    /// # Ok::<(), desfire_ev1::KeyError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyError::DiversificationInput`] if the input is empty or too long, and for single DES
    /// keys, for which AN10922 has no rule; [`KeyError::Ambiguous`] for a 2K3DES result that no
    /// card can be relied on to take for one (chance: about 2⁻⁵⁶).
    pub fn diversify(&self, input: &[u8]) -> Result<Self, KeyError> {
        let constants: &[u8] = match self.key_type() {
            KeyType::Aes => &[0x01],
            KeyType::TwoKey3Des => &[0x21, 0x22],
            KeyType::ThreeKey3Des => &[0x31, 0x32, 0x33],
            KeyType::Des => return Err(KeyError::DiversificationInput),
        };
        let cipher = Cipher::new(self);
        let subkeys = Subkeys::new(&cipher);
        let block_len = cipher.block_len();
        let message_len = 2 * block_len;
        if input.is_empty() || input.len() >= message_len {
            return Err(KeyError::DiversificationInput);
        }
        let mut derived = Zeroizing::new([0; 24]);
        for (constant, part) in constants.iter().zip(derived.chunks_mut(block_len)) {
            let mut message = [0; MAX_MESSAGE];
            let content = [*constant].into_iter().chain(input.iter().copied());
            let padded = content.chain(core::iter::once(0x80));
            for (to, from) in message.iter_mut().take(message_len).zip(padded) {
                *to = from;
            }
            let (first, last) = message.split_at(block_len);
            let mut iv = Iv::ZERO;
            cipher.cbc_absorb(&mut iv, first);
            // Exactly full without the mark: K1. Otherwise K2.
            let complete = 1 + input.len() == message_len;
            absorb_last(&cipher, &subkeys, &mut iv, last, complete);
            for (to, from) in part.iter_mut().zip(iv.bytes(block_len)) {
                *to = *from;
            }
            message.zeroize();
        }
        match self.key_type() {
            KeyType::TwoKey3Des => {
                let mut both = Zeroizing::new([0; 16]);
                both.copy_from_slice(derived.get(..16).unwrap_or_default());
                Self::two_key_3des(*both)
            }
            KeyType::ThreeKey3Des => Ok(Self::three_key_3des(*derived)),
            KeyType::Des | KeyType::Aes => {
                let mut one = Zeroizing::new([0; 16]);
                one.copy_from_slice(derived.get(..16).unwrap_or_default());
                Ok(Self::aes(*one))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::KeyFamily;
    use cmac::{Cmac, KeyInit as _, Mac as _};

    /// Messages of more than one block are padded as SP 800-38B does: there the published CMAC
    /// must agree.
    #[test]
    fn long_inputs_are_a_plain_cmac() {
        let bytes = *b"0123456789abcdef";
        for len in 16..=31 {
            let input = [0xA5; 31];
            let mut mac = Cmac::<aes::Aes128>::new_from_slice(&bytes).unwrap();
            mac.update(&[0x01]);
            mac.update(&input[..len]);
            let expected = mac.finalize().into_bytes();
            let key = Key::aes(bytes).diversify(&input[..len]).unwrap();
            assert_eq!(key.stored(), &expected[..], "{len}");
        }
    }

    #[test]
    fn inputs_that_have_no_rule() {
        let input = [1; 32];
        let two = Key::two_key_3des(*b"0123456789abcdef").unwrap();
        for (key, longest) in [
            (Key::aes([1; 16]), 31),
            (two, 15),
            (Key::three_key_3des([1; 24]), 15),
        ] {
            assert!(key.diversify(&input[..longest]).is_ok());
            for len in [0, longest + 1] {
                assert_eq!(
                    key.diversify(&input[..len]).unwrap_err(),
                    KeyError::DiversificationInput
                );
            }
        }
        assert!(Key::zero(KeyFamily::Des).diversify(&input[..7]).is_err());
    }
}
