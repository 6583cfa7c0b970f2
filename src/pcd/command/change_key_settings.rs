//! ChangeKeySettings (`54`): changes what the level allows.
//!
//! | request | reply |
//! |---|---|
//! | key settings 1, always enciphered | – |
//!
//! Needs the master key of the level, and that the settings are still changeable. Number and type
//! of the keys cannot be changed. Source: libfreefare `mifare_desfire_change_key_settings`;
//! recorded in both messagings.

use super::{Command, Scratch, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Authenticated, Inner, Session};
use crate::wire::{CommandCode, KeyFlags, KeySettings, WireError, Writer};

/// ChangeKeySettings (`54`): see [`Session::change_key_settings`].
#[derive(Debug)]
pub struct ChangeKeySettings {
    settings: [u8; 1],
}

impl Command for ChangeKeySettings {
    type Output = ();
    const CODE: CommandCode = CommandCode::ChangeKeySettings;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn data<'a>(&'a self, _scratch: &'a mut Scratch) -> &'a [u8] {
        &self.settings
    }

    fn protection(&self, _inner: &Inner) -> Result<Protection<'_>, Misuse> {
        Ok(Protection::ENCIPHERED_REQUEST)
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

/// Once these are cleared nobody can set them again.
const FROZEN_WITHOUT: KeyFlags =
    KeyFlags::MASTER_KEY_CHANGEABLE.union(KeyFlags::SETTINGS_CHANGEABLE);

impl Session<Authenticated> {
    /// Changes the key settings of the selected level.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let mut settings = KeySettings::DEFAULT;
    /// settings.flags -= KeyFlags::FREE_CREATE_DELETE;
    /// session.change_key_settings(settings).run(&mut reader)?;
    /// assert_eq!(session.get_key_settings().run(&mut reader)?.0, settings);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Invalid`] for settings that freeze the master key or themselves: that cannot be
    /// undone and has a call of its own, [`Session::freeze_key_settings_for_ever`].
    pub fn change_key_settings(
        &mut self,
        settings: KeySettings,
    ) -> Exchange<&mut Self, ChangeKeySettings> {
        let command = if settings.flags.contains(FROZEN_WITHOUT) {
            Ok(ChangeKeySettings {
                settings: [settings.to_byte()],
            })
        } else {
            Err(Misuse::Invalid(
                "these settings freeze the master key or themselves for ever; that is a call of its own",
            ))
        };
        Exchange::new(self, command)
    }

    /// Changes the key settings to any value, also to one that freezes the master key
    /// ([`KeyFlags::MASTER_KEY_CHANGEABLE`] cleared) or the settings themselves
    /// ([`KeyFlags::SETTINGS_CHANGEABLE`] cleared). **Neither can ever be undone.**
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let mut settings = KeySettings::DEFAULT;
    /// settings.flags -= KeyFlags::SETTINGS_CHANGEABLE;
    /// session.freeze_key_settings_for_ever(settings).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn freeze_key_settings_for_ever(
        &mut self,
        settings: KeySettings,
    ) -> Exchange<&mut Self, ChangeKeySettings> {
        let command = ChangeKeySettings {
            settings: [settings.to_byte()],
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session, wrapped};
    use crate::pcd::exchange::{LinkFormat, Machine as _};
    use crate::pcd::key::Key;
    use crate::wire::{AuthScheme, KeyFamily, KeySettings, Status};

    /// A forum trace of an EV1: 0A with the zero DES key, then settings 0F.
    #[test]
    fn recorded_d40() {
        let key = Key::zero(KeyFamily::Des);
        let live = || {
            session(
                AuthScheme::Legacy,
                &key,
                "0001020304050607",
                "f6b033394ec6e8cf",
                0,
            )
        };
        let script = [("54 cb643fd030e687da", "00")];
        native(live().change_key_settings(KeySettings::DEFAULT), &script).unwrap();
        wrapped(live().change_key_settings(KeySettings::DEFAULT), &script).unwrap();
        let script = [("54 cb643fd030e687da", "9d")];
        let mut refused = live();
        let error = native(refused.change_key_settings(KeySettings::DEFAULT), &script);
        assert_eq!(error.unwrap_err().status(), Some(Status::PermissionDenied));
        assert!(refused.is_lost());
    }

    #[test]
    fn freezing_has_a_call_of_its_own() {
        let key = Key::zero(KeyFamily::Des);
        let mut live = session(
            AuthScheme::Legacy,
            &key,
            "0001020304050607",
            "f6b033394ec6e8cf",
            0,
        );
        for byte in [0x0E, 0x07, 0x06, 0x00, 0xF6] {
            refused_unsent(live.change_key_settings(KeySettings::from_byte(byte)));
        }
        let mut machine = live.freeze_key_settings_for_ever(KeySettings::from_byte(0x00));
        let sent = machine.start(LinkFormat::NATIVE).unwrap();
        assert_eq!((sent.len(), sent[0]), (1 + 8, 0x54));
    }
}
