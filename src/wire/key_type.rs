//! Key types, as the cipher knows them and as the wire names them.

use core::fmt;

/// What kind of key it is, as far as the cipher is concerned.
///
/// | type | bytes | cipher block | nonce |
/// |---|---|---|---|
/// | `Des` | 8 (stored and sent doubled: 16) | 8 | 8 |
/// | `TwoKey3Des` | 16 | 8 | 8 |
/// | `ThreeKey3Des` | 24 | 8 | 16 |
/// | `Aes` | 16 | 16 | 16 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// Single DES; on the card a 16-byte key with equal halves.
    Des,
    /// Triple DES with two keys.
    TwoKey3Des,
    /// Triple DES with three keys.
    ThreeKey3Des,
    /// AES with 128 bits.
    Aes,
}

impl KeyType {
    /// The type as an application or the PICC states it.
    #[must_use]
    pub const fn family(self) -> KeyFamily {
        match self {
            Self::Des | Self::TwoKey3Des => KeyFamily::Des,
            Self::ThreeKey3Des => KeyFamily::ThreeKey3Des,
            Self::Aes => KeyFamily::Aes,
        }
    }

    /// Block length of the cipher, in bytes: 8 or 16.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::Des | Self::TwoKey3Des | Self::ThreeKey3Des => 8,
            Self::Aes => 16,
        }
    }

    /// Length of RndA and RndB in a handshake with such a key, in bytes: 8 or 16.
    #[must_use]
    pub const fn nonce_len(self) -> usize {
        match self {
            Self::Des | Self::TwoKey3Des => 8,
            Self::ThreeKey3Des | Self::Aes => 16,
        }
    }

    /// Length of the key as ChangeKey sends it, in bytes: 16 or 24.
    #[must_use]
    pub const fn stored_len(self) -> usize {
        self.family().key_len()
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Des => "DES",
            Self::TwoKey3Des => "2K3DES",
            Self::ThreeKey3Des => "3K3DES",
            Self::Aes => "AES",
        })
    }
}

/// The key type of an application or of the PICC: bits 7 and 6 of key settings byte 2, and of
/// the key number with which ChangeKey gives the PICC master key another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFamily {
    /// `00`: DES and 2K3DES; each key's own bytes decide which.
    Des,
    /// `40`: 3K3DES.
    ThreeKey3Des,
    /// `80`: AES.
    Aes,
    /// `C0`: not in use on EV1.
    Unknown,
}

impl KeyFamily {
    /// From the two top bits of a byte; the others are ignored.
    #[must_use]
    pub const fn from_bits(byte: u8) -> Self {
        match byte & 0xC0 {
            0x00 => Self::Des,
            0x40 => Self::ThreeKey3Des,
            0x80 => Self::Aes,
            _ => Self::Unknown,
        }
    }

    /// The two top bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Des => 0x00,
            Self::ThreeKey3Des => 0x40,
            Self::Aes => 0x80,
            Self::Unknown => 0xC0,
        }
    }

    /// Length of one key as the card stores it, in bytes (0 for [`KeyFamily::Unknown`]).
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Des | Self::Aes => 16,
            Self::ThreeKey3Des => 24,
            Self::Unknown => 0,
        }
    }
}

impl fmt::Display for KeyFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Des => "DES/2K3DES",
            Self::ThreeKey3Des => "3K3DES",
            Self::Aes => "AES",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_bits() {
        let table = [
            (KeyType::Des, 0x00, 8, 8, 16),
            (KeyType::TwoKey3Des, 0x00, 8, 8, 16),
            (KeyType::ThreeKey3Des, 0x40, 8, 16, 24),
            (KeyType::Aes, 0x80, 16, 16, 16),
        ];
        for (key_type, bits, block, nonce, stored) in table {
            assert_eq!(key_type.family().bits(), bits);
            assert_eq!(KeyFamily::from_bits(bits | 0x3F), key_type.family());
            assert_eq!(key_type.block_len(), block);
            assert_eq!(key_type.nonce_len(), nonce);
            assert_eq!(key_type.stored_len(), stored);
        }
        assert_eq!(KeyFamily::from_bits(0xC0), KeyFamily::Unknown);
        assert_eq!(KeyFamily::Unknown.bits(), 0xC0);
    }
}
