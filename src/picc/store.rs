//! The state as bytes, and back.
//!
//! | size | field |
//! |---|---|
//! | 8 | `DESFcard` |
//! | 2 | version of this form |
//! | 28 | version block of GetVersion, with the real UID |
//! | 1 ‖ key | family and key of the PICC, see below |
//! | 1 | PICC key settings |
//! | 1 | bit 0 FormatPICC disabled, bit 1 random ID |
//! | 25 | default key and its version |
//! | 1 ‖ n | ATS |
//! | 3 | bytes of memory in use |
//! | 1 ‖ … | applications |
//! | 4 | CRC32 of all before |
//!
//! A key is its family byte, 24 bytes and a version byte; numbers are least significant byte
//! first; a list is its length and its elements. Everything is in clear.
//!
//! Reading trusts nothing: it allocates no more than there are bytes, and what comes out has
//! passed [`State::check`].

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::crypto::crc32;
use super::file::{File, FileContent, Records, Value};
use super::key::{CardKey, DefaultKey};
use super::memory::StorageSize;
use super::state::{Application, Configuration, State, StateError};
use crate::wire::{
    AccessRights, Aid, CommByte, DfName, FileNo, IsoFileId, KeyFamily, KeyInfo, KeySettings,
    Reader, U24, ValueFlags, Version, WireError,
};

const MAGIC: [u8; 8] = *b"DESFcard";
const FORM: u16 = 1;

const FORMAT_DISABLED: u8 = 0b01;
const RANDOM_ID: u8 = 0b10;

/// The state as bytes.
pub(super) fn save(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(FORM.to_le_bytes());
    let (hardware, software, production) = state.version.to_frames();
    out.extend(hardware);
    out.extend(software);
    out.extend(production);
    save_key(&mut out, &state.picc_key);
    out.push(state.picc_settings.to_byte());
    let configuration = &state.configuration;
    out.push(
        if configuration.format_disabled {
            FORMAT_DISABLED
        } else {
            0
        } | if configuration.random_id {
            RANDOM_ID
        } else {
            0
        },
    );
    out.extend(configuration.default_key.bytes);
    out.push(configuration.default_key.version);
    save_short(&mut out, &configuration.ats);
    out.extend(u24(state.used));
    out.push(count(state.applications.len()));
    for application in &state.applications {
        save_application(&mut out, application);
    }
    let crc = crc32(&[&out]);
    out.extend(crc);
    out
}

fn save_application(out: &mut Vec<u8>, app: &Application) {
    out.extend(app.aid.to_bytes());
    out.push(app.settings.to_byte());
    out.push(app.info.to_byte());
    save_file_id(out, app.iso_file_id);
    save_short(out, app.df_name.as_ref().map_or(&[], DfName::as_bytes));
    out.push(count(app.keys.len()));
    for key in &app.keys {
        save_key(out, key);
    }
    out.push(count(app.files.len()));
    for file in &app.files {
        save_file(out, file);
    }
}

fn save_file(out: &mut Vec<u8>, file: &File) {
    out.push(file.number.number());
    save_file_id(out, file.iso_file_id);
    out.push(file.comm.0);
    out.extend(file.rights.to_bytes());
    out.push(file.content.detail().file_type());
    match &file.content {
        FileContent::Standard(data) | FileContent::Backup(data) => save_long(out, data),
        FileContent::Value(value) => {
            for number in [value.lower, value.upper, value.value, value.limited_credit] {
                out.extend(number.to_le_bytes());
            }
            out.push(value.flags.bits());
        }
        FileContent::Linear(records) | FileContent::Cyclic(records) => {
            out.extend(records.record_size().to_bytes());
            out.extend(records.max_records().to_bytes());
            save_long(out, records.bytes());
        }
    }
}

fn save_key(out: &mut Vec<u8>, key: &CardKey) {
    out.push(key.family().bits());
    let mut bytes = Zeroizing::new([0; 24]);
    for (byte, stored) in bytes.iter_mut().zip(key.bytes()) {
        *byte = *stored;
    }
    out.extend(bytes.iter());
    // The version of the DES family is in the key and said once.
    out.push(if key.family() == KeyFamily::Aes {
        key.version()
    } else {
        0
    });
}

fn save_file_id(out: &mut Vec<u8>, id: Option<IsoFileId>) {
    // 0000 is reserved and stands for none.
    out.extend(id.map_or([0; 2], IsoFileId::to_native));
}

fn save_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(count(bytes.len()));
    out.extend_from_slice(bytes);
}

fn save_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u24(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
    out.extend_from_slice(bytes);
}

/// A length that a valid state keeps below 256.
fn count(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

/// A number that a valid state keeps below 2^24.
fn u24(number: u32) -> [u8; 3] {
    U24::new(number).unwrap_or(U24::ZERO).to_bytes()
}

/// The state of bytes that [`save`] made.
pub(super) fn load(stored: &[u8]) -> Result<State, StateError> {
    let (head, rest) = stored.split_at_checked(10).ok_or(StateError::NotAState)?;
    let form = head.strip_prefix(&MAGIC).ok_or(StateError::NotAState)?;
    let form = Reader::new(form).u16().map_err(|_| StateError::NotAState)?;
    if form != FORM {
        return Err(StateError::Version(form));
    }
    let (body, crc) = rest.split_last_chunk::<4>().ok_or(StateError::Damaged)?;
    if *crc != crc32(&[head, body]) {
        return Err(StateError::Damaged);
    }
    let mut reader = Reader::new(body);
    let state = load_state(&mut reader)?;
    reader.finish()?;
    state.check()?;
    Ok(state)
}

impl From<WireError> for StateError {
    fn from(_: WireError) -> Self {
        Self::Damaged
    }
}

fn load_state(reader: &mut Reader<'_>) -> Result<State, StateError> {
    let version = Version::decode(reader.take(Version::LEN)?)?;
    let storage = StorageSize::from_storage_byte(version.hardware.storage)
        .ok_or(StateError::Impossible("storage size of no EV1"))?;
    let picc_key = load_key(reader)?;
    let picc_settings = KeySettings::from_byte(reader.u8()?);
    let flags = reader.u8()?;
    if flags & !(FORMAT_DISABLED | RANDOM_ID) != 0 {
        return Err(StateError::Impossible("configuration that cannot be set"));
    }
    let default_key = DefaultKey::from_bytes(&Zeroizing::new(reader.array()?));
    let ats = load_short(reader)?.to_vec();
    let used = U24::read(reader)?.get();
    let applications = load_list(reader, load_application)?;
    Ok(State {
        version,
        storage,
        picc_key,
        picc_settings,
        configuration: Configuration {
            format_disabled: flags & FORMAT_DISABLED != 0,
            random_id: flags & RANDOM_ID != 0,
            default_key,
            ats,
        },
        used,
        applications,
    })
}

fn load_application(reader: &mut Reader<'_>) -> Result<Application, StateError> {
    let aid = Aid::from_bytes(reader.array()?);
    let settings = KeySettings::from_byte(reader.u8()?);
    let info = KeyInfo::from_byte(reader.u8()?);
    let iso_file_id = load_file_id(reader)?;
    let df_name = match load_short(reader)? {
        [] => None,
        name => Some(DfName::new(name)?),
    };
    Ok(Application {
        aid,
        settings,
        info,
        iso_file_id,
        df_name,
        keys: load_list(reader, load_key)?,
        files: load_list(reader, load_file)?,
    })
}

fn load_file(reader: &mut Reader<'_>) -> Result<File, StateError> {
    let number = FileNo::new(reader.u8()?)?;
    let iso_file_id = load_file_id(reader)?;
    let comm = CommByte(reader.u8()?);
    let rights = AccessRights::from_bytes(reader.array()?);
    let content = match reader.u8()? {
        0x00 => FileContent::Standard(load_long(reader)?),
        0x01 => FileContent::Backup(load_long(reader)?),
        0x02 => FileContent::Value(Value {
            lower: reader.i32()?,
            upper: reader.i32()?,
            value: reader.i32()?,
            limited_credit: reader.i32()?,
            flags: ValueFlags::from_bits_retain(reader.u8()?),
        }),
        0x03 => FileContent::Linear(load_records(reader)?),
        0x04 => FileContent::Cyclic(load_records(reader)?),
        _ => {
            return Err(StateError::Impossible(
                "file of a type that EV1 does not have",
            ));
        }
    };
    Ok(File {
        number,
        iso_file_id,
        comm,
        rights,
        content,
    })
}

fn load_records(reader: &mut Reader<'_>) -> Result<Records, StateError> {
    let (record_size, max_records) = (U24::read(reader)?, U24::read(reader)?);
    Ok(Records::new(record_size, max_records, load_long(reader)?))
}

fn load_key(reader: &mut Reader<'_>) -> Result<CardKey, StateError> {
    let family = reader.u8()?;
    let bytes = Zeroizing::new(reader.array::<24>()?);
    let version = reader.u8()?;
    let key = CardKey::of(KeyFamily::from_bits(family), &*bytes, version);
    // What the key does not keep must not have been there, or saving would lose it.
    let mut again = Zeroizing::new(Vec::new());
    save_key(&mut again, &key);
    if again.strip_prefix(&[family]) != Some(&[&bytes[..], &[version]].concat()) {
        return Err(StateError::Impossible(
            "key with bytes that it does not have",
        ));
    }
    Ok(key)
}

fn load_file_id(reader: &mut Reader<'_>) -> Result<Option<IsoFileId>, StateError> {
    Ok(Some(IsoFileId(reader.u16()?)).filter(|id| id.0 != 0))
}

fn load_short<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], StateError> {
    let len = reader.u8()?;
    Ok(reader.take(len.into())?)
}

fn load_long(reader: &mut Reader<'_>) -> Result<Vec<u8>, StateError> {
    let len = U24::read(reader)?.get();
    let len = usize::try_from(len).map_err(|_| StateError::Damaged)?;
    Ok(reader.take(len)?.to_vec())
}

/// Elements one by one, so that a length which lies allocates nothing.
fn load_list<T>(
    reader: &mut Reader<'_>,
    load: impl Fn(&mut Reader<'_>) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    let len = reader.u8()?;
    (0..len).map(|_| load(reader)).collect()
}
