//! ClearRecordFile (`EB`): empties a record file.
//!
//! | request | reply |
//! |---|---|
//! | file number 1 | – |
//!
//! Granted by Read&Write. Pending until CommitTransaction; until then the card refuses WriteRecord
//! to this file and drops the transaction. Source: libfreefare `mifare_desfire_clear_record_file`
//! and its live test.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, WireError, Writer};

/// ClearRecordFile (`EB`): see [`Session::clear_record_file`].
#[derive(Debug)]
pub struct ClearRecordFile {
    file: FileNo,
}

impl Command for ClearRecordFile {
    type Output = ();
    const CODE: CommandCode = CommandCode::ClearRecordFile;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.file.number())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::STANDARD)
    }

    fn leaves_pending(&self, _inner: &Inner) -> bool {
        true
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl<S> Session<S> {
    /// Empties a record file with the next commit.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.clear_record_file(FileNo::new(4)?).run(&mut reader)?;
    /// session.commit_transaction().run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear_record_file(&mut self, file: FileNo) -> Exchange<&mut Self, ClearRecordFile> {
        Exchange::new(self, Ok(ClearRecordFile { file }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, FileNo, Status};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(4).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        native(session.clear_record_file(file), &[("eb 04", "00")]).unwrap();
        wrapped(session.clear_record_file(file), &[("eb 04", "00")]).unwrap();
        let error = native(session.clear_record_file(file), &[("eb 04", "ae")]);
        assert_eq!(
            error.unwrap_err().status(),
            Some(Status::AuthenticationError)
        );
        let error = refused_unsent(Session::new().clear_record_file(file));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
