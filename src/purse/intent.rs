//! What is to be done, written down before it is done, and the rule that tells afterwards whether
//! it was.

use super::history::History;
use super::record::{RECORD_LEN, Record};
use super::{Evidence, Refusal};
use crate::wire::{Reader, Uid, WireError};

/// Bytes of an [`Intent`].
pub const INTENT_LEN: usize = 1 + 7 + 8 + 2 * RECORD_LEN;

/// The version of the byte form.
const VERSION: u8 = 1;

/// An operation that is to be: made by [`super::Tap::debit`] and [`super::Tap::credit`], stored,
/// carried out by [`super::Tap::execute`], and settled by [`super::Tap::settle`].
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | version of this form, 1 |
/// | 1 | 7 | UID of the card |
/// | 8 | 8 | purse id, least significant byte first |
/// | 16 | 28 | the newest record when it was made |
/// | 44 | 28 | the record that is to be |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    uid: Uid,
    purse_id: u64,
    before: Record,
    record: Record,
}

/// What became of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// The card has it in its log: it was done, once.
    Paid,
    /// It was not done, and never will be: its number is another operation's, or still free and its
    /// session over.
    NotPaid,
    /// The record that would tell has been overwritten. Whoever has the intents of the terminals
    /// that came after finds it there, as [`Intent::before`]; this card does not tell any more.
    TooLate,
}

impl Intent {
    pub(super) const fn new(uid: Uid, purse_id: u64, before: Record, record: Record) -> Self {
        Self {
            uid,
            purse_id,
            before,
            record,
        }
    }

    /// The card.
    #[must_use]
    pub const fn uid(&self) -> Uid {
        self.uid
    }

    /// The purse.
    #[must_use]
    pub const fn purse_id(&self) -> u64 {
        self.purse_id
    }

    /// The record that the terminal saw on the card when it made this.
    #[must_use]
    pub const fn before(&self) -> &Record {
        &self.before
    }

    /// The record that will be on the card if it is done.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// **The rule of settlement**: what became of this, by the records that are on the card in a
    /// session begun later. The history is that of the same purse, and "not paid" is final only after the
    /// card has proved that nothing is pending any more; [`super::Tap::settle`] sees to both.
    ///
    /// With `n` the number of this intent's record:
    ///
    /// | on the card | then |
    /// |---|---|
    /// | newest is `n` − 1, and is the record before | not paid |
    /// | `n` is this record | paid |
    /// | `n` is another's, and follows the record before | not paid |
    /// | `n` is overwritten | too late |
    /// | anything else | evidence: the card's past is not the one that was seen |
    ///
    /// At most one of all intents for the same `n` is ever paid, as there is one record `n`.
    ///
    /// # Errors
    /// [`Evidence::RolledBack`], [`Evidence::Rewritten`].
    pub fn judge(&self, history: &History) -> Result<Settlement, Evidence> {
        let number = self.record.sequence.get();
        let newest = history.newest().sequence.get();
        let seen = self.before.sequence.get();
        if newest < seen {
            return Err(Evidence::RolledBack {
                found: newest,
                seen,
            });
        }
        if history
            .number(seen)
            .is_some_and(|there| *there != self.before)
        {
            return Err(Evidence::Rewritten);
        }
        if newest == seen {
            return Ok(Settlement::NotPaid);
        }
        match history.number(number) {
            None => Ok(Settlement::TooLate),
            Some(there) if *there == self.record => Ok(Settlement::Paid),
            Some(there) if self.is_named_by(there) || !there.follows(&self.before) => {
                Err(Evidence::Rewritten)
            }
            Some(_) => Ok(Settlement::NotPaid),
        }
    }

    /// Whether a record claims to be of this operation.
    fn is_named_by(&self, record: &Record) -> bool {
        let (mine, theirs) = (self.record.stamp, record.stamp);
        (mine.terminal, mine.transaction) == (theirs.terminal, theirs.transaction)
    }

    pub(super) fn require_purse(&self, uid: Uid, purse_id: u64) -> Result<(), Refusal> {
        if (self.uid, self.purse_id) == (uid, purse_id) {
            Ok(())
        } else {
            Err(Refusal::OtherPurse)
        }
    }

    /// For the terminal's disk.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; INTENT_LEN] {
        let mut bytes = [0; INTENT_LEN];
        let fields = [VERSION]
            .into_iter()
            .chain(self.uid.0)
            .chain(self.purse_id.to_le_bytes())
            .chain(self.before.to_bytes())
            .chain(self.record.to_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// From the terminal's disk.
    ///
    /// # Errors
    /// [`Evidence::Record`] if the bytes are not an intent, [`Evidence::Chain`] if its records do
    /// not follow one another.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Evidence> {
        let (uid, purse_id, before, record) = split(bytes).map_err(|_| Evidence::Record)?;
        let intent = Self {
            uid,
            purse_id,
            before: Record::from_bytes(&before)?,
            record: Record::from_bytes(&record)?,
        };
        if intent.record.follows(&intent.before) {
            Ok(intent)
        } else {
            Err(Evidence::Chain)
        }
    }
}

type Parts = (Uid, u64, [u8; RECORD_LEN], [u8; RECORD_LEN]);

fn split(bytes: &[u8]) -> Result<Parts, WireError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(WireError::Value {
            field: "version of the intent",
            value: version.into(),
        });
    }
    let parts = (
        Uid(reader.array()?),
        reader.array().map(u64::from_le_bytes)?,
        reader.array()?,
        reader.array()?,
    );
    reader.finish()?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::super::{HISTORY_LEN, Kind, Stamp};
    use super::*;
    use crate::wire::{Amount, U24};

    fn stamp(transaction: u64) -> Stamp {
        Stamp {
            time: 1000,
            terminal: 7,
            transaction,
        }
    }

    /// The opening, then credits of 10 with numbers and transactions 1, 2, 3 …
    fn credit(number: u32, transaction: u64) -> Record {
        if number == 0 {
            return Record::opening(stamp(0));
        }
        Record {
            kind: Kind::Credit,
            sequence: U24::new(number).unwrap(),
            amount: Amount::new(10).unwrap(),
            balance: Amount::new(i32::try_from(number).unwrap() * 10).unwrap(),
            stamp: stamp(transaction),
        }
    }

    /// The card after `newest` credits, of which number `other` was another terminal's.
    fn card(newest: u32, other: Option<u32>) -> History {
        let records: std::vec::Vec<_> = (0..=newest)
            .rev()
            .take(HISTORY_LEN)
            .map(|n| credit(n, u64::from(n) + 100 * u64::from(other == Some(n))))
            .collect();
        History::new(&records).unwrap()
    }

    fn intent(number: u32) -> Intent {
        Intent::new(
            Uid([4; 7]),
            9,
            credit(number - 1, u64::from(number) - 1),
            credit(number, number.into()),
        )
    }

    #[test]
    fn the_rule_line_by_line() {
        let third = intent(3);
        let rolled_back = Evidence::RolledBack { found: 1, seen: 2 };
        assert_eq!(third.judge(&card(1, None)), Err(rolled_back));
        assert_eq!(third.judge(&card(2, None)), Ok(Settlement::NotPaid));
        assert_eq!(third.judge(&card(2, Some(2))), Err(Evidence::Rewritten));
        for newest in 3..=7 {
            assert_eq!(third.judge(&card(newest, None)), Ok(Settlement::Paid));
            let taken = third.judge(&card(newest, Some(3)));
            assert_eq!(taken, Ok(Settlement::NotPaid));
        }
        assert_eq!(third.judge(&card(3, Some(2))), Err(Evidence::Rewritten));
        assert_eq!(third.judge(&card(8, None)), Ok(Settlement::TooLate));
        assert_eq!(third.judge(&card(8, Some(3))), Ok(Settlement::TooLate));
    }

    #[test]
    fn the_same_transaction_with_another_content_is_no_settlement() {
        let mut third = intent(3);
        third.record.amount = Amount::new(11).unwrap();
        third.record.balance = Amount::new(31).unwrap();
        assert_eq!(third.judge(&card(3, None)), Err(Evidence::Rewritten));
    }

    #[test]
    fn the_byte_form_comes_back_or_is_refused() {
        let intent = intent(3);
        let bytes = intent.to_bytes();
        assert_eq!(Intent::from_bytes(&bytes), Ok(intent));
        for len in 0..INTENT_LEN {
            assert!(Intent::from_bytes(&bytes[..len]).is_err());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Intent::from_bytes(&longer).is_err());
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(Intent::from_bytes(&newer), Err(Evidence::Record));
        // The record's amount, but not its balance.
        let mut wrong = bytes;
        wrong[48] ^= 1;
        assert_eq!(Intent::from_bytes(&wrong), Err(Evidence::Chain));
    }
}
