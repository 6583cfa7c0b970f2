//! Files as the card stores them: the five types and their committed content.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::state::{StateError, ensure};
use crate::wire::{
    AccessRights, CommByte, CommMode, FileDetail, FileNo, FileSettings, IsoFileId, U24, ValueFlags,
};

/// A file with its committed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub(super) number: FileNo,
    pub(super) iso_file_id: Option<IsoFileId>,
    pub(super) comm: CommByte,
    pub(super) rights: AccessRights,
    pub(super) content: FileContent,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileContent {
    /// Standard data file.
    Standard(Vec<u8>),
    /// Backup data file.
    Backup(Vec<u8>),
    /// Value file.
    Value(Value),
    /// Linear record file.
    Linear(Records),
    /// Cyclic record file.
    Cyclic(Records),
}

/// Content of a value file.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// The value never falls below this.
    pub lower: i32,
    /// The value never rises above this.
    pub upper: i32,
    /// The balance.
    pub value: i32,
    /// What LimitedCredit may still add.
    pub limited_credit: i32,
    /// What is enabled.
    pub flags: ValueFlags,
}

/// Content of a record file.
#[derive(Clone, PartialEq, Eq)]
pub struct Records {
    record_size: U24,
    max_records: U24,
    /// Whole records, the oldest first.
    data: Vec<u8>,
}

impl fmt::Debug for FileContent {
    /// How much there is, not what: data are nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(data) => write!(f, "Standard({} bytes)", data.len()),
            Self::Backup(data) => write!(f, "Backup({} bytes)", data.len()),
            Self::Value(value) => value.fmt(f),
            Self::Linear(records) => write!(f, "Linear({records:?})"),
            Self::Cyclic(records) => write!(f, "Cyclic({records:?})"),
        }
    }
}

impl fmt::Debug for Value {
    /// Without the balance and what may still be added to it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("lower", &self.lower)
            .field("upper", &self.upper)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("record_size", &self.record_size)
            .field("max_records", &self.max_records)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl File {
    /// A file without ISO FID.
    #[must_use]
    pub fn new(number: FileNo, mode: CommMode, rights: AccessRights, content: FileContent) -> Self {
        Self {
            number,
            iso_file_id: None,
            comm: mode.into(),
            rights,
            content,
        }
    }

    /// With an ISO FID.
    #[must_use]
    pub const fn with_iso_file_id(mut self, id: IsoFileId) -> Self {
        self.iso_file_id = Some(id);
        self
    }

    /// The file number.
    #[must_use]
    pub const fn number(&self) -> FileNo {
        self.number
    }

    /// The ISO FID, if it has one.
    #[must_use]
    pub const fn iso_file_id(&self) -> Option<IsoFileId> {
        self.iso_file_id
    }

    /// The committed content.
    #[must_use]
    pub const fn content(&self) -> &FileContent {
        &self.content
    }

    /// What GetFileSettings tells.
    #[must_use]
    pub fn settings(&self) -> FileSettings {
        FileSettings {
            comm: self.comm,
            rights: self.rights,
            detail: self.content.detail(),
        }
    }

    pub(super) fn check(&self) -> Result<(), StateError> {
        ensure(is_comm_byte(self.comm), "communication byte of a file")?;
        match &self.content {
            FileContent::Standard(data) | FileContent::Backup(data) => ensure(
                !data.is_empty() && U24::from_len(data.len()).is_ok(),
                "size of a data file",
            ),
            FileContent::Value(value) => ensure(value.is_possible(), "limits of a value file"),
            FileContent::Linear(records) => ensure(
                records.is_possible() && records.count() <= records.max_records.get(),
                "records of a linear record file",
            ),
            FileContent::Cyclic(records) => ensure(
                records.is_possible()
                    && records.max_records.get() >= 2
                    && records.count() < records.max_records.get(),
                "records of a cyclic record file",
            ),
        }
    }
}

impl FileContent {
    /// The content of a new file, or nothing where the type or a size is impossible. Only to
    /// be called once the memory for it is known to be there.
    pub(super) fn blank(detail: &FileDetail, balance: i32) -> Option<Self> {
        let zeros = |size: &U24| Some(vec![0; usize::try_from(size.get()).ok()?]);
        let records = |record_size: &U24, max_records: &U24| Records {
            record_size: *record_size,
            max_records: *max_records,
            data: Vec::new(),
        };
        Some(match detail {
            FileDetail::StandardData { size } => Self::Standard(zeros(size)?),
            FileDetail::BackupData { size } => Self::Backup(zeros(size)?),
            FileDetail::Value {
                lower,
                upper,
                limited_credit,
                flags,
            } => Self::Value(Value {
                lower: *lower,
                upper: *upper,
                value: balance,
                limited_credit: *limited_credit,
                flags: *flags,
            }),
            FileDetail::LinearRecord {
                record_size,
                max_records,
                ..
            } => Self::Linear(records(record_size, max_records)),
            FileDetail::CyclicRecord {
                record_size,
                max_records,
                ..
            } => Self::Cyclic(records(record_size, max_records)),
            FileDetail::Other { .. } => return None,
        })
    }

    /// Type and size as GetFileSettings tells them.
    pub(super) fn detail(&self) -> FileDetail {
        let size = |data: &Vec<u8>| U24::from_len(data.len()).unwrap_or(U24::ZERO);
        match self {
            Self::Standard(data) => FileDetail::StandardData { size: size(data) },
            Self::Backup(data) => FileDetail::BackupData { size: size(data) },
            Self::Value(value) => FileDetail::Value {
                lower: value.lower,
                upper: value.upper,
                limited_credit: value.limited_credit,
                flags: value.flags,
            },
            Self::Linear(records) => FileDetail::LinearRecord {
                record_size: records.record_size,
                max_records: records.max_records,
                current_records: records.current(),
            },
            Self::Cyclic(records) => FileDetail::CyclicRecord {
                record_size: records.record_size,
                max_records: records.max_records,
                current_records: records.current(),
            },
        }
    }
}

impl Value {
    pub(super) const fn is_possible(&self) -> bool {
        self.lower <= self.value
            && self.value <= self.upper
            && self.limited_credit >= 0
            && is_value_flags(self.flags)
    }
}

impl Records {
    /// Records from oldest to newest; `records` must be whole ones.
    #[must_use]
    pub const fn new(record_size: U24, max_records: U24, records: Vec<u8>) -> Self {
        Self {
            record_size,
            max_records,
            data: records,
        }
    }

    /// The size of a record.
    #[must_use]
    pub const fn record_size(&self) -> U24 {
        self.record_size
    }

    /// How many records were asked for at creation.
    #[must_use]
    pub const fn max_records(&self) -> U24 {
        self.max_records
    }

    /// The records from oldest to newest, one after the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        let count = self.data.len().checked_div(self.size()).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn current(&self) -> U24 {
        U24::new(self.count()).unwrap_or(U24::ZERO)
    }

    fn size(&self) -> usize {
        usize::try_from(self.record_size.get()).unwrap_or(usize::MAX)
    }

    fn is_possible(&self) -> bool {
        self.record_size.get() > 0
            && self.max_records.get() > 0
            && self.data.len().is_multiple_of(self.size())
    }

    /// `count` records of which the newest is `first` steps back from the newest of all; the
    /// oldest comes first.
    pub(super) fn read(&self, first: u32, count: u32) -> Option<&[u8]> {
        let end = self.count().checked_sub(first)?;
        let start = end.checked_sub(count)?;
        let at = |record: u32| usize::try_from(record).ok()?.checked_mul(self.size());
        self.data.get(at(start)?..at(end)?)
    }

    /// A record of zeros.
    pub(super) fn blank_record(&self) -> Vec<u8> {
        vec![0; self.size()]
    }

    /// Adds a record, dropping the oldest ones above `limit`.
    pub(super) fn push(&mut self, record: &[u8], limit: u32) {
        self.data.extend_from_slice(record);
        let excess = self.count().saturating_sub(limit);
        let bytes = usize::try_from(excess)
            .unwrap_or(usize::MAX)
            .saturating_mul(self.size());
        self.data.drain(..bytes.min(self.data.len()));
    }

    pub(super) fn clear(&mut self) {
        self.data.clear();
    }
}

/// Whether a file can have this communication byte: bits 7 to 2 are zero on EV1.
pub(super) const fn is_comm_byte(comm: CommByte) -> bool {
    comm.0 <= 0b11
}

/// Whether a value file can have these flags.
pub(super) const fn is_value_flags(flags: ValueFlags) -> bool {
    flags.bits() <= 0b11
}
