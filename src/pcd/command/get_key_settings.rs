//! GetKeySettings (`45`): what the level allows without its master key, and what keys it has.
//!
//! | request | reply |
//! |---|---|
//! | – | key settings 1, key info 1 |
//!
//! Needs the master key of the level if [`KeyFlags::FREE_LISTING`](crate::wire::KeyFlags) is
//! cleared. Source: libfreefare `mifare_desfire_get_key_settings`; recorded by RFDoorLock and
//! desox.

use super::Command;
use crate::error::ErrorKind;
use crate::pcd::exchange::Exchange;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, KeyInfo, KeySettings, Reader, WireError, Writer};

/// GetKeySettings (`45`): see [`Session::get_key_settings`].
#[derive(Debug, Default)]
pub struct GetKeySettings {
    reply: [u8; 2],
}

impl Command for GetKeySettings {
    type Output = (KeySettings, KeyInfo);
    const CODE: CommandCode = CommandCode::GetKeySettings;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<Self::Output, ErrorKind> {
        let mut reader = Reader::new(self.reply.get(..len).unwrap_or_default());
        let settings = KeySettings::from_byte(reader.u8()?);
        let info = KeyInfo::from_byte(reader.u8()?);
        reader.finish()?;
        Ok((settings, info))
    }
}

impl<S> Session<S> {
    /// Settings and keys of the selected application, or of the PICC.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader, wire::{KeyFamily, KeySettings}};
    ///
    /// let mut reader = VirtualReader::default();
    /// let (settings, keys) = Session::new().get_key_settings().run(&mut reader)?;
    /// assert_eq!(settings, KeySettings::DEFAULT);
    /// assert_eq!((keys.family(), keys.keys()), (KeyFamily::Des, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_key_settings(&mut self) -> Exchange<&mut Self, GetKeySettings> {
        Exchange::new(self, Ok(GetKeySettings::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, wrapped};
    use crate::pcd::session::Session;
    use crate::wire::{KeyFamily, KeySettings, Status};

    #[test]
    fn literal_bytes() {
        let script = [("45", "00 0981")];
        let (settings, info) = native(Session::new().get_key_settings(), &script).unwrap();
        assert_eq!(settings, KeySettings::from_byte(0x09));
        assert_eq!((info.family(), info.keys()), (KeyFamily::Aes, 1));
        assert!(wrapped(Session::new().get_key_settings(), &script).is_ok());
        let error = native(Session::new().get_key_settings(), &[("45", "ae")]).unwrap_err();
        assert_eq!(error.status(), Some(Status::AuthenticationError));
        assert!(native(Session::new().get_key_settings(), &[("45", "00 09")]).is_err());
    }
}
