//! FormatPICC (`FC`): deletes all applications and gives their memory back.
//!
//! | request | reply |
//! |---|---|
//! | – | – |
//!
//! The PICC master key, its settings, and the configuration stay; so does the session. Can take
//! hundreds of milliseconds. Source: libfreefare `mifare_desfire_format_picc`; recorded by
//! RFDoorLock and skjolber.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Authenticated, Inner, Session};
use crate::wire::{CommandCode, WireError, Writer};

/// FormatPICC (`FC`): see [`Session::format_picc`].
#[derive(Debug)]
pub struct FormatPicc;

impl Command for FormatPicc {
    type Output = ();
    const CODE: CommandCode = CommandCode::FormatPicc;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_picc_level()?;
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl Session<Authenticated> {
    /// Deletes all applications and files of the card. **There is no way back.**
    ///
    /// Needs the PICC master key. The session goes on.
    ///
    /// # Errors
    /// [`crate::error::Misuse::NotAtPiccLevel`] inside an application.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.format_picc().run(&mut reader)?;
    /// assert!(session.get_application_ids().run(&mut reader)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn format_picc(&mut self) -> Exchange<&mut Self, FormatPicc> {
        Exchange::new(self, Ok(FormatPicc))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session};
    use crate::error::Misuse;
    use crate::pcd::key::Key;
    use crate::wire::{AuthScheme, KeyFamily};

    /// proxmark3 issue 2961: handshake with the zero DES key, then FormatPICC.
    #[test]
    fn recorded() {
        let key = Key::zero(KeyFamily::Des);
        let (rnd_a, rnd_b) = ("0102030405060708", "99D2F4FF53EF2D54");
        let mut live = session(AuthScheme::Iso, &key, rnd_a, rnd_b, 0);
        native(live.format_picc(), &[("fc", "00 0A2819F80BA056A0")]).unwrap();
        assert!(!live.is_lost());
        let mut inside = session(AuthScheme::Iso, &key, rnd_a, rnd_b, 1);
        let error = refused_unsent(inside.format_picc());
        assert_eq!(error.kind, Misuse::NotAtPiccLevel.into());
    }
}
