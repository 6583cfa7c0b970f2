//! Card keys.
//!
//! For: holding a key, its type and its version, and nothing else. Keys are wiped when they are
//! dropped, cannot be copied by accident, and do not print themselves.

use core::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::pcd::bytes::wipe;
use crate::wire::{KeyFamily, KeyType};

/// A key of a card, with its version.
///
/// | type | made by | version |
/// |---|---|---|
/// | DES | [`Key::des`] | low bits of the bytes |
/// | 2K3DES | [`Key::two_key_3des`] | low bits of the first half |
/// | 3K3DES | [`Key::three_key_3des`] | low bits of the first third |
/// | AES | [`Key::aes`] | a byte of its own |
///
/// The version of a DES-family key is made of the bits that DES ignores: bit 7 of the version is
/// the low bit of byte 0, bit 0 that of byte 7 (libfreefare, `mifare_desfire_key.c`; confirmed by
/// the ChangeKey recordings of RFDoorLock).
///
/// ```
/// use desfire_ev1::{Key, wire::KeyType};
///
/// let key = Key::aes([0x42; 16]).with_version(7);
/// assert_eq!((key.key_type(), key.version()), (KeyType::Aes, 7));
/// assert_eq!(format!("{key:?}"), "Key(AES, ..)");
/// ```
#[derive(Clone)]
pub struct Key {
    key_type: KeyType,
    /// The key's bytes as the card stores them: 16 or 24; the rest is zero.
    bytes: [u8; 24],
    aes_version: u8,
}

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The halves differ in nothing but their version bits. Cards take such a key for single DES
    /// or for 2K3DES, and no public recording says which.
    #[error(
        "the halves of the 2K3DES key differ only in their lowest bits, and cards may take it for single DES"
    )]
    Ambiguous,
    /// The input of a diversification is empty or too long, or the key is single DES.
    #[error(
        "diversification takes 1 to 31 bytes for AES and 1 to 15 for 2K3DES and 3K3DES, and there is no rule for DES"
    )]
    DiversificationInput,
    /// A text is not two hex digits for each byte.
    #[error("a key is written as hex digits, two for each byte")]
    Hex,
    /// The number of bytes does not fit the type.
    #[error("a {key_type} key has {expected} bytes, not {found}")]
    Length {
        /// The type asked for.
        key_type: KeyType,
        /// How long such a key is.
        expected: usize,
        /// How many bytes there are.
        found: usize,
    },
}

impl Key {
    /// A single DES key; its low bits are its version.
    #[must_use]
    pub fn des(key: [u8; 8]) -> Self {
        let mut bytes = [0; 24];
        for (to, from) in bytes.iter_mut().zip(key.iter().chain(&key)) {
            *to = *from;
        }
        Self::new(KeyType::Des, bytes)
    }

    /// A 2K3DES key; the low bits of its first half are its version. With equal halves it is a
    /// single DES key, as it is for the card.
    ///
    /// # Errors
    /// [`KeyError::Ambiguous`] if the halves differ in low bits only.
    pub fn two_key_3des(key: [u8; 16]) -> Result<Self, KeyError> {
        let (first, second) = key.split_at(8);
        if bool::from(first.ct_eq(second)) {
            let mut bytes = [0; 24];
            for (to, from) in bytes.iter_mut().zip(key) {
                *to = from;
            }
            return Ok(Self::new(KeyType::Des, bytes));
        }
        let difference = first
            .iter()
            .zip(second)
            .fold(0, |all, (a, b)| all | (a ^ b));
        if difference & !1 == 0 {
            return Err(KeyError::Ambiguous);
        }
        let mut bytes = [0; 24];
        for (to, from) in bytes.iter_mut().zip(key) {
            *to = from;
        }
        Ok(Self::new(KeyType::TwoKey3Des, bytes))
    }

    /// A 3K3DES key; the low bits of its first eight bytes are its version.
    #[must_use]
    pub fn three_key_3des(key: [u8; 24]) -> Self {
        Self::new(KeyType::ThreeKey3Des, key)
    }

    /// An AES-128 key with version 0; see [`Key::with_version`].
    #[must_use]
    pub fn aes(key: [u8; 16]) -> Self {
        let mut bytes = [0; 24];
        for (to, from) in bytes.iter_mut().zip(key) {
            *to = from;
        }
        Self::new(KeyType::Aes, bytes)
    }

    /// A key of the given type: 8 bytes for DES, 16 for 2K3DES and AES, 24 for 3K3DES. For
    /// programs that read keys from a file or a command line.
    ///
    /// # Errors
    /// [`KeyError`] if the length does not fit or a 2K3DES key is ambiguous.
    pub fn from_slice(key_type: KeyType, key: &[u8]) -> Result<Self, KeyError> {
        let wrong_length = |expected| KeyError::Length {
            key_type,
            expected,
            found: key.len(),
        };
        match key_type {
            KeyType::Des => key.try_into().map(Self::des).map_err(|_| wrong_length(8)),
            KeyType::TwoKey3Des => key
                .try_into()
                .map_err(|_| wrong_length(16))
                .and_then(Self::two_key_3des),
            KeyType::ThreeKey3Des => key
                .try_into()
                .map(Self::three_key_3des)
                .map_err(|_| wrong_length(24)),
            KeyType::Aes => key.try_into().map(Self::aes).map_err(|_| wrong_length(16)),
        }
    }

    /// The same from hex digits, as people write keys: two for each byte, nothing between them.
    ///
    /// ```
    /// use desfire_ev1::{Key, wire::KeyType};
    ///
    /// let key = Key::from_hex(KeyType::Aes, "00112233445566778899aabbccddeeff")?;
    /// assert_eq!(key.key_type(), KeyType::Aes);
    /// assert!(Key::from_hex(KeyType::Des, "0011").is_err());
    /// # Ok::<(), desfire_ev1::KeyError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyError`], which holds nothing of the text.
    pub fn from_hex(key_type: KeyType, text: &str) -> Result<Self, KeyError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            b'A'..=b'F' => Ok(byte - b'A' + 10),
            _ => Err(KeyError::Hex),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        // One byte more than any key has: with it no length of a key is right.
        let mut bytes = Zeroizing::new([0; 25]);
        if !rest.is_empty() {
            return Err(KeyError::Hex);
        }
        for ([high, low], place) in pairs.iter().zip(bytes.iter_mut()) {
            *place = digit(*high)? << 4 | digit(*low)?;
        }
        let key = bytes.get(..pairs.len()).unwrap_or(bytes.as_ref());
        Self::from_slice(key_type, key).map_err(|error| match error {
            KeyError::Length {
                key_type, expected, ..
            } => KeyError::Length {
                key_type,
                expected,
                found: pairs.len(),
            },
            error => error,
        })
    }

    /// The key of a card in delivery state and of a new application: all zero, version 0.
    ///
    /// Of the DES family it is a single DES key, since its halves are equal. For
    /// [`KeyFamily::Unknown`], which no EV1 card has, it is that one too: a program that has the family
    /// from a card looks first.
    #[must_use]
    pub fn zero(family: KeyFamily) -> Self {
        let key_type = match family {
            KeyFamily::Des | KeyFamily::Unknown => KeyType::Des,
            KeyFamily::ThreeKey3Des => KeyType::ThreeKey3Des,
            KeyFamily::Aes => KeyType::Aes,
        };
        Self::new(key_type, [0; 24])
    }

    fn new(key_type: KeyType, bytes: [u8; 24]) -> Self {
        Self {
            key_type,
            bytes,
            aes_version: 0,
        }
    }

    /// The same key with another version.
    ///
    /// In a DES-family key this sets low bits: those of the first eight bytes to the version;
    /// those of the second half of a DES key to the same, so that it stays single DES, and of a
    /// 2K3DES key to the complement, so that its halves always differ (as libfreefare does).
    #[must_use]
    pub fn with_version(mut self, version: u8) -> Self {
        let halves = match self.key_type {
            KeyType::Aes => {
                self.aes_version = version;
                return self;
            }
            KeyType::Des => [version, version],
            KeyType::TwoKey3Des => [version, !version],
            KeyType::ThreeKey3Des => {
                set_low_bits(self.bytes.iter_mut().take(8), version);
                return self;
            }
        };
        for (half, version) in self.bytes.chunks_exact_mut(8).zip(halves) {
            set_low_bits(half.iter_mut(), version);
        }
        self
    }

    /// The type.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u8 {
        match self.key_type {
            KeyType::Aes => self.aes_version,
            _ => self
                .bytes
                .iter()
                .take(8)
                .fold(0, |version, byte| (version << 1) | (byte & 1)),
        }
    }

    /// Whether both are the same key of the same version, compared in constant time.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let same = self.bytes.ct_eq(&other.bytes) & self.version().ct_eq(&other.version());
        self.key_type == other.key_type && same.into()
    }

    /// The key with which an application of `family` starts once this one is the card's default
    /// key (see [`crate::Session::set_default_key`]): its first 16 or 24 bytes, filled up with zeros.
    /// The version goes along in AES applications; in others it is in the bits, as ever.
    ///
    /// Source: liblogicalaccess alone; not recorded.
    ///
    /// # Errors
    /// [`KeyError::Ambiguous`] if the halves of the 2K3DES key that results differ in low bits only.
    pub fn in_new_application(&self, family: KeyFamily) -> Result<Self, KeyError> {
        let mut sixteen = Zeroizing::new([0; 16]);
        sixteen.copy_from_slice(self.bytes.get(..16).unwrap_or_default());
        match family {
            KeyFamily::Des | KeyFamily::Unknown => Self::two_key_3des(*sixteen),
            KeyFamily::ThreeKey3Des => Ok(Self::three_key_3des(self.bytes)),
            KeyFamily::Aes => Ok(Self::aes(*sixteen).with_version(self.version())),
        }
    }

    /// The bytes as the card stores them and ChangeKey sends them: 16, or 24 for 3K3DES.
    pub(in crate::pcd) fn stored(&self) -> &[u8] {
        self.bytes
            .get(..self.key_type.stored_len())
            .unwrap_or_default()
    }

    /// The bytes for the cipher: all 24, of which it takes what it needs.
    pub(crate) const fn cipher_bytes(&self) -> &[u8; 24] {
        &self.bytes
    }

    /// A session key from its bytes; the caller wipes its own copy.
    pub(crate) fn from_session_bytes(key_type: KeyType, bytes: &[u8; 24]) -> Self {
        Self::new(key_type, *bytes)
    }
}

fn set_low_bits<'a>(bytes: impl Iterator<Item = &'a mut u8>, version: u8) {
    for (bit, byte) in (0..8).rev().zip(bytes) {
        *byte = (*byte & !1) | ((version >> bit) & 1);
    }
}

impl Zeroize for Key {
    fn zeroize(&mut self) {
        wipe(&mut self.bytes);
        self.aes_version.zeroize();
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, ..)", self.key_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn equal_halves_are_single_des() {
        let half = [1, 2, 3, 4, 5, 6, 7, 8];
        let mut doubled = [0; 16];
        doubled[..8].copy_from_slice(&half);
        doubled[8..].copy_from_slice(&half);
        let key = Key::two_key_3des(doubled).unwrap();
        assert_eq!(key.key_type(), KeyType::Des);
        assert_eq!(key.stored(), Key::des(half).stored());
        assert_eq!(key.stored(), doubled);
    }

    #[test]
    fn halves_that_differ_in_version_bits_only_are_refused() {
        let mut key = [0x10; 16];
        key[15] = 0x11;
        assert_eq!(Key::two_key_3des(key).unwrap_err(), KeyError::Ambiguous);
        key[15] = 0x12;
        assert_eq!(
            Key::two_key_3des(key).unwrap().key_type(),
            KeyType::TwoKey3Des
        );
    }

    #[test]
    fn a_version_keeps_the_type() {
        for version in [0, 0x55, 0x80, 0xFF] {
            let keys = [
                Key::des([0x32; 8]),
                Key::two_key_3des([1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1]).unwrap(),
                Key::three_key_3des([0x77; 24]),
                Key::aes([0x77; 16]),
            ];
            for key in keys {
                let key_type = key.key_type();
                let key = key.with_version(version);
                assert_eq!((key.key_type(), key.version()), (key_type, version));
                if key_type == KeyType::Des {
                    assert_eq!(key.stored()[..8], key.stored()[8..]);
                }
                if key_type == KeyType::TwoKey3Des {
                    // As libfreefare does: the low bits of the second half are the complement.
                    let low = |half: &[u8]| half.iter().fold(0, |bits, byte| bits << 1 | byte & 1);
                    let (first, second) = key.stored().split_at(8);
                    let (first, second): (u8, u8) = (low(first), low(second));
                    assert_eq!((first, second), (version, !version));
                }
            }
        }
    }

    #[test]
    fn lengths() {
        assert!(Key::from_slice(KeyType::Des, &[0; 8]).is_ok());
        assert!(Key::from_slice(KeyType::ThreeKey3Des, &[0; 24]).is_ok());
        assert!(Key::from_slice(KeyType::Aes, &[0; 16]).is_ok());
        for (key_type, len) in [
            (KeyType::Des, 16),
            (KeyType::TwoKey3Des, 8),
            (KeyType::ThreeKey3Des, 16),
            (KeyType::Aes, 24),
        ] {
            assert!(matches!(
                Key::from_slice(key_type, &[0x5A; 24][..len]),
                Err(KeyError::Length { .. })
            ));
        }
        assert_eq!(Key::zero(KeyFamily::ThreeKey3Des).stored(), [0; 24]);
    }

    #[test]
    fn a_key_can_be_wiped() {
        let mut key = Key::aes([7; 16]).with_version(9);
        key.zeroize();
        assert_eq!((key.bytes, key.aes_version), ([0; 24], 0));
    }

    #[test]
    fn hex_digits() {
        let text = "0123456789abcdefABCDEF9876543210";
        let bytes = [
            0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xAB, 0xCD, 0xEF, 0x98, 0x76, 0x54,
            0x32, 0x10,
        ];
        let key = Key::from_hex(KeyType::Aes, text).unwrap();
        assert_eq!(key.stored(), bytes);
        for bad in ["/", ":", "@", "G", "`", "g", " ", "\u{0}"] {
            let high = format!("{bad}{}", &text[1..]);
            let low = format!("{}{bad}", &text[..31]);
            for text in [high, low] {
                let error = Key::from_hex(KeyType::Aes, &text).unwrap_err();
                assert_eq!(error, KeyError::Hex, "{bad}");
            }
        }
        assert_eq!(
            Key::from_hex(KeyType::Aes, &text[1..]).unwrap_err(),
            KeyError::Hex
        );
        // The length that is found is the text's, also when no key is so long.
        for digits in [0, 30, 34, 50, 52, 200] {
            let error = Key::from_hex(KeyType::Aes, &"5".repeat(digits)).unwrap_err();
            let expected = KeyError::Length {
                key_type: KeyType::Aes,
                expected: 16,
                found: digits / 2,
            };
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn sameness_and_default_keys() {
        let aes = Key::aes([5; 16]).with_version(3);
        assert!(aes.is_same_as(&aes.clone()));
        assert!(!aes.is_same_as(&Key::aes([5; 16])));
        assert!(!aes.is_same_as(&Key::aes([4; 16]).with_version(3)));
        assert!(!Key::zero(KeyFamily::Aes).is_same_as(&Key::zero(KeyFamily::Des)));
        let des = aes.in_new_application(KeyFamily::Des).unwrap();
        assert_eq!((des.key_type(), des.version()), (KeyType::Des, 0xFF));
        let long = aes.in_new_application(KeyFamily::ThreeKey3Des).unwrap();
        assert_eq!(
            (&long.stored()[..16], &long.stored()[16..]),
            (&[5; 16][..], &[0; 8][..])
        );
        assert!(
            aes.in_new_application(KeyFamily::Aes)
                .unwrap()
                .is_same_as(&aes)
        );
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let key = Key::aes([0xA7; 16]).with_version(0xA7);
        let text = format!("{key:?}");
        assert!(!text.contains("167") && !text.to_uppercase().contains("A7"));
    }
}
