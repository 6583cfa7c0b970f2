//! GetFileIDs (`6F`): which files the application has.
//!
//! | request | reply |
//! |---|---|
//! | – | n × file number 1, in no certain order; 32 at most |
//!
//! Inside an application; needs its master key if listing is not free. Source: libfreefare
//! `mifare_desfire_get_file_ids`; recorded by RFDoorLock and skjolber.

use super::Command;
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, FileNo, WireError, Writer};

/// The most files an application has.
const MAX: usize = 32;

/// GetFileIDs (`6F`): see [`Session::get_file_ids`].
#[derive(Debug)]
pub struct GetFileIds {
    reply: [u8; MAX],
}

/// The files of an application, as the card lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIds {
    files: [FileNo; MAX],
    len: usize,
}

impl core::ops::Deref for FileIds {
    type Target = [FileNo];

    fn deref(&self) -> &[FileNo] {
        self.files.get(..self.len).unwrap_or_default()
    }
}

impl Command for GetFileIds {
    type Output = FileIds;
    const CODE: CommandCode = CommandCode::GetFileIds;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::STANDARD)
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<FileIds, ErrorKind> {
        let mut ids = FileIds {
            files: [FileNo::new(0)?; MAX],
            len,
        };
        for (file, byte) in ids.files.iter_mut().zip(self.reply).take(len) {
            *file = FileNo::new(byte)?;
        }
        Ok(ids)
    }
}

impl<S> Session<S> {
    /// The files of the application.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader};
    ///
    /// let mut reader = VirtualReader::demo();
    /// let mut session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// assert_eq!(session.get_file_ids().run(&mut reader)?.len(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_file_ids(&mut self) -> Exchange<&mut Self, GetFileIds> {
        Exchange::new(self, Ok(GetFileIds { reply: [0; MAX] }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent};
    use crate::error::{ErrorKind, Malformed, Misuse};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, FileNo};

    #[test]
    fn literal_bytes() {
        let aid = Aid::new(1).unwrap();
        let script = [("6f", "00 05 1f 00")];
        let files = native(Session::at_level(aid).get_file_ids(), &script).unwrap();
        assert_eq!(
            &files[..],
            [5, 31, 0].map(|number| FileNo::new(number).unwrap())
        );
        let error = native(Session::at_level(aid).get_file_ids(), &[("6f", "00 20")]).unwrap_err();
        assert!(matches!(
            error.kind,
            ErrorKind::Malformed(Malformed::Wire(_))
        ));
        let error = refused_unsent(Session::new().get_file_ids());
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
