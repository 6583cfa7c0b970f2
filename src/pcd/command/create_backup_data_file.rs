//! CreateBackupDataFile (`CB`): makes a backup data file: writes are valid with the next commit; it takes twice the memory.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 0 or 2 | ISO FID, least significant byte first |
//! | +0 | 1 | communication byte |
//! | +1 | 2 | access rights |
//! | +3 | 3 | size |
//!
//! Inside an application; needs its master key if creating is not free. The FID is possible only in
//! an application made for FIDs. The content is zero. Source: libfreefare
//! `mifare_desfire_create_backup_data_file*`.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{AccessRights, CommMode, CommandCode, FileNo, IsoFileId, U24, WireError, Writer};

/// CreateBackupDataFile (`CB`): see [`Session::create_backup_data_file`].
#[derive(Debug)]
pub struct CreateBackupDataFile {
    file: FileNo,
    iso: Option<IsoFileId>,
    comm: CommMode,
    rights: AccessRights,
    size: U24,
}

impl Command for CreateBackupDataFile {
    type Output = ();
    const CODE: CommandCode = CommandCode::CreateBackupDataFile;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.file.number())?;
        if let Some(iso) = self.iso {
            header.put(&iso.to_native())?;
        }
        header.put(&super::comm_and_rights(self.comm, self.rights))?;
        header.put(&self.size.to_bytes())
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
    /// Makes a backup data file of `size` bytes: writes are valid with the next commit; it takes twice the memory.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let rights = AccessRights::from_bytes([0x00, 0x00]);
    /// session
    ///     .create_backup_data_file(FileNo::new(9)?, None, CommMode::Enciphered, rights, U24::new(64)?)
    ///     .run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_backup_data_file(
        &mut self,
        file: FileNo,
        iso: Option<IsoFileId>,
        comm: CommMode,
        rights: AccessRights,
        size: U24,
    ) -> Exchange<&mut Self, CreateBackupDataFile> {
        let command = CreateBackupDataFile {
            file,
            iso,
            comm,
            rights,
            size,
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{AccessRights, Aid, CommMode, FileNo, IsoFileId, Status, U24};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(5).unwrap();
        let rights = AccessRights::from_bytes([0x11, 0x00]);
        let size = U24::new(80).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let script = [("cb 05 00 1100 500000", "00")];
        native(
            session.create_backup_data_file(file, None, CommMode::Plain, rights, size),
            &script,
        )
        .unwrap();
        wrapped(
            session.create_backup_data_file(file, None, CommMode::Plain, rights, size),
            &script,
        )
        .unwrap();
        let error = native(
            session.create_backup_data_file(
                file,
                Some(IsoFileId(0xE103)),
                CommMode::Enciphered,
                rights,
                size,
            ),
            &[("cb 05 03e1 03 1100 500000", "de")],
        );
        assert_eq!(error.unwrap_err().status(), Some(Status::DuplicateError));
        let error = refused_unsent(Session::new().create_backup_data_file(
            file,
            None,
            CommMode::Plain,
            rights,
            size,
        ));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
