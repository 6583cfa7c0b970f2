//! How much memory the card has and what things cost.
//!
//! "Card-shaped", not exact: the rules fit what has been measured. Sources: delivered free
//! memory by proxmark3 (2K) and Elmue's EV1 logs (4K, 8K); steps of 32 bytes, application and
//! record file costs by pm3sim (measured on an EV2 2K); backup files twice (nfcjlib).

use crate::wire::{FileDetail, KeyInfo};

/// Everything is given out in steps of this many bytes.
const STEP: u64 = 32;

/// What an application costs before its keys, and a record file before its records.
const HEADER: u64 = 64;

/// What the card stores with each key besides its bytes. With it an application of one
/// 16-byte key costs 96 and one of fourteen 352, as measured.
const KEY_OVERHEAD: u64 = 4;

/// The storage size of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageSize {
    /// MF3ICD21.
    Ev1_2K,
    /// MF3ICD41.
    Ev1_4K,
    /// MF3ICD81.
    Ev1_8K,
}

impl StorageSize {
    /// The byte in both parts of GetVersion.
    #[must_use]
    pub const fn storage_byte(self) -> u8 {
        match self {
            Self::Ev1_2K => 0x16,
            Self::Ev1_4K => 0x18,
            Self::Ev1_8K => 0x1A,
        }
    }

    pub(super) const fn from_storage_byte(byte: u8) -> Option<Self> {
        match byte {
            0x16 => Some(Self::Ev1_2K),
            0x18 => Some(Self::Ev1_4K),
            0x1A => Some(Self::Ev1_8K),
            _ => None,
        }
    }

    /// What FreeMem says of a card without applications.
    #[must_use]
    pub const fn capacity(self) -> u32 {
        match self {
            Self::Ev1_2K => 2304,
            Self::Ev1_4K => 4864,
            Self::Ev1_8K => 7936,
        }
    }
}

/// What an application costs, without its files.
pub(super) fn application_cost(info: KeyInfo) -> u64 {
    let key = KEY_OVERHEAD.saturating_add(u64_of(info.family().key_len()));
    stepped(HEADER.saturating_add(key.saturating_mul(info.keys().into())))
}

/// What a file costs.
pub(super) fn file_cost(detail: &FileDetail) -> u64 {
    match detail {
        FileDetail::StandardData { size } => stepped(size.get().into()),
        FileDetail::BackupData { size } => stepped(size.get().into()).saturating_mul(2),
        FileDetail::Value { .. } => HEADER,
        FileDetail::LinearRecord {
            record_size,
            max_records,
            ..
        }
        | FileDetail::CyclicRecord {
            record_size,
            max_records,
            ..
        } => {
            let records = u64::from(record_size.get()).saturating_mul(max_records.get().into());
            stepped(records).saturating_add(HEADER)
        }
        // A card has no such file.
        FileDetail::Other { .. } => u64::MAX,
    }
}

/// Whether so many bytes can have been given out.
pub(super) const fn is_stepped(bytes: u32) -> bool {
    (bytes as u64).is_multiple_of(STEP)
}

fn stepped(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(STEP).unwrap_or(u64::MAX)
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{KeyFamily, U24};

    #[test]
    fn costs_as_measured() {
        let application = |keys| application_cost(KeyInfo::new(KeyFamily::Aes, keys).unwrap());
        assert_eq!((application(1), application(14)), (96, 352));
        let size = |size| U24::new(size).unwrap();
        let standard = |bytes| file_cost(&FileDetail::StandardData { size: size(bytes) });
        assert_eq!((standard(1), standard(32), standard(33)), (32, 32, 64));
        assert_eq!(file_cost(&FileDetail::BackupData { size: size(33) }), 128);
        let records = FileDetail::LinearRecord {
            record_size: size(32),
            max_records: size(32),
            current_records: U24::ZERO,
        };
        assert_eq!(file_cost(&records), 1088);
    }
}
