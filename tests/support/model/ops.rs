//! What a sequence is made of.

use desfire_ev1::wire::{AuthScheme, CommMode, CommandCode};

use super::keys::KeyId;

/// One operation and what goes wrong in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) fault: Option<Fault>,
}

/// Counted from the start of the operation, the first frame or effect being 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    CutBefore(u64),
    CutAfter(u64),
    LoseReply(usize),
    LoseCommand(usize),
    RemoveBefore(usize),
}

/// Bytes to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data {
    pub(crate) seed: u8,
    pub(crate) len: usize,
}

impl Data {
    pub(crate) fn bytes(self) -> Vec<u8> {
        (0..self.len)
            .map(|i| self.seed.wrapping_add((i as u8).wrapping_mul(29)))
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewFile {
    Standard {
        size: u32,
    },
    Backup {
        size: u32,
    },
    Value {
        lower: i32,
        upper: i32,
        value: i32,
        flags: u8,
    },
    Linear {
        record_size: u32,
        max: u32,
    },
    Cyclic {
        record_size: u32,
        max: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Credit,
    Debit,
    LimitedCredit,
}

/// What the caller can do. `stated` is a communication mode that the caller states instead of
/// letting the library find it; it may be wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// The card is put into the field, or the field is reset.
    Activate,
    /// The card is taken away.
    FieldOff,
    Select(u32),
    Authenticate {
        scheme: AuthScheme,
        key_no: u8,
        key: KeyId,
    },
    GetVersion,
    FreeMem,
    GetCardUid,
    GetKeySettings,
    GetKeyVersion(u8),
    GetApplicationIds,
    GetDfNames,
    GetFileIds,
    GetIsoFileIds,
    GetFileSettings(u8),
    CreateApplication {
        aid: u32,
        settings: u8,
        info: u8,
        fid: Option<u16>,
        name: Option<&'static [u8]>,
    },
    DeleteApplication(u32),
    /// The selected application deletes itself.
    DeleteThisApplication,
    FormatPicc,
    ChangeKeySettings {
        settings: u8,
        /// By the call that may freeze.
        freeze: bool,
    },
    /// SetConfiguration, option 0.
    DisableFormat,
    EnableRandomId,
    /// SetConfiguration, option 1: the pool's default key, or zeros.
    SetDefaultKey(bool),
    /// SetConfiguration, option 2: one of [`ATS`].
    SetAts(usize),
    ChangeKey {
        key_no: u8,
        old: KeyId,
        new: KeyId,
    },
    ChangeKeyInUse {
        new: KeyId,
    },
    ChangePiccKey {
        new: KeyId,
    },
    CreateFile {
        no: u8,
        fid: Option<u16>,
        mode: CommMode,
        rights: u16,
        what: NewFile,
    },
    DeleteFile(u8),
    ChangeFileSettings {
        no: u8,
        comm: u8,
        rights: u16,
        stated: Option<CommMode>,
    },
    ReadData {
        no: u8,
        offset: u32,
        len: u32,
        stated: Option<CommMode>,
    },
    /// Into a buffer of `room` bytes.
    ReadToEnd {
        no: u8,
        offset: u32,
        room: usize,
    },
    WriteData {
        no: u8,
        offset: u32,
        data: Data,
        stated: Option<CommMode>,
    },
    WriteRecord {
        no: u8,
        offset: u32,
        data: Data,
        stated: Option<CommMode>,
    },
    ReadRecords {
        no: u8,
        first: u32,
        count: u32,
        /// As the caller believes it to be.
        record_size: u32,
        stated: Option<CommMode>,
    },
    ReadAllRecords {
        no: u8,
        first: u32,
        room: usize,
    },
    ClearRecordFile(u8),
    GetValue {
        no: u8,
        stated: Option<CommMode>,
    },
    ChangeValue {
        change: Change,
        no: u8,
        amount: i32,
        stated: Option<CommMode>,
    },
    Commit,
    Abort,
    /// A [`desfire_ev1::Transaction`] is begun and dropped.
    DropGuard,
    /// Commit or abort through a [`desfire_ev1::Transaction`], which is then dropped.
    Guarded {
        commit: bool,
    },
    Odd(Odd),
}

/// As delivered, the shortest, the longest, and one that contradicts itself.
pub(crate) const ATS: [&[u8]; 4] = [
    &[0x06, 0x75, 0x77, 0x81, 0x02, 0x80],
    &[0x02, 0x05],
    &[
        20, 0x75, 0x77, 0x81, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ],
    &[0x07, 0x75, 0x77, 0x81, 0x02, 0x80],
];

/// Frames that only a program which builds them by hand can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    UnknownCommand(u8),
    /// A command of the other level.
    WrongLevel(CommandCode),
    /// A command with so many bytes of parameters, which it cannot have.
    WrongLength(CommandCode, usize),
    /// A command on a file number above 31.
    FileNumber(CommandCode, u8),
    /// GetKeyVersion of a key number above 13.
    KeyNumber(u8),
    /// WriteData or WriteRecord of no byte.
    EmptyWrite(CommandCode, u8),
    /// A negative amount, in plain.
    NegativeAmount(Change, u8, i32),
    CreateAidZero,
    DeleteAidZero,
}

/// Commands of the PICC level and of applications, with the length of their parameters.
pub(crate) const PICC_ONLY: &[(CommandCode, usize)] = &[
    (CommandCode::CreateApplication, 5),
    (CommandCode::GetApplicationIds, 0),
    (CommandCode::GetDfNames, 0),
    (CommandCode::FormatPicc, 0),
];
pub(crate) const APPLICATION_ONLY: &[(CommandCode, usize)] = &[
    (CommandCode::GetFileIds, 0),
    (CommandCode::GetIsoFileIds, 0),
    (CommandCode::GetFileSettings, 1),
    (CommandCode::DeleteFile, 1),
    (CommandCode::GetValue, 1),
    (CommandCode::ClearRecordFile, 1),
    (CommandCode::CommitTransaction, 0),
    (CommandCode::AbortTransaction, 0),
    (CommandCode::ReadData, 7),
    (CommandCode::ReadRecords, 7),
    (CommandCode::CreateStdDataFile, 7),
    (CommandCode::CreateValueFile, 17),
    (CommandCode::CreateCyclicRecordFile, 10),
    (CommandCode::WriteData, 8),
    (CommandCode::Debit, 5),
];

/// Lengths that these commands cannot have, and the level at which that shows.
pub(crate) const WRONG_LENGTHS_PICC: &[(CommandCode, usize)] = &[
    (CommandCode::GetApplicationIds, 1),
    (CommandCode::FormatPicc, 1),
    (CommandCode::CreateApplication, 6),
    (CommandCode::CreateApplication, 24),
    (CommandCode::DeleteApplication, 2),
];
pub(crate) const WRONG_LENGTHS_APPLICATION: &[(CommandCode, usize)] = &[
    (CommandCode::GetFileIds, 1),
    (CommandCode::GetFileSettings, 2),
    (CommandCode::CommitTransaction, 1),
    (CommandCode::AbortTransaction, 1),
    (CommandCode::ReadData, 6),
    (CommandCode::DeleteFile, 0),
    (CommandCode::CreateStdDataFile, 8),
    (CommandCode::CreateValueFile, 16),
    (CommandCode::CreateLinearRecordFile, 11),
    (CommandCode::ClearRecordFile, 2),
];
pub(crate) const WRONG_LENGTHS_ANY: &[(CommandCode, usize)] = &[
    (CommandCode::GetKeySettings, 1),
    (CommandCode::GetKeyVersion, 0),
    (CommandCode::GetKeyVersion, 2),
    (CommandCode::GetVersion, 1),
    (CommandCode::FreeMem, 1),
];

/// Commands whose first parameter is a file number.
pub(crate) const ON_FILES: &[(CommandCode, usize)] = &[
    (CommandCode::GetFileSettings, 1),
    (CommandCode::DeleteFile, 1),
    (CommandCode::GetValue, 1),
    (CommandCode::ClearRecordFile, 1),
    (CommandCode::ReadData, 7),
    (CommandCode::ReadRecords, 7),
    (CommandCode::WriteData, 8),
    (CommandCode::WriteRecord, 8),
    (CommandCode::CreateBackupDataFile, 7),
    (CommandCode::CreateLinearRecordFile, 10),
    (CommandCode::Credit, 5),
];

impl Change {
    pub(crate) fn code(self) -> CommandCode {
        match self {
            Self::Credit => CommandCode::Credit,
            Self::Debit => CommandCode::Debit,
            Self::LimitedCredit => CommandCode::LimitedCredit,
        }
    }
}

impl Odd {
    /// Code and parameters.
    pub(crate) fn frame(self) -> (CommandCode, Vec<u8>) {
        // One byte of a length field is enough to make it one.
        let params = |len: usize, first: &[u8]| {
            let mut params = first.to_vec();
            params.resize(len, 0);
            params
        };
        match self {
            Self::UnknownCommand(code) => (CommandCode::from_byte(code), Vec::new()),
            Self::WrongLevel(code) => {
                let mut all = PICC_ONLY.iter().chain(APPLICATION_ONLY);
                let len = all.find(|(of, _)| *of == code).map_or(0, |(_, len)| *len);
                (code, params(len, &[]))
            }
            Self::WrongLength(code, len) => (code, params(len, &[])),
            Self::FileNumber(code, number) => {
                let len = ON_FILES.iter().find(|(of, _)| *of == code);
                (code, params(len.map_or(1, |(_, len)| *len), &[number]))
            }
            Self::KeyNumber(number) => (CommandCode::GetKeyVersion, vec![number]),
            Self::EmptyWrite(code, file) => (code, params(7, &[file])),
            Self::NegativeAmount(change, file, amount) => {
                let mut params = vec![file];
                params.extend(amount.to_le_bytes());
                (change.code(), params)
            }
            Self::CreateAidZero => (CommandCode::CreateApplication, vec![0, 0, 0, 0x0F, 0x01]),
            Self::DeleteAidZero => (CommandCode::DeleteApplication, vec![0, 0, 0]),
        }
    }
}

impl Op {
    /// What stands first in the frame, if it is a command.
    pub(crate) fn code(&self) -> Option<CommandCode> {
        use CommandCode as C;
        Some(match self {
            Self::Activate | Self::FieldOff | Self::DropGuard => return None,
            Self::Select(_) => C::SelectApplication,
            Self::Authenticate { scheme, .. } => scheme.command(),
            Self::GetVersion => C::GetVersion,
            Self::FreeMem => C::FreeMem,
            Self::GetCardUid => C::GetCardUid,
            Self::GetKeySettings => C::GetKeySettings,
            Self::GetKeyVersion(_) => C::GetKeyVersion,
            Self::GetApplicationIds => C::GetApplicationIds,
            Self::GetDfNames => C::GetDfNames,
            Self::GetFileIds => C::GetFileIds,
            Self::GetIsoFileIds => C::GetIsoFileIds,
            Self::GetFileSettings(_) => C::GetFileSettings,
            Self::CreateApplication { .. } => C::CreateApplication,
            Self::DeleteApplication(_) | Self::DeleteThisApplication => C::DeleteApplication,
            Self::FormatPicc => C::FormatPicc,
            Self::ChangeKeySettings { .. } => C::ChangeKeySettings,
            Self::DisableFormat
            | Self::EnableRandomId
            | Self::SetDefaultKey(_)
            | Self::SetAts(_) => C::SetConfiguration,
            Self::ChangeKey { .. } | Self::ChangeKeyInUse { .. } | Self::ChangePiccKey { .. } => {
                C::ChangeKey
            }
            Self::CreateFile { what, .. } => match what {
                NewFile::Standard { .. } => C::CreateStdDataFile,
                NewFile::Backup { .. } => C::CreateBackupDataFile,
                NewFile::Value { .. } => C::CreateValueFile,
                NewFile::Linear { .. } => C::CreateLinearRecordFile,
                NewFile::Cyclic { .. } => C::CreateCyclicRecordFile,
            },
            Self::DeleteFile(_) => C::DeleteFile,
            Self::ChangeFileSettings { .. } => C::ChangeFileSettings,
            Self::ReadData { .. } | Self::ReadToEnd { .. } => C::ReadData,
            Self::WriteData { .. } => C::WriteData,
            Self::WriteRecord { .. } => C::WriteRecord,
            Self::ReadRecords { .. } | Self::ReadAllRecords { .. } => C::ReadRecords,
            Self::ClearRecordFile(_) => C::ClearRecordFile,
            Self::GetValue { .. } => C::GetValue,
            Self::ChangeValue { change, .. } => change.code(),
            Self::Commit | Self::Guarded { commit: true } => C::CommitTransaction,
            Self::Abort | Self::Guarded { commit: false } => C::AbortTransaction,
            Self::Odd(odd) => odd.frame().0,
        })
    }

    /// Whether the library's call takes the session by value, so that it is gone if it fails.
    pub(crate) fn takes_session(&self) -> bool {
        matches!(
            self,
            Self::Select(_)
                | Self::Authenticate { .. }
                | Self::ChangeKeyInUse { .. }
                | Self::ChangePiccKey { .. }
        )
    }

    /// The file whose settings the library needs, and the mode if the caller states it.
    pub(crate) fn file_access(&self) -> Option<(u8, Option<CommMode>)> {
        match *self {
            Self::ChangeFileSettings { no, stated, .. }
            | Self::ReadData { no, stated, .. }
            | Self::WriteData { no, stated, .. }
            | Self::WriteRecord { no, stated, .. }
            | Self::ReadRecords { no, stated, .. }
            | Self::GetValue { no, stated }
            | Self::ChangeValue { no, stated, .. } => Some((no, stated)),
            Self::ReadToEnd { no, .. } | Self::ReadAllRecords { no, .. } => Some((no, None)),
            _ => None,
        }
    }
}
