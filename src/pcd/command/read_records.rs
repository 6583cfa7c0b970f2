//! ReadRecords (`BB`): reads committed records of a record file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 3 | first: how many of the newest records to pass over |
//! | 4 | 3 | count, going back in time; 0 reads all that remain |
//!
//! **The reply is in order of time: the oldest of the chosen records first, the newest last.** It
//! is protected in the file's mode. Granted by Read or Read&Write. Reading where there are no
//! records is an error, `BE`. Sources: libfreefare and nfcjlib live tests; recorded enciphered by
//! skjolber.

use super::{Command, FileCommand};
use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::channel::DataLength;
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::{FileAccess, KnownFile, Operation, Protection};
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, U24, WireError, Writer};

/// ReadRecords (`BB`): see [`Session::read_records`] and [`Session::read_all_records`].
pub struct ReadRecords<'b> {
    access: FileAccess,
    first: U24,
    /// Zero for all.
    count: U24,
    /// As the caller stated it; nothing for all records.
    record_size: Option<U24>,
    buffer: &'b mut [u8],
}

impl<'b> Command for ReadRecords<'b> {
    type Output = &'b [u8];
    const CODE: CommandCode = CommandCode::ReadRecords;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.access.file.number())?;
        header.put(&self.first.to_bytes())?;
        header.put(&self.count.to_bytes())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        let mode = self.access.mode(inner)?;
        match (self.record_size, self.known_size(inner)) {
            (Some(stated), Some(actual)) if stated != actual => Err(Misuse::RecordSize {
                stated: stated.get(),
                actual: actual.get(),
            }),
            _ => Ok(Protection::read(mode, self.length(inner))),
        }
    }

    fn file_access(&self) -> Option<FileAccess> {
        Some(self.access)
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn too_long(&self) -> ErrorKind {
        match self.record_size {
            Some(_) => Malformed::RecordSize.into(),
            None => Misuse::AnswerTooLong.into(),
        }
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<&'b [u8], ErrorKind> {
        self.length(inner).check(len)?;
        let buffer = core::mem::take(&mut self.buffer);
        Ok(buffer.get(..len).unwrap_or_default())
    }
}

impl ReadRecords<'_> {
    /// The size of a record, if the session knows the file.
    fn known_size(&self, inner: &Inner) -> Option<U24> {
        let known = inner.place.files.get(self.access.file);
        known.and_then(KnownFile::record_size)
    }

    /// How much has to come.
    fn length(&self, inner: &Inner) -> DataLength {
        match (self.record_size, self.known_size(inner)) {
            (Some(_), Some(_)) => DataLength::Exactly(self.buffer.len()),
            (Some(_), None) => DataLength::Believed(self.buffer.len()),
            // How many there are changes with every commit.
            (None, Some(size)) => {
                DataLength::MultipleOf(usize::try_from(size.get()).unwrap_or(usize::MAX))
            }
            (None, None) => DataLength::UNKNOWN,
        }
    }
}

impl FileCommand for ReadRecords<'_> {
    fn file_access_mut(&mut self) -> &mut FileAccess {
        &mut self.access
    }
}

impl<S> Session<S> {
    /// Reads `count` records of `record_size` bytes, passing over the `first` newest, into the
    /// front of `buffer`, and returns them: the oldest of them first.
    ///
    /// If the session does not know the file it asks for its settings first: see
    /// [`crate::command`](crate::command#commands-on-file-data), also for what D40 does not protect.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let file = FileNo::new(4)?;
    /// for text in [b"one.", b"two."] {
    ///     session.write_record(file, 0, text).run(&mut reader)?;
    ///     session.commit_transaction().run(&mut reader)?;
    /// }
    /// let mut buffer = [0; 64];
    /// let newest = session.read_records(file, 0, 1, 16, &mut buffer).run(&mut reader)?;
    /// assert_eq!(&newest[..4], b"two.");
    /// let both = session.read_all_records(file, 0, &mut buffer).run(&mut reader)?;
    /// assert_eq!((&both[..4], &both[16..20]), (&b"one."[..], &b"two."[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::BufferTooSmall`]; [`Misuse::RecordSize`] if the session knows the file and its records
    /// have another size. If it does not, where the mode has been stated, a wrong size shows only after
    /// the answer has come, as [`Malformed::Length`] or [`Malformed::RecordSize`], and under D40 an
    /// enciphered answer may need the settings, [`Misuse::LengthNeeded`]; the session is lost then.
    /// The card's `BE` if there are not so many records.
    pub fn read_records<'s, 'b>(
        &'s mut self,
        file: FileNo,
        first: u32,
        count: u32,
        record_size: u32,
        buffer: &'b mut [u8],
    ) -> Exchange<&'s mut Self, ReadRecords<'b>> {
        Exchange::new(self, counted(file, first, count, record_size, buffer))
    }

    /// Reads all records, passing over the `first` newest, into the front of `buffer`, and
    /// returns them: the oldest first.
    ///
    /// # Errors
    /// [`Misuse::AnswerTooLong`] if they do not fit; [`Misuse::LengthNeeded`] if an enciphered answer
    /// does not tell where the records end, which is rare where the session knows the size of a
    /// record. The session is lost then. The card's `BE` if there are none.
    pub fn read_all_records<'s, 'b>(
        &'s mut self,
        file: FileNo,
        first: u32,
        buffer: &'b mut [u8],
    ) -> Exchange<&'s mut Self, ReadRecords<'b>> {
        let command = U24::new(first)
            .map(|first| ReadRecords {
                access: FileAccess::new(file, Operation::Read),
                first,
                count: U24::ZERO,
                record_size: None,
                buffer,
            })
            .map_err(Misuse::Parameter);
        Exchange::new(self, command)
    }
}

fn counted(
    file: FileNo,
    first: u32,
    count: u32,
    record_size: u32,
    buffer: &mut [u8],
) -> Result<ReadRecords<'_>, Misuse> {
    let (count, record_size) = (U24::new(count)?, U24::new(record_size)?);
    if count == U24::ZERO || record_size == U24::ZERO {
        return Err(Misuse::Invalid("there is nothing to read"));
    }
    let available = buffer.len();
    let needed = u64::from(count.get()) * u64::from(record_size.get());
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    let buffer = buffer
        .get_mut(..needed)
        .ok_or(Misuse::BufferTooSmall { needed, available })?;
    Ok(ReadRecords {
        access: FileAccess::new(file, Operation::Read),
        first: U24::new(first)?,
        count,
        record_size: Some(record_size),
        buffer,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::{Malformed, Misuse};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, CommMode, FileNo, Status};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(0).unwrap();
        let plain = CommMode::Plain;
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let script = [("bb 00 010000 020000", "00 01020304")];
        let mut buffer = [0; 4];
        let machine = session.read_records(file, 1, 2, 2, &mut buffer);
        assert_eq!(
            native(machine.comm_mode(plain), &script),
            Ok(&[1, 2, 3, 4][..])
        );
        let machine = session.read_records(file, 1, 2, 2, &mut buffer);
        assert!(wrapped(machine.comm_mode(plain), &script).is_ok());
        let mut buffer = [0; 9];
        let machine = session.read_all_records(file, 0, &mut buffer);
        let script = [("bb 00 000000 000000", "00 01020304")];
        assert_eq!(
            native(machine.comm_mode(plain), &script),
            Ok(&[1, 2, 3, 4][..])
        );
        let machine = session.read_all_records(file, 0, &mut buffer);
        let error = native(machine.comm_mode(plain), &[("bb 00 000000 000000", "be")]);
        assert_eq!(error.unwrap_err().status(), Some(Status::BoundaryError));
    }

    #[test]
    fn what_cannot_be() {
        let file = FileNo::new(0).unwrap();
        let plain = CommMode::Plain;
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 4];
        let error = refused_unsent(session.read_records(file, 0, 3, 2, &mut buffer));
        let expected = Misuse::BufferTooSmall {
            needed: 6,
            available: 4,
        };
        assert_eq!(error.kind, expected.into());
        refused_unsent(session.read_records(file, 0, 0, 2, &mut buffer));
        refused_unsent(session.read_records(file, 0, 1, 0, &mut buffer));
        refused_unsent(session.read_records(file, 0xFFFF_FFFF, 1, 2, &mut buffer));
        refused_unsent(session.read_records(file, 0, 0xFF_FFFF, 0xFF_FFFF, &mut buffer));
        let machine = session.read_records(file, 0, 2, 2, &mut buffer);
        let error = native(
            machine.comm_mode(plain),
            &[("bb 00 000000 020000", "00 0102")],
        );
        let expected = Malformed::Length {
            expected: 4,
            received: 2,
        };
        assert_eq!(error.unwrap_err().kind, expected.into());
        // A size that is known to be another.
        let linear = [3, 0, 0xEE, 0xEE, 4, 0, 0, 9, 0, 0, 1, 0, 0];
        let settings = crate::wire::FileSettings::decode(&linear).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        session.assume_file_settings(file, &settings);
        let error = refused_unsent(session.read_records(file, 0, 1, 2, &mut buffer));
        let (stated, actual) = (2, 4);
        assert_eq!(error.kind, Misuse::RecordSize { stated, actual }.into());
        let script = [("bb 00 000000 010000", "00 01020304")];
        let records = native(session.read_records(file, 0, 1, 4, &mut buffer), &script);
        assert_eq!(records, Ok(&[1, 2, 3, 4][..]));
    }
}
