//! Carrying out an intent.

use super::{Intent, Kind, PurseError, Record, Refusal, Tap};
use crate::pcd::{AsyncTransport, Machine as _, Procedure};
use crate::wire::CommMode;

/// Carries out an intent: see [`Tap::execute`].
#[must_use = "this does nothing until it is run"]
#[derive(Debug)]
pub struct Execute<'t, 's, 'i> {
    tap: &'t mut Tap<'s>,
    intent: &'i Intent,
}

impl Procedure for Execute<'_, '_, '_> {
    type Output = Record;
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<Record, PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let Self { tap, intent } = self;
        intent.require_purse(tap.uid(), tap.purse_id())?;
        if intent.before() != tap.newest() {
            return Err(Refusal::Stale.into());
        }
        let record = *intent.record();
        let bytes = record.to_bytes();
        let purse = tap.purse();
        let mode = CommMode::Enciphered;
        let mut transaction = tap.session_mut().transaction();
        // The order decides what half an operation is worth, if somebody else commits it: always
        // too little, never too much.
        if record.kind == Kind::Credit {
            let log = transaction.write_record(purse.log, 0, &bytes);
            let log = log.comm_mode(mode).run_async(transport).await;
            log.map_err(PurseError::changing)?;
            let value = transaction.credit(purse.value, record.amount);
            let value = value.comm_mode(mode).run_async(transport).await;
            value.map_err(PurseError::Unsettled)?;
        } else {
            let value = transaction.debit(purse.value, record.amount);
            let value = value.comm_mode(mode).run_async(transport).await;
            value.map_err(PurseError::changing)?;
            let log = transaction.write_record(purse.log, 0, &bytes);
            let log = log.comm_mode(mode).run_async(transport).await;
            log.map_err(PurseError::Unsettled)?;
        }
        let commit = transaction.commit().run_async(transport).await;
        commit.map_err(PurseError::Unsettled)?;
        drop(transaction);
        tap.done(record);
        Ok(record)
    }
}

impl<'s> Tap<'s> {
    /// Carries out an intent that was made from the state in which the purse is now, and returns the
    /// record that is on the card then. 3 exchanges.
    ///
    /// Store the intent before: after [`PurseError::Unsettled`] it is all that can tell what to
    /// look for.
    ///
    /// # Errors
    /// [`PurseError::Unsettled`] if it may have happened; [`PurseError::Run`] if nothing was sent;
    /// [`Refusal::Stale`], [`Refusal::OtherPurse`].
    pub const fn execute<'t, 'i>(&'t mut self, intent: &'i Intent) -> Execute<'t, 's, 'i> {
        Execute { tap: self, intent }
    }
}
