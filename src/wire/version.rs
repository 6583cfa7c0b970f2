//! What GetVersion tells.

use super::{Reader, Uid, WireError};

/// Hardware or software data of the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleVersion {
    /// `04` is NXP.
    pub vendor: u8,
    /// `01` is DESFire.
    pub module_type: u8,
    /// `01`; other values mark another antenna capacitance.
    pub subtype: u8,
    /// Major version; of the hardware: 0 MF3ICD40, 1 EV1, 12h EV2, 33h EV3.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// See [`Storage`].
    pub storage: u8,
    /// `05`: ISO/IEC 14443-3 and -4.
    pub protocol: u8,
}

impl ModuleVersion {
    /// The size of the memory.
    #[must_use]
    pub const fn storage(&self) -> Storage {
        Storage::from_byte(self.storage)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let [
            vendor,
            module_type,
            subtype,
            major,
            minor,
            storage,
            protocol,
        ] = reader.array()?;
        Ok(Self {
            vendor,
            module_type,
            subtype,
            major,
            minor,
            storage,
            protocol,
        })
    }

    /// As it travels.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; 7] {
        [
            self.vendor,
            self.module_type,
            self.subtype,
            self.major,
            self.minor,
            self.storage,
            self.protocol,
        ]
    }
}

/// The storage byte: `s` stands for 2^(s/2) bytes, or, if it is odd, for a size between that
/// and twice that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Exactly this many bytes.
    Exactly(u32),
    /// More than this many bytes and less than twice as many.
    Above(u32),
    /// A number that makes no sense as a size.
    Unknown(u8),
}

impl Storage {
    /// From the byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match 1_u32.checked_shl((byte >> 1) as u32) {
            Some(size) if byte & 1 == 0 => Self::Exactly(size),
            Some(size) => Self::Above(size),
            None => Self::Unknown(byte),
        }
    }
}

/// The reply of GetVersion: 28 bytes in three frames of 7, 7 and 14.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 7 | hardware |
/// | 7 | 7 | software |
/// | 14 | 7 | UID, zero in random-ID mode |
/// | 21 | 5 | batch number |
/// | 26 | 1 | production week, BCD |
/// | 27 | 1 | production year, BCD |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Hardware data.
    pub hardware: ModuleVersion,
    /// Software data.
    pub software: ModuleVersion,
    /// The UID, or [`Uid::HIDDEN`].
    pub uid: Uid,
    /// Batch number.
    pub batch: [u8; 5],
    /// Production week as found: two decimal digits.
    pub week_bcd: u8,
    /// Production year as found: two decimal digits.
    pub year_bcd: u8,
}

impl Version {
    /// Number of bytes.
    pub const LEN: usize = 28;

    /// From the joined frames.
    ///
    /// # Errors
    /// [`WireError`] if it is not 28 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = Self {
            hardware: ModuleVersion::read(&mut reader)?,
            software: ModuleVersion::read(&mut reader)?,
            uid: Uid(reader.array()?),
            batch: reader.array()?,
            week_bcd: reader.u8()?,
            year_bcd: reader.u8()?,
        };
        reader.finish()?;
        Ok(version)
    }

    /// As it travels: the three frames.
    #[must_use]
    pub const fn to_frames(&self) -> ([u8; 7], [u8; 7], [u8; 14]) {
        let [u0, u1, u2, u3, u4, u5, u6] = self.uid.0;
        let [b0, b1, b2, b3, b4] = self.batch;
        (
            self.hardware.to_bytes(),
            self.software.to_bytes(),
            [
                u0,
                u1,
                u2,
                u3,
                u4,
                u5,
                u6,
                b0,
                b1,
                b2,
                b3,
                b4,
                self.week_bcd,
                self.year_bcd,
            ],
        )
    }

    /// Week (1 to 53) and year (2000 to 2099) of production, if the digits are decimal.
    #[must_use]
    pub fn production(&self) -> Option<(u8, u16)> {
        let week = from_bcd(self.week_bcd).filter(|week| (1..=53).contains(week))?;
        let year = from_bcd(self.year_bcd)?;
        Some((week, 2000_u16.saturating_add(year.into())))
    }

    /// Whether the hardware is a DESFire EV1. Later generations speak EV1's protocol too.
    #[must_use]
    pub const fn is_ev1(&self) -> bool {
        self.hardware.vendor == 0x04
            && self.hardware.module_type == 0x01
            && self.hardware.major == 0x01
    }
}

const fn from_bcd(byte: u8) -> Option<u8> {
    let (tens, ones) = (byte >> 4, byte & 0x0F);
    if tens > 9 || ones > 9 {
        return None;
    }
    Some(tens * 10 + ones)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    // DESFire EV1 8K, RFDoorLock "Desfire EV1 Communication Examples", part 1.
    const RECORDED: [u8; 28] = [
        0x04, 0x01, 0x01, 0x01, 0x00, 0x1A, 0x05, 0x04, 0x01, 0x01, 0x01, 0x04, 0x1A, 0x05, 0x04,
        0x06, 0x3F, 0x72, 0x63, 0x34, 0x80, 0xBA, 0x45, 0x19, 0xE3, 0x20, 0x49, 0x13,
    ];

    #[test]
    fn recorded_block() {
        let version = Version::decode(&RECORDED).unwrap();
        assert!(version.is_ev1());
        assert_eq!(version.hardware.storage(), Storage::Exactly(8192));
        assert_eq!((version.software.major, version.software.minor), (1, 4));
        assert_eq!(version.uid.to_string(), "04063F72633480");
        assert_eq!(version.batch, [0xBA, 0x45, 0x19, 0xE3, 0x20]);
        assert_eq!(version.production(), Some((49, 2013)));
        let (hardware, software, rest) = version.to_frames();
        assert_eq!([&hardware[..], &software, &rest].concat(), RECORDED);
        assert!(Version::decode(&RECORDED[..27]).is_err());
        assert!(Version::decode(&[&RECORDED[..], &[0]].concat()).is_err());
    }

    #[test]
    fn odd_storage_and_bad_digits() {
        assert_eq!(Storage::from_byte(0x16), Storage::Exactly(2048));
        assert_eq!(Storage::from_byte(0x17), Storage::Above(2048));
        assert_eq!(Storage::from_byte(0x40), Storage::Unknown(0x40));
        let mut version = Version::decode(&RECORDED).unwrap();
        version.week_bcd = 0x5A;
        assert_eq!(version.production(), None);
        version.week_bcd = 0x54;
        assert_eq!(version.production(), None);
        version.week_bcd = 0x53;
        version.year_bcd = 0xA0;
        assert_eq!(version.production(), None);
        version.year_bcd = 0x99;
        assert_eq!(version.production(), Some((53, 2099)));
    }

    /// Vendor, type and major version together make it one.
    #[test]
    fn what_is_no_ev1() {
        for (place, value) in [(0, 0x05), (1, 0x02), (3, 0x00), (3, 0x12), (3, 0x33)] {
            let mut bytes = RECORDED;
            bytes[place] = value;
            assert!(!Version::decode(&bytes).unwrap().is_ev1(), "{place}");
        }
    }
}
