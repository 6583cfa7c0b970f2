//! ReadData (`BD`): reads from a standard or backup data file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 3 | offset in the file |
//! | 4 | 3 | length; 0 reads to the end |
//!
//! The reply is protected in the file's mode and may come in any number of frames. Granted by Read
//! or Read&Write. Of a backup file the committed content is read. Source: libfreefare
//! `mifare_desfire_read_data`; recorded in all modes by desox and skjolber.

use core::ops::Range;

use super::{Command, FileCommand};
use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::channel::DataLength;
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::{FileAccess, KnownFile, Operation, Protection};
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, U24, WireError, Writer};

/// ReadData (`BD`): see [`Session::read_data`] and [`Session::read_data_to_end`].
pub struct ReadData<'b> {
    access: FileAccess,
    offset: U24,
    /// Zero for "to the end".
    length: U24,
    buffer: &'b mut [u8],
}

impl<'b> Command for ReadData<'b> {
    type Output = &'b [u8];
    const CODE: CommandCode = CommandCode::ReadData;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.access.file.number())?;
        header.put(&self.offset.to_bytes())?;
        header.put(&self.length.to_bytes())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        let mode = self.access.mode(inner)?;
        let length = self.length(inner);
        match length {
            DataLength::Exactly(needed) if needed > self.buffer.len() => {
                let available = self.buffer.len();
                Err(Misuse::BufferTooSmall { needed, available })
            }
            length => Ok(Protection::read(mode, length)),
        }
    }

    fn file_access(&self) -> Option<FileAccess> {
        Some(self.access)
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn too_long(&self) -> ErrorKind {
        if self.to_end() {
            Misuse::AnswerTooLong.into()
        } else {
            Malformed::TooLong.into()
        }
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<&'b [u8], ErrorKind> {
        self.length(inner).check(len)?;
        let buffer = core::mem::take(&mut self.buffer);
        Ok(buffer.get(..len).unwrap_or_default())
    }
}

impl ReadData<'_> {
    fn to_end(&self) -> bool {
        self.length == U24::ZERO
    }

    /// How much has to come.
    fn length(&self, inner: &Inner) -> DataLength {
        let known = inner.place.files.get(self.access.file);
        match known.and_then(KnownFile::size) {
            _ if !self.to_end() => DataLength::Exactly(self.buffer.len()),
            Some(size) => {
                let rest = size.get().saturating_sub(self.offset.get());
                DataLength::Exactly(usize::try_from(rest).unwrap_or(usize::MAX))
            }
            None => DataLength::UNKNOWN,
        }
    }
}

impl FileCommand for ReadData<'_> {
    fn file_access_mut(&mut self) -> &mut FileAccess {
        &mut self.access
    }
}

impl<S> Session<S> {
    /// Reads the bytes in `range` into the front of `buffer` and returns them.
    ///
    /// What is not authentic is wiped from the buffer. `buffer` needs room for the data only.
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
    /// let mut buffer = [0; 32];
    /// let data = session.read_data(FileNo::new(0)?, 4..12, &mut buffer).run(&mut reader)?;
    /// assert_eq!(data, [0; 8]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::BufferTooSmall`]; the card's `BE` beyond the end of the file.
    pub fn read_data<'s, 'b>(
        &'s mut self,
        file: FileNo,
        range: Range<u32>,
        buffer: &'b mut [u8],
    ) -> Exchange<&'s mut Self, ReadData<'b>> {
        Exchange::new(self, ranged(file, range, buffer))
    }

    /// Reads from `offset` to the end of the file, which must fit into `buffer`, and returns what
    /// there was.
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
    /// let mut buffer = [0; 64];
    /// let data = session.read_data_to_end(FileNo::new(0)?, 4, &mut buffer).run(&mut reader)?;
    /// assert_eq!(data.len(), 28);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::BufferTooSmall`] if the session knows the file's size, as it does if it has asked for
    /// the settings; otherwise, where the mode has been stated, [`Misuse::AnswerTooLong`] if the file
    /// goes on, and [`Misuse::LengthNeeded`] if an enciphered answer does not tell where the data end.
    /// The session is lost with the last two.
    pub fn read_data_to_end<'s, 'b>(
        &'s mut self,
        file: FileNo,
        offset: u32,
        buffer: &'b mut [u8],
    ) -> Exchange<&'s mut Self, ReadData<'b>> {
        let command = U24::new(offset)
            .map(|offset| ReadData {
                access: FileAccess::new(file, Operation::Read),
                offset,
                length: U24::ZERO,
                buffer,
            })
            .map_err(Misuse::Parameter);
        Exchange::new(self, command)
    }
}

fn ranged(file: FileNo, range: Range<u32>, buffer: &mut [u8]) -> Result<ReadData<'_>, Misuse> {
    let length = U24::new(range.end.saturating_sub(range.start))?;
    if length == U24::ZERO {
        return Err(Misuse::Invalid("there is nothing to read"));
    }
    let available = buffer.len();
    let needed = usize::try_from(length.get()).unwrap_or(usize::MAX);
    let buffer = buffer
        .get_mut(..needed)
        .ok_or(Misuse::BufferTooSmall { needed, available })?;
    Ok(ReadData {
        access: FileAccess::new(file, Operation::Read),
        offset: U24::new(range.start)?,
        length,
        buffer,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::{ErrorKind, Malformed, Misuse, Outcome};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, CommMode, FileNo, Status};
    use std::format;

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(2).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let script = [
            ("bd 02 010000 050000", "af 0102"),
            ("af", "af 0304"),
            ("af", "00 05"),
        ];
        let mut buffer = [9; 7];
        let machine = session.read_data(file, 1..6, &mut buffer);
        let data = native(machine.comm_mode(CommMode::Plain), &script);
        assert_eq!(data, Ok(&[1, 2, 3, 4, 5][..]));
        let mut buffer = [9; 5];
        let machine = session.read_data(file, 1..6, &mut buffer);
        assert!(wrapped(machine.comm_mode(CommMode::Plain), &script).is_ok());
        let mut buffer = [9; 7];
        let machine = session.read_data_to_end(file, 1, &mut buffer);
        let script = [("bd 02 010000 000000", "00 0102")];
        let data = native(machine.comm_mode(CommMode::Plain), &script);
        assert_eq!(data, Ok(&[1, 2][..]));
    }

    #[test]
    fn what_is_not_asked_for_does_not_come_through() {
        let file = FileNo::new(2).unwrap();
        let cases = [
            ("be", ErrorKind::Refused(Status::BoundaryError)),
            (
                "00 0102",
                Malformed::Length {
                    expected: 3,
                    received: 2,
                }
                .into(),
            ),
            ("00 01020304", Malformed::TooLong.into()),
            (
                &*format!("00 {}", "77".repeat(59)),
                Malformed::TooLong.into(),
            ),
        ];
        for (reply, kind) in cases {
            let mut session = Session::at_level(Aid::new(1).unwrap());
            let mut buffer = [9; 3];
            let machine = session.read_data(file, 0..3, &mut buffer);
            let script = [("bd 02 000000 030000", reply)];
            let error = native(machine.comm_mode(CommMode::Plain), &script).unwrap_err();
            assert_eq!(error.kind, kind);
            assert_eq!(buffer, [0; 3]);
        }
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [9; 3];
        let machine = session.read_data_to_end(file, 0, &mut buffer);
        let script = [("bd 02 000000 000000", "00 01020304")];
        let error = native(machine.comm_mode(CommMode::Plain), &script).unwrap_err();
        assert_eq!(error.kind, Misuse::AnswerTooLong.into());
    }

    #[test]
    fn what_cannot_be_asked() {
        let file = FileNo::new(2).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 4];
        let error = refused_unsent(session.read_data(file, 0..5, &mut buffer));
        let expected = Misuse::BufferTooSmall {
            needed: 5,
            available: 4,
        };
        assert_eq!(error.kind, expected.into());
        refused_unsent(session.read_data(file, 3..3, &mut buffer));
        refused_unsent(session.read_data(file, 0x0100_0000..0x0100_0001, &mut buffer));
        refused_unsent(session.read_data_to_end(file, 0x0100_0000, &mut buffer));
        let mut picc = Session::new();
        let machine = picc.read_data(file, 0..1, &mut buffer);
        let error = refused_unsent(machine.comm_mode(CommMode::Plain));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
        // To the end of a file that is known to be longer than the buffer.
        let settings = crate::wire::FileSettings::decode(&[0, 0, 0xEE, 0xEE, 10, 0, 0]).unwrap();
        session.assume_file_settings(file, &settings);
        let error = refused_unsent(session.read_data_to_end(file, 5, &mut buffer));
        assert_eq!(error.kind, expected.into());
        let script = [("bd 02 060000 000000", "00 01020304")];
        let data = native(session.read_data_to_end(file, 6, &mut buffer), &script);
        assert_eq!(data, Ok(&[1, 2, 3, 4][..]));
    }

    /// The settings of an unknown file are asked for first, once.
    #[test]
    fn the_mode_comes_from_the_settings() {
        let file = FileNo::new(2).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 1];
        // Everything free: plain, whatever the file's mode.
        let script = [
            ("f5 02", "00 00 03 eeee 010000"),
            ("bd 02 000000 010000", "00 55"),
        ];
        let data = native(session.read_data(file, 0..1, &mut buffer), &script);
        assert_eq!(data, Ok(&[0x55][..]));
        let data = native(session.read_data(file, 0..1, &mut buffer), &script[1..]);
        assert_eq!(data, Ok(&[0x55][..]));

        // A key is needed: nothing more is sent, and the session is in step.
        let other = FileNo::new(3).unwrap();
        let script = [("f5 03", "00 00 03 0000 010000")];
        let error = native(session.read_data(other, 0..1, &mut buffer), &script).unwrap_err();
        assert_eq!(error.kind, Misuse::AccessDenied(other).into());
        assert!(!session.is_lost());

        let third = FileNo::new(4).unwrap();
        let script = [("f5 04", "f0")];
        let error = native(session.read_data(third, 0..1, &mut buffer), &script).unwrap_err();
        assert_eq!(error.status(), Some(Status::FileNotFound));
        assert_eq!(error.outcome, Outcome::NotSent);
        assert!(error.while_asking && !error.session_lost);
        let script = [
            ("f5 04", "af 0000"),
            ("af", "00 eeee 010000"),
            ("bd 04 000000 010000", "00 55"),
        ];
        let data = native(session.read_data(third, 0..1, &mut buffer), &script);
        assert_eq!(data, Ok(&[0x55][..]));
        let fourth = FileNo::new(5).unwrap();
        let script = [("f5 05", "af")];
        let error = native(session.read_data(fourth, 0..1, &mut buffer), &script).unwrap_err();
        assert_eq!(error.kind, Malformed::EmptyFrame.into());
        assert_eq!(error.outcome, Outcome::NotSent);
        assert!(error.session_lost && session.is_lost());
    }
}
