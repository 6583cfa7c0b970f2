//! The header: what says that this is a purse, and on which card.

use super::Evidence;
use crate::wire::{Reader, Uid, WireError};

/// Bytes of the header.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | layout version, [`LAYOUT_VERSION`]; 00 is a purse that has not been initialised |
/// | 1 | 7 | UID of the card |
/// | 8 | 8 | purse id, least significant byte first |
pub const HEADER_LEN: usize = 16;

/// The version of the layout that this library reads and writes.
pub const LAYOUT_VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) uid: Uid,
    pub(super) id: u64,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields = [LAYOUT_VERSION]
            .into_iter()
            .chain(self.uid.0)
            .chain(self.id.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// The header of the card with this UID.
    pub(super) fn check(bytes: &[u8; HEADER_LEN], card: Uid) -> Result<Self, Evidence> {
        match bytes {
            [0, rest @ ..] if rest == &[0; HEADER_LEN - 1] => return Err(Evidence::Blank),
            [LAYOUT_VERSION, ..] => {}
            [version, ..] => return Err(Evidence::Layout { version: *version }),
        }
        let header = Self::decode(bytes).map_err(|_| Evidence::Blank)?;
        if header.uid == card {
            Ok(header)
        } else {
            Err(Evidence::Foreign {
                card,
                stored: header.uid,
            })
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.u8()?;
        let uid = Uid(reader.array()?);
        let id = reader.array().map(u64::from_le_bytes)?;
        reader.finish()?;
        Ok(Self { uid, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_bytes_and_the_right_card() {
        let header = Header {
            uid: Uid([4, 1, 2, 3, 4, 5, 6]),
            id: 0x0102,
        };
        let bytes = [1, 4, 1, 2, 3, 4, 5, 6, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(Header::check(&bytes, header.uid), Ok(header));
        let card = Uid([4, 1, 2, 3, 4, 5, 7]);
        let stored = header.uid;
        let foreign = Evidence::Foreign { card, stored };
        assert_eq!(Header::check(&bytes, card), Err(foreign));
        assert_eq!(Header::check(&[0; 16], card), Err(Evidence::Blank));
        let mut newer = bytes;
        newer[0] = 2;
        let layout = Evidence::Layout { version: 2 };
        assert_eq!(Header::check(&newer, card), Err(layout));
        newer[0] = 0;
        let layout = Evidence::Layout { version: 0 };
        assert_eq!(Header::check(&newer, card), Err(layout));
    }
}
