//! READ BINARY (`00 B0`): reads from a data file.
//!
//! | P1 P2 | Le | reply |
//! |---|---|---|
//! | see [`BinaryPlace`] | how many bytes | data |
//!
//! At most 59 bytes at a time, 51 in an EV1 session, where the data carry an 8-byte CMAC.

use super::place::BinaryPlace;
use crate::error::{ErrorKind, Misuse};
use crate::pcd::iso_exchange::{IsoCommand, IsoExchange, reply_room};
use crate::pcd::session::{Inner, Session};
use crate::wire::IsoInstruction;
use crate::wire::apdu::CommandApdu;

/// READ BINARY (`00 B0`): see [`Session::iso_read_binary`].
///
/// In an EV1 session the CMAC proves that the data are the card's; it does not cover P1 and P2, so
/// whoever controls the link can have other bytes read. [`Session::read_data`] does not have this
/// weakness.
pub struct ReadBinary<'b> {
    place: [u8; 2],
    buffer: &'b mut [u8],
}

impl<'b> IsoCommand for ReadBinary<'b> {
    type Output = &'b [u8];
    const INSTRUCTION: IsoInstruction = IsoInstruction::ReadBinary;

    fn check(&mut self, inner: &Inner) -> Result<(), Misuse> {
        inner.require_application()?;
        let buffer = core::mem::take(&mut self.buffer);
        let len = buffer.len().min(reply_room(inner));
        self.buffer = buffer.get_mut(..len).unwrap_or_default();
        Ok(())
    }

    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse> {
        let [p1, p2] = self.place;
        Ok(CommandApdu {
            cla: 0x00,
            ins: Self::INSTRUCTION.to_byte(),
            p1,
            p2,
            data: &[],
            le: u16::try_from(self.buffer.len()).ok(),
        })
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<&'b [u8], ErrorKind> {
        let buffer = core::mem::take(&mut self.buffer);
        Ok(buffer.get(..len).unwrap_or_default())
    }
}

impl<S> Session<S> {
    /// Reads exactly as many bytes as `buffer` holds, but at most 59 (51 in an EV1 session), into its
    /// front and returns them. For more, call again with a greater offset.
    ///
    /// ```
    /// # use desfire_ev1::{Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new();
    /// # let keys = KeyInfo::new(KeyFamily::Aes, 1)?;
    /// # let aid = Aid::new(1)?;
    /// # session.create_application(aid, KeySettings::DEFAULT, keys, None).run(&mut reader)?;
    /// # let mut session = session.select_application(aid).run(&mut reader)?;
    /// # let free = AccessRights::from_bytes([0xEE, 0xEE]);
    /// # session
    /// #     .create_std_data_file(FileNo::new(1)?, None, CommMode::Plain, free, U24::new(15)?)
    /// #     .run(&mut reader)?;
    /// use desfire_ev1::command::iso::{BinaryPlace, ShortFileId};
    ///
    /// let place = BinaryPlace::Short { file: ShortFileId::new(1)?, offset: 2 };
    /// session.iso_update_binary(place, b"hello").run(&mut reader)?;
    /// let mut buffer = [0; 5];
    /// assert_eq!(session.iso_read_binary(place, &mut buffer).run(&mut reader)?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The card's `6Cxx` if the file has only `xx` bytes more.
    pub fn iso_read_binary<'s, 'b>(
        &'s mut self,
        place: BinaryPlace,
        buffer: &'b mut [u8],
    ) -> IsoExchange<&'s mut Self, ReadBinary<'b>> {
        let command = if buffer.is_empty() {
            Err(Misuse::Invalid("there is nothing to read"))
        } else {
            place.p1_p2().map(|place| ReadBinary { place, buffer })
        };
        IsoExchange::new(self, command)
    }
}

#[cfg(test)]
mod tests {
    use super::BinaryPlace;
    use crate::error::{Authenticity, ErrorKind, Malformed, Misuse};
    use crate::pcd::command::testing::{iso, refused_unsent, session};
    use crate::pcd::key::Key;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, AuthScheme, StatusWord};
    use std::format;

    const PLACE: BinaryPlace = BinaryPlace::Selected { offset: 0x0102 };

    #[test]
    fn literal_bytes() {
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 3];
        let data = iso(
            session.iso_read_binary(PLACE, &mut buffer),
            "00b0 0102 03",
            "0a0b0c 9000",
        );
        assert_eq!(data, Ok(&[10, 11, 12][..]));
        // No more than a frame is asked for, whatever the buffer.
        let mut long = [0; 100];
        let reply = format!("{} 9000", "55".repeat(59));
        let data = iso(
            session.iso_read_binary(PLACE, &mut long),
            "00b0 0102 3b",
            &reply,
        );
        assert_eq!(data.unwrap().len(), 59);
        let error = iso(
            session.iso_read_binary(PLACE, &mut buffer),
            "00b0 0102 03",
            "6982",
        );
        let expected = ErrorKind::RefusedIso(StatusWord::SECURITY_NOT_SATISFIED);
        assert_eq!(error.unwrap_err().kind, expected);
        let error = iso(
            session.iso_read_binary(PLACE, &mut buffer),
            "00b0 0102 03",
            "0a0b0c0d 9000",
        );
        assert_eq!(error.unwrap_err().kind, Malformed::TooLong.into());
        assert_eq!(buffer, [0; 3]);
    }

    #[test]
    fn in_an_ev1_session_the_mac_must_be_there() {
        let key = Key::aes([0; 16]);
        let nonce = "000102030405060708090a0b0c0d0e0f";
        for (reply, expected) in [
            ("0a0b0c 9000", Authenticity::MacMissing),
            ("0a0b0c 0102030405060708 9000", Authenticity::MacWrong),
        ] {
            let mut live = session(AuthScheme::Aes, &key, nonce, nonce, 1);
            let mut buffer = [0; 100];
            let machine = live.iso_read_binary(PLACE, &mut buffer);
            let error = iso(machine, "00b0 0102 33", reply).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Authenticity(expected));
            assert_eq!(buffer, [0; 100]);
            assert!(live.is_lost());
        }
    }

    #[test]
    fn what_cannot_be() {
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 3];
        refused_unsent(session.iso_read_binary(PLACE, &mut []));
        let far = BinaryPlace::Selected { offset: 0x8000 };
        refused_unsent(session.iso_read_binary(far, &mut buffer));
        let error = refused_unsent(Session::new().iso_read_binary(PLACE, &mut buffer));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
