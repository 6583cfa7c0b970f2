//! Keys as the card stores them.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::choices::VERSION_BITS_TELL_HALVES_APART;
use super::crypto::Cipher;
use crate::wire::{KeyFamily, KeyType};

/// A key in the card's memory, with its version.
///
/// Comparing is for tests; it takes no care of timing. Printing shows the type only.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CardKey {
    #[zeroize(skip)]
    family: KeyFamily,
    /// Bytes past the length of the family are zero.
    bytes: [u8; 24],
    /// Of an AES key; zero for the DES family, whose version is in the key.
    version: u8,
}

impl CardKey {
    /// A DES or 2K3DES key as it is stored: 16 bytes, version in the low bits of the first
    /// eight. Equal halves make it a DES key.
    #[must_use]
    pub fn des(key: [u8; 16]) -> Self {
        Self::of(KeyFamily::Des, &key, 0)
    }

    /// A 3K3DES key, version in the low bits of the first eight bytes.
    #[must_use]
    pub fn three_key_3des(key: [u8; 24]) -> Self {
        Self::of(KeyFamily::ThreeKey3Des, &key, 0)
    }

    /// An AES key with its version.
    #[must_use]
    pub fn aes(key: [u8; 16], version: u8) -> Self {
        Self::of(KeyFamily::Aes, &key, version)
    }

    /// A key from bytes as ChangeKey brings them. Too many bytes are cut, missing ones zero;
    /// the version counts for AES only.
    pub(super) fn of(family: KeyFamily, key: &[u8], version: u8) -> Self {
        let mut bytes = [0; 24];
        for (byte, given) in bytes.iter_mut().zip(key).take(family.key_len()) {
            *byte = *given;
        }
        let version = match family {
            KeyFamily::Aes => version,
            _ => 0,
        };
        Self {
            family,
            bytes,
            version,
        }
    }

    /// DES family, 3K3DES or AES.
    #[must_use]
    pub const fn family(&self) -> KeyFamily {
        self.family
    }

    /// The type by which the cipher and the session key go.
    ///
    /// A key of the DES family whose halves are equal is a DES key (measured by DFC on an EV1).
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match self.family {
            KeyFamily::Aes => KeyType::Aes,
            KeyFamily::ThreeKey3Des => KeyType::ThreeKey3Des,
            _ if self.has_equal_halves() => KeyType::Des,
            _ => KeyType::TwoKey3Des,
        }
    }

    fn has_equal_halves(&self) -> bool {
        let mask = if VERSION_BITS_TELL_HALVES_APART {
            0xFF
        } else {
            0xFE
        };
        let masked = self.bytes.iter().map(|byte| byte & mask);
        masked.clone().take(8).eq(masked.skip(8).take(8))
    }

    /// The key's version: stored beside an AES key, in the low bits of the first eight bytes
    /// of the others, most significant bit first.
    #[must_use]
    pub fn version(&self) -> u8 {
        match self.family {
            KeyFamily::Aes => self.version,
            _ => self
                .bytes
                .iter()
                .take(8)
                .fold(0, |version, byte| version << 1 | byte & 1),
        }
    }

    /// The bytes as stored.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.family.key_len()).unwrap_or_default()
    }

    pub(super) fn cipher(&self) -> Cipher {
        Cipher::new(self.key_type(), self.bytes())
    }
}

impl fmt::Debug for CardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardKey({}, ..)", self.key_type())
    }
}

/// The key that new applications get, of any family: 24 bytes and a version.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(super) struct DefaultKey {
    pub(super) bytes: [u8; 24],
    pub(super) version: u8,
}

impl DefaultKey {
    /// As delivered: zero.
    pub(super) const ZERO: Self = Self {
        bytes: [0; 24],
        version: 0,
    };

    /// As a key of `family`: the first 16 or 24 bytes (liblogicalaccess, one source). The
    /// version byte counts for AES; keys of the DES family have theirs in their bits, as
    /// libfreefare sends both alike.
    pub(super) fn as_key(&self, family: KeyFamily) -> CardKey {
        CardKey::of(family, &self.bytes, self.version)
    }

    /// From the 25 bytes of SetConfiguration.
    pub(super) fn from_bytes(data: &[u8; 25]) -> Self {
        let [bytes @ .., version] = data;
        Self {
            bytes: *bytes,
            version: *version,
        }
    }
}

impl fmt::Debug for DefaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn versions_and_types() {
        // RFDoorLock EV1 log: version 10; libfreefare test: "App.B Master Key" has 83.
        let key = [
            0x00, 0x10, 0x20, 0x31, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xB0, 0xA0,
            0x90, 0x80,
        ];
        assert_eq!(CardKey::des(key).version(), 0x10);
        assert_eq!(CardKey::des(*b"App.B Master Key").version(), 0x83);
        assert_eq!(CardKey::aes(key, 0x42).version(), 0x42);
        assert_eq!(CardKey::des(key).key_type(), KeyType::TwoKey3Des);
        assert_eq!(CardKey::des([7; 16]).key_type(), KeyType::Des);
        let mut halves_differ_in_a_version_bit = [6; 16];
        halves_differ_in_a_version_bit[8] = 7;
        assert_eq!(
            CardKey::des(halves_differ_in_a_version_bit).key_type(),
            KeyType::TwoKey3Des
        );
        assert_eq!(CardKey::three_key_3des([1; 24]).version(), 0xFF);
        assert_eq!(CardKey::three_key_3des([1; 24]).bytes().len(), 24);
    }

    #[test]
    fn printing_shows_no_byte() {
        assert_eq!(
            format!("{:?}", CardKey::aes([0xAB; 16], 0xAB)),
            "CardKey(AES, ..)"
        );
        let default = DefaultKey::from_bytes(&[0xAB; 25]);
        assert_eq!(format!("{default:?}"), "DefaultKey(..)");
    }
}
