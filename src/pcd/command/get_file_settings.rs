//! GetFileSettings (`F5`): type, mode, rights and size of a file.
//!
//! | request | reply |
//! |---|---|
//! | file number 1 | 7, 13 or 17 bytes, see [`FileSettings`] |
//!
//! Inside an application; needs its master key if listing is not free. Source: libfreefare
//! `mifare_desfire_get_file_settings`; recorded by RFDoorLock, desox and skjolber.

use super::Command;
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, FileSettings, WireError, Writer};

/// GetFileSettings (`F5`): see [`Session::get_file_settings`].
#[derive(Debug)]
pub struct GetFileSettings {
    file: FileNo,
    reply: [u8; Self::REPLY_LEN],
}

impl GetFileSettings {
    /// The longest reply: that of a type which EV1 does not have.
    pub(in crate::pcd) const REPLY_LEN: usize = 36;

    pub(in crate::pcd) const fn new(file: FileNo) -> Self {
        Self {
            file,
            reply: [0; Self::REPLY_LEN],
        }
    }
}

impl Command for GetFileSettings {
    type Output = FileSettings;
    const CODE: CommandCode = CommandCode::GetFileSettings;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.file.number())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::STANDARD)
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<FileSettings, ErrorKind> {
        let settings = FileSettings::decode(self.reply.get(..len).unwrap_or_default())?;
        inner.learn(self.file, &settings);
        Ok(settings)
    }
}

impl<S> Session<S> {
    /// The settings of a file. The session remembers what it needs of them.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader, wire::{CommMode, FileNo}};
    ///
    /// let mut reader = VirtualReader::demo();
    /// let mut session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// let settings = session.get_file_settings(FileNo::new(1)?).run(&mut reader)?;
    /// assert_eq!(settings.comm.mode(), CommMode::Mac);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_file_settings(&mut self, file: FileNo) -> Exchange<&mut Self, GetFileSettings> {
        Exchange::new(self, Ok(GetFileSettings::new(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, CommMode, FileDetail, FileNo, Status, U24};

    #[test]
    fn literal_bytes() {
        let (aid, file) = (Aid::new(1).unwrap(), FileNo::new(5).unwrap());
        let script = [("f5 05", "00 00 00 1100 500000")];
        let settings = native(Session::at_level(aid).get_file_settings(file), &script).unwrap();
        assert_eq!(settings.comm.mode(), CommMode::Plain);
        let size = U24::new(80).unwrap();
        assert_eq!(settings.detail, FileDetail::StandardData { size });
        assert!(wrapped(Session::at_level(aid).get_file_settings(file), &script).is_ok());
        let error = native(
            Session::at_level(aid).get_file_settings(file),
            &[("f5 05", "f0")],
        );
        assert_eq!(error.unwrap_err().status(), Some(Status::FileNotFound));
        let error = refused_unsent(Session::new().get_file_settings(file));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
