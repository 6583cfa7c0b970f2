//! CreateCyclicRecordFile (`C0`): makes a cyclic record file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 0 or 2 | ISO FID, least significant byte first |
//! | +0 | 1 | communication byte |
//! | +1 | 2 | access rights |
//! | +3 | 3 | size of a record |
//! | +6 | 3 | number of records |
//!
//! The newest record replaces the oldest. One of the records is always the one being written, so
//! `max_records` must be at least 2 and one less can be read.
//! Inside an application; needs its master key if creating is not free. Source: libfreefare
//! `mifare_desfire_create_cyclic_record_file*`.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{AccessRights, CommMode, CommandCode, FileNo, IsoFileId, U24, WireError, Writer};

/// CreateCyclicRecordFile (`C0`): see [`Session::create_cyclic_record_file`].
#[derive(Debug)]
pub struct CreateCyclicRecordFile {
    file: FileNo,
    iso: Option<IsoFileId>,
    comm: CommMode,
    rights: AccessRights,
    record_size: U24,
    max_records: U24,
}

impl Command for CreateCyclicRecordFile {
    type Output = ();
    const CODE: CommandCode = CommandCode::CreateCyclicRecordFile;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.file.number())?;
        if let Some(iso) = self.iso {
            header.put(&iso.to_native())?;
        }
        header.put(&super::comm_and_rights(self.comm, self.rights))?;
        header.put(&self.record_size.to_bytes())?;
        header.put(&self.max_records.to_bytes())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        if self.record_size == U24::ZERO || self.max_records == U24::ZERO {
            return Err(Misuse::Invalid("a record file without records or bytes"));
        }
        if self.max_records.get() < 2 {
            return Err(Misuse::Invalid("a cyclic file needs at least two records"));
        }
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        inner.place.files.forget(self.file);
        nothing(len)
    }
}

impl<S> Session<S> {
    /// Makes a cyclic record file of `max_records` records of `record_size` bytes, of which one less can be read.
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
    ///     .create_cyclic_record_file(
    ///         FileNo::new(9)?, None, CommMode::Mac, rights, U24::new(16)?, U24::new(6)?,
    ///     )
    ///     .run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_cyclic_record_file(
        &mut self,
        file: FileNo,
        iso: Option<IsoFileId>,
        comm: CommMode,
        rights: AccessRights,
        record_size: U24,
        max_records: U24,
    ) -> Exchange<&mut Self, CreateCyclicRecordFile> {
        let command = CreateCyclicRecordFile {
            file,
            iso,
            comm,
            rights,
            record_size,
            max_records,
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::pcd::session::Session;
    use crate::wire::{AccessRights, Aid, CommMode, FileNo, IsoFileId, Status, U24};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(4).unwrap();
        let rights = AccessRights::from_bytes([0x30, 0x12]);
        let (size, records) = (U24::new(0x10).unwrap(), U24::new(0x0B).unwrap());
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let script = [("c0 04 03 3012 100000 0b0000", "00")];
        let mode = CommMode::Enciphered;
        native(
            session.create_cyclic_record_file(file, None, mode, rights, size, records),
            &script,
        )
        .unwrap();
        wrapped(
            session.create_cyclic_record_file(file, None, mode, rights, size, records),
            &script,
        )
        .unwrap();
        let iso = Some(IsoFileId(0xE105));
        let error = native(
            session.create_cyclic_record_file(file, iso, mode, rights, size, records),
            &[("c0 04 05e1 03 3012 100000 0b0000", "0e")],
        );
        assert_eq!(error.unwrap_err().status(), Some(Status::OutOfEeprom));
        refused_unsent(session.create_cyclic_record_file(file, iso, mode, rights, size, U24::ZERO));
        refused_unsent(session.create_cyclic_record_file(file, iso, mode, rights, U24::ZERO, size));
        let one = U24::new(1).unwrap();
        refused_unsent(session.create_cyclic_record_file(file, iso, mode, rights, size, one));
        let two = U24::new(2).unwrap();
        native(
            session.create_cyclic_record_file(file, None, mode, rights, size, two),
            &[("c0 04 03 3012 100000 020000", "00")],
        )
        .unwrap();
        refused_unsent(
            Session::new().create_cyclic_record_file(file, iso, mode, rights, size, size),
        );
    }
}
