//! The amount of a Credit, Debit or LimitedCredit.

use core::fmt;

use super::WireError;

/// What a value command adds or takes: four bytes, signed, but never negative.
///
/// Source: reference chapter 3.25 (the card answers `9E` to a negative amount).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount(i32);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount.
    ///
    /// # Errors
    /// [`WireError::Value`] if it is negative.
    pub const fn new(value: i32) -> Result<Self, WireError> {
        if value < 0 {
            return Err(WireError::Value {
                field: "amount",
                value: value.cast_unsigned(),
            });
        }
        Ok(Self(value))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// As it travels, least significant byte first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_negative() {
        assert!(Amount::new(-1).is_err() && Amount::new(i32::MIN).is_err());
        assert_eq!(Amount::new(0).unwrap().to_bytes(), [0; 4]);
        assert_eq!(Amount::new(250).unwrap().get(), 250);
        assert_eq!(
            Amount::new(i32::MAX).unwrap().to_bytes(),
            [0xFF, 0xFF, 0xFF, 0x7F]
        );
    }
}
