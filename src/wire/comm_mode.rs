//! How a file's data travel.

use core::fmt;

/// Communication mode of a file, or of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommMode {
    /// Data in clear. In an EV1 session the reply still carries a CMAC; in a D40 session
    /// nothing protects it.
    Plain,
    /// Data in clear with a MAC.
    Mac,
    /// Data enciphered, with a CRC inside.
    Enciphered,
}

impl fmt::Display for CommMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Mac => "MACed",
            Self::Enciphered => "enciphered",
        })
    }
}

/// The communication byte of a file: the mode in bits 1 and 0, all else kept as found.
///
/// | bits 1–0 | mode |
/// |---|---|
/// | `00`, `10` | plain |
/// | `01` | MACed |
/// | `11` | enciphered |
///
/// Bits 7 to 2 are zero on EV1; later generations use them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommByte(pub u8);

impl CommByte {
    /// The mode that the byte asks for.
    #[must_use]
    pub const fn mode(self) -> CommMode {
        match self.0 & 0b11 {
            0b01 => CommMode::Mac,
            0b11 => CommMode::Enciphered,
            _ => CommMode::Plain,
        }
    }
}

impl From<CommMode> for CommByte {
    fn from(mode: CommMode) -> Self {
        Self(match mode {
            CommMode::Plain => 0b00,
            CommMode::Mac => 0b01,
            CommMode::Enciphered => 0b11,
        })
    }
}

impl fmt::Debug for CommByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommByte({:02X}: {})", self.0, self.mode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for mode in [CommMode::Plain, CommMode::Mac, CommMode::Enciphered] {
            assert_eq!(CommByte::from(mode).mode(), mode);
        }
        assert_eq!(CommByte(0b10).mode(), CommMode::Plain);
        assert_eq!(CommByte(0xFF).mode(), CommMode::Enciphered);
        assert_eq!(CommByte::from(CommMode::Enciphered), CommByte(3));
        assert_eq!(CommByte::from(CommMode::Mac), CommByte(1));
    }
}
