//! WriteData (`3D`): writes to a standard or backup data file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 3 | offset in the file |
//! | 4 | 3 | length of the data |
//! | 7 | | data, protected in the file's mode |
//!
//! As many frames as it takes; only the data count in the length. Granted by Write or Read&Write.
//! A write to a standard file is valid at once, and if it takes several frames a torn one may be
//! half done; a write to a backup file is pending until CommitTransaction. Source: libfreefare
//! `mifare_desfire_write_data`; recorded in all modes by desox and skjolber.

use super::{Command, FileCommand, Scratch, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::{FileAccess, Operation, Protection};
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, U24, WireError, Writer};

/// WriteData (`3D`): see [`Session::write_data`].
pub struct WriteData<'d> {
    access: FileAccess,
    offset: U24,
    length: U24,
    data: &'d [u8],
}

impl Command for WriteData<'_> {
    type Output = ();
    const CODE: CommandCode = CommandCode::WriteData;
    const CHAINS: bool = true;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.access.file.number())?;
        header.put(&self.offset.to_bytes())?;
        header.put(&self.length.to_bytes())
    }

    fn data<'a>(&'a self, _scratch: &'a mut Scratch) -> &'a [u8] {
        self.data
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::write(self.access.mode(inner)?))
    }

    fn file_access(&self) -> Option<FileAccess> {
        Some(self.access)
    }

    fn may_be_half_done(&self, inner: &Inner) -> bool {
        // In a standard file the frames before may be written.
        let known = inner.place.files.get(self.access.file);
        known.is_none_or(|known| known.is_standard())
    }

    fn leaves_pending(&self, inner: &Inner) -> bool {
        // Writes to a standard file do not wait; what is not known to be one may be a backup file.
        let known = inner.place.files.get(self.access.file);
        !known.is_some_and(|known| known.is_standard())
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl FileCommand for WriteData<'_> {
    fn file_access_mut(&mut self) -> &mut FileAccess {
        &mut self.access
    }
}

impl<S> Session<S> {
    /// Writes `data` from `offset` on, in one call whatever their length.
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
    /// session.write_data(FileNo::new(0)?, 2, b"seven").run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::NothingToWrite`]; the card's `BE` beyond the end.
    pub fn write_data<'s, 'd>(
        &'s mut self,
        file: FileNo,
        offset: u32,
        data: &'d [u8],
    ) -> Exchange<&'s mut Self, WriteData<'d>> {
        Exchange::new(self, build(file, offset, data))
    }
}

fn build(file: FileNo, offset: u32, data: &[u8]) -> Result<WriteData<'_>, Misuse> {
    if data.is_empty() {
        return Err(Misuse::NothingToWrite);
    }
    Ok(WriteData {
        access: FileAccess::new(file, Operation::Write),
        offset: U24::new(offset)?,
        length: U24::from_len(data.len())?,
        data,
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
        let script = [("3d 02 010000 050000 0102030405", "00")];
        let plain = CommMode::Plain;
        let data = [1, 2, 3, 4, 5];
        native(session.write_data(file, 1, &data).comm_mode(plain), &script).unwrap();
        wrapped(session.write_data(file, 1, &data).comm_mode(plain), &script).unwrap();
        let error = native(
            session.write_data(file, 1, &data).comm_mode(plain),
            &[("3d 02 010000 050000 0102030405", "be")],
        );
        assert_eq!(error.unwrap_err().status(), Some(Status::BoundaryError));
        let error = refused_unsent(session.write_data(file, 1, &[]));
        assert_eq!(error.kind, Misuse::NothingToWrite.into());
        refused_unsent(session.write_data(file, 0x0100_0000, &data));
        let error = refused_unsent(session.write_data(file, 1, &data).comm_mode(CommMode::Mac));
        assert_eq!(error.kind, Misuse::NotAuthenticated.into());
        let error = refused_unsent(Session::new().write_data(file, 1, &data).comm_mode(plain));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }

    #[test]
    fn long_data_fill_every_frame() {
        let file = FileNo::new(2).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let data = [0x5A; 113];
        // Native: 7 + 52, 59, 2. Wrapped: 7 + 47, 54, 12.
        let frame = |prefix: &str, len| format!("{prefix} {}", "5a".repeat(len));
        let header = "3d 02 000000 710000";
        for (lens, wrap) in [([52, 59, 2], false), ([47, 54, 12], true)] {
            let [a, b, c] = lens;
            let frames = [frame(header, a), frame("af", b), frame("af", c)];
            let script = [
                (&*frames[0], "af"),
                (&*frames[1], "af"),
                (&*frames[2], "00"),
            ];
            let machine = session.write_data(file, 0, &data);
            let machine = machine.comm_mode(CommMode::Plain);
            let done = if wrap {
                wrapped(machine, &script)
            } else {
                native(machine, &script)
            };
            done.unwrap();
        }
        // The card breaks the chain.
        let first = frame(header, 52);
        for (reply, kind, outcome) in [
            (
                "00",
                ErrorKind::Malformed(Malformed::FinishedTooEarly),
                Outcome::Unknown,
            ),
            (
                "af 01",
                ErrorKind::Malformed(Malformed::DataTooEarly),
                Outcome::Unknown,
            ),
            (
                "be",
                ErrorKind::Refused(Status::BoundaryError),
                Outcome::Refused,
            ),
        ] {
            let mut session = Session::at_level(Aid::new(1).unwrap());
            let machine = session.write_data(file, 0, &data);
            let script = [(&*first, reply)];
            let error = native(machine.comm_mode(CommMode::Plain), &script).unwrap_err();
            assert_eq!((error.kind, error.outcome), (kind, outcome));
        }
    }
}
