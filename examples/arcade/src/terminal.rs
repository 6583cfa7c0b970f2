//! A cashier's desk or a machine.
//!
//! What a tap does, in this order:
//!
//! 1. A blocked card is refused.
//! 2. The purse is opened and checked. What cannot be is reported, and the card refused.
//! 3. Everything this terminal has open for the purse is settled. If something turns out to be paid,
//!    the tap is over: the machine starts the game that is owed, the desk keeps the cash of before.
//! 4. Otherwise the operation is written into the journal, carried out, and crossed out of the journal
//!    when its answer has come.
//!
//! The journal and the counter are on the terminal's disk; a terminal that loses power in a tap is, to
//! the card and to the journal, the same as a lost answer.

use std::collections::{BTreeMap, BTreeSet};

use desfire_ev1::error::{Authenticity, ErrorKind};
use desfire_ev1::purse::{
    Evidence, INTENT_LEN, Intent, PurseError, Record, Refusal, Settlement, Stamp, Tap,
};
use desfire_ev1::wire::{Amount, Status, Uid};
use desfire_ev1::{Authenticated, Machine as _, Procedure, RunError, Session, Transport};
use rand::CryptoRng;

use crate::cards::{AID, House, IssueError, Role, purse};

/// What a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes cash and puts it on cards.
    Desk,
    /// Takes money from cards and starts games.
    Machine,
}

/// What somebody wants of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To pay cash and have it on the card.
    TopUp(Amount),
    /// To play for this price.
    Play(Amount),
    /// To see what is on the card, and the last operations.
    Look,
}

/// How a tap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the balance afterwards is in the record.
    Done(Record),
    /// An operation of before turned out to be paid, so nothing was done now.
    Owed(Record),
    /// The purse's last operations, the newest first.
    Seen(Vec<Record>),
    /// The purse refuses: not enough in it, or no room.
    Refused(Refusal),
    /// The card is on the block list.
    Blocked,
    /// The card went away, or the link failed. Hold the card to the reader again.
    Again,
    /// The card did not prove that it is one of the house's, or not with this UID. Hold it to the
    /// reader again, or see the desk.
    NotOurs,
    /// The card cannot be right.
    Fraud(Evidence),
}

/// Why a terminal takes a card for false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Suspicion {
    /// What is on the card.
    #[error(transparent)]
    Evidence(#[from] Evidence),
    /// The handshake failed. That alone proves nothing: error statuses carry no MAC, and a flipped bit
    /// is enough.
    #[error("it did not prove that it knows the key that goes with its UID")]
    WrongKey,
}

/// What a terminal tells the back office. Each may arrive late, in any order, and more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// An operation is about to be tried.
    Intent(Intent),
    /// An operation is settled.
    Settled(Stamp, Settlement),
    /// A record was on a card at a time, and was the newest, or one of the last five.
    Seen {
        /// When.
        time: u32,
        /// Whose.
        purse: u64,
        /// What.
        record: Record,
        /// Whether it was the newest.
        newest: bool,
    },
    /// A card that cannot be right.
    Suspicion {
        /// When.
        time: u32,
        /// The card.
        uid: Uid,
        /// The reason.
        why: Suspicion,
    },
}

/// What a terminal keeps on its disk.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// The next transaction number; counted up before it is used.
    next: u64,
    /// What is open, by transaction number: the intents' bytes.
    open: BTreeMap<u64, [u8; INTENT_LEN]>,
}

/// A desk or a machine.
pub struct Terminal<'h> {
    /// Its number, which is the place in the records.
    pub id: u32,
    /// What it is.
    pub kind: Kind,
    house: &'h House,
    journal: Journal,
    outbox: Vec<Report>,
    blocked: BTreeSet<Uid>,
}

impl<'h> Terminal<'h> {
    /// A new one.
    #[must_use]
    pub fn new(id: u32, kind: Kind, house: &'h House) -> Self {
        Self {
            id,
            kind,
            house,
            journal: Journal::default(),
            outbox: Vec::new(),
            blocked: BTreeSet::new(),
        }
    }

    /// Takes over the block list.
    pub fn obey(&mut self, blocked: &BTreeSet<Uid>) {
        self.blocked.clone_from(blocked);
    }

    /// What the back office has not been told yet.
    pub fn deliver(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.outbox)
    }

    /// How many operations are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.journal.open.len()
    }

    /// Somebody holds a card to the reader. `uid` is what the card says at activation; the handshake
    /// proves it or fails.
    ///
    /// # Errors
    /// Only what is no matter of cards: a key that cannot be made.
    pub fn tap<T>(
        &mut self,
        reader: &mut T,
        uid: Uid,
        now: u32,
        wish: Wish,
        rng: &mut impl CryptoRng,
    ) -> Result<Outcome, IssueError<T::Error>>
    where
        T: Transport,
        T::Error: std::error::Error + 'static,
    {
        if self.blocked.contains(&uid) {
            return Ok(Outcome::Blocked);
        }
        let role = match self.kind {
            Kind::Desk => Role::Credit,
            Kind::Machine => Role::Debit,
        };
        let key = self.house.key(role, uid)?;
        let opened = Session::new()
            .select_application(AID)
            .run(reader)
            .and_then(|session| {
                session
                    .authenticate_aes(role.key_no(), &key, rng)
                    .run(reader)
            });
        let mut session = match opened {
            Ok(session) => session,
            Err(error) if is_wrong_key(&error) => {
                self.suspect(uid, now, Suspicion::WrongKey);
                return Ok(Outcome::NotOurs);
            }
            Err(_) => return Ok(Outcome::Again),
        };
        match self.serve(reader, &mut session, uid, now, wish) {
            Ok(outcome) => Ok(outcome),
            Err(PurseError::Evidence(evidence)) => {
                self.suspect(uid, now, evidence.into());
                Ok(Outcome::Fraud(evidence))
            }
            Err(PurseError::Refused(refusal)) => Ok(Outcome::Refused(refusal)),
            Err(_) => Ok(Outcome::Again),
        }
    }

    fn suspect(&mut self, uid: Uid, time: u32, why: Suspicion) {
        self.outbox.push(Report::Suspicion { time, uid, why });
    }

    fn serve<T: Transport>(
        &mut self,
        reader: &mut T,
        session: &mut Session<Authenticated>,
        uid: Uid,
        now: u32,
        wish: Wish,
    ) -> Result<Outcome, PurseError<T::Error>> {
        let purse = purse().map_err(|_| Refusal::OtherPurse)?;
        let mut tap = purse.open(session).proved_uid(uid).run(reader)?;
        self.see(&tap, now, tap.newest(), true);
        if let Some(paid) = self.settle(reader, &mut tap)? {
            return Ok(Outcome::Owed(paid));
        }
        let intent = match wish {
            Wish::Look => {
                let history = tap.history().run(reader)?;
                for record in history.iter().skip(1) {
                    self.see(&tap, now, record, false);
                }
                return Ok(Outcome::Seen(history.iter().copied().collect()));
            }
            Wish::TopUp(amount) => tap.credit(amount, self.stamp(now))?,
            Wish::Play(price) => tap.debit(price, self.stamp(now))?,
        };
        let stamp = intent.record().stamp;
        self.journal
            .open
            .insert(stamp.transaction, intent.to_bytes());
        self.outbox.push(Report::Intent(intent));
        match tap.execute(&intent).run(reader) {
            Ok(record) => {
                self.close(stamp, Settlement::Paid);
                Ok(Outcome::Done(record))
            }
            Err(error) => {
                if !error.is_unsettled() {
                    self.close(stamp, Settlement::NotPaid);
                }
                Err(error)
            }
        }
    }

    /// Settles what is open for this purse; the newest that turns out to be paid.
    fn settle<T: Transport>(
        &mut self,
        reader: &mut T,
        tap: &mut Tap<'_>,
    ) -> Result<Option<Record>, PurseError<T::Error>> {
        let mut paid = None;
        let open: Vec<_> = self.journal.open.values().copied().collect();
        for bytes in open {
            let intent = Intent::from_bytes(&bytes)?;
            if (intent.uid(), intent.purse_id()) != (tap.uid(), tap.purse_id()) {
                continue;
            }
            let settlement = tap.settle(&intent).run(reader)?;
            if settlement == Settlement::Paid {
                paid = Some(*intent.record());
            }
            // Too late for the card is not too late for the back office; either way there is nothing
            // more to ask the card.
            self.close(intent.record().stamp, settlement);
        }
        Ok(paid)
    }

    fn close(&mut self, stamp: Stamp, settlement: Settlement) {
        self.outbox.push(Report::Settled(stamp, settlement));
        self.journal.open.remove(&stamp.transaction);
    }

    fn see(&mut self, tap: &Tap<'_>, time: u32, record: &Record, newest: bool) {
        self.outbox.push(Report::Seen {
            time,
            purse: tap.purse_id(),
            record: *record,
            newest,
        });
    }

    fn stamp(&mut self, time: u32) -> Stamp {
        self.journal.next += 1;
        Stamp {
            time,
            terminal: self.id,
            transaction: self.journal.next,
        }
    }
}

/// The card has another key, or none of the house's. (A lost answer is no such thing.)
fn is_wrong_key<E>(error: &RunError<E>) -> bool {
    matches!(
        error.kind(),
        Some(
            ErrorKind::Refused(
                Status::AuthenticationError | Status::ApplicationNotFound | Status::NoSuchKey,
            ) | ErrorKind::Authenticity(Authenticity::ProofWrong)
        )
    )
}
