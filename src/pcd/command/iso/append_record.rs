//! APPEND RECORD (`00 E2`): writes one whole record.
//!
//! | P1 | P2 | data | reply |
//! |---|---|---|---|
//! | `00` | short file id << 3 | one record, at most 55 bytes | – |
//!
//! Pending until CommitTransaction (no recording). No source tells whether and how the card proves
//! it in an EV1 session, so it is not offered there.

use super::place::{ShortFileId, record_file};
use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::iso_exchange::{IsoCommand, IsoExchange};
use crate::pcd::session::{Inner, Session};
use crate::wire::IsoInstruction;
use crate::wire::apdu::CommandApdu;

/// APPEND RECORD (`00 E2`): see [`Session::iso_append_record`].
pub struct AppendRecord<'d> {
    p2: u8,
    record: &'d [u8],
}

impl IsoCommand for AppendRecord<'_> {
    type Output = ();
    const INSTRUCTION: IsoInstruction = IsoInstruction::AppendRecord;

    fn check(&mut self, inner: &Inner) -> Result<(), Misuse> {
        inner.require_application()?;
        inner.require_no_ev1_session()
    }

    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse> {
        Ok(CommandApdu {
            cla: 0x00,
            ins: Self::INSTRUCTION.to_byte(),
            p1: 0x00,
            p2: self.p2,
            data: self.record,
            le: None,
        })
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        inner.place.changed();
        match len {
            0 => Ok(()),
            _ => Err(Malformed::TooLong.into()),
        }
    }
}

impl<S> Session<S> {
    /// Writes one whole record to the file of a short id, or to the selected one; see
    /// [`Session::iso_read_record`] for an example.
    ///
    /// # Errors
    /// [`Misuse::IsoWriteInSession`] in an EV1 session; [`Misuse::TransportTooNarrow`] for more
    /// than 55 bytes.
    pub fn iso_append_record<'s, 'd>(
        &'s mut self,
        file: Option<ShortFileId>,
        record: &'d [u8],
    ) -> IsoExchange<&'s mut Self, AppendRecord<'d>> {
        let command = if record.is_empty() {
            Err(Misuse::NothingToWrite)
        } else {
            Ok(AppendRecord {
                p2: record_file(file),
                record,
            })
        };
        IsoExchange::new(self, command)
    }
}

#[cfg(test)]
mod tests {
    use super::ShortFileId;
    use crate::error::{ErrorKind, Misuse};
    use crate::pcd::command::testing::{iso, refused_unsent, session};
    use crate::pcd::key::Key;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, AuthScheme, StatusWord};

    #[test]
    fn literal_bytes() {
        let file = ShortFileId::new(3).ok();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        assert!(!session.has_pending());
        iso(
            session.iso_append_record(file, &[1, 2]),
            "00e2 00 18 02 0102",
            "9000",
        )
        .unwrap();
        // A record always waits for the commit.
        assert!(session.has_pending());
        iso(
            session.iso_append_record(None, &[1, 2]),
            "00e2 00 00 02 0102",
            "9000",
        )
        .unwrap();
        let error = iso(
            session.iso_append_record(None, &[1]),
            "00e2 00 00 01 01",
            "6700",
        );
        let expected = ErrorKind::RefusedIso(StatusWord::WRONG_LENGTH);
        assert_eq!(error.unwrap_err().kind, expected);
    }

    #[test]
    fn what_cannot_be() {
        let mut free = Session::at_level(Aid::new(1).unwrap());
        refused_unsent(free.iso_append_record(None, &[]));
        refused_unsent(free.iso_append_record(None, &[0; 56]));
        let nonce = "000102030405060708090a0b0c0d0e0f";
        let mut live = session(AuthScheme::Aes, &Key::aes([0; 16]), nonce, nonce, 1);
        let error = refused_unsent(live.iso_append_record(None, &[1]));
        assert_eq!(error.kind, Misuse::IsoWriteInSession.into());
        let error = refused_unsent(Session::new().iso_append_record(None, &[1]));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
