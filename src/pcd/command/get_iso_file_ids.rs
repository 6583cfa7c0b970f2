//! GetISOFileIDs (`61`): the ISO FIDs of the application's files.
//!
//! | request | reply |
//! |---|---|
//! | – | n × FID 2, least significant byte first, in order of creation; 32 at most |
//!
//! Files without FID are left out. With none to list a card may answer `F0`. Source: libfreefare
//! `mifare_desfire_get_iso_file_ids`.

use super::Command;
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, IsoFileId, Reader, WireError, Writer};

/// The most files an application has.
const MAX: usize = 32;

/// GetISOFileIDs (`61`): see [`Session::get_iso_file_ids`].
#[derive(Debug)]
pub struct GetIsoFileIds {
    reply: [u8; 2 * MAX],
}

/// The ISO FIDs of an application's files, in order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsoFileIds {
    ids: [IsoFileId; MAX],
    len: usize,
}

impl core::ops::Deref for IsoFileIds {
    type Target = [IsoFileId];

    fn deref(&self) -> &[IsoFileId] {
        self.ids.get(..self.len).unwrap_or_default()
    }
}

impl Command for GetIsoFileIds {
    type Output = IsoFileIds;
    const CODE: CommandCode = CommandCode::GetIsoFileIds;

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

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<IsoFileIds, ErrorKind> {
        let mut reader = Reader::new(self.reply.get(..len).unwrap_or_default());
        let mut list = IsoFileIds {
            ids: [IsoFileId(0); MAX],
            len: len / 2,
        };
        for id in list.ids.iter_mut().take(len / 2) {
            *id = IsoFileId::from_native(reader.array()?);
        }
        reader.finish()?;
        Ok(list)
    }
}

impl<S> Session<S> {
    /// The ISO FIDs of the application's files.
    ///
    /// ```
    /// # use desfire_ev1::{Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let mut session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// // The demonstration files have none.
    /// let error = session.get_iso_file_ids().run(&mut reader).unwrap_err();
    /// assert_eq!(error.protocol().and_then(|error| error.status()), Some(Status::FileNotFound));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_iso_file_ids(&mut self) -> Exchange<&mut Self, GetIsoFileIds> {
        Exchange::new(
            self,
            Ok(GetIsoFileIds {
                reply: [0; 2 * MAX],
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent};
    use crate::error::Misuse;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, IsoFileId};

    #[test]
    fn literal_bytes() {
        let aid = Aid::new(1).unwrap();
        let ids = native(
            Session::at_level(aid).get_iso_file_ids(),
            &[("61", "af 03e1"), ("af", "00 04e1")],
        )
        .unwrap();
        assert_eq!(&ids[..], [IsoFileId(0xE103), IsoFileId(0xE104)]);
        assert!(
            native(
                Session::at_level(aid).get_iso_file_ids(),
                &[("61", "00 03")]
            )
            .is_err()
        );
        let error = refused_unsent(Session::new().get_iso_file_ids());
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
