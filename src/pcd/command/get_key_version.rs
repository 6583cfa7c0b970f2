//! GetKeyVersion (`64`): the version of a key.
//!
//! | request | reply |
//! |---|---|
//! | KeyNo 1 | version 1 |
//!
//! No authentication. Source: libfreefare `mifare_desfire_get_key_version`; recorded by RFDoorLock,
//! desox and skjolber.

use super::Command;
use crate::error::ErrorKind;
use crate::pcd::exchange::Exchange;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, KeyNo, Reader, WireError, Writer};

/// GetKeyVersion (`64`): see [`Session::get_key_version`].
#[derive(Debug)]
pub struct GetKeyVersion {
    key_no: KeyNo,
    reply: [u8; 1],
}

impl Command for GetKeyVersion {
    type Output = u8;
    const CODE: CommandCode = CommandCode::GetKeyVersion;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.key_no.number())
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<u8, ErrorKind> {
        let mut reader = Reader::new(self.reply.get(..len).unwrap_or_default());
        let version = reader.u8()?;
        reader.finish()?;
        Ok(version)
    }
}

impl<S> Session<S> {
    /// The version of a key of the selected level.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader, wire::KeyNo};
    ///
    /// let mut reader = VirtualReader::default();
    /// assert_eq!(Session::new().get_key_version(KeyNo::MASTER).run(&mut reader)?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_key_version(&mut self, key_no: KeyNo) -> Exchange<&mut Self, GetKeyVersion> {
        Exchange::new(self, Ok(GetKeyVersion { key_no, reply: [0] }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, wrapped};
    use crate::pcd::session::Session;
    use crate::wire::{KeyNo, Status};

    #[test]
    fn literal_bytes() {
        let key_no = KeyNo::new(1).unwrap();
        let script = [("64 01", "00 10")];
        assert_eq!(
            native(Session::new().get_key_version(key_no), &script),
            Ok(0x10)
        );
        assert_eq!(
            wrapped(Session::new().get_key_version(key_no), &script),
            Ok(0x10)
        );
        let error = native(Session::new().get_key_version(key_no), &[("64 01", "40")]).unwrap_err();
        assert_eq!(error.status(), Some(Status::NoSuchKey));
        assert!(native(Session::new().get_key_version(key_no), &[("64 01", "00")]).is_err());
    }
}
