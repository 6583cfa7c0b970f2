//! Every command that a session has, as one call each, and what its exchange looks like on the wire.
//!
//! The shapes are from chapter 3 of the protocol reference. What a call returns is brought into the
//! bytes that the card must have sent for it.

use desfire_ev1::command::iso::{BinaryPlace, IsoTarget, RecordRange, ShortFileId};
use desfire_ev1::command::{IsoName, RawMode};
use desfire_ev1::wire::{
    Aid, Amount, CommMode, CommandCode, DfName, IsoFileId, KeyInfo, KeyNo, KeySettings, ValueFlags,
};
use desfire_ev1::{Authenticated, Machine, RunError, Session, Transport};

use crate::input::Input;
use crate::rig::{MASTER_ONLY, MODES, Suite, file_no, key_no, u24};

/// Room for what is read.
pub(crate) const ROOM: usize = 192;

/// What of a request is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Only the IV moves.
    Plain,
    /// A MAC at the end; so many bytes stand before the data.
    Mac { header: usize },
    /// Ciphertext after so many bytes. `data` is how much of it is data, where one CRC follows them.
    Cipher { header: usize, data: Option<usize> },
}

/// What protects a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing in any session.
    Bare,
    /// The CMAC of an EV1 session, nothing in D40.
    Standard,
    /// A MAC in either.
    Mac,
    Cipher,
}

/// What a call looks like on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) request: Request,
    /// How many bytes the request has, in all its frames.
    pub(crate) request_len: Option<usize>,
    pub(crate) reply: Reply,
    /// How long the reply's data usually are.
    pub(crate) usual: usize,
    /// The order of the reply's bytes does not matter.
    pub(crate) is_set: bool,
}

const STANDARD: Shape = Shape {
    request: Request::Plain,
    request_len: None,
    reply: Reply::Standard,
    usual: 0,
    is_set: false,
};

const fn gives(usual: usize) -> Shape {
    Shape { usual, ..STANDARD }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    GetVersion,
    FreeMem,
    GetKeySettings,
    GetKeyVersion,
    GetApplicationIds,
    GetDfNames,
    GetFileIds,
    GetIsoFileIds,
    GetFileSettings,
    CreateApplication,
    CreateStdDataFile,
    CreateBackupDataFile,
    CreateValueFile,
    CreateLinearRecordFile,
    CreateCyclicRecordFile,
    DeleteFile,
    ClearRecordFile,
    Commit,
    Abort,
    ReadData,
    ReadToEnd,
    ReadRecords,
    ReadAllRecords,
    GetValue,
    WriteData,
    WriteRecord,
    Credit,
    Debit,
    LimitedCredit,
    ChangeFileSettings,
    ChangeFileSettingsFreely,
    Raw,
    IsoSelectFile,
    IsoReadBinary,
    IsoReadRecord,
    IsoUpdateBinary,
    IsoAppendRecord,
    // With authentication only.
    GetCardUid,
    DeleteApplication,
    Format,
    ChangeKeySettings,
    FreezeKeySettings,
    SetDefaultKey,
    SetAts,
    EnableRandomId,
    DisableFormat,
    ChangeKey,
    // Those that take the session.
    Select,
    IsoSelect,
    ChangeKeyInUse,
    ChangePiccKey,
    AuthenticateIso7816,
}

use Kind as K;

pub(crate) const ALL: &[Kind] = &[
    K::GetVersion,
    K::FreeMem,
    K::GetKeySettings,
    K::GetKeyVersion,
    K::GetApplicationIds,
    K::GetDfNames,
    K::GetFileIds,
    K::GetIsoFileIds,
    K::GetFileSettings,
    K::CreateApplication,
    K::CreateStdDataFile,
    K::CreateBackupDataFile,
    K::CreateValueFile,
    K::CreateLinearRecordFile,
    K::CreateCyclicRecordFile,
    K::DeleteFile,
    K::ClearRecordFile,
    K::Commit,
    K::Abort,
    K::ReadData,
    K::ReadToEnd,
    K::ReadRecords,
    K::ReadAllRecords,
    K::GetValue,
    K::WriteData,
    K::WriteRecord,
    K::Credit,
    K::Debit,
    K::LimitedCredit,
    K::ChangeFileSettings,
    K::ChangeFileSettingsFreely,
    K::Raw,
    K::IsoSelectFile,
    K::IsoReadBinary,
    K::IsoReadRecord,
    K::IsoUpdateBinary,
    K::IsoAppendRecord,
    K::GetCardUid,
    K::DeleteApplication,
    K::Format,
    K::ChangeKeySettings,
    K::FreezeKeySettings,
    K::SetDefaultKey,
    K::SetAts,
    K::EnableRandomId,
    K::DisableFormat,
    K::ChangeKey,
    K::Select,
    K::IsoSelect,
    K::ChangeKeyInUse,
    K::ChangePiccKey,
    K::AuthenticateIso7816,
];

/// The settings of a file for this call to be sent to: Read&Write with key 0, which goes before what is free,
/// or all free.
pub(crate) fn settings_for(kind: Kind, mode: CommMode, free: bool, len: usize) -> Vec<u8> {
    let comm = [0, 1, 3][MODES.iter().position(|each| *each == mode).unwrap()];
    let read_write = if free { 0xEE } else { 0x00 };
    let (first, detail): (u8, Vec<u8>) = match kind {
        K::ReadData | K::ReadToEnd | K::WriteData => (0, u24(len + 5).to_bytes().to_vec()),
        K::ReadRecords | K::ReadAllRecords | K::WriteRecord => {
            (3, vec![len as u8, 0, 0, 4, 0, 0, 1, 0, 0])
        }
        _ => (2, vec![0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 9, 0, 0, 0, 1]),
    };
    [&[first, comm, read_write, 0xEE][..], &detail].concat()
}

/// One call with its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    /// Of the file; stated, unless `ask`.
    pub(crate) mode: CommMode,
    /// The mode is left to the library, which asks the card.
    ask: bool,
    /// Bytes that are read or written.
    pub(crate) len: usize,
    /// For [`Kind::Raw`].
    raw: (u8, CommMode, Option<usize>),
}

impl Call {
    /// Four bytes of input, and three more for [`Kind::Raw`].
    pub(crate) fn draw(input: &mut Input<'_>) -> Self {
        let kind = input.pick(ALL);
        let how = input.byte();
        let len = 1 + input.below(ROOM);
        let raw = match kind {
            K::Raw => {
                let code = input.byte();
                let reply = input.pick(&MODES);
                let stated = Some(input.below(ROOM)).filter(|len| *len > 0);
                (code, reply, stated)
            }
            _ => (0, CommMode::Plain, None),
        };
        Self {
            kind,
            mode: MODES[usize::from(how & 3) % 3],
            ask: how & 0x0C == 0x0C,
            len,
            raw,
        }
    }

    /// The bytes that [`Self::draw`] makes this call of.
    pub(crate) fn seed(kind: Kind, mode: CommMode, len: usize, raw: (u8, CommMode)) -> Vec<u8> {
        let at = |mode: CommMode| MODES.iter().position(|each| *each == mode).unwrap() as u8;
        let kind_at = ALL.iter().position(|each| *each == kind).unwrap() as u8;
        let mut bytes = vec![kind_at, at(mode), (len.clamp(1, ROOM) - 1) as u8];
        if kind == K::Raw {
            bytes.extend([raw.0, at(raw.1), 0]);
        }
        bytes
    }

    /// The same with the mode left to the library.
    pub(crate) fn seed_asking(kind: Kind, len: usize) -> Vec<u8> {
        let plain = CommMode::Plain;
        let mut bytes = Self::seed(kind, plain, len, (0, plain));
        bytes[1] |= 0x0C;
        bytes
    }

    /// Whether the library is to find out the file's mode, by asking or from what it has heard.
    pub(crate) fn leaves_mode(&self) -> bool {
        self.ask
            && matches!(
                self.kind,
                K::ReadData
                    | K::ReadToEnd
                    | K::ReadRecords
                    | K::ReadAllRecords
                    | K::GetValue
                    | K::WriteData
                    | K::WriteRecord
                    | K::Credit
                    | K::Debit
                    | K::LimitedCredit
            )
    }

    /// The mode that a file's settings give to a call that leaves it to them, under key 0 or without one;
    /// nothing if the card would refuse. Rule 3.1 of the reference.
    pub(crate) fn mode_by(&self, settings: &[u8], keyed: bool) -> Option<CommMode> {
        let (read_write, read, write) = (settings[2] >> 4, settings[3] >> 4, settings[3] & 0x0F);
        let granting: &[u8] = match self.kind {
            K::Credit => &[read_write],
            K::Debit | K::GetValue => &[read_write, read, write],
            K::WriteData | K::WriteRecord | K::LimitedCredit => &[read_write, write],
            _ => &[read_write, read],
        };
        if keyed && granting.contains(&0) {
            return Some(match settings[1] & 3 {
                1 => CommMode::Mac,
                3 => CommMode::Enciphered,
                _ => CommMode::Plain,
            });
        }
        let is_value = settings[0] == 2;
        let free_value = self.kind == K::GetValue && is_value && settings[16] & 2 != 0;
        (granting.contains(&0xE) || free_value).then_some(CommMode::Plain)
    }

    /// Whether the session no longer knows the settings of a file after it.
    pub(crate) fn makes_forget(&self) -> bool {
        matches!(
            self.kind,
            K::CreateStdDataFile
                | K::CreateBackupDataFile
                | K::CreateValueFile
                | K::CreateLinearRecordFile
                | K::CreateCyclicRecordFile
                | K::DeleteFile
                | K::ChangeFileSettings
                | K::ChangeFileSettingsFreely
                | K::Raw
        )
    }

    /// Whether the session goes with it.
    pub(crate) fn takes_session(&self) -> bool {
        let at = ALL.iter().position(|each| *each == self.kind);
        at >= ALL.iter().position(|each| *each == K::Select)
    }

    fn in_mode(&self, header: usize, data: usize, suite: Suite) -> (Request, usize) {
        match self.mode {
            CommMode::Plain => (Request::Plain, header + data),
            CommMode::Mac => (Request::Mac { header }, header + data + suite.mac_len()),
            CommMode::Enciphered => {
                let sealed = (data + suite.crc_len()).next_multiple_of(suite.block_len());
                let data = Some(data);
                (Request::Cipher { header, data }, header + sealed)
            }
        }
    }

    pub(crate) fn shape(&self, suite: Option<Suite>) -> Shape {
        let reply_mode = |mode| match mode {
            CommMode::Plain => Reply::Standard,
            CommMode::Mac => Reply::Mac,
            CommMode::Enciphered => Reply::Cipher,
        };
        let cipher = |header, data| Shape {
            request: Request::Cipher { header, data },
            ..STANDARD
        };
        let read = |usual| Shape {
            reply: reply_mode(self.mode),
            ..gives(usual)
        };
        let write = |header, data| match suite {
            Some(suite) => {
                let (request, len) = self.in_mode(header, data, suite);
                Shape {
                    request,
                    request_len: Some(len),
                    ..STANDARD
                }
            }
            None => Shape {
                request_len: Some(header + data),
                ..STANDARD
            },
        };
        match self.kind {
            K::GetVersion => gives(28),
            K::FreeMem => gives(3),
            K::GetKeySettings => gives(2),
            K::GetKeyVersion => gives(1),
            K::GetApplicationIds => gives(9),
            K::GetDfNames => gives(21),
            K::GetFileIds => Shape {
                is_set: true,
                ..gives(5)
            },
            K::GetIsoFileIds => gives(6),
            K::GetFileSettings => gives(7),
            K::ReadData | K::ReadToEnd | K::ReadRecords | K::ReadAllRecords => read(self.len),
            K::GetValue => read(4),
            K::WriteData | K::WriteRecord => write(7, self.len),
            K::Credit | K::Debit | K::LimitedCredit => write(1, 4),
            K::GetCardUid => Shape {
                reply: Reply::Cipher,
                ..gives(7)
            },
            K::ChangeFileSettings => cipher(1, Some(3)),
            K::ChangeKeySettings | K::FreezeKeySettings => cipher(0, Some(1)),
            K::SetDefaultKey => cipher(1, Some(25)),
            K::EnableRandomId | K::DisableFormat => cipher(1, Some(1)),
            K::SetAts => cipher(1, None),
            K::ChangeKey => cipher(1, None),
            K::ChangeKeyInUse | K::ChangePiccKey => Shape {
                reply: Reply::Bare,
                ..cipher(1, None)
            },
            K::Select | K::IsoSelect | K::IsoSelectFile | K::AuthenticateIso7816 => Shape {
                reply: Reply::Bare,
                ..STANDARD
            },
            K::IsoReadBinary => gives(self.len.min(50)),
            K::IsoReadRecord => gives(self.len.min(50)),
            K::Raw => {
                let shape = write(1, self.len);
                Shape {
                    reply: reply_mode(self.raw.1),
                    usual: self.raw.2.unwrap_or(self.len),
                    ..shape
                }
            }
            _ => STANDARD,
        }
    }

    /// Whether it is an ISO 7816-4 command.
    pub(crate) fn is_iso(&self) -> bool {
        matches!(
            self.kind,
            K::IsoSelect
                | K::IsoSelectFile
                | K::IsoReadBinary
                | K::IsoReadRecord
                | K::IsoUpdateBinary
                | K::IsoAppendRecord
                | K::AuthenticateIso7816
        )
    }

    /// For a session that goes on, of whatever kind.
    pub(crate) fn run<S, T: Transport>(
        &self,
        session: &mut Session<S>,
        line: &mut T,
        buffer: &mut [u8; ROOM],
    ) -> Result<Vec<u8>, RunError<T::Error>> {
        let file = file_no(1);
        let data = [0xD7; ROOM];
        let data = &data[..self.len];
        let window = &mut buffer[..self.len];
        let len = self.len as u32;
        let amount = Amount::new(77).unwrap();
        let place = BinaryPlace::Selected { offset: 3 };
        macro_rules! run {
            ($exchange:expr) => {{
                let exchange = $exchange;
                if self.ask {
                    exchange.run(line)
                } else {
                    exchange.comm_mode(self.mode).run(line)
                }
            }};
        }
        let nothing = |()| Vec::new();
        match self.kind {
            K::GetVersion => session.get_version().run(line).map(|version| {
                let (hardware, software, production) = version.to_frames();
                [&hardware[..], &software, &production].concat()
            }),
            K::FreeMem => session
                .free_mem()
                .run(line)
                .map(|free| u24(free as usize).to_bytes().to_vec()),
            K::GetKeySettings => session
                .get_key_settings()
                .run(line)
                .map(|(settings, info)| vec![settings.to_byte(), info.to_byte()]),
            K::GetKeyVersion => session
                .get_key_version(KeyNo::MASTER)
                .run(line)
                .map(|version| vec![version]),
            K::GetApplicationIds => session
                .get_application_ids()
                .run(line)
                .map(|aids| aids.iter().flat_map(|aid| aid.to_bytes()).collect()),
            K::GetDfNames => session.get_df_names(window).run(line).map(|names| {
                let mut bytes = Vec::new();
                for named in names {
                    bytes.extend(named.aid.to_bytes());
                    bytes.extend(named.file_id.to_native());
                    bytes.extend(named.df_name.iter().flat_map(DfName::as_bytes));
                }
                bytes
            }),
            K::GetFileIds => session
                .get_file_ids()
                .run(line)
                .map(|files| files.iter().map(|file| file.number()).collect()),
            K::GetIsoFileIds => session
                .get_iso_file_ids()
                .run(line)
                .map(|ids| ids.iter().flat_map(|id| id.to_native()).collect()),
            K::GetFileSettings => session.get_file_settings(file).run(line).map(|got| {
                let mut bytes = vec![0; 36];
                let len = got.encode(&mut bytes).unwrap();
                bytes.truncate(len);
                bytes
            }),
            K::CreateApplication => {
                let info = KeyInfo::new(desfire_ev1::wire::KeyFamily::Aes, 3).unwrap();
                let name = IsoName {
                    file_id: IsoFileId(0xE110),
                    df_name: DfName::new(b"fuzz").ok(),
                };
                let aid = Aid::from_bytes([7, 7, 7]);
                session
                    .create_application(aid, KeySettings::DEFAULT, info, Some(name))
                    .run(line)
                    .map(nothing)
            }
            K::CreateStdDataFile => session
                .create_std_data_file(file, None, self.mode, MASTER_ONLY, u24(32))
                .run(line)
                .map(nothing),
            K::CreateBackupDataFile => session
                .create_backup_data_file(file, None, self.mode, MASTER_ONLY, u24(32))
                .run(line)
                .map(nothing),
            K::CreateValueFile => session
                .create_value_file(
                    file,
                    self.mode,
                    MASTER_ONLY,
                    0..=100,
                    50,
                    ValueFlags::empty(),
                )
                .run(line)
                .map(nothing),
            K::CreateLinearRecordFile => session
                .create_linear_record_file(file, None, self.mode, MASTER_ONLY, u24(8), u24(4))
                .run(line)
                .map(nothing),
            K::CreateCyclicRecordFile => session
                .create_cyclic_record_file(file, None, self.mode, MASTER_ONLY, u24(8), u24(4))
                .run(line)
                .map(nothing),
            K::DeleteFile => session.delete_file(file).run(line).map(nothing),
            K::ClearRecordFile => session.clear_record_file(file).run(line).map(nothing),
            K::Commit => session.commit_transaction().run(line).map(nothing),
            K::Abort => session.abort_transaction().run(line).map(nothing),
            K::ReadData => {
                run!(session.read_data(file, 5..5 + len, window)).map(|read| read.to_vec())
            }
            K::ReadToEnd => {
                run!(session.read_data_to_end(file, 5, window)).map(|read| read.to_vec())
            }
            K::ReadRecords => {
                run!(session.read_records(file, 0, 1, len, window)).map(|read| read.to_vec())
            }
            K::ReadAllRecords => {
                run!(session.read_all_records(file, 0, window)).map(|read| read.to_vec())
            }
            K::GetValue => run!(session.get_value(file)).map(|value| value.to_le_bytes().to_vec()),
            K::WriteData => run!(session.write_data(file, 5, data)).map(nothing),
            K::WriteRecord => run!(session.write_record(file, 0, data)).map(nothing),
            K::Credit => run!(session.credit(file, amount)).map(nothing),
            K::Debit => run!(session.debit(file, amount)).map(nothing),
            K::LimitedCredit => run!(session.limited_credit(file, amount)).map(nothing),
            K::ChangeFileSettings | K::ChangeFileSettingsFreely => {
                let change = session.change_file_settings(file, self.mode, MASTER_ONLY);
                if self.kind == K::ChangeFileSettings {
                    change.under_key().run(line).map(nothing)
                } else {
                    change.free().run(line).map(nothing)
                }
            }
            K::Raw => {
                let (code, reply, reply_len) = self.raw;
                let mode = RawMode {
                    request: self.mode,
                    reply,
                    reply_len,
                };
                let code = CommandCode::from_byte(code);
                session
                    .raw(code, &[0x01], data, buffer, mode)
                    .run(line)
                    .map(|read| read.to_vec())
            }
            K::IsoSelectFile => session
                .iso_select_file(IsoFileId(0xE103))
                .run(line)
                .map(nothing),
            K::IsoReadBinary => session
                .iso_read_binary(place, window)
                .run(line)
                .map(<[u8]>::to_vec),
            K::IsoReadRecord => {
                let file = ShortFileId::new(3).ok();
                session
                    .iso_read_record(file, RecordRange::One(1), window)
                    .run(line)
                    .map(<[u8]>::to_vec)
            }
            K::IsoUpdateBinary => session
                .iso_update_binary(place, data)
                .run(line)
                .map(nothing),
            K::IsoAppendRecord => session.iso_append_record(None, data).run(line).map(nothing),
            kind => panic!("{kind:?} is no call of any session"),
        }
    }

    /// For an authenticated session that goes on.
    pub(crate) fn run_keyed<T: Transport>(
        &self,
        suite: Suite,
        session: &mut Session<Authenticated>,
        line: &mut T,
        buffer: &mut [u8; ROOM],
    ) -> Result<Vec<u8>, RunError<T::Error>> {
        let nothing = |()| Vec::new();
        let settings = KeySettings::DEFAULT;
        match self.kind {
            K::GetCardUid => session.get_card_uid().run(line).map(|uid| uid.0.to_vec()),
            K::DeleteApplication => session
                .delete_application(Aid::from_bytes([7, 7, 7]))
                .run(line)
                .map(nothing),
            K::Format => session.format_picc().run(line).map(nothing),
            K::ChangeKeySettings => session.change_key_settings(settings).run(line).map(nothing),
            K::FreezeKeySettings => session
                .freeze_key_settings_for_ever(settings)
                .run(line)
                .map(nothing),
            K::SetDefaultKey => session
                .set_default_key(&suite.key(2))
                .run(line)
                .map(nothing),
            K::SetAts => session
                .set_ats(&[0x06, 0x75, 0x77, 0x81, 0x02, 0x80])
                .run(line)
                .map(nothing),
            K::EnableRandomId => session.enable_random_id_for_ever().run(line).map(nothing),
            K::DisableFormat => session.disable_format_for_ever().run(line).map(nothing),
            K::ChangeKey => session
                .change_key(key_no(1), &suite.key(1), &suite.key(2))
                .run(line)
                .map(nothing),
            _ => self.run(session, line, buffer),
        }
    }

    /// For calls that take an authenticated session; what they give back says nothing.
    pub(crate) fn run_taking<T: Transport>(
        &self,
        suite: Suite,
        session: Session<Authenticated>,
        line: &mut T,
    ) -> Result<(), RunError<T::Error>> {
        match self.kind {
            K::Select => session
                .select_application(Aid::from_bytes([7, 7, 7]))
                .run(line)
                .map(drop),
            K::IsoSelect => session
                .iso_select(IsoTarget::Name(DfName::new(b"fuzz").unwrap()))
                .run(line)
                .map(drop),
            K::ChangeKeyInUse => session.change_key_in_use(&suite.key(2)).run(line).map(drop),
            K::ChangePiccKey => session
                .change_picc_master_key_and_type(&suite.key(2))
                .run(line)
                .map(drop),
            K::AuthenticateIso7816 => session
                .authenticate_iso7816(KeyNo::MASTER, &suite.key(0), &mut crate::rig::Seeded(5))
                .run(line)
                .map(drop),
            kind => panic!("{kind:?} takes no session"),
        }
    }
}
