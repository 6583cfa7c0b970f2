//! A transaction as a guard: begun, and then committed or aborted, but never forgotten.
//!
//! For: the one mistake that the card cannot catch, changes left pending by one piece of code and
//! made valid by another. May know: sessions and their commands. Sends nothing by itself.

use core::ops::{Deref, DerefMut};

use crate::error::Misuse;
use crate::pcd::command::{AbortTransaction, CommitTransaction};
use crate::pcd::exchange::Exchange;
use crate::pcd::session::{Pending, Session};

/// Changes to backup, value and record files that become valid together or not at all.
///
/// Made by [`Session::transaction`]; it is the session for as long as it lives. End it with
/// [`Transaction::commit`] or [`Transaction::abort`]. If it is dropped while changes are pending, or
/// after the card has dropped them with a refusal, the session is lost: selecting an application again
/// drops the changes on the card too, and no later commit can make them valid by accident.
///
/// A commit whose answer does not come back ends in [`crate::Outcome::Unknown`]: the changes may be
/// valid. Look at the card to find out.
///
/// ```
/// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
/// # let mut reader = VirtualReader::demo();
/// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
/// # let mut session = session
/// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
/// #     .run(&mut reader)?;
/// let (purse, log) = (FileNo::new(2)?, FileNo::new(4)?);
/// let mut transaction = session.transaction();
/// transaction.debit(purse, Amount::new(250)?).run(&mut reader)?;
/// transaction.write_record(log, 0, b"-250").run(&mut reader)?;
/// transaction.commit().run(&mut reader)?;
/// drop(transaction);
///
/// // Given up: nothing more can be sent, so nothing can be committed.
/// let mut transaction = session.transaction();
/// transaction.debit(purse, Amount::new(250)?).run(&mut reader)?;
/// drop(transaction);
/// assert!(session.is_lost());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a transaction that is dropped with pending changes loses the session"]
#[derive(Debug)]
pub struct Transaction<'s, S> {
    session: &'s mut Session<S>,
}

impl<S> Transaction<'_, S> {
    /// CommitTransaction: all changes, or none.
    ///
    /// # Errors
    /// [`Misuse::NothingPending`] if nothing has been changed, [`Misuse::TransactionBroken`] if the card
    /// has refused something after a change, which drops the changes; nothing is sent, because the card
    /// would answer `0C` and end an authenticated session. With [`crate::Outcome::Unknown`] the
    /// changes may be valid.
    ///
    /// What was written with a stated mode to a data file that the session does not know may be a
    /// change: the commit is sent, and if it was a standard file and nothing else has been changed, the
    /// card answers `0C`. [`Session::assume_file_settings`] avoids that.
    pub fn commit(&mut self) -> Exchange<&mut Session<S>, CommitTransaction> {
        let command = self.pending().map(|()| CommitTransaction);
        Exchange::new(&mut *self.session, command)
    }

    /// AbortTransaction: none of the changes.
    ///
    /// # Errors
    /// [`Misuse::NothingPending`] and [`Misuse::TransactionBroken`], as [`Transaction::commit`]; nothing is
    /// sent.
    pub fn abort(&mut self) -> Exchange<&mut Session<S>, AbortTransaction> {
        let command = self.pending().map(|()| AbortTransaction);
        Exchange::new(&mut *self.session, command)
    }

    const fn pending(&self) -> Result<(), Misuse> {
        match self.session.inner.place.pending {
            Pending::Changes => Ok(()),
            Pending::Nothing => Err(Misuse::NothingPending),
            Pending::Broken => Err(Misuse::TransactionBroken),
        }
    }
}

impl<S> Deref for Transaction<'_, S> {
    type Target = Session<S>;

    fn deref(&self) -> &Session<S> {
        self.session
    }
}

impl<S> DerefMut for Transaction<'_, S> {
    fn deref_mut(&mut self) -> &mut Session<S> {
        self.session
    }
}

impl<S> Drop for Transaction<'_, S> {
    fn drop(&mut self) {
        if self.session.inner.place.pending != Pending::Nothing {
            self.session.inner.lose();
        }
    }
}

impl<S> Session<S> {
    /// Begins a transaction. On the card there is no such command: it begins with the first change.
    ///
    /// Changes that were pending before belong to it.
    pub const fn transaction(&mut self) -> Transaction<'_, S> {
        Transaction { session: self }
    }
}

#[cfg(test)]
mod tests {
    use crate::error::{Misuse, Outcome};
    use crate::pcd::command::testing::{native, refused_unsent};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, Amount, CommMode, FileNo, FileSettings};

    fn changed(session: &mut Session<crate::Unauthenticated>) {
        let (file, amount) = (FileNo::new(4).unwrap(), Amount::new(100).unwrap());
        let machine = session.debit(file, amount).comm_mode(CommMode::Plain);
        native(machine, &[("dc 04 64000000", "00")]).unwrap();
    }

    #[test]
    fn committed_or_aborted_the_session_goes_on() {
        let mut session = Session::at_level(Aid::new(1).unwrap());
        for end in ["c7", "a7"] {
            let mut transaction = session.transaction();
            changed(&mut transaction);
            if end == "c7" {
                native(transaction.commit(), &[(end, "00")]).unwrap();
            } else {
                native(transaction.abort(), &[(end, "00")]).unwrap();
            }
            let error = refused_unsent(transaction.commit());
            assert_eq!(error.kind, Misuse::NothingPending.into());
            let error = refused_unsent(transaction.abort());
            assert_eq!(error.kind, Misuse::NothingPending.into());
            drop(transaction);
            assert!(!session.is_lost());
        }
    }

    #[test]
    fn given_up_or_lost_it_loses_the_session() {
        let mut session = Session::at_level(Aid::new(1).unwrap());
        changed(&mut session.transaction());
        assert!(session.is_lost());

        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut transaction = session.transaction();
        changed(&mut transaction);
        let error = native(transaction.commit(), &[("c7", "0077")]).unwrap_err();
        assert_eq!(error.outcome, Outcome::Unknown);
        drop(transaction);
        assert!(session.is_lost());
    }

    /// The card drops a transaction with any error. What comes after it must not be committed alone.
    #[test]
    fn a_refusal_breaks_it() {
        for asking in [false, true] {
            let mut session = Session::at_level(Aid::new(1).unwrap());
            let mut transaction = session.transaction();
            changed(&mut transaction);
            let file = FileNo::new(7).unwrap();
            let error = if asking {
                native(transaction.get_value(file), &[("f5 07", "f0")])
            } else {
                let machine = transaction.get_value(file).comm_mode(CommMode::Plain);
                native(machine, &[("6c 07", "f0")])
            };
            assert!(!error.unwrap_err().session_lost);
            changed(&mut transaction);
            for error in [
                refused_unsent(transaction.commit()),
                refused_unsent(transaction.abort()),
            ] {
                assert_eq!(error.kind, Misuse::TransactionBroken.into());
            }
            drop(transaction);
            assert!(session.is_lost());
        }
        // By hand it can be ended, and is over then.
        let mut session = Session::at_level(Aid::new(1).unwrap());
        changed(&mut session);
        native(session.free_mem(), &[("6e", "7e")]).unwrap_err();
        native(session.abort_transaction(), &[("a7", "0c")]).unwrap_err();
        let error = refused_unsent(session.transaction().commit());
        assert_eq!(error.kind, Misuse::NothingPending.into());
        changed(&mut session);
        native(session.transaction().commit(), &[("c7", "00")]).unwrap();
    }

    #[test]
    fn a_write_to_a_standard_file_is_no_change_to_commit() {
        let file = FileNo::new(0).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let free = [0x00, 0x00, 0xEE, 0xEE, 0x10, 0x00, 0x00];
        session.assume_file_settings(file, &FileSettings::decode(&free).unwrap());
        let mut transaction = session.transaction();
        native(
            transaction.write_data(file, 0, &[7]),
            &[("3d 00 000000 010000 07", "00")],
        )
        .unwrap();
        refused_unsent(transaction.commit());
        drop(transaction);
        assert!(!session.is_lost());
    }
}
