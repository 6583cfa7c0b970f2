//! AbortTransaction (`A7`): drops all pending changes.
//!
//! | request | reply |
//! |---|---|
//! | – | – |
//!
//! Source: libfreefare `mifare_desfire_abort_transaction`. With nothing pending the card answers
//! `0C` NO_CHANGES.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Pending, Session};
use crate::wire::{CommandCode, WireError, Writer};

/// AbortTransaction (`A7`): see [`Session::abort_transaction`].
#[derive(Debug)]
pub struct AbortTransaction;

impl Command for AbortTransaction {
    type Output = ();
    const CODE: CommandCode = CommandCode::AbortTransaction;

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
    /// Drops the pending changes of all files of the application.
    ///
    /// # Errors
    /// `0C` [`crate::wire::Status::NoChanges`] if there are none; that too ends an authenticated
    /// session.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.credit(FileNo::new(2)?, Amount::new(5)?).run(&mut reader)?;
    /// session.abort_transaction().run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort_transaction(&mut self) -> Exchange<&mut Self, AbortTransaction> {
        Exchange::new(self, Ok(AbortTransaction))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, Status};

    #[test]
    fn literal_bytes() {
        let aid = Aid::new(1).unwrap();
        native(Session::at_level(aid).abort_transaction(), &[("a7", "00")]).unwrap();
        let error = native(Session::at_level(aid).abort_transaction(), &[("a7", "0c")]);
        assert_eq!(error.unwrap_err().status(), Some(Status::NoChanges));
        let error = refused_unsent(Session::new().abort_transaction());
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
