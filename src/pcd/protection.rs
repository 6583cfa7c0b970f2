//! Which protection an exchange has.
//!
//! For: rule 3.1 of the reference, the mode that a file's settings and rights give to a command
//! under the key in use. May know: settings, rights, key numbers. May not: do any of it.
//!
//! 1. If a right that grants the command names the key in use: the file's own mode.
//! 2. Otherwise, if such a right is free: plain, whatever the file's mode.
//! 3. Otherwise the card would refuse.
//!
//! Sources: libfreefare's live tests (cyclic file with rights 12E0: key 0 gives plain, key 2 the
//! file's mode), proxmark3 issues 2712 and 3393 (rights EEEE on a MACed file: a MAC gets 7E).

use crate::error::Misuse;
use crate::pcd::channel::{DataLength, Padding, ReplyProtection, RequestProtection};
use crate::pcd::session::Inner;
use crate::wire::{
    Access, AccessRights, CommByte, CommMode, FileDetail, FileNo, FileSettings, KeyNo, U24,
    ValueFlags,
};

/// What is done to a request, and what must have been done to its reply.
#[derive(Clone, Copy)]
pub struct Protection<'a> {
    pub request: RequestProtection<'a>,
    pub reply: ReplyProtection,
}

impl Protection<'_> {
    /// Every command without file data or secrets.
    pub const STANDARD: Self = Self {
        request: RequestProtection::Plain,
        reply: ReplyProtection::Standard,
    };

    /// Commands that always travel enciphered.
    pub const ENCIPHERED_REQUEST: Self = Self {
        request: RequestProtection::Enciphered {
            padding: Padding::Zeros,
            second_crc: &[],
        },
        reply: ReplyProtection::Standard,
    };

    /// A command that carries file data to the card.
    pub const fn write(mode: CommMode) -> Self {
        Self {
            request: match mode {
                CommMode::Plain => RequestProtection::Plain,
                CommMode::Mac => RequestProtection::Mac,
                CommMode::Enciphered => RequestProtection::Enciphered {
                    padding: Padding::Zeros,
                    second_crc: &[],
                },
            },
            reply: ReplyProtection::Standard,
        }
    }

    /// A command that brings file data from the card.
    pub const fn read(mode: CommMode, length: DataLength) -> Self {
        Self {
            request: RequestProtection::Plain,
            reply: match mode {
                CommMode::Plain => ReplyProtection::Standard,
                CommMode::Mac => ReplyProtection::Mac,
                CommMode::Enciphered => ReplyProtection::Enciphered { length },
            },
        }
    }
}

/// What a command does to a file, as far as rights are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// ReadData, ReadRecords: Read or Read&Write.
    Read,
    /// WriteData, WriteRecord, LimitedCredit: Write or Read&Write.
    Write,
    /// Debit: Read, Write or Read&Write.
    Debit,
    /// GetValue: Read, Write or Read&Write, or the file's own flag.
    GetValue,
    /// Credit: Read&Write.
    Credit,
    /// ChangeFileSettings: Change. Always enciphered under a key, always plain if free.
    Change,
}

/// Which file a command is about, what it does there, and the mode if the caller stated it.
#[derive(Clone, Copy)]
pub struct FileAccess {
    pub file: FileNo,
    pub operation: Operation,
    pub mode: Option<CommMode>,
}

impl FileAccess {
    pub const fn new(file: FileNo, operation: Operation) -> Self {
        Self {
            file,
            operation,
            mode: None,
        }
    }

    /// The mode: as stated, or by the rule from what the session knows of the file.
    pub fn mode(&self, inner: &Inner) -> Result<CommMode, Misuse> {
        if let Some(mode) = self.mode {
            return Ok(mode);
        }
        // The exchange asks for unknown settings before it comes here.
        let known = inner
            .place
            .files
            .get(self.file)
            .ok_or(Misuse::AccessDenied(self.file))?;
        known
            .mode_for(self.operation, inner.key_no())
            .ok_or(Misuse::AccessDenied(self.file))
    }
}

/// What the session remembers of a file: bytes without gaps, see [`FileCache`].
#[derive(Clone, Copy)]
pub(in crate::pcd) struct KnownFile {
    comm: CommByte,
    rights: [u8; 2],
    free_get_value: bool,
    kind: Kind,
    /// Of a data file or of a record.
    size: U24,
    /// Stated by the caller, or heard in an EV1 session.
    proved: bool,
}

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is remembered.
    Unknown,
    /// Bytes whose writes are valid at once.
    Standard,
    /// Bytes whose writes wait for a commit.
    Backup,
    Records,
    Other,
}

impl KnownFile {
    const UNKNOWN: Self = Self {
        comm: CommByte(0),
        rights: [0; 2],
        free_get_value: false,
        kind: Kind::Unknown,
        size: U24::ZERO,
        proved: false,
    };

    /// Whether writes to it are valid at once.
    pub(in crate::pcd) const fn is_standard(&self) -> bool {
        matches!(self.kind, Kind::Standard)
    }

    /// The size of a data file.
    pub(in crate::pcd) const fn size(&self) -> Option<U24> {
        match self.kind {
            Kind::Standard | Kind::Backup => Some(self.size),
            _ => None,
        }
    }

    /// The size of a record.
    pub(in crate::pcd) const fn record_size(&self) -> Option<U24> {
        match self.kind {
            Kind::Records => Some(self.size),
            _ => None,
        }
    }

    fn new(settings: &FileSettings, proved: bool) -> Self {
        let (kind, size) = match settings.detail {
            FileDetail::StandardData { size } => (Kind::Standard, size),
            FileDetail::BackupData { size } => (Kind::Backup, size),
            FileDetail::LinearRecord { record_size, .. }
            | FileDetail::CyclicRecord { record_size, .. } => (Kind::Records, record_size),
            FileDetail::Value { .. } | FileDetail::Other { .. } => (Kind::Other, U24::ZERO),
        };
        Self {
            proved,
            comm: settings.comm,
            rights: settings.rights.to_bytes(),
            kind,
            size,
            free_get_value: matches!(
                settings.detail,
                FileDetail::Value { flags, .. } if flags.contains(ValueFlags::FREE_GET_VALUE)
            ),
        }
    }

    fn mode_for(&self, operation: Operation, key: Option<KeyNo>) -> Option<CommMode> {
        let AccessRights {
            read,
            write,
            read_write,
            change,
        } = AccessRights::from_bytes(self.rights);
        let granting: &[Access] = match operation {
            Operation::Read => &[read, read_write],
            Operation::Write => &[write, read_write],
            Operation::Debit | Operation::GetValue => &[read, write, read_write],
            Operation::Credit => &[read_write],
            Operation::Change => &[change],
        };
        if key.is_some_and(|key| granting.contains(&Access::Key(key))) {
            return Some(if operation == Operation::Change {
                CommMode::Enciphered
            } else {
                self.comm.mode()
            });
        }
        let free = granting.contains(&Access::Free)
            || (operation == Operation::GetValue && self.free_get_value);
        free.then_some(CommMode::Plain)
    }
}

impl FileSettings {
    /// The mode in which ReadData or ReadRecords brings this file's data to who has authenticated with
    /// `key`; nothing if the card would refuse.
    ///
    /// ```
    /// use desfire_ev1::wire::{CommMode, FileSettings, KeyNo};
    ///
    /// // MACed; Read 1, Write 2, Read&Write free, Change 0.
    /// let settings = FileSettings::decode(&[0x00, 0x01, 0xE0, 0x12, 0x20, 0x00, 0x00])?;
    /// let key = |number| KeyNo::new(number).ok();
    /// assert_eq!(settings.reading_mode(key(1)), Some(CommMode::Mac));
    /// // Read&Write is free: plain, whatever the file's mode.
    /// assert_eq!(settings.reading_mode(key(0)), Some(CommMode::Plain));
    /// # Ok::<(), desfire_ev1::wire::WireError>(())
    /// ```
    #[must_use]
    pub fn reading_mode(&self, key: Option<KeyNo>) -> Option<CommMode> {
        KnownFile::new(self, true).mode_for(Operation::Read, key)
    }

    /// The same for WriteData and WriteRecord.
    #[must_use]
    pub fn writing_mode(&self, key: Option<KeyNo>) -> Option<CommMode> {
        KnownFile::new(self, true).mode_for(Operation::Write, key)
    }
}

/// What the session remembers of all files of the application.
///
/// Every byte of it is always written. In an array of `Option`s those of the `None`s would be whatever
/// lay on the stack, which has been found to be a piece of the session key.
#[derive(Clone)]
pub(in crate::pcd) struct FileCache([KnownFile; 32]);

impl FileCache {
    pub(in crate::pcd) const EMPTY: Self = Self([KnownFile::UNKNOWN; 32]);

    pub(in crate::pcd) fn get(&self, file: FileNo) -> Option<&KnownFile> {
        self.0
            .get(usize::from(file.number()))
            .filter(|known| known.kind != Kind::Unknown)
    }

    pub(in crate::pcd) fn put(&mut self, file: FileNo, settings: &FileSettings, proved: bool) {
        if let Some(place) = self.0.get_mut(usize::from(file.number())) {
            *place = KnownFile::new(settings, proved);
        }
    }

    /// Forgets what was heard without proof that it is the card's.
    pub(in crate::pcd) fn forget_unproved(&mut self) {
        for place in &mut self.0 {
            if !place.proved {
                *place = KnownFile::UNKNOWN;
            }
        }
    }

    pub(in crate::pcd) fn forget(&mut self, file: FileNo) {
        if let Some(place) = self.0.get_mut(usize::from(file.number())) {
            *place = KnownFile::UNKNOWN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(comm: CommMode, rights: u16, detail: Option<FileDetail>) -> KnownFile {
        KnownFile::new(
            &FileSettings {
                comm: comm.into(),
                rights: AccessRights::from_bytes(rights.to_le_bytes()),
                detail: detail.unwrap_or(FileDetail::StandardData { size: U24::ZERO }),
            },
            true,
        )
    }

    #[test]
    fn rule_3_1() {
        use CommMode::{Enciphered, Mac, Plain};
        use Operation::{Change, Credit, Debit, GetValue, Read, Write};
        let key = |number| Some(KeyNo::new(number).unwrap());
        // Rights R W RW C; file mode; operation; key; what follows.
        let cases = [
            // libfreefare: rights 12E0. Key 0 matches no reading right, RW is free.
            (0x12E0, Mac, Read, key(0), Some(Plain)),
            (0x12E0, Mac, Read, key(1), Some(Mac)),
            (0x12E0, Mac, Write, key(2), Some(Mac)),
            (0x12E0, Mac, Write, key(1), Some(Plain)),
            // proxmark3 issues 2712 and 3393: EEEE is plain, whoever is authenticated.
            (0xEEEE, Enciphered, Read, key(0), Some(Plain)),
            (0xEEEE, Enciphered, Write, None, Some(Plain)),
            (0xEEEE, Enciphered, Change, key(0), Some(Plain)),
            // Nobody, somebody else, nobody authenticated.
            (0xFFFF, Enciphered, Read, key(0), None),
            (0x1230, Enciphered, Read, key(2), None),
            (0x1230, Enciphered, Read, None, None),
            // Which right grants what.
            (0x1230, Enciphered, Read, key(1), Some(Enciphered)),
            (0x1230, Enciphered, Read, key(3), Some(Enciphered)),
            (0x1230, Enciphered, Write, key(1), None),
            (0x1230, Enciphered, GetValue, key(1), Some(Enciphered)),
            (0x1230, Enciphered, GetValue, key(2), Some(Enciphered)),
            (0x1230, Enciphered, Debit, key(1), Some(Enciphered)),
            (0x1230, Enciphered, Debit, key(2), Some(Enciphered)),
            (0x1230, Enciphered, Credit, key(2), None),
            (0x1230, Enciphered, Credit, key(3), Some(Enciphered)),
            (0x1230, Enciphered, Debit, key(0), None),
            // Changing settings is enciphered, even of a plain file.
            (0x1230, Plain, Change, key(0), Some(Enciphered)),
            (0x1230, Plain, Change, key(1), None),
        ];
        for (rights, mode, operation, key, expected) in cases {
            assert_eq!(
                known(mode, rights, None).mode_for(operation, key),
                expected,
                "rights {rights:04X}, {mode}, {operation:?}, {key:?}"
            );
        }
    }

    #[test]
    fn the_free_get_value_flag_opens_get_value_only() {
        let file = known(
            CommMode::Enciphered,
            0x1230,
            Some(FileDetail::Value {
                lower: 0,
                upper: 1,
                limited_credit: 0,
                flags: ValueFlags::FREE_GET_VALUE,
            }),
        );
        assert_eq!(
            file.mode_for(Operation::GetValue, None),
            Some(CommMode::Plain)
        );
        assert_eq!(file.mode_for(Operation::Debit, None), None);
        let reader = Some(KeyNo::new(1).unwrap());
        assert_eq!(
            file.mode_for(Operation::GetValue, reader),
            Some(CommMode::Enciphered)
        );
    }

    #[test]
    fn what_is_known_of_a_file() {
        let u24 = |number| U24::new(number).unwrap();
        let (size, record_size) = (u24(100), u24(16));
        let linear = FileDetail::LinearRecord {
            record_size,
            max_records: u24(4),
            current_records: u24(1),
        };
        for (detail, standard, expected_size, expected_record) in [
            (FileDetail::StandardData { size }, true, Some(size), None),
            (FileDetail::BackupData { size }, false, Some(size), None),
            (linear, false, None, Some(record_size)),
        ] {
            let known = known(CommMode::Mac, 0x1230, Some(detail));
            assert_eq!(known.is_standard(), standard);
            assert_eq!(known.size(), expected_size);
            assert_eq!(known.record_size(), expected_record);
        }
        assert_eq!(KnownFile::UNKNOWN.size(), None);
        assert_eq!(KnownFile::UNKNOWN.record_size(), None);
    }

    #[test]
    fn modes_by_settings() {
        let settings = FileSettings {
            comm: CommMode::Mac.into(),
            rights: AccessRights::from_bytes(0x12F0_u16.to_le_bytes()),
            detail: FileDetail::StandardData { size: U24::ZERO },
        };
        let key = |number| Some(KeyNo::new(number).unwrap());
        assert_eq!(settings.reading_mode(key(1)), Some(CommMode::Mac));
        assert_eq!(settings.reading_mode(key(2)), None);
        assert_eq!(settings.writing_mode(key(2)), Some(CommMode::Mac));
        assert_eq!(settings.writing_mode(key(1)), None);
    }

    #[test]
    fn what_is_forgotten() {
        let settings = FileSettings {
            comm: CommMode::Mac.into(),
            rights: AccessRights::from_bytes([0, 0]),
            detail: FileDetail::StandardData { size: U24::ZERO },
        };
        let file = |number| FileNo::new(number).unwrap();
        let mut cache = FileCache::EMPTY;
        cache.put(file(1), &settings, true);
        cache.put(file(31), &settings, false);
        assert!(cache.get(file(1)).is_some() && cache.get(file(31)).is_some());
        assert!(cache.get(file(2)).is_none());
        cache.forget_unproved();
        assert!(cache.get(file(1)).is_some() && cache.get(file(31)).is_none());
        cache.forget(file(1));
        assert!(cache.get(file(1)).is_none());
    }
}
