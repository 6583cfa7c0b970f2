//! The last operations, as the card tells them.

use super::record::{RECORD_LEN, Record};
use super::{Evidence, Intent, PurseError, Settlement, Tap};
use crate::pcd::{AsyncTransport, Machine as _, Procedure};
use crate::wire::CommMode;

/// How many operations the card remembers.
pub const HISTORY_LEN: usize = 5;

/// The last operations, up to [`HISTORY_LEN`], the newest first; never empty, and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    newest: Record,
    /// Those before it, as far as there are any.
    older: [Option<Record>; HISTORY_LEN - 1],
}

impl History {
    /// From records, the newest first.
    ///
    /// # Errors
    /// [`Evidence::Chain`] if there are none or more than [`HISTORY_LEN`], or if they do not
    /// follow one another.
    pub fn new(newest_first: &[Record]) -> Result<Self, Evidence> {
        let (newest, rest) = newest_first.split_first().ok_or(Evidence::Chain)?;
        let mut history = Self::of(*newest);
        if rest.len() > history.older.len() {
            return Err(Evidence::Chain);
        }
        let mut later = newest;
        for (slot, record) in history.older.iter_mut().zip(rest) {
            if !later.follows(record) {
                return Err(Evidence::Chain);
            }
            *slot = Some(*record);
            later = record;
        }
        Ok(history)
    }

    /// The newest alone.
    pub(super) const fn of(newest: Record) -> Self {
        Self {
            newest,
            older: [None; HISTORY_LEN - 1],
        }
    }

    /// The newest record.
    #[must_use]
    pub const fn newest(&self) -> &Record {
        &self.newest
    }

    /// All, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        core::iter::once(&self.newest).chain(self.older.iter().flatten())
    }

    /// The record with this sequence number.
    #[must_use]
    pub fn number(&self, sequence: u32) -> Option<&Record> {
        self.iter().find(|record| record.sequence.get() == sequence)
    }
}

/// Reads the log: see [`Tap::history`].
#[must_use = "this does nothing until it is run"]
#[derive(Debug)]
pub struct ReadHistory<'t, 's> {
    tap: &'t mut Tap<'s>,
}

impl Procedure for ReadHistory<'_, '_> {
    type Output = History;
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<History, PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let newest = *self.tap.newest();
        // Record 0 and one for each operation, as far as the file holds them.
        let count = newest.sequence.get().saturating_add(1).min(LEN_U32);
        let mut buffer = [0; HISTORY_LEN * RECORD_LEN];
        let log = self.tap.purse().log;
        let bytes = self
            .tap
            .session_mut()
            .read_records(log, 0, count, RECORD_LEN_U32, &mut buffer)
            .comm_mode(CommMode::Enciphered)
            .run_async(transport)
            .await?;
        let (records, _) = bytes.as_chunks::<RECORD_LEN>();
        let mut newest_first = [newest; HISTORY_LEN];
        let mut len = 0_usize;
        for (slot, record) in newest_first.iter_mut().zip(records.iter().rev()) {
            *slot = Record::from_bytes(record)?;
            len = len.saturating_add(1);
        }
        let history = History::new(newest_first.get(..len).unwrap_or_default())?;
        if *history.newest() == newest {
            Ok(history)
        } else {
            Err(Evidence::Rewritten.into())
        }
    }
}

const LEN_U32: u32 = 5;
const RECORD_LEN_U32: u32 = 28;
const _: () = assert!(LEN_U32 as usize == HISTORY_LEN && RECORD_LEN_U32 as usize == RECORD_LEN);

/// Finds out what became of an intent: see [`Tap::settle`].
#[must_use = "this does nothing until it is run"]
#[derive(Debug)]
pub struct Settle<'t, 's, 'i> {
    tap: &'t mut Tap<'s>,
    intent: &'i Intent,
}

impl Procedure for Settle<'_, '_, '_> {
    type Output = Settlement;
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<Settlement, PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let Self { tap, intent } = self;
        intent.require_purse(tap.uid(), tap.purse_id())?;
        let newest = *tap.newest();
        let history = if newest.sequence <= intent.record().sequence {
            History::of(newest)
        } else {
            tap.history().run_async(transport).await?
        };
        let settlement = intent.judge(&history)?;
        if settlement == Settlement::NotPaid {
            tap.drop_pending().run_async(transport).await?;
        }
        Ok(settlement)
    }
}

/// Makes sure, with the card's own proof, that nothing waits for a commit any more.
///
/// A handshake does not drop what an earlier session has left pending; only a selection does, and its
/// reply proves nothing. Whoever sits between could keep the selection back, let "not paid" be seen, and
/// send CommitTransaction, which needs no key, afterwards. So a record is written, to have something to
/// abort (without it the card refuses), and aborted. The reply's MAC proves the abort, and that nothing
/// has been slipped in since the handshake.
struct DropPending<'t, 's> {
    tap: &'t mut Tap<'s>,
}

impl Procedure for DropPending<'_, '_> {
    type Output = ();
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<(), PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let newest = self.tap.newest().to_bytes();
        let log = self.tap.purse().log;
        let mut transaction = self.tap.session_mut().transaction();
        // If it is committed by somebody else in between, the chain of the session breaks, and the next
        // tap finds a record that does not follow the one before it.
        transaction
            .write_record(log, 0, &newest)
            .comm_mode(CommMode::Enciphered)
            .run_async(transport)
            .await?;
        Ok(transaction.abort().run_async(transport).await?)
    }
}

impl<'s> Tap<'s> {
    /// Reads the last operations, up to [`HISTORY_LEN`]. 1 to 3 exchanges.
    ///
    /// # Errors
    /// Card or reader; [`Evidence`] if the log is not one that a purse writes.
    pub const fn history(&mut self) -> ReadHistory<'_, 's> {
        ReadHistory { tap: self }
    }

    const fn drop_pending(&mut self) -> DropPending<'_, 's> {
        DropPending { tap: self }
    }

    /// Finds out what became of an intent, by the rule of [`Intent::judge`]. Reads the log only if the
    /// newest record does not tell. Before it says "not paid" it has the card drop, with proof, what an
    /// earlier session may have left pending: 2 exchanges.
    ///
    /// # Errors
    /// Card or reader; [`Evidence`] if the card's past is not the one that the intent has seen;
    /// [`super::Refusal::OtherPurse`].
    pub const fn settle<'t, 'i>(&'t mut self, intent: &'i Intent) -> Settle<'t, 's, 'i> {
        Settle { tap: self, intent }
    }
}
