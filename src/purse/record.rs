//! One operation, as the card remembers it.

use super::Evidence;
use crate::wire::{Amount, Reader, U24, WireError};

/// Bytes of a record.
pub const RECORD_LEN: usize = 28;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The purse was put on the card, with nothing in it. Only record 0.
    Opening,
    /// Taken out.
    Debit,
    /// Put in.
    Credit,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Opening => 1,
            Self::Debit => 2,
            Self::Credit => 3,
        }
    }
}

/// When, where, and which: what the terminal says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Seconds since 1970-01-01 00:00 UTC, by the terminal's clock.
    pub time: u32,
    /// The place: the number of the terminal.
    pub terminal: u32,
    /// The operation. **A terminal never uses a number twice**: the settlement of a lost commit
    /// rests on it.
    pub transaction: u64,
}

/// One operation.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | kind: 01 opening, 02 debit, 03 credit |
/// | 1 | 3 | sequence number, from 0 |
/// | 4 | 4 | amount |
/// | 8 | 4 | balance afterwards |
/// | 12 | 4 | time |
/// | 16 | 4 | terminal |
/// | 20 | 8 | transaction |
///
/// All numbers are least significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// What was done.
    pub kind: Kind,
    /// Its place in the purse's life. Every operation counts it up by one; sixteen million are more
    /// than the card's memory endures.
    pub sequence: U24,
    /// How much was taken out or put in.
    pub amount: Amount,
    /// What was in the purse afterwards.
    pub balance: Amount,
    /// When, where, and which.
    pub stamp: Stamp,
}

impl Record {
    pub(super) const fn opening(stamp: Stamp) -> Self {
        Self {
            kind: Kind::Opening,
            sequence: U24::ZERO,
            amount: Amount::ZERO,
            balance: Amount::ZERO,
            stamp,
        }
    }

    /// What it did to the balance.
    #[must_use]
    pub const fn change(&self) -> i32 {
        match self.kind {
            Kind::Opening => 0,
            Kind::Debit => self.amount.get().wrapping_neg(), // never negative itself
            Kind::Credit => self.amount.get(),
        }
    }

    /// Whether it can come right after `before`: the next number, and a balance that adds up.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        let balance = i64::from(before.balance.get()) + i64::from(self.change());
        self.kind != Kind::Opening
            && self.sequence.get().checked_sub(1) == Some(before.sequence.get())
            && i64::from(self.balance.get()) == balance
    }

    /// As it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        let sequence = self.sequence.to_bytes();
        let amount = self.amount.to_bytes();
        let balance = self.balance.to_bytes();
        let time = self.stamp.time.to_le_bytes();
        let terminal = self.stamp.terminal.to_le_bytes();
        let transaction = self.stamp.transaction.to_le_bytes();
        let fields = [self.kind.code()]
            .into_iter()
            .chain(sequence)
            .chain(amount)
            .chain(balance)
            .chain(time)
            .chain(terminal)
            .chain(transaction);
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// From what is stored.
    ///
    /// # Errors
    /// [`Evidence::Record`] if the bytes are not a record that a purse can have written.
    pub fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Evidence> {
        Self::decode(bytes).map_err(|_| Evidence::Record)
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let code = reader.u8()?;
        let sequence = U24::read(&mut reader)?;
        let amount = Amount::new(reader.i32()?)?;
        let balance = Amount::new(reader.i32()?)?;
        let stamp = Stamp {
            time: reader.array().map(u32::from_le_bytes)?,
            terminal: reader.array().map(u32::from_le_bytes)?,
            transaction: reader.array().map(u64::from_le_bytes)?,
        };
        reader.finish()?;
        let opening = sequence == U24::ZERO && amount.get() == 0 && balance.get() == 0;
        let later = sequence != U24::ZERO && amount.get() > 0;
        let kind = match code {
            1 if opening => Kind::Opening,
            2 if later => Kind::Debit,
            3 if later && balance >= amount => Kind::Credit,
            code => {
                return Err(WireError::Value {
                    field: "kind of operation",
                    value: code.into(),
                });
            }
        };
        Ok(Self {
            kind,
            sequence,
            amount,
            balance,
            stamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        time: 0x6AB1_2345,
        terminal: 0x0102_0304,
        transaction: 0x1112_1314_1516_1718,
    };

    #[test]
    fn literal_bytes() {
        let record = Record {
            kind: Kind::Debit,
            sequence: U24::new(0x01_0203).unwrap(),
            amount: Amount::new(250).unwrap(),
            balance: Amount::new(1000).unwrap(),
            stamp: STAMP,
        };
        let bytes = [
            0x02, 0x03, 0x02, 0x01, 0xFA, 0, 0, 0, 0xE8, 0x03, 0, 0, 0x45, 0x23, 0xB1, 0x6A, 4, 3,
            2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        ];
        assert_eq!(record.to_bytes(), bytes);
        assert_eq!(Record::from_bytes(&bytes), Ok(record));
        assert_eq!(record.change(), -250);
        let opening = Record::opening(STAMP);
        assert_eq!(Record::from_bytes(&opening.to_bytes()), Ok(opening));
    }

    #[test]
    fn what_no_purse_writes_is_no_record() {
        let good = Record::opening(STAMP).to_bytes();
        let changed = |offset: usize, value: u8| {
            let mut bytes = good;
            bytes[offset] = value;
            Record::from_bytes(&bytes)
        };
        assert_eq!(Record::from_bytes(&[0; RECORD_LEN]), Err(Evidence::Record));
        // An unknown kind; an opening that is not the first, has an amount or a balance; a debit
        // that is the first.
        for (offset, value) in [(0, 0), (0, 4), (1, 1), (4, 1), (8, 1), (0, 2), (11, 0x80)] {
            assert_eq!(changed(offset, value), Err(Evidence::Record), "{offset}");
        }
        // A credit of more than is there afterwards; a negative amount.
        let mut credit = good;
        credit[..12].copy_from_slice(&[3, 1, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(Record::from_bytes(&credit), Err(Evidence::Record));
        credit[8] = 9;
        assert!(Record::from_bytes(&credit).is_ok());
        credit[7] = 0x80;
        assert_eq!(Record::from_bytes(&credit), Err(Evidence::Record));
    }

    #[test]
    fn the_chain_adds_up() {
        let opening = Record::opening(STAMP);
        let next = |kind, sequence, amount, balance| Record {
            kind,
            sequence: U24::new(sequence).unwrap(),
            amount: Amount::new(amount).unwrap(),
            balance: Amount::new(balance).unwrap(),
            stamp: STAMP,
        };
        let credit = next(Kind::Credit, 1, 50, 50);
        assert!(credit.follows(&opening));
        assert!(next(Kind::Debit, 2, 20, 30).follows(&credit));
        assert!(!next(Kind::Debit, 2, 20, 31).follows(&credit));
        assert!(!next(Kind::Debit, 3, 20, 30).follows(&credit));
        assert!(!opening.follows(&opening));
        assert!(!next(Kind::Credit, 2, i32::MAX, 0).follows(&credit));
    }
}
