//! CreateApplication (`CA`): makes an application.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 3 | AID |
//! | 3 | 1 | key settings |
//! | 4 | 1 | key info: number and type of keys, whether files may have ISO FIDs |
//! | 5 | 2 | optional: ISO FID, least significant byte first |
//! | 7 | 1–16 | optional: DF name |
//!
//! PICC level; needs the PICC master key if creating is not free. All keys are the default key:
//! zero, version 0, unless SetConfiguration has set another. Source: libfreefare
//! `mifare_desfire_create_application*`; recorded by RFDoorLock and desox without FID and name.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{Aid, CommandCode, DfName, IsoFileId, KeyInfo, KeySettings, WireError, Writer};

/// How ISO 7816-4 programs find an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsoName {
    /// Unique on the card; not `0000`, `3F00`, `3FFF` or `FFFF`.
    pub file_id: IsoFileId,
    /// Unique on the card.
    pub df_name: Option<DfName>,
}

/// CreateApplication (`CA`): see [`Session::create_application`].
#[derive(Debug)]
pub struct CreateApplication {
    aid: Aid,
    settings: KeySettings,
    keys: KeyInfo,
    iso: Option<IsoName>,
}

impl Command for CreateApplication {
    type Output = ();
    const CODE: CommandCode = CommandCode::CreateApplication;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.put(&self.aid.to_bytes())?;
        header.u8(self.settings.to_byte())?;
        header.u8(self.keys.to_byte())?;
        if let Some(iso) = self.iso {
            header.put(&iso.file_id.to_native())?;
            if let Some(name) = iso.df_name {
                header.put(name.as_bytes())?;
            }
        }
        Ok(())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_picc_level()?;
        if self.aid.is_picc() {
            return Err(Misuse::Invalid("AID 000000 is the card itself"));
        }
        if let Some(iso) = self.iso
            && matches!(iso.file_id.0, 0x0000 | 0x3F00 | 0x3FFF | 0xFFFF)
        {
            return Err(Misuse::Invalid("this ISO FID is reserved"));
        }
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl<S> Session<S> {
    /// Makes an application.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let aid = Aid::new(0x00_AE16)?;
    /// let keys = KeyInfo::new(KeyFamily::Aes, 2)?;
    /// session.create_application(aid, KeySettings::DEFAULT, keys, None).run(&mut reader)?;
    /// assert_eq!(&session.get_application_ids().run(&mut reader)?[..], [aid]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The card's: `DE` if AID, FID or DF name exist, `CE` beyond 28 applications, `0E` without
    /// memory.
    pub fn create_application(
        &mut self,
        aid: Aid,
        settings: KeySettings,
        keys: KeyInfo,
        iso: Option<IsoName>,
    ) -> Exchange<&mut Self, CreateApplication> {
        let command = CreateApplication {
            aid,
            settings,
            keys,
            iso,
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use super::IsoName;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, DfName, IsoFileId, KeyInfo, KeySettings, Status};

    #[test]
    fn recorded() {
        // RFDoorLock, part 1: two DES keys, one 3K3DES application, one AES application.
        for (aid, keys, bytes) in [
            (0xDE16, 0x02, "ca 16de00 0f02"),
            (0xDE24, 0x42, "ca 24de00 0f42"),
            (0xAE16, 0x82, "ca 16ae00 0f82"),
        ] {
            let mut session = Session::new();
            let aid = Aid::new(aid).unwrap();
            let keys = KeyInfo::from_byte(keys);
            let settings = KeySettings::DEFAULT;
            native(
                session.create_application(aid, settings, keys, None),
                &[(bytes, "00")],
            )
            .unwrap();
            wrapped(
                session.create_application(aid, settings, keys, None),
                &[(bytes, "00")],
            )
            .unwrap();
            let error = native(
                session.create_application(aid, settings, keys, None),
                &[(bytes, "de")],
            );
            assert_eq!(error.unwrap_err().status(), Some(Status::DuplicateError));
        }
    }

    #[test]
    fn with_iso_name() {
        // AN11004: the NDEF application.
        let iso = IsoName {
            file_id: IsoFileId(0xE110),
            df_name: Some(DfName::new(b"\xD2\x76\x00\x00\x85\x01\x01").unwrap()),
        };
        native(
            Session::new().create_application(
                Aid::new(1).unwrap(),
                KeySettings::DEFAULT,
                KeyInfo::from_byte(0x21),
                Some(iso),
            ),
            &[("ca 010000 0f21 10e1 d2760000850101", "00")],
        )
        .unwrap();
    }

    #[test]
    fn what_cannot_be() {
        let keys = KeyInfo::from_byte(0x81);
        let create = |mut session: Session<_>, aid, file_id| {
            let iso = IsoName {
                file_id: IsoFileId(file_id),
                df_name: None,
            };
            let aid = Aid::new(aid).unwrap();
            refused_unsent(session.create_application(aid, KeySettings::DEFAULT, keys, Some(iso)))
        };
        create(Session::new(), 0, 0xE110);
        create(Session::new(), 1, 0x3F00);
        create(Session::at_level(Aid::new(1).unwrap()), 2, 0xE110);
    }
}
