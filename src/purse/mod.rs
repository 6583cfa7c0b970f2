//! A purse that neither loses nor makes money: debits and credits that can be settled after a
//! lost commit.
//!
//! For: three files that together are a purse, and the rules for changing them. May know:
//! sessions, their commands, wire types. May not know: keys, where records are collected, what
//! time it is.
//!
//! # On the card
//!
//! Three files of one application, all enciphered:
//!
//! | file | type | holds | read | write | read & write | change |
//! |---|---|---|---|---|---|---|
//! | header | backup data, 16 bytes | layout version, UID, purse id | debit key | never | credit key | key 0 |
//! | value | value, 0 to the limit | the balance | debit key | never | credit key | key 0 |
//! | log | cyclic, 6 records of 28 bytes | the last five operations ([`Record`]) | debit key | debit key | credit key | key 0 |
//!
//! (A cyclic file of six holds five: the sixth is the one that is being written.)
//!
//! An operation changes the value and writes a record of it **in one transaction**, so that the
//! newest record's balance is the value, always. Records are numbered without gaps from the
//! opening record 0; the header names the card that it was written for, so that a copy on another
//! card shows.
//!
//! # Operations
//!
//! 1. [`Purse::open`] reads the purse and checks it; the result is a [`Tap`].
//! 2. [`Tap::debit`] or [`Tap::credit`] makes an [`Intent`]: the record that is to be. It sends
//!    nothing. **Store the intent where a crash does not reach it.**
//! 3. [`Tap::execute`] carries it out. If it ends in [`PurseError::Unsettled`], the answer did
//!    not come back; keep the intent.
//! 4. At the next tap of that card, [`Tap::settle`] tells from the card what became of it:
//!    [`Settlement::Paid`], [`Settlement::NotPaid`], or, if the card has been used more than four
//!    times since, [`Settlement::TooLate`]. Then other terminals have seen the record: each
//!    intent names the record before it ([`Intent::before`]), so that whoever collects the
//!    intents of all terminals knows every record.
//!
//! A terminal settles what it has open for a card before it does anything new with it.
//!
//! ```
//! use desfire_ev1::purse::{Purse, Settlement, Stamp};
//! use desfire_ev1::{Machine, Procedure};
//! use desfire_ev1::wire::Amount;
//! # use desfire_ev1::{Key, Session, VirtualReader, wire::*};
//! # let purse = Purse {
//! #     header: FileNo::new(10)?, value: FileNo::new(11)?, log: FileNo::new(12)?,
//! #     limit: Amount::new(10_000)?,
//! # };
//! # let (mut reader, mut rng) = (VirtualReader::demo(), getrandom::SysRng);
//! # let key = Key::aes([0; 16]);
//! # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
//! # let mut session = session.authenticate_aes(KeyNo::MASTER, &key, &mut rng).run(&mut reader)?;
//! # let (debit, credit) = (KeyNo::new(1)?, KeyNo::new(2)?);
//! # purse.create(&mut session, debit, credit).run(&mut reader)?;
//! # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
//! # let mut session = session.authenticate_aes(credit, &key, &mut rng).run(&mut reader)?;
//! # purse.initialise(&mut session, 4711, Stamp { time: 0, terminal: 1, transaction: 0 }).run(&mut reader)?;
//! // A session with the debit or the credit key of the purse's application.
//! let mut tap = purse.open(&mut session).run(&mut reader)?;
//! let stamp = Stamp { time: 1_790_000_000, terminal: 1, transaction: 77 };
//! let top_up = tap.credit(Amount::new(2_000)?, stamp)?;
//! // Here `top_up.to_bytes()` goes to the disk.
//! tap.execute(&top_up).run(&mut reader)?;
//! assert_eq!(tap.balance(), 2_000);
//! // Had the answer been lost, the next tap would have told:
//! assert_eq!(tap.settle(&top_up).run(&mut reader)?, Settlement::Paid);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Exchanges
//!
//! | | exchanges | which |
//! |---|---|---|
//! | open | 4 | GetCardUID, header, value, newest record |
//! | open, with the UID proved by a diversified key ([`Open::proved_uid`]) | 3 | without GetCardUID |
//! | execute | 3 | value and record, CommitTransaction: the least there is |
//! | settle | 0 | if the newest record tells; else as history; 2 more before "not paid" |
//! | history | 1 to 3 | ReadRecords; 140 bytes in three frames, in AES sessions |
//!
//! With SelectApplication and the handshake's two, a whole debit is 10 exchanges, or 9. Records
//! are 28 bytes because that is what fits, enciphered, into one frame of either framing.
//!
//! # Against whoever sits between
//!
//! CommitTransaction and AbortTransaction need no authentication and carry no MAC to the card. Who
//! controls the link (a relay, somebody's phone) can commit half an operation, or all of it before
//! this library has sent its commit. So:
//!
//! - As soon as the first change has been sent, every failure is [`PurseError::Unsettled`]: that no
//!   commit was sent proves nothing, nor does an error status, which carries no MAC.
//! - The value is changed first in a debit, and last in a credit: half an operation leaves the value
//!   *below* what the records say, never above. The next tap finds it ([`Evidence::Disagree`]).
//!
//! - A handshake does not drop what was left pending, and the reply to a selection proves nothing. So
//!   "not paid" is said only after the card has proved an AbortTransaction in the session at hand;
//!   otherwise a selection that was kept back, and a commit afterwards, would make it untrue.
//!
//! Whoever has the credit key can write what he likes; that is for the back office to find, in the
//! records.
//!
//! Only sessions with EV1 messaging are accepted.

mod error;
mod execute;
mod header;
mod history;
mod intent;
mod open;
mod record;
mod setup;

use crate::wire::{Amount, FileNo};

pub use error::{Evidence, PurseError, Refusal};
pub use execute::Execute;
pub use header::{HEADER_LEN, LAYOUT_VERSION};
pub use history::{HISTORY_LEN, History, ReadHistory, Settle};
pub use intent::{INTENT_LEN, Intent, Settlement};
pub use open::{Open, Tap};
pub use record::{Kind, RECORD_LEN, Record, Stamp};
pub use setup::{Create, Initialise};

/// Where a purse is in its application, and how much goes into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purse {
    /// The header's file.
    pub header: FileNo,
    /// The value file.
    pub value: FileNo,
    /// The record file.
    pub log: FileNo,
    /// The most that it may hold: the value file's upper limit.
    pub limit: Amount,
}
