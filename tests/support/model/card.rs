//! What a card holds and what it answers, as simple as the protocol reference says it: no bytes on
//! a wire, no cryptography. Written from the reference, not from `picc`.
//!
//! The numbers in comments are its chapters. Where it marks a statement `[?]`, the choice of its
//! table 9.6 holds; where that table says nothing either, every answer that the reference names is
//! accepted. These are the places:
//!
//! | question | here |
//! |---|---|
//! | 3.3 refusal of ChangeKeySettings | `9D` if frozen (9.6), else `AE` |
//! | 3.5 change key `n` changing itself | key 0 or key `n` (9.6) |
//! | 3.5 refusals of ChangeKey | `AE`, frozen `9D` (9.6) |
//! | 3.6 bit 5 of key settings byte 2 | echoed (9.6) |
//! | 3.11 CMAC of GetDFNames | over the joined frames, like GetVersion |
//! | 3.12 selection after `A0` | PICC level (9.6) |
//! | 3.13 FormatPICC disabled | `9D` (9.6) |
//! | 3.18 no ISO FIDs | `F0` (9.6) |
//! | 3.19 FID without bit 5, no FID with bit 5 | `9E`, accepted (9.6) |
//! | 3.19 equal limits of a value file | accepted; not in 9.6, but DFC has it and nobody measured |
//! | 3.21 rights naming a key that does not exist | accepted; not in 9.6 |
//! | 3.23 reading nothing at the end of a file | `BE`; not in 9.6 |
//! | 3.24 writing nothing | `7E` or `9E`; not in 9.6 |
//! | 3.26 reading a file whose clearing is pending | `9D` or `BE`: it "fails" |
//! | 8.3 partial LimitedCredit | the rest stays (9.6) |
//! | 8.3 a commit without debits on the file | the budget becomes 0 |
//! | 8.4 linear file full | `BE` (9.6) |
//! | 8.5 memory | the suggested formulas, but an application as measured there: 96 and 352 |
//! | 9.2 standard file of an interrupted chained write | any number of whole frames |
//! | ClearRecordFile, LimitedCredit, Debit, GetValue rights | as the table of disputes decides |
//! | any error | drops the pending transaction (9.6) and the EV1 session |

use std::collections::BTreeMap;

use desfire_ev1::picc::StorageSize;
use desfire_ev1::wire::{AuthScheme, CommMode, KeyFamily, Status};

use super::keys::{self, KeyId};
use super::ops::{self, Change, Data, NewFile, Odd, Op};

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) data: Vec<u8>,
    /// How the card protects the data: by a file's mode, or as every reply of a session.
    pub(crate) mode: CommMode,
}

#[derive(Debug)]
pub(crate) enum Refusal {
    /// One of these.
    Status(Vec<Status>),
    /// The card has not got all that it expects and asks for more.
    Waits,
}

pub(crate) type Answer = Result<Reply, Refusal>;

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(vec![status])
    }
}

fn done() -> Answer {
    tell(Vec::new())
}

fn tell(data: Vec<u8>) -> Answer {
    let mode = CommMode::Plain;
    Ok(Reply { data, mode })
}

fn refuse(status: Status) -> Answer {
    Err(status.into())
}

/// A card, with and without power.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) kept: Kept,
    pub(crate) powered: bool,
    /// 0 is the PICC level.
    pub(crate) selected: u32,
    pub(crate) auth: Option<Auth>,
    pub(crate) pending: BTreeMap<u8, Pending>,
    /// In the middle of a chain.
    pub(crate) chain: bool,
}

/// What survives without power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) uid: [u8; 7],
    pub(crate) size: StorageSize,
    pub(crate) picc_key: KeyId,
    pub(crate) picc_settings: u8,
    pub(crate) format_disabled: bool,
    pub(crate) random_id: bool,
    /// Whether the pool's default key is set; zeros if not.
    pub(crate) default_key: bool,
    pub(crate) ats: &'static [u8],
    pub(crate) used: u32,
    /// In order of creation.
    pub(crate) apps: Vec<App>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct App {
    pub(crate) aid: u32,
    pub(crate) settings: u8,
    pub(crate) info: u8,
    pub(crate) fid: Option<u16>,
    pub(crate) name: Option<&'static [u8]>,
    pub(crate) keys: Vec<KeyId>,
    /// In order of creation.
    pub(crate) files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) no: u8,
    pub(crate) fid: Option<u16>,
    pub(crate) comm: u8,
    pub(crate) rights: u16,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Standard(Vec<u8>),
    Backup(Vec<u8>),
    Value {
        lower: i32,
        upper: i32,
        value: i32,
        /// What LimitedCredit may still give back.
        budget: i32,
        flags: u8,
    },
    Records {
        cyclic: bool,
        record_size: u32,
        max: u32,
        /// Oldest first.
        list: Vec<Vec<u8>>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Auth {
    pub(crate) key_no: u8,
    pub(crate) d40: bool,
    block: usize,
}

/// What commit does to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Data(Vec<u8>),
    /// The running value; the debits if there was one; the limited credits if there was one.
    Value {
        value: i32,
        debits: Option<i64>,
        restored: Option<i64>,
    },
    Record(Vec<u8>),
    Clear,
}

/// Key settings byte 1 (5.2).
const MASTER_CHANGEABLE: u8 = 1;
const FREE_LISTING: u8 = 2;
const FREE_CREATE: u8 = 4;
const SETTINGS_CHANGEABLE: u8 = 8;
/// Key settings byte 2 (3.8).
const FIDS: u8 = 0x20;
/// Value file (3.19).
const LIMITED_CREDIT: u8 = 1;
const FREE_GET_VALUE: u8 = 2;

/// The four rights of a file (5.1).
#[derive(Clone, Copy)]
enum Right {
    Read = 12,
    Write = 8,
    ReadWrite = 4,
    Change = 0,
}
use Right::{Change as MayChange, Read, ReadWrite, Write};

const FREE: u16 = 0xE;
const NEVER: u16 = 0xF;

impl File {
    fn right(&self, right: Right) -> u16 {
        self.rights >> (right as u32) & 0xF
    }

    /// 5.3.
    fn mode(&self) -> CommMode {
        match self.comm & 3 {
            1 => CommMode::Mac,
            3 => CommMode::Enciphered,
            _ => CommMode::Plain,
        }
    }

    fn size(&self) -> usize {
        match &self.body {
            Body::Standard(data) | Body::Backup(data) => data.len(),
            Body::Records { record_size, .. } => *record_size as usize,
            Body::Value { .. } => 0,
        }
    }
}

/// Steps of 32 bytes (8.5).
fn round32(bytes: u64) -> u64 {
    bytes.div_ceil(32) * 32
}

/// 8.5. The measured 96 bytes for one key and 352 for fourteen do not follow from the formula
/// suggested there; they do with four more bytes for each key.
pub(crate) fn application_cost(info: u8) -> u64 {
    let key = if info & 0xC0 == 0x40 { 24 } else { 16 };
    round32(64 + (key + 4) * u64::from(info & 0xF))
}

/// 8.5.
pub(crate) fn file_cost(what: &NewFile) -> u64 {
    match *what {
        NewFile::Standard { size } => round32(size.into()),
        NewFile::Backup { size } => 2 * round32(size.into()),
        NewFile::Value { .. } => 64,
        NewFile::Linear { record_size, max } | NewFile::Cyclic { record_size, max } => {
            round32(u64::from(record_size) * u64::from(max)) + 64
        }
    }
}

/// A new file's content (3.19).
pub(crate) fn blank(what: &NewFile) -> Body {
    match *what {
        NewFile::Standard { size } => Body::Standard(vec![0; size as usize]),
        NewFile::Backup { size } => Body::Backup(vec![0; size as usize]),
        NewFile::Value {
            lower,
            upper,
            value,
            flags,
        } => Body::Value {
            lower,
            upper,
            value,
            budget: 0,
            flags,
        },
        NewFile::Linear { record_size, max } => Body::Records {
            cyclic: false,
            record_size,
            max,
            list: Vec::new(),
        },
        NewFile::Cyclic { record_size, max } => Body::Records {
            cyclic: true,
            record_size,
            max,
            list: Vec::new(),
        },
    }
}

impl Kept {
    pub(crate) fn free(&self) -> u64 {
        u64::from(self.size.capacity() - self.used)
    }

    pub(crate) fn app(&self, aid: u32) -> Option<&App> {
        self.apps.iter().find(|app| app.aid == aid)
    }

    fn app_mut(&mut self, aid: u32) -> Option<&mut App> {
        self.apps.iter_mut().find(|app| app.aid == aid)
    }

    /// GetVersion (3.14).
    pub(crate) fn version(&self) -> Vec<u8> {
        let storage = match self.size {
            StorageSize::Ev1_2K => 0x16,
            StorageSize::Ev1_4K => 0x18,
            StorageSize::Ev1_8K => 0x1A,
        };
        let mut version = vec![4, 1, 1, 1, 0, storage, 5, 4, 1, 1, 1, 4, storage, 5];
        let hidden = [0; 7];
        version.extend(if self.random_id { hidden } else { self.uid });
        version.extend(super::PRODUCTION.0);
        version.extend([super::PRODUCTION.1, super::PRODUCTION.2]);
        version
    }
}

impl App {
    pub(crate) fn family(&self) -> KeyFamily {
        match self.info & 0xC0 {
            0x00 => KeyFamily::Des,
            0x40 => KeyFamily::ThreeKey3Des,
            _ => KeyFamily::Aes,
        }
    }

    pub(crate) fn file(&self, no: u8) -> Option<&File> {
        self.files.iter().find(|file| file.no == no)
    }
}

impl Card {
    pub(crate) fn new(kept: Kept) -> Self {
        Self {
            kept,
            powered: true,
            selected: 0,
            auth: None,
            pending: BTreeMap::new(),
            chain: false,
        }
    }

    /// 7.8, 8.1: all but the non-volatile state is gone.
    pub(crate) fn power(&mut self, on: bool) {
        self.powered = on;
        self.level(0);
    }

    fn level(&mut self, aid: u32) {
        self.selected = aid;
        self.auth = None;
        self.pending.clear();
        self.chain = false;
    }

    pub(crate) fn app(&self) -> Option<&App> {
        self.kept.app(self.selected)
    }

    fn app_mut(&mut self) -> &mut App {
        self.kept.app_mut(self.selected).expect("it is selected")
    }

    pub(crate) fn file_at(&self, no: u8) -> Option<&File> {
        self.app()?.file(no)
    }

    fn file_mut(&mut self, no: u8) -> &mut File {
        let mut files = self.app_mut().files.iter_mut();
        files.find(|file| file.no == no).expect("it is there")
    }

    /// One command and all its frames. `op` is a command, and one that can be given here.
    pub(crate) fn perform(&mut self, op: &Op) -> Answer {
        // 9.2: whatever comes instead of AF is not executed.
        let answer = if core::mem::take(&mut self.chain) {
            refuse(Status::CommandAborted)
        } else {
            self.execute(op)
        };
        match &answer {
            // 9.3, 9.6. A D40 session survives some errors; the library never uses it then.
            Err(Refusal::Status(_)) => {
                self.auth = None;
                self.pending.clear();
            }
            Err(Refusal::Waits) => self.chain = true,
            Ok(_) => {}
        }
        answer
    }

    fn execute(&mut self, op: &Op) -> Answer {
        match *op {
            Op::Activate | Op::FieldOff | Op::DropGuard => done(),
            Op::Select(aid) => self.select(aid),
            Op::Authenticate {
                scheme,
                key_no,
                key,
            } => self.authenticate(scheme, key_no, key),
            Op::GetVersion => tell(self.kept.version()),
            Op::FreeMem => tell((self.kept.free() as u32).to_le_bytes()[..3].to_vec()),
            Op::GetCardUid => self.get_card_uid(),
            Op::GetKeySettings => self.get_key_settings(),
            Op::GetKeyVersion(key_no) => tell(vec![self.key(key_no)?.version()]),
            Op::GetApplicationIds => self.get_application_ids(),
            Op::GetDfNames => self.get_df_names(),
            Op::GetFileIds => self.get_file_ids(),
            Op::GetIsoFileIds => self.get_iso_file_ids(),
            Op::GetFileSettings(no) => self.get_file_settings(no),
            Op::CreateApplication {
                aid,
                settings,
                info,
                fid,
                name,
            } => self.create_application(aid, settings, info, fid, name),
            Op::DeleteApplication(aid) => self.delete_application(aid),
            Op::DeleteThisApplication => self.delete_application(self.selected),
            Op::FormatPicc => self.format_picc(),
            Op::ChangeKeySettings { settings, .. } => self.change_key_settings(settings),
            Op::DisableFormat => self.set_configuration(|kept| kept.format_disabled = true),
            Op::EnableRandomId => self.set_configuration(|kept| kept.random_id = true),
            Op::SetAts(which) => self.set_configuration(|kept| kept.ats = ops::ATS[which]),
            Op::SetDefaultKey(set) => self.set_configuration(|kept| kept.default_key = set),
            Op::ChangeKey { key_no, old, new } => self.change_key(key_no, Some(old), new),
            Op::ChangeKeyInUse { new } | Op::ChangePiccKey { new } => {
                let key_no = self.auth.map_or(0, |auth| auth.key_no);
                self.change_key(key_no, None, new)
            }
            Op::CreateFile {
                no,
                fid,
                mode,
                rights,
                what,
            } => self.create_file(no, fid, mode, rights, &what),
            Op::DeleteFile(no) => self.delete_file(no),
            Op::ChangeFileSettings {
                no,
                comm,
                rights,
                stated,
            } => self.change_file_settings(no, comm, rights, stated),
            Op::ReadData {
                no, offset, len, ..
            } => self.read_data(no, offset, len),
            Op::ReadToEnd { no, offset, .. } => self.read_data(no, offset, 0),
            Op::WriteData {
                no,
                offset,
                data,
                stated,
            } => self.write(false, no, offset, data, stated),
            Op::WriteRecord {
                no,
                offset,
                data,
                stated,
            } => self.write(true, no, offset, data, stated),
            Op::ReadRecords {
                no, first, count, ..
            } => self.read_records(no, first, count),
            Op::ReadAllRecords { no, first, .. } => self.read_records(no, first, 0),
            Op::ClearRecordFile(no) => self.clear_record_file(no),
            Op::GetValue { no, .. } => self.get_value(no),
            Op::ChangeValue {
                change,
                no,
                amount,
                stated,
            } => self.change_value(change, no, amount, stated),
            Op::Commit | Op::Guarded { commit: true } => self.commit(),
            Op::Abort | Op::Guarded { commit: false } if self.pending.is_empty() => {
                refuse(Status::NoChanges)
            }
            Op::Abort | Op::Guarded { commit: false } => {
                self.pending.clear();
                done()
            }
            Op::Odd(odd) => self.odd(odd),
        }
    }

    /// Frames built by hand. 9.1: level, length, range, key, in this order.
    fn odd(&mut self, odd: Odd) -> Answer {
        match odd {
            Odd::UnknownCommand(_) => refuse(Status::IllegalCommandCode),
            Odd::WrongLevel(_) => refuse(Status::PermissionDenied),
            Odd::WrongLength(..) => refuse(Status::LengthError),
            Odd::FileNumber(..) | Odd::CreateAidZero | Odd::DeleteAidZero => {
                refuse(Status::ParameterError)
            }
            Odd::KeyNumber(_) => refuse(Status::NoSuchKey),
            Odd::EmptyWrite(..) => Err(Refusal::Status(vec![
                Status::LengthError,
                Status::ParameterError,
            ])),
            Odd::NegativeAmount(change, no, amount) => {
                self.change_value(change, no, amount, Some(CommMode::Plain))
            }
        }
    }

    // Levels and keys.

    fn key(&self, key_no: u8) -> Result<KeyId, Refusal> {
        let key = match self.app() {
            Some(app) => app.keys.get(usize::from(key_no)).copied(),
            None => (key_no == 0).then_some(self.kept.picc_key),
        };
        key.ok_or(Status::NoSuchKey.into())
    }

    fn settings(&self) -> u8 {
        self.app()
            .map_or(self.kept.picc_settings, |app| app.settings)
    }

    fn is_master(&self) -> bool {
        self.auth.is_some_and(|auth| auth.key_no == 0)
    }

    /// Whether the level's settings make it free, or its master key is authenticated (5.2).
    fn need_master_unless(&self, free: u8) -> Result<(), Refusal> {
        if self.settings() & free != 0 || self.is_master() {
            Ok(())
        } else {
            Err(Status::AuthenticationError.into())
        }
    }

    /// Commands of the PICC level.
    fn need_picc(&self) -> Result<(), Refusal> {
        match self.selected {
            0 => Ok(()),
            _ => Err(Status::PermissionDenied.into()),
        }
    }

    /// 3.12.
    fn select(&mut self, aid: u32) -> Answer {
        self.level(0);
        if aid != 0 && self.kept.app(aid).is_none() {
            return refuse(Status::ApplicationNotFound);
        }
        self.selected = aid;
        done()
    }

    /// 3.2. The pending transaction lives on.
    fn authenticate(&mut self, scheme: AuthScheme, key_no: u8, key: KeyId) -> Answer {
        self.auth = None;
        let stored = self.key(key_no)?;
        let (d40, fits) = match (scheme, stored.family()) {
            (AuthScheme::Legacy, family) => (true, family == KeyFamily::Des),
            (AuthScheme::Iso, family) => (false, family != KeyFamily::Aes),
            (AuthScheme::Aes, family) => (false, family == KeyFamily::Aes),
        };
        if !fits {
            return refuse(Status::AuthenticationError);
        }
        if stored.nonce_len() != key.nonce_len() {
            // The reader cannot make anything of the challenge and leaves the card waiting.
            return Err(Refusal::Waits);
        }
        if !stored.enciphers_like(key) {
            return refuse(Status::AuthenticationError);
        }
        let block = stored.block_len();
        self.auth = Some(Auth { key_no, d40, block });
        done()
    }

    fn get_card_uid(&self) -> Answer {
        if self.auth.is_none() {
            return refuse(Status::AuthenticationError);
        }
        Ok(Reply {
            data: self.kept.uid.to_vec(),
            mode: CommMode::Enciphered,
        })
    }

    fn get_key_settings(&self) -> Answer {
        self.need_master_unless(FREE_LISTING)?;
        let info = match self.app() {
            Some(app) => app.info,
            None => self.kept.picc_key.family().bits() | 1,
        };
        tell(vec![self.settings(), info])
    }

    /// 3.3.
    fn change_key_settings(&mut self, settings: u8) -> Answer {
        let frozen = self.settings() & SETTINGS_CHANGEABLE == 0;
        if self.auth.is_none() {
            // Sent as bytes that cannot be read without a session: any reason will do.
            let mut any = vec![Status::AuthenticationError];
            any.extend(frozen.then_some(Status::PermissionDenied));
            return Err(Refusal::Status(any));
        }
        if frozen {
            return refuse(Status::PermissionDenied);
        }
        self.need_master_unless(0)?;
        if self.selected == 0 {
            self.kept.picc_settings = settings;
        } else {
            self.app_mut().settings = settings;
        }
        done()
    }

    /// 3.5. Without `old` it is the key in use.
    fn change_key(&mut self, key_no: u8, old: Option<KeyId>, new: KeyId) -> Answer {
        let Some(auth) = self.auth else {
            let mut any = vec![Status::AuthenticationError];
            any.extend(self.key(key_no).err().map(|_| Status::NoSuchKey));
            return Err(Refusal::Status(any));
        };
        let stored = self.key(key_no)?;
        let nibble = self.settings() >> 4;
        let allowed = match (key_no, nibble) {
            (0, _) if self.settings() & MASTER_CHANGEABLE == 0 => {
                return refuse(Status::PermissionDenied);
            }
            (0, _) | (_, 0) => auth.key_no == 0,
            (_, 0xF) => return refuse(Status::PermissionDenied),
            (_, 0xE) => auth.key_no == key_no,
            (_, n) if n == key_no => auth.key_no == 0 || auth.key_no == n,
            (_, n) => auth.key_no == n,
        };
        if !allowed {
            return refuse(Status::AuthenticationError);
        }
        if old.is_some_and(|old| !old.has_bytes_of(stored)) {
            return refuse(Status::IntegrityError);
        }
        if self.selected == 0 {
            self.kept.picc_key = new;
        } else {
            self.app_mut().keys[usize::from(key_no)] = new;
        }
        if key_no == auth.key_no {
            self.auth = None;
        }
        done()
    }

    // The PICC level.

    fn get_application_ids(&self) -> Answer {
        self.need_picc()?;
        self.need_master_unless(FREE_LISTING)?;
        let aids = self.kept.apps.iter().map(|app| app.aid.to_le_bytes());
        tell(aids.flat_map(|[a, b, c, _]| [a, b, c]).collect())
    }

    /// 3.11, all frames joined.
    fn get_df_names(&self) -> Answer {
        self.need_picc()?;
        self.need_master_unless(FREE_LISTING)?;
        let mut names = Vec::new();
        for app in &self.kept.apps {
            if let Some(fid) = app.fid {
                names.extend(&app.aid.to_le_bytes()[..3]);
                names.extend(fid.to_le_bytes());
                names.extend(app.name.unwrap_or_default());
            }
        }
        tell(names)
    }

    /// 3.8.
    fn create_application(
        &mut self,
        aid: u32,
        settings: u8,
        info: u8,
        fid: Option<u16>,
        name: Option<&'static [u8]>,
    ) -> Answer {
        self.need_picc()?;
        if info & 0xF > 14 || info & 0xC0 == 0xC0 {
            return refuse(Status::ParameterError);
        }
        self.need_master_unless(FREE_CREATE)?;
        let taken = self.kept.apps.iter().any(|app| {
            app.aid == aid
                || (fid.is_some() && app.fid == fid)
                || (name.is_some() && app.name == name)
        });
        if taken {
            return refuse(Status::DuplicateError);
        }
        if self.kept.apps.len() >= 28 {
            return refuse(Status::CountError);
        }
        let cost = application_cost(info);
        if cost > self.kept.free() {
            return refuse(Status::OutOfEeprom);
        }
        self.kept.used += cost as u32;
        let mut app = App {
            aid,
            settings,
            info,
            fid,
            name,
            keys: Vec::new(),
            files: Vec::new(),
        };
        let key = keys::initial(app.family(), self.kept.default_key);
        app.keys = vec![key; usize::from(info & 0xF)];
        self.kept.apps.push(app);
        done()
    }

    /// 3.9. The memory stays spent (8.6).
    fn delete_application(&mut self, aid: u32) -> Answer {
        if self.kept.app(aid).is_none() {
            return refuse(Status::ApplicationNotFound);
        }
        let itself = self.selected == aid && self.kept.picc_settings & FREE_CREATE != 0;
        if !(self.selected == 0 || itself) || !self.is_master() {
            return refuse(Status::AuthenticationError);
        }
        self.kept.apps.retain(|app| app.aid != aid);
        if itself {
            self.level(0);
        }
        done()
    }

    /// 3.13.
    fn format_picc(&mut self) -> Answer {
        self.need_picc()?;
        self.need_master_unless(0)?;
        if self.kept.format_disabled {
            return refuse(Status::PermissionDenied);
        }
        self.kept.apps.clear();
        self.kept.used = 0;
        done()
    }

    /// 3.4.
    fn set_configuration(&mut self, set: impl FnOnce(&mut Kept)) -> Answer {
        self.need_picc()?;
        self.need_master_unless(0)?;
        set(&mut self.kept);
        done()
    }

    // Files.

    fn get_file_ids(&self) -> Answer {
        self.need_master_unless(FREE_LISTING)?;
        let files = self.app().into_iter().flat_map(|app| &app.files);
        let mut numbers: Vec<u8> = files.map(|file| file.no).collect();
        // 3.17: in no certain order.
        numbers.sort_unstable();
        tell(numbers)
    }

    fn get_iso_file_ids(&self) -> Answer {
        self.need_master_unless(FREE_LISTING)?;
        let files = self.app().into_iter().flat_map(|app| &app.files);
        let fids: Vec<u8> = files
            .filter_map(|file| file.fid)
            .flat_map(u16::to_le_bytes)
            .collect();
        if fids.is_empty() {
            return refuse(Status::FileNotFound);
        }
        tell(fids)
    }

    fn file(&self, no: u8) -> Result<&File, Refusal> {
        self.file_at(no).ok_or(Status::FileNotFound.into())
    }

    /// 3.20. At the PICC level there are no files to be asked for: the level is wrong.
    pub(crate) fn get_file_settings(&self, no: u8) -> Answer {
        if self.selected == 0 {
            return refuse(Status::PermissionDenied);
        }
        let file = self.file(no)?;
        self.need_master_unless(FREE_LISTING)?;
        let u24 = |number: u32| number.to_le_bytes().into_iter().take(3);
        let mut tail = Vec::new();
        let kind = match &file.body {
            Body::Standard(data) => {
                tail.extend(u24(data.len() as u32));
                0
            }
            Body::Backup(data) => {
                tail.extend(u24(data.len() as u32));
                1
            }
            Body::Value {
                lower,
                upper,
                budget,
                flags,
                ..
            } => {
                tail.extend(
                    [lower, upper, budget]
                        .into_iter()
                        .flat_map(|n| n.to_le_bytes()),
                );
                tail.push(*flags);
                2
            }
            Body::Records {
                cyclic,
                record_size,
                max,
                list,
            } => {
                tail.extend(u24(*record_size).chain(u24(*max)));
                tail.extend(u24(list.len() as u32));
                3 + u8::from(*cyclic)
            }
        };
        let mut settings = vec![kind, file.comm];
        settings.extend(file.rights.to_le_bytes());
        settings.extend(tail);
        tell(settings)
    }

    /// Rule 3.1: the file's mode for who is named, plain for whom it is only free.
    fn grant(&self, file: &File, rights: &[Right], free: bool) -> Result<CommMode, Refusal> {
        grant(self.key_in_use(), file, rights, free)
    }

    pub(crate) fn key_in_use(&self) -> Option<u8> {
        self.auth.map(|auth| auth.key_no)
    }

    /// How long `len` bytes are in a request of this mode (7.6, 7.7).
    fn sent_len(&self, mode: CommMode, len: usize) -> usize {
        let Some(auth) = self.auth else {
            return len;
        };
        let (mac, crc) = if auth.d40 { (4, 2) } else { (8, 4) };
        match mode {
            CommMode::Plain => len,
            CommMode::Mac => len + mac,
            CommMode::Enciphered => (len + crc).div_ceil(auth.block) * auth.block,
        }
    }

    /// Whether a read of records under a wrong record size would go unnoticed. In a D40 session
    /// the CRC of data and their CRC is zero, and zeros follow: whoever expects more bytes than
    /// were sent finds a right CRC behind them as long as there is padding (7.3, 7.6).
    pub(crate) fn ends_are_ambiguous(&self, no: u8, count: u32, record_size: u32) -> bool {
        let d40 = self.auth.is_some_and(|auth| auth.d40);
        let right = self.file_at(no).map_or(0, File::size);
        let (sent, expected) = (count as usize * right, (count * record_size) as usize);
        d40 && sent < expected && expected + 2 <= self.sent_len(CommMode::Enciphered, sent)
    }

    /// How long a write's data are in the mode that is due, and in the stated one.
    pub(crate) fn write_lens(&self, op: &Op) -> Option<(usize, usize)> {
        let (Op::WriteData {
            no, data, stated, ..
        }
        | Op::WriteRecord {
            no, data, stated, ..
        }) = *op
        else {
            return None;
        };
        let due = mode_of(self.file_at(no)?, self.key_in_use(), op)?;
        let len = |mode| self.sent_len(mode, data.len);
        Some((len(due), len(stated.unwrap_or(due))))
    }

    /// A request of one frame in the mode `sent` where `granted` is due.
    fn check_sent(&self, granted: CommMode, sent: CommMode, len: usize) -> Result<(), Refusal> {
        if self.sent_len(sent, len) != self.sent_len(granted, len) {
            Err(Status::LengthError.into())
        } else if sent != granted && self.auth.is_some() {
            Err(Status::IntegrityError.into())
        } else {
            Ok(())
        }
    }

    /// 3.19.
    fn create_file(
        &mut self,
        no: u8,
        fid: Option<u16>,
        mode: CommMode,
        rights: u16,
        what: &NewFile,
    ) -> Answer {
        let possible = match *what {
            NewFile::Standard { size } | NewFile::Backup { size } => size > 0,
            NewFile::Value {
                lower,
                upper,
                value,
                ..
            } => lower <= value && value <= upper,
            NewFile::Linear { record_size, max } => record_size > 0 && max > 0,
            NewFile::Cyclic { record_size, max } => record_size > 0 && max > 1,
        };
        let app = self.app_mut();
        if !possible || (fid.is_some() && app.info & FIDS == 0) {
            return refuse(Status::ParameterError);
        }
        self.need_master_unless(FREE_CREATE)?;
        let app = self.app_mut();
        let taken = |file: &File| file.no == no || (fid.is_some() && file.fid == fid);
        if app.files.iter().any(taken) {
            return refuse(Status::DuplicateError);
        }
        let cost = file_cost(what);
        if cost > self.kept.free() {
            return refuse(Status::OutOfEeprom);
        }
        self.kept.used += cost as u32;
        self.app_mut().files.push(File {
            no,
            fid,
            comm: match mode {
                CommMode::Plain => 0,
                CommMode::Mac => 1,
                CommMode::Enciphered => 3,
            },
            rights,
            body: blank(what),
        });
        done()
    }

    /// 3.22.
    fn delete_file(&mut self, no: u8) -> Answer {
        self.file(no)?;
        self.need_master_unless(FREE_CREATE)?;
        self.app_mut().files.retain(|file| file.no != no);
        self.pending.remove(&no);
        done()
    }

    fn change_file_settings(
        &mut self,
        no: u8,
        comm: u8,
        rights: u16,
        stated: Option<CommMode>,
    ) -> Answer {
        let granted = grant_change(self.key_in_use(), self.file(no)?)?;
        self.check_sent(granted, stated.unwrap_or(granted), 3)?;
        if comm > 3 {
            return refuse(Status::ParameterError);
        }
        let file = self.file_mut(no);
        file.comm = comm;
        file.rights = rights;
        done()
    }

    // Data files.

    /// 3.23: the committed content; length 0 is all up to the end.
    fn read_data(&self, no: u8, offset: u32, len: u32) -> Answer {
        let file = self.file(no)?;
        let (Body::Standard(data) | Body::Backup(data)) = &file.body else {
            return refuse(Status::PermissionDenied);
        };
        let mode = self.grant(file, &[Read, ReadWrite], false)?;
        let end = if len == 0 {
            data.len()
        } else {
            (offset + len) as usize
        };
        let data = data.get(offset as usize..end).unwrap_or_default().to_vec();
        if data.is_empty() {
            return refuse(Status::BoundaryError);
        }
        Ok(Reply { data, mode })
    }

    /// 3.24, 3.26.
    fn write(
        &mut self,
        record: bool,
        no: u8,
        offset: u32,
        data: Data,
        stated: Option<CommMode>,
    ) -> Answer {
        let file = self.file(no)?;
        match (&file.body, record) {
            (Body::Standard(_) | Body::Backup(_), false) | (Body::Records { .. }, true) => {}
            _ => return refuse(Status::PermissionDenied),
        }
        let granted = self.grant(file, &[Write, ReadWrite], false)?;
        let sent = stated.unwrap_or(granted);
        let (due, got) = (
            self.sent_len(granted, data.len),
            self.sent_len(sent, data.len),
        );
        let place = self.check_place(file, offset, data.len);
        if got < due {
            // The card waits for the rest, if it has a place for the data.
            return Err(place.err().unwrap_or(Refusal::Waits));
        }
        if let Err(Refusal::Status(mut any)) = self.check_sent(granted, sent, data.len) {
            // What shows first depends on how the data are cut into frames.
            if let Err(Refusal::Status(more)) = place {
                any.extend(more);
            }
            return Err(Refusal::Status(any));
        }
        place?;

        let bytes = data.bytes();
        let start = offset as usize;
        let pending = match (&self.file(no)?.body, self.pending.get(&no)) {
            (Body::Standard(_), _) => {
                let Body::Standard(content) = &mut self.file_mut(no).body else {
                    return done();
                };
                content[start..start + data.len].copy_from_slice(&bytes);
                return done();
            }
            (_, Some(pending)) => pending.clone(),
            (Body::Backup(content), None) => Pending::Data(content.clone()),
            (Body::Records { record_size, .. }, None) => {
                Pending::Record(vec![0; *record_size as usize])
            }
            (Body::Value { .. }, None) => return done(),
        };
        let pending = match pending {
            Pending::Data(mut image) => {
                image[start..start + data.len].copy_from_slice(&bytes);
                Pending::Data(image)
            }
            Pending::Record(mut record) => {
                record[start..start + data.len].copy_from_slice(&bytes);
                Pending::Record(record)
            }
            other => other,
        };
        self.pending.insert(no, pending);
        done()
    }

    /// Whether there is a place for the data: 9.1, 11 and 12.
    fn check_place(&self, file: &File, offset: u32, len: usize) -> Result<(), Refusal> {
        if self.pending.get(&file.no) == Some(&Pending::Clear) {
            return Err(Status::PermissionDenied.into());
        }
        let full = match &file.body {
            Body::Records {
                cyclic: false,
                max,
                list,
                ..
            } => list.len() >= *max as usize,
            _ => false,
        };
        if full || offset as usize + len > file.size() {
            return Err(Status::BoundaryError.into());
        }
        Ok(())
    }

    /// What may be in a standard file after an interrupted write: as many of the frames as there
    /// were, `ends` being where they end in the data.
    pub(crate) fn torn(&self, op: &Op, ends: &[usize]) -> Vec<Kept> {
        let Op::WriteData {
            no, offset, data, ..
        } = *op
        else {
            return Vec::new();
        };
        if !matches!(
            self.file_at(no).map(|file| &file.body),
            Some(Body::Standard(_))
        ) {
            return Vec::new();
        }
        ends.iter()
            .map(|end| {
                let mut card = self.clone();
                if let Body::Standard(content) = &mut card.file_mut(no).body {
                    let place = content.iter_mut().skip(offset as usize);
                    for (to, from) in place.zip(&data.bytes()[..*end]) {
                        *to = *from;
                    }
                }
                card.kept
            })
            .collect()
    }

    // Value files.

    fn get_value(&self, no: u8) -> Answer {
        let file = self.file(no)?;
        let Body::Value { value, .. } = file.body else {
            return refuse(Status::PermissionDenied);
        };
        let rights = [Read, Write, ReadWrite];
        let mode = self.grant(file, &rights, is_free_value(file))?;
        let data = value.to_le_bytes().to_vec();
        Ok(Reply { data, mode })
    }

    /// 3.25, 8.3.
    fn change_value(
        &mut self,
        change: Change,
        no: u8,
        amount: i32,
        stated: Option<CommMode>,
    ) -> Answer {
        let file = self.file(no)?;
        let Body::Value {
            lower,
            upper,
            value,
            budget,
            flags,
        } = file.body
        else {
            return refuse(Status::PermissionDenied);
        };
        let rights: &[Right] = match change {
            Change::Credit => &[ReadWrite],
            Change::Debit => &[Read, Write, ReadWrite],
            Change::LimitedCredit => &[Write, ReadWrite],
        };
        let granted = self.grant(file, rights, false)?;
        self.check_sent(granted, stated.unwrap_or(granted), 4)?;
        if amount < 0 {
            return refuse(Status::ParameterError);
        }
        if change == Change::LimitedCredit && flags & LIMITED_CREDIT == 0 {
            return refuse(Status::PermissionDenied);
        }
        let (running, mut debits, mut restored) = match self.pending.get(&no) {
            Some(Pending::Value {
                value,
                debits,
                restored,
            }) => (*value, *debits, *restored),
            _ => (value, None, None),
        };
        let amount = i64::from(amount);
        let next = match change {
            Change::Credit => i64::from(running) + amount,
            Change::Debit => {
                debits = Some(debits.unwrap_or(0) + amount);
                i64::from(running) - amount
            }
            Change::LimitedCredit => {
                restored = Some(restored.unwrap_or(0) + amount);
                i64::from(running) + amount
            }
        };
        if next < lower.into() || next > upper.into() || restored.unwrap_or(0) > budget.into() {
            return refuse(Status::BoundaryError);
        }
        let pending = Pending::Value {
            value: next as i32,
            debits,
            restored,
        };
        self.pending.insert(no, pending);
        done()
    }

    // Record files.

    /// 3.26: counted back from the newest, told from the oldest on.
    fn read_records(&self, no: u8, first: u32, count: u32) -> Answer {
        let file = self.file(no)?;
        let Body::Records { list, .. } = &file.body else {
            return refuse(Status::PermissionDenied);
        };
        let mode = self.grant(file, &[Read, ReadWrite], false)?;
        if self.pending.get(&no) == Some(&Pending::Clear) {
            return Err(Refusal::Status(vec![
                Status::PermissionDenied,
                Status::BoundaryError,
            ]));
        }
        let newest_first: Vec<&Vec<u8>> = list.iter().rev().skip(first as usize).collect();
        let count = match count {
            0 => newest_first.len(),
            count => count as usize,
        };
        if count == 0 || count > newest_first.len() {
            return refuse(Status::BoundaryError);
        }
        let chosen = newest_first.into_iter().take(count).rev();
        let data = chosen.flatten().copied().collect();
        Ok(Reply { data, mode })
    }

    fn clear_record_file(&mut self, no: u8) -> Answer {
        let file = self.file(no)?;
        if !matches!(file.body, Body::Records { .. }) {
            return refuse(Status::PermissionDenied);
        }
        self.grant(file, &[ReadWrite], false)?;
        self.pending.insert(no, Pending::Clear);
        done()
    }

    /// 8.1 to 8.4.
    fn commit(&mut self) -> Answer {
        if self.pending.is_empty() {
            return refuse(Status::NoChanges);
        }
        for (no, pending) in core::mem::take(&mut self.pending) {
            match (&mut self.file_mut(no).body, pending) {
                (Body::Backup(content), Pending::Data(image)) => *content = image,
                (
                    Body::Value { value, budget, .. },
                    Pending::Value {
                        value: next,
                        debits,
                        restored,
                    },
                ) => {
                    *value = next;
                    *budget = match (debits, restored) {
                        (Some(debits), _) => debits.min(i32::MAX.into()) as i32,
                        (None, Some(restored)) => *budget - restored as i32,
                        (None, None) => 0,
                    };
                }
                (Body::Records { list, .. }, Pending::Clear) => list.clear(),
                (
                    Body::Records {
                        cyclic, max, list, ..
                    },
                    Pending::Record(record),
                ) => {
                    list.push(record);
                    if *cyclic && list.len() >= *max as usize {
                        list.remove(0);
                    }
                }
                (body, pending) => panic!("{pending:?} for {body:?}"),
            }
        }
        done()
    }
}

fn grant(key: Option<u8>, file: &File, rights: &[Right], free: bool) -> Result<CommMode, Refusal> {
    let rights: Vec<u16> = rights.iter().map(|right| file.right(*right)).collect();
    if key.is_some_and(|key| rights.contains(&key.into())) {
        Ok(file.mode())
    } else if free || rights.contains(&FREE) {
        Ok(CommMode::Plain)
    } else if rights.iter().all(|right| *right == NEVER) {
        Err(Status::PermissionDenied.into())
    } else {
        Err(Status::AuthenticationError.into())
    }
}

/// 3.21: not the file's mode decides, but whether there is a key.
fn grant_change(key: Option<u8>, file: &File) -> Result<CommMode, Refusal> {
    let mode = grant(key, file, &[MayChange], false)?;
    let free = file.right(MayChange) == FREE;
    Ok(if free { mode } else { CommMode::Enciphered })
}

/// The mode in which a command on a file travels under a key; nothing if it is not granted.
pub(crate) fn mode_of(file: &File, key: Option<u8>, op: &Op) -> Option<CommMode> {
    let rights: &[Right] = match op {
        Op::ChangeFileSettings { .. } => return grant_change(key, file).ok(),
        Op::ReadData { .. }
        | Op::ReadToEnd { .. }
        | Op::ReadRecords { .. }
        | Op::ReadAllRecords { .. } => &[Read, ReadWrite],
        Op::ChangeValue {
            change: Change::Credit,
            ..
        } => &[ReadWrite],
        Op::ChangeValue {
            change: Change::Debit,
            ..
        }
        | Op::GetValue { .. } => &[Read, Write, ReadWrite],
        _ => &[Write, ReadWrite],
    };
    let free = matches!(op, Op::GetValue { .. }) && is_free_value(file);
    grant(key, file, rights, free).ok()
}

/// The flag of a value file that opens GetValue to everybody.
fn is_free_value(file: &File) -> bool {
    matches!(file.body, Body::Value { flags, .. } if flags & FREE_GET_VALUE != 0)
}
