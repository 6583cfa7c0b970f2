//! Where in which file: P1 and P2 of the BINARY commands, short file ids.

use crate::error::Misuse;

/// A short file id: 1 to 30. On DESFire it is taken for the file number (proxmark3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortFileId(u8);

impl ShortFileId {
    /// A short file id.
    ///
    /// # Errors
    /// [`Misuse::Invalid`] for 0, which stands for the selected file, and above 30.
    pub const fn new(id: u8) -> Result<Self, Misuse> {
        match id {
            1..=30 => Ok(Self(id)),
            _ => Err(Misuse::Invalid("a short file id is 1 to 30")),
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// An offset in a file.
///
/// | P1 | P2 | |
/// |---|---|---|
/// | bit 7 = 0: offset, high | offset, low | in the selected file |
/// | `80` + short file id | offset | in that file, which is then the selected one |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryPlace {
    /// In the selected file: 0 to 32767.
    Selected {
        /// Offset in bytes.
        offset: u16,
    },
    /// In the file of a short id.
    Short {
        /// The file.
        file: ShortFileId,
        /// Offset in bytes.
        offset: u8,
    },
}

impl BinaryPlace {
    pub(super) const fn p1_p2(self) -> Result<[u8; 2], Misuse> {
        match self {
            Self::Selected { offset: 0x8000.. } => {
                Err(Misuse::Invalid("the offset is above 32767"))
            }
            Self::Selected { offset } => Ok(offset.to_be_bytes()),
            Self::Short { file, offset } => Ok([0x80 | file.0, offset]),
        }
    }
}

/// P2 of the record commands without its low three bits.
pub(super) const fn record_file(file: Option<ShortFileId>) -> u8 {
    match file {
        None => 0,
        Some(file) => file.0 << 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes() {
        let file = ShortFileId::new(30).unwrap();
        assert_eq!(file.number(), 30);
        let cases = [
            (BinaryPlace::Selected { offset: 0x7FFF }, Ok([0x7F, 0xFF])),
            (BinaryPlace::Short { file, offset: 255 }, Ok([0x9E, 0xFF])),
        ];
        for (place, bytes) in cases {
            assert_eq!(place.p1_p2(), bytes);
        }
        assert!(BinaryPlace::Selected { offset: 0x8000 }.p1_p2().is_err());
        assert!(ShortFileId::new(0).is_err() && ShortFileId::new(31).is_err());
        assert_eq!(record_file(Some(file)), 0xF0);
        assert_eq!(record_file(None), 0);
    }
}
