//! Creating, deleting and listing files, and their settings.

use alloc::vec::Vec;

use super::card::Card;
use super::choices::{
    EQUAL_VALUE_LIMITS, FILE_ID_MAY_BE_MISSING, NO_ISO_FILE_IDS, RIGHTS_MAY_NAME_MISSING_KEYS,
    UNEXPECTED_FILE_ID,
};
use super::file::{File, FileContent, is_comm_byte, is_value_flags};
use super::memory;
use super::reply::{Refusal, Reply};
use super::state::is_free_file_id;
use crate::wire::{
    Access, AccessRights, CommByte, CommMode, CommandCode, FileDetail, FileNo, IsoFileId, KeyFlags,
    Reader, Status, U24, ValueFlags, WireError,
};

/// Parameters without the optional ISO FID.
const DATA_FILE_LEN: usize = 7;
const RECORD_FILE_LEN: usize = 10;

/// What a Create command asks for.
struct Request {
    number: u8,
    iso_file_id: Option<IsoFileId>,
    comm: CommByte,
    rights: AccessRights,
    detail: FileDetail,
    /// Of a value file, else zero.
    balance: i32,
}

impl Request {
    /// The fields, in the order in which they travel. The ISO FID is there if the length says
    /// so.
    fn parse(code: CommandCode, params: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(params);
        let number = reader.u8()?;
        let short = match code {
            CommandCode::CreateValueFile => params.len(),
            CommandCode::CreateStdDataFile | CommandCode::CreateBackupDataFile => DATA_FILE_LEN,
            _ => RECORD_FILE_LEN,
        };
        let iso_file_id = if params.len() > short {
            Some(IsoFileId::from_native(reader.array()?))
        } else {
            None
        };
        let comm = CommByte(reader.u8()?);
        let rights = AccessRights::from_bytes(reader.array()?);
        let mut balance = 0;
        let detail = match code {
            CommandCode::CreateStdDataFile => FileDetail::StandardData {
                size: U24::read(&mut reader)?,
            },
            CommandCode::CreateBackupDataFile => FileDetail::BackupData {
                size: U24::read(&mut reader)?,
            },
            CommandCode::CreateValueFile => {
                let (lower, upper) = (reader.i32()?, reader.i32()?);
                balance = reader.i32()?;
                FileDetail::Value {
                    lower,
                    upper,
                    limited_credit: 0,
                    flags: ValueFlags::from_bits_retain(reader.u8()?),
                }
            }
            CommandCode::CreateLinearRecordFile => FileDetail::LinearRecord {
                record_size: U24::read(&mut reader)?,
                max_records: U24::read(&mut reader)?,
                current_records: U24::ZERO,
            },
            _ => FileDetail::CyclicRecord {
                record_size: U24::read(&mut reader)?,
                max_records: U24::read(&mut reader)?,
                current_records: U24::ZERO,
            },
        };
        reader.finish()?;
        Ok(Self {
            number,
            iso_file_id,
            comm,
            rights,
            detail,
            balance,
        })
    }

    /// Whether a card could take these parameters.
    fn is_possible(&self) -> bool {
        let detail = match &self.detail {
            FileDetail::StandardData { size } | FileDetail::BackupData { size } => size.get() > 0,
            FileDetail::Value {
                lower,
                upper,
                flags,
                ..
            } => {
                (EQUAL_VALUE_LIMITS || lower != upper)
                    && (*lower..=*upper).contains(&self.balance)
                    && is_value_flags(*flags)
            }
            FileDetail::LinearRecord {
                record_size,
                max_records,
                ..
            } => record_size.get() > 0 && max_records.get() > 0,
            // One record is always the spare.
            FileDetail::CyclicRecord {
                record_size,
                max_records,
                ..
            } => record_size.get() > 0 && max_records.get() >= 2,
            FileDetail::Other { .. } => false,
        };
        detail && is_comm_byte(self.comm) && self.iso_file_id.is_none_or(is_free_file_id)
    }
}

impl Card {
    pub(super) fn create_file(
        &mut self,
        code: CommandCode,
        params: &[u8],
    ) -> Result<Reply, Refusal> {
        let request = Request::parse(code, params).map_err(|_| Status::LengthError)?;
        let number = Self::file_number(request.number)?;
        if !request.is_possible() {
            return Err(Status::ParameterError.into());
        }
        let app = self.application()?;
        if request.iso_file_id.is_some() && !app.info.iso_file_ids() {
            return Err(UNEXPECTED_FILE_ID.into());
        }
        let may_have_id = app.info.iso_file_ids() && code != CommandCode::CreateValueFile;
        if request.iso_file_id.is_none() && may_have_id && !FILE_ID_MAY_BE_MISSING {
            return Err(Status::LengthError.into());
        }
        self.check_rights(request.rights)?;
        self.require_master_unless(KeyFlags::FREE_CREATE_DELETE)?;
        let taken = app.files.iter().any(|file| {
            file.number == number
                || (request.iso_file_id.is_some() && file.iso_file_id == request.iso_file_id)
        });
        if taken {
            return Err(Status::DuplicateError.into());
        }
        // 32 numbers, so there is no count to exceed.
        let cost = memory::file_cost(&request.detail);
        if cost > self.state().free_memory().into() {
            return Err(Status::OutOfEeprom.into());
        }
        let content =
            FileContent::blank(&request.detail, request.balance).ok_or(Status::ParameterError)?;
        let file = File {
            number,
            iso_file_id: request.iso_file_id,
            comm: request.comm,
            rights: request.rights,
            content,
        };
        let aid = self.field.selected;
        self.eeprom.change(|state| {
            state.spend(cost);
            if let Some(app) = state.application_mut(aid) {
                app.files.push(file);
            }
        })?;
        Ok(Reply::done())
    }

    /// Frees the number and the FID; the memory stays spent, pending changes of the file
    /// vanish.
    pub(super) fn delete_file(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let number = self.existing_file(params)?;
        self.require_master_unless(KeyFlags::FREE_CREATE_DELETE)?;
        let aid = self.field.selected;
        self.eeprom.change(|state| {
            if let Some(app) = state.application_mut(aid) {
                app.files.retain(|file| file.number != number);
            }
        })?;
        self.field.transaction.forget(number);
        self.field.iso.forget_file(number);
        Ok(Reply::done())
    }

    pub(super) fn get_file_ids(&self) -> Result<Reply, Refusal> {
        self.require_master_unless(KeyFlags::FREE_LISTING)?;
        let numbers = self.application()?.files.iter();
        Ok(Reply::data(
            numbers.map(|file| file.number.number()).collect(),
        ))
    }

    pub(super) fn get_iso_file_ids(&self) -> Result<Reply, Refusal> {
        self.require_master_unless(KeyFlags::FREE_LISTING)?;
        let ids: Vec<u8> = self
            .application()?
            .files
            .iter()
            .filter_map(|file| file.iso_file_id)
            .flat_map(IsoFileId::to_native)
            .collect();
        if ids.is_empty() {
            return Err(NO_ISO_FILE_IDS.into());
        }
        Ok(Reply::data(ids))
    }

    pub(super) fn get_file_settings(&self, params: &[u8]) -> Result<Reply, Refusal> {
        let number = self.existing_file(params)?;
        self.require_master_unless(KeyFlags::FREE_LISTING)?;
        let mut settings = [0; 36];
        let len = self
            .file(number)?
            .settings()
            .encode(&mut settings)
            .unwrap_or(0);
        Ok(Reply::data(settings.iter().copied().take(len).collect()))
    }

    /// Enciphered under the key of the Change right; in clear if that right is free.
    pub(super) fn change_file_settings(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let (number, data) = params.split_at_checked(1).ok_or(Status::LengthError)?;
        let file_no = self.existing_file(number)?;
        let mode = match self.file(file_no)?.rights.change {
            Access::Never => return Err(Status::PermissionDenied.into()),
            Access::Free => CommMode::Plain,
            Access::Key(key) => match &self.field.session {
                Some(session) if session.key_no() == key.number() => CommMode::Enciphered,
                _ => return Err(Status::AuthenticationError.into()),
            },
        };
        let data = self.open_request(mode, CommandCode::ChangeFileSettings, number, data, 3)?;
        let [comm, rights @ ..] = *data.first_chunk::<3>().ok_or(Status::LengthError)?;
        let (comm, rights) = (CommByte(comm), AccessRights::from_bytes(rights));
        if !is_comm_byte(comm) {
            return Err(Status::ParameterError.into());
        }
        self.check_rights(rights)?;
        let aid = self.field.selected;
        self.eeprom.change(|state| {
            if let Some(file) = state.file_mut(aid, file_no) {
                file.comm = comm;
                file.rights = rights;
            }
        })?;
        Ok(Reply::done())
    }

    /// Whether the keys that rights name must exist, and do.
    fn check_rights(&self, rights: AccessRights) -> Result<(), Status> {
        let keys = self.application()?.info.keys();
        let all = [rights.read, rights.write, rights.read_write, rights.change];
        let missing = |right: &Access| matches!(right, Access::Key(key) if key.number() >= keys);
        if !RIGHTS_MAY_NAME_MISSING_KEYS && all.iter().any(missing) {
            return Err(Status::ParameterError);
        }
        Ok(())
    }

    /// The file that the first parameter names.
    pub(super) fn existing_file(&self, params: &[u8]) -> Result<FileNo, Status> {
        let number = params.first().copied().ok_or(Status::LengthError)?;
        let number = Self::file_number(number)?;
        self.file(number)?;
        Ok(number)
    }
}
