//! GetCardUID (`51`): the real UID, enciphered.
//!
//! | request | reply |
//! |---|---|
//! | – | UID 7, always enciphered: 16 bytes in every session |
//!
//! Any level, any key. It is the only way to the UID of a card in random-ID mode. Source:
//! libfreefare `mifare_desfire_get_card_uid`; recorded by desox (EV3).

use super::Command;
use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::channel::DataLength;
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Authenticated, Inner, Session};
use crate::wire::{CommMode, CommandCode, Uid, WireError, Writer};

const UID_LEN: usize = 7;

/// GetCardUID (`51`): see [`Session::get_card_uid`].
#[derive(Debug)]
pub struct GetCardUid {
    reply: [u8; UID_LEN],
}

impl Command for GetCardUid {
    type Output = Uid;
    const CODE: CommandCode = CommandCode::GetCardUid;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn protection(&self, _inner: &Inner) -> Result<Protection<'_>, Misuse> {
        Ok(Protection::read(
            CommMode::Enciphered,
            DataLength::Exactly(UID_LEN),
        ))
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<Uid, ErrorKind> {
        if len != UID_LEN {
            return Err(Malformed::Length {
                expected: UID_LEN,
                received: len,
            }
            .into());
        }
        Ok(Uid(self.reply))
    }
}

impl Session<Authenticated> {
    /// The card's UID, also in random-ID mode.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let uid = session.get_card_uid().run(&mut reader)?;
    /// assert_eq!(uid, session.get_version().run(&mut reader)?.uid);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_card_uid(&mut self) -> Exchange<&mut Self, GetCardUid> {
        Exchange::new(
            self,
            Ok(GetCardUid {
                reply: [0; UID_LEN],
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, session, wrapped};
    use crate::error::{Authenticity, ErrorKind, Outcome};
    use crate::pcd::key::Key;
    use crate::pcd::session::{Authenticated, Session};
    use crate::wire::{AuthScheme, KeyFamily, KeyNo, Status};
    use std::string::ToString as _;

    fn live() -> Session<Authenticated> {
        // desox, `metadata`: session key 32C28FDAFAF5AB2D.
        session(
            AuthScheme::Iso,
            &Key::zero(KeyFamily::Des),
            "32c28fda00000000",
            "faf5ab2d00000000",
            0,
        )
    }

    /// The commands of the recording before it, which move the IV on.
    fn up_to_uid() -> Session<Authenticated> {
        let mut live = live();
        native(
            live.get_key_settings(),
            &[("45", "00 0f01 1d5c40f4990acd9c")],
        )
        .unwrap();
        native(
            live.get_key_version(KeyNo::MASTER),
            &[("64 00", "00 00 0a361ce1ff0cdc9e")],
        )
        .unwrap();
        native(live.get_application_ids(), &[("6a", "00 9651c9dc43b6e417")]).unwrap();
        live
    }

    #[test]
    fn recorded() {
        let script = [("51", "00 baf665c87723c13876c10b993668481f")];
        let uid = native(up_to_uid().get_card_uid(), &script).unwrap();
        assert_eq!(uid.to_string(), "0464D59ADD1E90");
        assert!(wrapped(up_to_uid().get_card_uid(), &script).is_ok());
    }

    #[test]
    fn replies_that_prove_nothing() {
        let cases = [
            ("00", Authenticity::CiphertextLength),
            ("00 baf665c87723c138", Authenticity::CrcWrong),
            (
                "00 baf665c87723c13876c10b99366848",
                Authenticity::CiphertextLength,
            ),
            (
                "00 baf665c87723c13876c10b993668481e",
                Authenticity::CrcWrong,
            ),
            ("00 0464d59add1e90", Authenticity::CiphertextLength),
        ];
        for (reply, expected) in cases {
            let mut live = up_to_uid();
            let error = native(live.get_card_uid(), &[("51", reply)]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Authenticity(expected), "{reply}");
            assert_eq!(error.outcome, Outcome::Unknown);
            assert!(live.is_lost());
        }
    }

    /// A refused enciphered read is an error like any other.
    #[test]
    fn a_refused_enciphered_read() {
        let mut live = up_to_uid();
        let error = native(live.get_card_uid(), &[("51", "ae")]).unwrap_err();
        assert_eq!(error.status(), Some(Status::AuthenticationError));
        assert!(live.is_lost());
    }
}
