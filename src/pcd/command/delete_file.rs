//! DeleteFile (`DF`): removes a file.
//!
//! | request | reply |
//! |---|---|
//! | file number 1 | – |
//!
//! Inside an application; needs its master key if creating is not free. The number is free again,
//! the memory is not. Source: libfreefare `mifare_desfire_delete_file`; recorded by RFDoorLock.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, WireError, Writer};

/// DeleteFile (`DF`): see [`Session::delete_file`].
#[derive(Debug)]
pub struct DeleteFile {
    file: FileNo,
}

impl Command for DeleteFile {
    type Output = ();
    const CODE: CommandCode = CommandCode::DeleteFile;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.file.number())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        inner.place.files.forget(self.file);
        nothing(len)
    }
}

impl<S> Session<S> {
    /// Removes a file. **There is no way back.**
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.delete_file(FileNo::new(0)?).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_file(&mut self, file: FileNo) -> Exchange<&mut Self, DeleteFile> {
        Exchange::new(self, Ok(DeleteFile { file }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, FileNo, Status};

    #[test]
    fn literal_bytes() {
        let (aid, file) = (Aid::new(1).unwrap(), FileNo::new(5).unwrap());
        native(Session::at_level(aid).delete_file(file), &[("df 05", "00")]).unwrap();
        let error = native(Session::at_level(aid).delete_file(file), &[("df 05", "f0")]);
        assert_eq!(error.unwrap_err().status(), Some(Status::FileNotFound));
        let error = refused_unsent(Session::new().delete_file(file));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
