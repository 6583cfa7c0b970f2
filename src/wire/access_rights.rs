//! The access-rights word of a file.

use core::fmt;

use super::KeyNo;

/// Who may use one right of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `0`–`D`: whoever has authenticated with this key.
    Key(KeyNo),
    /// `E`: everybody, without authentication.
    Free,
    /// `F`: nobody.
    Never,
}

impl Access {
    const fn from_nibble(nibble: u8) -> Self {
        match nibble & 0x0F {
            0x0E => Self::Free,
            number => match KeyNo::new(number) {
                Ok(key) => Self::Key(key),
                Err(_) => Self::Never,
            },
        }
    }

    const fn nibble(self) -> u8 {
        match self {
            Self::Key(key) => key.number(),
            Self::Free => 0x0E,
            Self::Never => 0x0F,
        }
    }
}

impl From<KeyNo> for Access {
    fn from(key: KeyNo) -> Self {
        Self::Key(key)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Free => f.write_str("free"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// The four rights of a file: two bytes, least significant first.
///
/// | bits | 15–12 | 11–8 | 7–4 | 3–0 |
/// |---|---|---|---|---|
/// | right | read | write | read & write | change |
///
/// ```
/// use desfire_ev1::wire::AccessRights;
///
/// // Word 1230 travels as `30 12`.
/// let rights = AccessRights::from_bytes([0x30, 0x12]);
/// assert_eq!(rights.to_string(), "read key 1, write key 2, read&write key 3, change key 0");
/// assert_eq!(rights.to_bytes(), [0x30, 0x12]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccessRights {
    /// May read.
    pub read: Access,
    /// May write.
    pub write: Access,
    /// May read and write.
    pub read_write: Access,
    /// May change these rights and the communication mode.
    pub change: Access,
}

impl AccessRights {
    /// As they travel. Every word is possible.
    #[must_use]
    pub const fn from_bytes([low, high]: [u8; 2]) -> Self {
        Self {
            read: Access::from_nibble(high >> 4),
            write: Access::from_nibble(high),
            read_write: Access::from_nibble(low >> 4),
            change: Access::from_nibble(low),
        }
    }

    /// As they travel.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 2] {
        [
            (self.read_write.nibble() << 4) | self.change.nibble(),
            (self.read.nibble() << 4) | self.write.nibble(),
        ]
    }
}

impl fmt::Display for AccessRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read {}, write {}, read&write {}, change {}",
            self.read, self.write, self.read_write, self.change
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives() {
        for word in 0..=u16::MAX {
            let bytes = word.to_le_bytes();
            assert_eq!(AccessRights::from_bytes(bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn nibbles_are_in_their_places() {
        let rights = AccessRights::from_bytes([0xEF, 0x0D]);
        assert_eq!(rights.read, Access::Key(KeyNo::MASTER));
        assert_eq!(rights.write, Access::Key(KeyNo::new(13).unwrap()));
        assert_eq!(rights.read_write, Access::Free);
        assert_eq!(rights.change, Access::Never);
    }
}
