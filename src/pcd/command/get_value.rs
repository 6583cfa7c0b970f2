//! GetValue (`6C`): the committed value of a value file.
//!
//! | request | reply |
//! |---|---|
//! | file number 1 | value 4, signed, least significant byte first |
//!
//! The reply is protected in the file's mode. Granted by Read, Write or Read&Write, or, in plain,
//! by the file's own flag. Source: libfreefare `mifare_desfire_get_value`; recorded enciphered by
//! skjolber.

use super::{Command, FileCommand};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::channel::DataLength;
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::{FileAccess, Operation, Protection};
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, Reader, WireError, Writer};

const VALUE_LEN: usize = 4;

/// GetValue (`6C`): see [`Session::get_value`].
pub struct GetValue {
    access: FileAccess,
    reply: [u8; VALUE_LEN],
}

impl Command for GetValue {
    type Output = i32;
    const CODE: CommandCode = CommandCode::GetValue;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.access.file.number())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        let mode = self.access.mode(inner)?;
        Ok(Protection::read(mode, DataLength::Exactly(VALUE_LEN)))
    }

    fn file_access(&self) -> Option<FileAccess> {
        Some(self.access)
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<i32, ErrorKind> {
        let mut reader = Reader::new(self.reply.get(..len).unwrap_or_default());
        let value = reader.i32()?;
        reader.finish()?;
        Ok(value)
    }
}

impl FileCommand for GetValue {
    fn file_access_mut(&mut self) -> &mut FileAccess {
        &mut self.access
    }
}

impl<S> Session<S> {
    /// The value of a value file, without changes that are not committed.
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
    /// assert_eq!(session.get_value(FileNo::new(2)?).run(&mut reader)?, 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_value(&mut self, file: FileNo) -> Exchange<&mut Self, GetValue> {
        let command = GetValue {
            access: FileAccess::new(file, Operation::GetValue),
            reply: [0; VALUE_LEN],
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::{ErrorKind, Malformed, Misuse};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, CommMode, FileNo, Status};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(4).unwrap();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let plain = CommMode::Plain;
        let script = [("6c 04", "00 18fcffff")];
        assert_eq!(
            native(session.get_value(file).comm_mode(plain), &script),
            Ok(-1000)
        );
        assert_eq!(
            wrapped(session.get_value(file).comm_mode(plain), &script),
            Ok(-1000)
        );
        let error = native(session.get_value(file).comm_mode(plain), &[("6c 04", "9d")]);
        assert_eq!(error.unwrap_err().status(), Some(Status::PermissionDenied));
        let error = native(
            session.get_value(file).comm_mode(plain),
            &[("6c 04", "00 18fcffff00")],
        );
        let expected = ErrorKind::Malformed(Malformed::TooLong);
        assert_eq!(error.unwrap_err().kind, expected);
        let error = refused_unsent(Session::new().get_value(file).comm_mode(plain));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
