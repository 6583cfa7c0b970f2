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

use crate::pcd::crypto::cipher::Cipher;
use crate::pcd::crypto::cmac::Subkeys;
use crate::pcd::crypto::work::{CbcDirection, CbcTask, CbcWork};
use crate::pcd::key::{Key, KeyError};
use crate::wire::{InlineBytes, KeyType};

/// Two AES blocks.
const MAX_MESSAGE: usize = 32;

const ZERO: [u8; 16] = [0; 16];

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
        let mut work = Diversification::new(self.key_type(), input)?;
        Cipher::new(self).work(&mut work);
        work.finish()
    }
}

/// AN10922 as calls of CBC under the master key, which may be in an HSM.
///
/// The first task enciphers a block of zeros, for the CMAC subkeys. Each further task is one part
/// of the new key: the message with a subkey already in its last block, to be enciphered from a
/// zero IV; the part is the **last block** of the result. AES has one such task, so that a token which
/// derives keys (`CKM_AES_CBC_ENCRYPT_DATA`) need not give it out: do the first task as it says, take
/// the second's data, derive from its last block alone with what comes before it, enciphered, as the
/// IV, and forget this value. From one block it does not matter which end of the result a token keeps
/// (SoftHSM 2.6.1 keeps the leading bytes).
pub struct Diversification {
    key_type: KeyType,
    input: InlineBytes<31>,
    /// 0: the subkeys. From 1 on: the part.
    stage: usize,
    data: Zeroizing<[u8; MAX_MESSAGE]>,
    subkeys: Option<Subkeys>,
    derived: Zeroizing<[u8; 24]>,
}

impl Diversification {
    /// From a master key of `key_type`, which is the new key's type too.
    ///
    /// # Errors
    /// [`KeyError::DiversificationInput`] as [`Key::diversify`] has it.
    pub fn new(key_type: KeyType, input: &[u8]) -> Result<Self, KeyError> {
        let wrong = KeyError::DiversificationInput;
        if key_type == KeyType::Des || input.is_empty() || input.len() >= 2 * key_type.block_len() {
            return Err(wrong);
        }
        Ok(Self {
            key_type,
            input: InlineBytes::new(input).map_err(|_| wrong)?,
            stage: 0,
            data: Zeroizing::new([0; MAX_MESSAGE]),
            subkeys: None,
            derived: Zeroizing::new([0; 24]),
        })
    }

    const fn constants(&self) -> &'static [u8] {
        match self.key_type {
            KeyType::Aes => &[0x01],
            KeyType::TwoKey3Des => &[0x21, 0x22],
            KeyType::ThreeKey3Des => &[0x31, 0x32, 0x33],
            KeyType::Des => &[],
        }
    }

    /// The message of the part that is next, with the subkey in its last block.
    fn prepare(&mut self, constant: u8) {
        let block_len = self.key_type.block_len();
        let message_len = 2 * block_len;
        self.data.zeroize();
        let content = [constant].into_iter().chain(self.input.iter().copied());
        let padded = content.chain(core::iter::once(0x80));
        for (to, from) in self.data.iter_mut().take(message_len).zip(padded) {
            *to = from;
        }
        // Exactly full without the mark: K1. Otherwise K2.
        let complete = 1 + self.input.len() == message_len;
        let subkey = self.subkeys.as_ref().map(|keys| keys.for_last(complete));
        let last = self.data.iter_mut().skip(block_len).take(block_len);
        for (byte, key) in last.zip(subkey.into_iter().flatten()) {
            *byte ^= key;
        }
    }

    /// The diversified key, once there is no more task.
    ///
    /// # Errors
    /// [`KeyError::Ambiguous`] as [`Key::diversify`] has it;
    /// [`KeyError::DiversificationInput`] if tasks are left.
    pub fn finish(self) -> Result<Key, KeyError> {
        if self.stage <= self.constants().len() {
            return Err(KeyError::DiversificationInput);
        }
        match self.key_type {
            KeyType::ThreeKey3Des => Ok(Key::three_key_3des(*self.derived)),
            key_type => Key::from_slice(key_type, self.derived.get(..16).unwrap_or_default()),
        }
    }
}

impl CbcWork for Diversification {
    fn task(&mut self) -> Option<CbcTask<'_>> {
        let block_len = self.key_type.block_len();
        let len = match self.stage {
            0 => block_len,
            part if part <= self.constants().len() => 2 * block_len,
            _ => return None,
        };
        Some(CbcTask {
            direction: CbcDirection::Encrypt,
            iv: ZERO.get(..block_len)?,
            data: self.data.get_mut(..len)?,
        })
    }

    fn done(&mut self) {
        let block_len = self.key_type.block_len();
        if self.stage == 0 {
            let l = self.data.get(..block_len).unwrap_or_default();
            self.subkeys = Some(Subkeys::from_enciphered_zero(l));
        } else {
            let part = self.derived.iter_mut().skip((self.stage - 1) * block_len);
            for (to, from) in part.zip(self.data.iter().skip(block_len).take(block_len)) {
                *to = *from;
            }
        }
        if let Some(constant) = self.constants().get(self.stage) {
            self.prepare(*constant);
        }
        self.stage = self.stage.saturating_add(1);
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

    /// A token is asked for no more than is needed: one block for the subkeys, then two for each part.
    #[test]
    fn what_a_token_is_asked() {
        for (key_type, lengths) in [
            (KeyType::Aes, &[16, 32][..]),
            (KeyType::TwoKey3Des, &[8, 16, 16]),
            (KeyType::ThreeKey3Des, &[8, 16, 16, 16]),
        ] {
            let mut work = Diversification::new(key_type, &[1, 2, 3]).unwrap();
            for len in lengths {
                let task = work.task().unwrap();
                assert_eq!((task.data.len(), task.iv.len()), (*len, lengths[0]));
                assert!(task.iv.iter().all(|byte| *byte == 0));
                work.done();
            }
            assert!(work.task().is_none());
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
