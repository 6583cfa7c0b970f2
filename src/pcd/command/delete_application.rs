//! DeleteApplication (`DA`): removes an application with all its files.
//!
//! | request | reply |
//! |---|---|
//! | AID 3 | – |
//!
//! From the PICC level, under the PICC master key, always; the session goes on. (An application
//! can also delete itself under its own master key, which ends the session; that form is not
//! offered, as no recording shows its reply.) The memory is not given back before FormatPICC.
//! Source: libfreefare `mifare_desfire_delete_application`; recorded by RFDoorLock and desox.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Authenticated, Inner, Session};
use crate::wire::{Aid, CommandCode, WireError, Writer};

/// DeleteApplication (`DA`): see [`Session::delete_application`].
#[derive(Debug)]
pub struct DeleteApplication {
    aid: Aid,
}

impl Command for DeleteApplication {
    type Output = ();
    const CODE: CommandCode = CommandCode::DeleteApplication;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.put(&self.aid.to_bytes())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_picc_level()?;
        if self.aid.is_picc() {
            return Err(Misuse::Invalid("AID 000000 is the card itself"));
        }
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl Session<Authenticated> {
    /// Removes an application with all its files. **There is no way back.**
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.delete_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// assert!(session.get_application_ids().run(&mut reader)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_application(&mut self, aid: Aid) -> Exchange<&mut Self, DeleteApplication> {
        Exchange::new(self, Ok(DeleteApplication { aid }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session};
    use crate::error::{Authenticity, ErrorKind, Misuse};
    use crate::pcd::key::Key;
    use crate::wire::{Aid, AuthScheme, KeyFamily};

    #[test]
    fn literal_bytes() {
        let key = Key::zero(KeyFamily::Des);
        let live = |level| {
            session(
                AuthScheme::Legacy,
                &key,
                "0001020304050607",
                "08090a0b0c0d0e0f",
                level,
            )
        };
        let aid = Aid::new(0xAABBCC).unwrap();
        native(live(0).delete_application(aid), &[("da ccbbaa", "00")]).unwrap();
        let error = refused_unsent(live(1).delete_application(aid));
        assert_eq!(error.kind, Misuse::NotAtPiccLevel.into());
        refused_unsent(live(0).delete_application(Aid::PICC));
        // The same bare `00` proves nothing in an EV1 session.
        let mut live = session(
            AuthScheme::Iso,
            &key,
            "0001020304050607",
            "08090a0b0c0d0e0f",
            0,
        );
        let error = native(live.delete_application(aid), &[("da ccbbaa", "00")]).unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::Authenticity(Authenticity::MacMissing)
        );
        assert!(live.is_lost());
    }
}
