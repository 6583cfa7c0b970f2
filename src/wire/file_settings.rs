//! What GetFileSettings tells of a file.

use super::{AccessRights, CommByte, InlineBytes, Reader, U24, WireError, Writer};

bitflags::bitflags! {
    /// The last byte of a value file's settings. What a card says keeps its unknown bits;
    /// [`ValueFlags::all`] has the known ones, as a card refuses others.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ValueFlags: u8 {
        /// LimitedCredit is enabled.
        const LIMITED_CREDIT = 0b01;
        /// GetValue is free, without authentication.
        const FREE_GET_VALUE = 0b10;
    }
}

/// Type, communication byte, rights, and what the type adds.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | file type |
/// | 1 | 1 | communication byte |
/// | 2 | 2 | access rights |
/// | 4 | 3, 13 or 9 | see [`FileDetail`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// How the file's data travel when a key grants access.
    pub comm: CommByte,
    /// Who may do what.
    pub rights: AccessRights,
    /// What the file type adds.
    pub detail: FileDetail,
}

/// The part of the settings that depends on the file type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDetail {
    /// Type `00`: writes take effect at once.
    StandardData {
        /// Size in bytes, as created.
        size: U24,
    },
    /// Type `01`: writes take effect at commit.
    BackupData {
        /// Size in bytes, as created.
        size: U24,
    },
    /// Type `02`.
    Value {
        /// The value never falls below this.
        lower: i32,
        /// The value never rises above this.
        upper: i32,
        /// What LimitedCredit may still add; not the balance.
        limited_credit: i32,
        /// What is enabled.
        flags: ValueFlags,
    },
    /// Type `03`: records until it is full.
    LinearRecord {
        /// Size of a record in bytes.
        record_size: U24,
        /// How many records fit.
        max_records: U24,
        /// How many committed records it holds.
        current_records: U24,
    },
    /// Type `04`: the newest record replaces the oldest.
    CyclicRecord {
        /// Size of a record in bytes.
        record_size: U24,
        /// How many records were asked for; one less can be read.
        max_records: U24,
        /// How many committed records it holds.
        current_records: U24,
    },
    /// A type that EV1 does not have.
    Other {
        /// The type byte.
        file_type: u8,
        /// What follows the access rights, at most 32 bytes.
        rest: InlineBytes<32>,
    },
}

impl FileDetail {
    /// The type byte.
    #[must_use]
    pub const fn file_type(&self) -> u8 {
        match self {
            Self::StandardData { .. } => 0x00,
            Self::BackupData { .. } => 0x01,
            Self::Value { .. } => 0x02,
            Self::LinearRecord { .. } => 0x03,
            Self::CyclicRecord { .. } => 0x04,
            Self::Other { file_type, .. } => *file_type,
        }
    }
}

impl FileSettings {
    /// From the reply of GetFileSettings.
    ///
    /// # Errors
    /// [`WireError`] if the length does not fit the type.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let file_type = reader.u8()?;
        let comm = CommByte(reader.u8()?);
        let rights = AccessRights::from_bytes(reader.array()?);
        let reader_ref = &mut reader;
        let detail = match file_type {
            0x00 => FileDetail::StandardData {
                size: U24::read(reader_ref)?,
            },
            0x01 => FileDetail::BackupData {
                size: U24::read(reader_ref)?,
            },
            0x02 => FileDetail::Value {
                lower: reader_ref.i32()?,
                upper: reader_ref.i32()?,
                limited_credit: reader_ref.i32()?,
                flags: ValueFlags::from_bits_retain(reader_ref.u8()?),
            },
            0x03 => FileDetail::LinearRecord {
                record_size: U24::read(reader_ref)?,
                max_records: U24::read(reader_ref)?,
                current_records: U24::read(reader_ref)?,
            },
            0x04 => FileDetail::CyclicRecord {
                record_size: U24::read(reader_ref)?,
                max_records: U24::read(reader_ref)?,
                current_records: U24::read(reader_ref)?,
            },
            file_type => FileDetail::Other {
                file_type,
                rest: InlineBytes::new(reader_ref.rest())?,
            },
        };
        reader.finish()?;
        Ok(Self {
            comm,
            rights,
            detail,
        })
    }

    /// As the card sends them; returns the number of bytes put into `out` (7 to 36).
    ///
    /// # Errors
    /// [`WireError::Full`] if `out` is too small.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, WireError> {
        let mut writer = Writer::new(out);
        writer.u8(self.detail.file_type())?;
        writer.u8(self.comm.0)?;
        writer.put(&self.rights.to_bytes())?;
        match self.detail {
            FileDetail::StandardData { size } | FileDetail::BackupData { size } => {
                writer.put(&size.to_bytes())?;
            }
            FileDetail::Value {
                lower,
                upper,
                limited_credit,
                flags,
            } => {
                writer.i32(lower)?;
                writer.i32(upper)?;
                writer.i32(limited_credit)?;
                writer.u8(flags.bits())?;
            }
            FileDetail::LinearRecord {
                record_size,
                max_records,
                current_records,
            }
            | FileDetail::CyclicRecord {
                record_size,
                max_records,
                current_records,
            } => {
                writer.put(&record_size.to_bytes())?;
                writer.put(&max_records.to_bytes())?;
                writer.put(&current_records.to_bytes())?;
            }
            FileDetail::Other { rest, .. } => writer.put(&rest)?,
        }
        Ok(writer.written())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Access, CommMode, KeyNo};
    use super::*;

    #[test]
    fn standard_file_as_recorded() {
        // CreateStdDataFile `CD 05 00 11 00 50 00 00` of an EV1 8K, read back.
        let bytes = [0x00, 0x00, 0x11, 0x00, 0x50, 0x00, 0x00];
        let settings = FileSettings::decode(&bytes).unwrap();
        assert_eq!(settings.comm.mode(), CommMode::Plain);
        assert_eq!(settings.rights.read, Access::Key(KeyNo::MASTER));
        assert_eq!(settings.rights.change, Access::Key(KeyNo::new(1).unwrap()));
        assert_eq!(
            settings.detail,
            FileDetail::StandardData {
                size: U24::new(80).unwrap()
            }
        );
    }

    #[test]
    fn all_types_there_and_back() {
        let cases: [&[u8]; 6] = [
            &[0, 0, 0x11, 0x22, 1, 2, 3],
            &[1, 1, 0x11, 0x22, 1, 2, 3],
            &[2, 3, 0, 0, 1, 0, 0, 0x80, 2, 0, 0, 0, 3, 0, 0, 0, 0xFF],
            &[3, 3, 0, 0, 32, 0, 0, 10, 0, 0, 4, 0, 0],
            &[4, 0x83, 0, 0, 32, 0, 0, 10, 0, 0, 4, 0, 0],
            &[5, 0, 1, 2, 9, 9],
        ];
        for bytes in cases {
            let settings = FileSettings::decode(bytes).unwrap();
            let mut out = [0; 36];
            let len = settings.encode(&mut out).unwrap();
            assert_eq!(&out[..len], bytes);
            assert_eq!(settings.encode(&mut out[..len - 1]), Err(WireError::Full));
            // Known types have one length; `Other` keeps whatever comes.
            if bytes[0] < 5 {
                assert!(FileSettings::decode(&bytes[..bytes.len() - 1]).is_err());
                assert!(FileSettings::decode(&[bytes, &[0]].concat()).is_err());
            }
        }
    }
}
