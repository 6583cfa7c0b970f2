//! READ RECORD (`00 B2`): reads records of a record file.
//!
//! | P1 | P2 | Le | reply |
//! |---|---|---|---|
//! | record number, from 1 | short file id << 3, + 4: that record, + 5: it and all after it | `00` | records |
//!
//! At most 59 bytes, 51 in an EV1 session, where the data carry an 8-byte CMAC. **No source tells in
//! which order an EV1 numbers its records**; ISO 7816-4 has the first written as number 1 in a linear
//! file and the newest in a cyclic one. [`Session::read_records`] has no such doubt.

use super::place::{ShortFileId, record_file};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::iso_exchange::{IsoCommand, IsoExchange, reply_room};
use crate::pcd::session::{Inner, Session};
use crate::wire::IsoInstruction;
use crate::wire::apdu::CommandApdu;

/// Which records, by number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordRange {
    /// This one.
    One(u8),
    /// This one and all after it.
    From(u8),
}

/// READ RECORD (`00 B2`): see [`Session::iso_read_record`].
pub struct ReadRecord<'b> {
    p1: u8,
    p2: u8,
    buffer: &'b mut [u8],
}

impl<'b> IsoCommand for ReadRecord<'b> {
    type Output = &'b [u8];
    const INSTRUCTION: IsoInstruction = IsoInstruction::ReadRecord;

    fn check(&mut self, inner: &Inner) -> Result<(), Misuse> {
        inner.require_application()?;
        let buffer = core::mem::take(&mut self.buffer);
        let len = buffer.len().min(reply_room(inner));
        self.buffer = buffer.get_mut(..len).unwrap_or_default();
        Ok(())
    }

    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse> {
        Ok(CommandApdu {
            cla: 0x00,
            ins: Self::INSTRUCTION.to_byte(),
            p1: self.p1,
            p2: self.p2,
            data: &[],
            le: Some(256),
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
    /// Reads records of the file of a short id, or of the selected one, into the front of `buffer`
    /// and returns them.
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
    /// #     .create_linear_record_file(
    /// #         FileNo::new(1)?, None, CommMode::Plain, free, U24::new(4)?, U24::new(3)?,
    /// #     )
    /// #     .run(&mut reader)?;
    /// use desfire_ev1::command::iso::{RecordRange, ShortFileId};
    ///
    /// let file = ShortFileId::new(1)?;
    /// session.iso_append_record(Some(file), b"one.").run(&mut reader)?;
    /// session.commit_transaction().run(&mut reader)?;
    /// let mut buffer = [0; 16];
    /// let machine = session.iso_read_record(Some(file), RecordRange::One(1), &mut buffer);
    /// assert_eq!(machine.run(&mut reader)?, b"one.");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::error::Malformed::TooLong`] if the records do not fit into the buffer.
    pub fn iso_read_record<'s, 'b>(
        &'s mut self,
        file: Option<ShortFileId>,
        records: RecordRange,
        buffer: &'b mut [u8],
    ) -> IsoExchange<&'s mut Self, ReadRecord<'b>> {
        let (p1, way) = match records {
            RecordRange::One(number) => (number, 0x04),
            RecordRange::From(number) => (number, 0x05),
        };
        let command = if p1 == 0 {
            Err(Misuse::Invalid("records are numbered from 1"))
        } else if buffer.is_empty() {
            Err(Misuse::Invalid("there is nothing to read"))
        } else {
            Ok(ReadRecord {
                p1,
                p2: record_file(file) | way,
                buffer,
            })
        };
        IsoExchange::new(self, command)
    }
}

#[cfg(test)]
mod tests {
    use super::{RecordRange, ShortFileId};
    use crate::error::{ErrorKind, Malformed, Misuse};
    use crate::pcd::command::testing::{iso, refused_unsent};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, StatusWord};

    #[test]
    fn literal_bytes() {
        let file = ShortFileId::new(3).ok();
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 4];
        let cases = [
            (file, RecordRange::One(1), "00b2 01 1c 00"),
            (None, RecordRange::From(2), "00b2 02 05 00"),
        ];
        for (file, records, bytes) in cases {
            let machine = session.iso_read_record(file, records, &mut buffer);
            assert_eq!(iso(machine, bytes, "0102 9000"), Ok(&[1, 2][..]));
            let machine = session.iso_read_record(file, records, &mut buffer);
            let error = iso(machine, bytes, "6985").unwrap_err();
            let expected = StatusWord::CONDITIONS_NOT_SATISFIED;
            assert_eq!(error.kind, ErrorKind::RefusedIso(expected));
        }
        let machine = session.iso_read_record(file, RecordRange::One(1), &mut buffer);
        let error = iso(machine, "00b2 01 1c 00", "0102030405 9000").unwrap_err();
        assert_eq!(error.kind, Malformed::TooLong.into());
    }

    #[test]
    fn what_cannot_be() {
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mut buffer = [0; 4];
        refused_unsent(session.iso_read_record(None, RecordRange::One(0), &mut buffer));
        refused_unsent(session.iso_read_record(None, RecordRange::One(1), &mut []));
        let mut picc = Session::new();
        let error = refused_unsent(picc.iso_read_record(None, RecordRange::One(1), &mut buffer));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
