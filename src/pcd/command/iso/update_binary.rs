//! UPDATE BINARY (`00 D6`): writes to a data file.
//!
//! | P1 P2 | data | reply |
//! |---|---|---|
//! | see [`BinaryPlace`] | 1 to 55 bytes | – |
//!
//! At once in a standard file, pending until CommitTransaction in a backup file. No source tells
//! whether and how the card proves it in an EV1 session, so it is not offered there.

use super::place::BinaryPlace;
use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::iso_exchange::{IsoCommand, IsoExchange};
use crate::pcd::session::{Inner, Session};
use crate::wire::IsoInstruction;
use crate::wire::apdu::CommandApdu;

/// UPDATE BINARY (`00 D6`): see [`Session::iso_update_binary`].
pub struct UpdateBinary<'d> {
    place: [u8; 2],
    data: &'d [u8],
}

impl IsoCommand for UpdateBinary<'_> {
    type Output = ();
    const INSTRUCTION: IsoInstruction = IsoInstruction::UpdateBinary;

    fn check(&mut self, inner: &Inner) -> Result<(), Misuse> {
        inner.require_application()?;
        inner.require_no_ev1_session()
    }

    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse> {
        let [p1, p2] = self.place;
        Ok(CommandApdu {
            cla: 0x00,
            ins: Self::INSTRUCTION.to_byte(),
            p1,
            p2,
            data: self.data,
            le: None,
        })
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        // It may have been a backup file.
        inner.place.changed();
        match len {
            0 => Ok(()),
            _ => Err(Malformed::TooLong.into()),
        }
    }
}

impl<S> Session<S> {
    /// Writes 1 to 55 bytes; see [`Session::iso_read_binary`] for an example.
    ///
    /// # Errors
    /// [`Misuse::IsoWriteInSession`] in an EV1 session; [`Misuse::TransportTooNarrow`] for more
    /// than 55 bytes.
    pub fn iso_update_binary<'s, 'd>(
        &'s mut self,
        place: BinaryPlace,
        data: &'d [u8],
    ) -> IsoExchange<&'s mut Self, UpdateBinary<'d>> {
        let command = if data.is_empty() {
            Err(Misuse::NothingToWrite)
        } else {
            place.p1_p2().map(|place| UpdateBinary { place, data })
        };
        IsoExchange::new(self, command)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ShortFileId;
    use super::BinaryPlace;
    use crate::error::{ErrorKind, Misuse};
    use crate::pcd::command::testing::{iso, refused_unsent, session};
    use crate::pcd::key::Key;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, AuthScheme, StatusWord};

    #[test]
    fn literal_bytes() {
        let place = BinaryPlace::Short {
            file: ShortFileId::new(3).unwrap(),
            offset: 9,
        };
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let bytes = "00d6 8309 02 aabb";
        iso(
            session.iso_update_binary(place, &[0xAA, 0xBB]),
            bytes,
            "9000",
        )
        .unwrap();
        // It may have been a backup file.
        assert!(session.has_pending());
        let error = iso(
            session.iso_update_binary(place, &[0xAA, 0xBB]),
            bytes,
            "6a82",
        );
        let expected = ErrorKind::RefusedIso(StatusWord::NOT_FOUND);
        assert_eq!(error.unwrap_err().kind, expected);
        assert!(
            iso(
                session.iso_update_binary(place, &[0xAA, 0xBB]),
                bytes,
                "00 9000"
            )
            .is_err()
        );
    }

    #[test]
    fn what_cannot_be() {
        let place = BinaryPlace::Selected { offset: 0 };
        let mut session_ = Session::at_level(Aid::new(1).unwrap());
        refused_unsent(session_.iso_update_binary(place, &[]));
        let error = refused_unsent(session_.iso_update_binary(place, &[0; 56]));
        assert!(matches!(
            error.kind,
            ErrorKind::Misuse(Misuse::TransportTooNarrow { .. })
        ));
        let nonce = "000102030405060708090a0b0c0d0e0f";
        let mut live = session(AuthScheme::Aes, &Key::aes([0; 16]), nonce, nonce, 1);
        let error = refused_unsent(live.iso_update_binary(place, &[1]));
        assert_eq!(error.kind, Misuse::IsoWriteInSession.into());
        let error = refused_unsent(Session::new().iso_update_binary(place, &[1]));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
