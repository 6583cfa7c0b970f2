//! Identifiers: [`Aid`], [`FileNo`], [`KeyNo`], [`IsoFileId`], [`DfName`], [`Uid`], and the
//! 24-bit number [`U24`] in which offsets and lengths travel.

use core::fmt;
use core::str::FromStr;

use super::{InlineBytes, Reader, WireError};

/// Application identifier: three bytes, least significant first on the wire.
///
/// `000000` names the card itself (the PICC level).
///
/// ```
/// use desfire_ev1::wire::Aid;
///
/// let aid = Aid::new(0x00_DE16)?;
/// assert_eq!(aid.to_bytes(), [0x16, 0xDE, 0x00]);
/// assert_eq!(aid.to_string(), "00DE16");
/// assert!(Aid::new(0x0100_0000).is_err());
/// # Ok::<(), desfire_ev1::wire::WireError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aid([u8; 3]);

impl Aid {
    /// The PICC level, selected after activation.
    pub const PICC: Self = Self([0; 3]);

    /// An AID from its number.
    ///
    /// # Errors
    /// [`WireError::Value`] above `FFFFFF`.
    pub const fn new(number: u32) -> Result<Self, WireError> {
        match number.to_le_bytes() {
            [a, b, c, 0] => Ok(Self([a, b, c])),
            _ => Err(WireError::Value {
                field: "AID",
                value: number,
            }),
        }
    }

    /// An AID as it travels, least significant byte first.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// The AID as it travels, least significant byte first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 3] {
        self.0
    }

    /// The AID as a number.
    #[must_use]
    pub const fn number(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }

    /// Whether this is the PICC level and no application.
    #[must_use]
    pub const fn is_picc(self) -> bool {
        self.number() == 0
    }
}

/// Six hex digits, as it is written and printed: most significant first.
///
/// ```
/// use desfire_ev1::wire::Aid;
///
/// assert_eq!("00DE16".parse(), Aid::new(0x00_DE16));
/// assert!("DE16".parse::<Aid>().is_err());
/// ```
impl FromStr for Aid {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let digits = text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map_or(
            Err(WireError::Text {
                field: "AID",
                digits: 6,
            }),
            Self::new,
        )
    }
}

impl fmt::Display for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06X}", self.number())
    }
}

impl fmt::Debug for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aid({self})")
    }
}

/// File number: 0 to 31 inside an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileNo(u8);

impl FileNo {
    /// The highest file number.
    pub const MAX: u8 = 31;

    /// A file number.
    ///
    /// # Errors
    /// [`WireError::Value`] above 31.
    pub const fn new(number: u8) -> Result<Self, WireError> {
        if number > Self::MAX {
            return Err(WireError::Value {
                field: "file number",
                value: number as u32,
            });
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for FileNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Key number: 0 to 13; 0 is the master key of the application or of the PICC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyNo(u8);

impl KeyNo {
    /// The master key of the level.
    pub const MASTER: Self = Self(0);
    /// The highest key number; an application has at most 14 keys.
    pub const MAX: u8 = 13;

    /// A key number.
    ///
    /// # Errors
    /// [`WireError::Value`] above 13.
    pub const fn new(number: u8) -> Result<Self, WireError> {
        if number > Self::MAX {
            return Err(WireError::Value {
                field: "key number",
                value: number as u32,
            });
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether this is the master key.
    #[must_use]
    pub const fn is_master(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for KeyNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// ISO 7816-4 file identifier of an application (DF) or a file (EF).
///
/// Least significant byte first inside native commands, most significant first in ISO SELECT:
/// hence two conversions and no neutral one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IsoFileId(pub u16);

impl IsoFileId {
    /// The master file, the ISO view of the PICC level.
    pub const MF: Self = Self(0x3F00);

    /// As it travels in native commands.
    #[must_use]
    pub const fn to_native(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    /// As it travels in native commands.
    #[must_use]
    pub const fn from_native(bytes: [u8; 2]) -> Self {
        Self(u16::from_le_bytes(bytes))
    }

    /// As it travels in ISO SELECT.
    #[must_use]
    pub const fn to_iso(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// As it travels in ISO SELECT.
    #[must_use]
    pub const fn from_iso(bytes: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(bytes))
    }
}

impl fmt::Display for IsoFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl fmt::Debug for IsoFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IsoFileId({self})")
    }
}

/// ISO 7816-4 name of an application: 1 to 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DfName(InlineBytes<16>);

impl DfName {
    /// A name.
    ///
    /// # Errors
    /// [`WireError::Value`] if it is empty or longer than 16 bytes.
    pub fn new(name: &[u8]) -> Result<Self, WireError> {
        let wrong_length = WireError::Value {
            field: "length of the DF name",
            value: u32::try_from(name.len()).unwrap_or(u32::MAX),
        };
        if name.is_empty() {
            return Err(wrong_length);
        }
        InlineBytes::new(name).map(Self).map_err(|_| wrong_length)
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The card's unique identifier: seven bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub [u8; 7]);

impl Uid {
    /// What GetVersion shows instead of the UID on a card in random-ID mode.
    pub const HIDDEN: Self = Self([0; 7]);
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({self})")
    }
}

/// A number of 24 bits: offsets, lengths, sizes, record numbers.
// Most significant byte first, so that the derived order is the numbers'; three bytes, because a
// session remembers a size for each of 32 files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct U24([u8; 3]);

impl U24 {
    /// Zero.
    pub const ZERO: Self = Self([0; 3]);
    /// The greatest value, `FFFFFF`.
    pub const MAX: u32 = 0x00FF_FFFF;

    /// A number.
    ///
    /// # Errors
    /// [`WireError::Value`] above `FFFFFF`.
    pub const fn new(value: u32) -> Result<Self, WireError> {
        if value > Self::MAX {
            return Err(WireError::Value {
                field: "24-bit number",
                value,
            });
        }
        let [_, a, b, c] = value.to_be_bytes();
        Ok(Self([a, b, c]))
    }

    /// A length in memory as a number of 24 bits.
    ///
    /// # Errors
    /// [`WireError::Value`] above `FFFFFF`.
    pub fn from_len(len: usize) -> Result<Self, WireError> {
        Self::new(u32::try_from(len).unwrap_or(u32::MAX))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_be_bytes([0, a, b, c])
    }

    /// As it travels, least significant byte first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 3] {
        let [a, b, c] = self.0;
        [c, b, a]
    }

    /// As it travels, least significant byte first.
    #[must_use]
    pub const fn from_bytes([c, b, a]: [u8; 3]) -> Self {
        Self([a, b, c])
    }

    /// Takes three bytes from `reader`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.array().map(Self::from_bytes)
    }
}

impl fmt::Display for U24 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl fmt::Debug for U24 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U24({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_orders() {
        assert_eq!(Aid::new(0x3042F5).unwrap().to_bytes(), [0xF5, 0x42, 0x30]);
        assert_eq!(Aid::from_bytes([0xF5, 0x42, 0x30]).number(), 0x3042F5);
        assert_eq!(IsoFileId(0xE110).to_native(), [0x10, 0xE1]);
        assert_eq!(IsoFileId(0xE110).to_iso(), [0xE1, 0x10]);
        assert_eq!(IsoFileId::from_native([0x10, 0xE1]), IsoFileId(0xE110));
        assert_eq!(IsoFileId::from_iso([0xE1, 0x10]), IsoFileId(0xE110));
        assert_eq!(U24::new(0x01_0203).unwrap().to_bytes(), [3, 2, 1]);
        assert_eq!(U24::from_bytes([3, 2, 1]).get(), 0x01_0203);
        assert!(U24::from_bytes([0xFF, 0, 1]) > U24::from_bytes([0, 0xFF, 0]));
    }

    #[test]
    fn limits() {
        assert!(FileNo::new(31).is_ok() && FileNo::new(32).is_err());
        assert!(KeyNo::new(13).is_ok() && KeyNo::new(14).is_err());
        assert!(Aid::new(0x00FF_FFFF).is_ok() && Aid::new(0x0100_0000).is_err());
        assert!(U24::new(0x00FF_FFFF).is_ok() && U24::new(0x0100_0000).is_err());
        assert!(U24::from_len(usize::MAX).is_err());
        assert!(DfName::new(&[]).is_err() && DfName::new(&[1; 17]).is_err());
        assert_eq!(DfName::new(&[1; 16]).unwrap().as_bytes(), &[1; 16]);
        assert!(Aid::PICC.is_picc() && !Aid::new(1).unwrap().is_picc());
        assert!(KeyNo::MASTER.is_master() && !KeyNo::new(1).unwrap().is_master());
    }

    #[test]
    fn an_aid_is_six_hex_digits() {
        assert_eq!("00DE16".parse(), Aid::new(0xDE16));
        assert_eq!("f0de1c".parse(), Aid::new(0xF0_DE1C));
        for text in [
            "", "DE16", "0DE16", "000DE16", "+0DE16", "0xDE16", "00DE1G", "00DE1é",
        ] {
            let error = WireError::Text {
                field: "AID",
                digits: 6,
            };
            assert_eq!(text.parse::<Aid>(), Err(error), "{text}");
        }
    }
}
