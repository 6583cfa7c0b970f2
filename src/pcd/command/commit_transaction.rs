//! CommitTransaction (`C7`): makes all pending changes valid, at once.
//!
//! | request | reply |
//! |---|---|
//! | – | – |
//!
//! Covers backup, value and record files of the selected application together; writes to standard
//! files are valid at once and need no commit. The card does all or nothing, even if it loses
//! power. Source: libfreefare `mifare_desfire_commit_transaction`, NXP short data sheet. With
//! nothing pending the card answers `0C` NO_CHANGES.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Pending, Session};
use crate::wire::{CommandCode, WireError, Writer};

/// CommitTransaction (`C7`): see [`Session::commit_transaction`].
#[derive(Debug)]
pub struct CommitTransaction;

impl Command for CommitTransaction {
    type Output = ();
    const CODE: CommandCode = CommandCode::CommitTransaction;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        inner.place.pending = Pending::Nothing;
        nothing(len)
    }
}

impl<S> Session<S> {
    /// Makes the pending changes of all files of the application valid, at once.
    ///
    /// # Errors
    /// With [`crate::Outcome::Unknown`] the changes may or may not be valid: look at the card
    /// again before doing anything else. `0C` [`crate::wire::Status::NoChanges`] if there were
    /// none; that too ends an authenticated session.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.debit(FileNo::new(2)?, Amount::new(5)?).run(&mut reader)?;
    /// session.commit_transaction().run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit_transaction(&mut self) -> Exchange<&mut Self, CommitTransaction> {
        Exchange::new(self, Ok(CommitTransaction))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent};
    use crate::error::{Misuse, Outcome};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, Status};

    #[test]
    fn literal_bytes() {
        let aid = Aid::new(1).unwrap();
        native(Session::at_level(aid).commit_transaction(), &[("c7", "00")]).unwrap();
        let error = native(Session::at_level(aid).commit_transaction(), &[("c7", "0c")]);
        assert_eq!(error.unwrap_err().status(), Some(Status::NoChanges));
        let error = refused_unsent(Session::new().commit_transaction());
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }

    #[test]
    fn an_answer_that_says_more_leaves_the_outcome_unknown() {
        let aid = Aid::new(1).unwrap();
        let mut session = Session::at_level(aid);
        let error = native(session.commit_transaction(), &[("c7", "0055")]).unwrap_err();
        assert_eq!(error.outcome, Outcome::Unknown);
        assert!(session.is_lost());
    }
}
