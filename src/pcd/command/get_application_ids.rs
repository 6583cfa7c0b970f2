//! GetApplicationIDs (`6A`): which applications there are.
//!
//! | request | reply |
//! |---|---|
//! | – | n × AID 3, in order of creation; 28 at most, so up to two frames |
//!
//! PICC level; needs the PICC master key if listing is not free. A frame need not end between two
//! AIDs. Source: libfreefare `mifare_desfire_get_application_ids`; recorded by RFDoorLock.

use super::Command;
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{Aid, CommandCode, Reader, WireError, Writer};

/// The most applications a card has.
const MAX: usize = 28;

/// GetApplicationIDs (`6A`): see [`Session::get_application_ids`].
#[derive(Debug)]
pub struct GetApplicationIds {
    reply: [u8; 3 * MAX],
}

/// The applications of a card, in order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationIds {
    aids: [Aid; MAX],
    len: usize,
}

impl core::ops::Deref for ApplicationIds {
    type Target = [Aid];

    fn deref(&self) -> &[Aid] {
        self.aids.get(..self.len).unwrap_or_default()
    }
}

impl Command for GetApplicationIds {
    type Output = ApplicationIds;
    const CODE: CommandCode = CommandCode::GetApplicationIds;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_picc_level()?;
        Ok(Protection::STANDARD)
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<ApplicationIds, ErrorKind> {
        let mut reader = Reader::new(self.reply.get(..len).unwrap_or_default());
        let mut ids = ApplicationIds {
            aids: [Aid::PICC; MAX],
            len: len / 3,
        };
        for aid in ids.aids.iter_mut().take(len / 3) {
            *aid = Aid::from_bytes(reader.array()?);
            // Whoever selects what is listed would stand before the whole card.
            if *aid == Aid::PICC {
                let field = "AID in the list of applications";
                return Err(WireError::Value { field, value: 0 }.into());
            }
        }
        reader.finish()?;
        Ok(ids)
    }
}

impl<S> Session<S> {
    /// The applications of the card.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader};
    ///
    /// let mut reader = VirtualReader::demo();
    /// let aids = Session::new().get_application_ids().run(&mut reader)?;
    /// assert_eq!(&aids[..], [VirtualReader::DEMO_AID]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](crate::error::Malformed) if [`Aid::PICC`] is among them, which is no application.
    pub fn get_application_ids(&mut self) -> Exchange<&mut Self, GetApplicationIds> {
        Exchange::new(
            self,
            Ok(GetApplicationIds {
                reply: [0; 3 * MAX],
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent};
    use crate::error::{ErrorKind, Malformed, Misuse};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, WireError};
    use std::format;

    #[test]
    fn literal_bytes() {
        let script = [("6a", "00 16de00 24de00 16ae00 ccbbaa")];
        let aids = native(Session::new().get_application_ids(), &script).unwrap();
        let numbers: std::vec::Vec<u32> = aids.iter().map(|aid| aid.number()).collect();
        assert_eq!(numbers, [0xDE16, 0xDE24, 0xAE16, 0xAABBCC]);
        assert!(
            native(Session::new().get_application_ids(), &[("6a", "00")])
                .unwrap()
                .is_empty()
        );
        let script = [("6a", "00 16de00 000000")];
        let error = native(Session::new().get_application_ids(), &script).unwrap_err();
        let value = WireError::Value {
            field: "AID in the list of applications",
            value: 0,
        };
        assert_eq!(error.kind, ErrorKind::Malformed(Malformed::Wire(value)));
        let inside = &mut Session::at_level(Aid::new(1).unwrap());
        let error = refused_unsent(inside.get_application_ids());
        assert_eq!(error.kind, Misuse::NotAtPiccLevel.into());
    }

    #[test]
    fn any_split_is_taken_and_nothing_beyond_28() {
        let many = "010203".repeat(28);
        let (first, second) = many.split_at(2 * 59);
        let script = [
            ("6a", &*format!("af{first}")),
            ("af", &*format!("00{second}")),
        ];
        let aids = native(Session::new().get_application_ids(), &script).unwrap();
        assert_eq!(aids.len(), 28);
        let script = [
            ("6a", &*format!("af{first}")),
            ("af", &*format!("00{second}010203")),
        ];
        let error = native(Session::new().get_application_ids(), &script).unwrap_err();
        assert_eq!(error.kind, Malformed::TooLong.into());
        let error = native(Session::new().get_application_ids(), &[("6a", "00 0102")]).unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::Malformed(Malformed::Wire(WireError::Trailing { count: 2 }))
        );
    }
}
