//! Debit (`DC`): takes from a value.
//!
//! | request | reply |
//! |---|---|
//! | file number 1, amount 4 | – |
//!
//! The amount is protected in the file's mode. Granted by Read, Write or Read&Write. The change is pending
//! until CommitTransaction. Source: libfreefare `mifare_desfire_debit`, proxmark3
//! `DesfireValueFileOperations`; not recorded in MACed or enciphered mode.

use super::{Command, FileCommand, Scratch, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::{FileAccess, Operation, Protection};
use crate::pcd::session::{Inner, Session};
use crate::wire::{Amount, CommandCode, FileNo, WireError, Writer};

/// Debit (`DC`): see [`Session::debit`].
pub struct Debit {
    access: FileAccess,
    amount: [u8; 4],
}

impl Command for Debit {
    type Output = ();
    const CODE: CommandCode = CommandCode::Debit;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.access.file.number())
    }

    fn data<'a>(&'a self, _scratch: &'a mut Scratch) -> &'a [u8] {
        &self.amount
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::write(self.access.mode(inner)?))
    }

    fn file_access(&self) -> Option<FileAccess> {
        Some(self.access)
    }

    fn leaves_pending(&self, _inner: &Inner) -> bool {
        true
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl FileCommand for Debit {
    fn file_access_mut(&mut self) -> &mut FileAccess {
        &mut self.access
    }
}

impl<S> Session<S> {
    /// Takes from the value, down to its lower limit. Valid with the next commit.
    ///
    /// If the session does not know the file it asks for its settings first: see
    /// [`crate::command`](crate::command#commands-on-file-data).
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.debit(FileNo::new(2)?, Amount::new(100)?).run(&mut reader)?;
    /// session.commit_transaction().run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The card's: `BE` beyond the limit; in an authenticated session that ends the session and
    /// drops what else is pending.
    pub fn debit(&mut self, file: FileNo, amount: Amount) -> Exchange<&mut Self, Debit> {
        let command = Debit {
            access: FileAccess::new(file, Operation::Debit),
            amount: amount.to_bytes(),
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, Amount, CommMode, FileNo, Status};

    #[test]
    fn literal_bytes() {
        let (file, amount) = (FileNo::new(4).unwrap(), Amount::new(100).unwrap());
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let script = [("dc 04 64000000", "00")];
        let plain = CommMode::Plain;
        native(session.debit(file, amount).comm_mode(plain), &script).unwrap();
        wrapped(session.debit(file, amount).comm_mode(plain), &script).unwrap();
        let error = native(
            session.debit(file, amount).comm_mode(plain),
            &[("dc 04 64000000", "be")],
        );
        assert_eq!(error.unwrap_err().status(), Some(Status::BoundaryError));
        // Protection without a session does not exist, and money at PICC level neither.
        for mode in [CommMode::Mac, CommMode::Enciphered] {
            let error = refused_unsent(session.debit(file, amount).comm_mode(mode));
            assert_eq!(error.kind, Misuse::NotAuthenticated.into());
        }
        let error = refused_unsent(Session::new().debit(file, amount).comm_mode(plain));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
