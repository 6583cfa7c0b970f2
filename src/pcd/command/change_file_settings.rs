//! ChangeFileSettings (`5F`): changes mode and rights of a file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 1 | communication byte |
//! | 2 | 2 | access rights |
//!
//! Granted by the Change right: under its key the last three bytes travel enciphered, in any mode of
//! the file; if it is free they travel plain, even in an authenticated session. Sources: libfreefare
//! `mifare_desfire_change_file_settings`, proxmark3; not recorded.

use super::{Command, Scratch, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::{Exchange, Holder};
use crate::pcd::protection::{FileAccess, Operation, Protection};
use crate::pcd::session::{Inner, Session};
use crate::wire::{AccessRights, CommByte, CommMode, CommandCode, FileNo, WireError, Writer};

/// ChangeFileSettings (`5F`): see [`Session::change_file_settings`].
pub struct ChangeFileSettings {
    access: FileAccess,
    settings: [u8; 3],
}

impl Command for ChangeFileSettings {
    type Output = ();
    const CODE: CommandCode = CommandCode::ChangeFileSettings;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.access.file.number())
    }

    fn data<'a>(&'a self, _scratch: &'a mut Scratch) -> &'a [u8] {
        &self.settings
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        Ok(Protection::write(self.access.mode(inner)?))
    }

    fn file_access(&self) -> Option<FileAccess> {
        Some(self.access)
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        inner.place.files.forget(self.access.file);
        nothing(len)
    }
}

impl<H: Holder> Exchange<H, ChangeFileSettings> {
    /// States that the Change right names the key in use, so that the settings travel enciphered.
    /// Saves the GetFileSettings that is sent otherwise when the session does not know the file.
    pub fn under_key(self) -> Self {
        self.stated(CommMode::Enciphered)
    }

    /// States that the Change right is free, so that the settings travel plain.
    pub fn free(self) -> Self {
        self.stated(CommMode::Plain)
    }

    fn stated(mut self, mode: CommMode) -> Self {
        if let Some(command) = self.command_mut() {
            command.access.mode = Some(mode);
        }
        self
    }
}

impl<S> Session<S> {
    /// Gives a file another mode and other rights. Its content stays.
    ///
    /// **With a Change right of [`crate::wire::Access::Never`] these settings are the last** for as long
    /// as the file exists.
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
    /// let rights = AccessRights::from_bytes([0x00, 0xE0]);
    /// session.change_file_settings(FileNo::new(0)?, CommMode::Mac, rights).run(&mut reader)?;
    /// let settings = session.get_file_settings(FileNo::new(0)?).run(&mut reader)?;
    /// assert_eq!((settings.comm.mode(), settings.rights), (CommMode::Mac, rights));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn change_file_settings(
        &mut self,
        file: FileNo,
        comm: impl Into<CommByte>,
        rights: AccessRights,
    ) -> Exchange<&mut Self, ChangeFileSettings> {
        let [low, high] = rights.to_bytes();
        let command = ChangeFileSettings {
            access: FileAccess::new(file, Operation::Change),
            settings: [comm.into().0, low, high],
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session, wrapped};
    use crate::error::Misuse;
    use crate::pcd::exchange::{LinkFormat, Machine as _};
    use crate::pcd::key::Key;
    use crate::pcd::session::Session;
    use crate::wire::{AccessRights, Aid, AuthScheme, CommMode, FileNo, FileSettings, Status};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(5).unwrap();
        let rights = AccessRights::from_bytes([0x30, 0x12]);
        let mut free = Session::at_level(Aid::new(1).unwrap());
        // Change right free: plain.
        let ask = ("f5 05", "00 00 03 0e00 010000");
        let script = [ask, ("5f 05 03 3012", "00")];
        let mode = CommMode::Enciphered;
        native(free.change_file_settings(file, mode, rights), &script).unwrap();
        // What was known of the file is forgotten.
        wrapped(free.change_file_settings(file, mode, rights), &script).unwrap();
        let script = [ask, ("5f 05 03 3012", "9d")];
        let error = native(free.change_file_settings(file, mode, rights), &script);
        assert_eq!(error.unwrap_err().status(), Some(Status::PermissionDenied));
        let error = refused_unsent(free.change_file_settings(file, mode, rights).under_key());
        assert_eq!(error.kind, Misuse::NotAuthenticated.into());
    }

    /// Under a key the settings are enciphered, whatever the file's mode is. (What exactly is sent
    /// is compared with an independent implementation in `tests/recordings.rs`.)
    #[test]
    fn under_a_key_it_is_enciphered() {
        let key = Key::des([0x10; 8]);
        let nonces = ("0001020304050607", "f6b033394ec6e8cf");
        let mut live = session(AuthScheme::Legacy, &key, nonces.0, nonces.1, 1);
        let file = FileNo::new(5).unwrap();
        let rights = AccessRights::from_bytes([0x30, 0x12]);
        let plain = FileSettings::decode(&[0, 0, 0x30, 0x12, 1, 0, 0]).unwrap();
        live.assume_file_settings(file, &plain);
        let mut machine = live.change_file_settings(file, CommMode::Mac, rights);
        let sent = machine.start(LinkFormat::NATIVE).unwrap();
        assert_eq!((sent.len(), &sent[..2]), (2 + 8, &[0x5F, 0x05][..]));
        assert_ne!(sent[2..5], [0x01, 0x30, 0x12]);
    }
}
