//! GetDFNames (`6D`): the applications that have an ISO FID, with FID and DF name.
//!
//! | request | reply |
//! |---|---|
//! | – | one application a frame: AID 3, FID 2 (least significant byte first), DF name 0–16 |
//!
//! The name has no length of its own, so the end of a frame is the end of an entry. PICC level;
//! needs the PICC master key if listing is not free. Source: libfreefare
//! `mifare_desfire_get_df_names` and its live test.
//!
//! **In an EV1 session the bytes are proved to be the card's, but not the borders of the frames**, and with
//! them not where an entry ends: whoever sits on the link can make two applications of one, or one of
//! two, under a right CMAC. No rule for parsing mends that, since a name may hold any bytes; the list of
//! AIDs does not either, since an entry may be hidden in the name before it. To refuse the command in a
//! session would take it from cards that list to their master key only, so it is allowed. What is proved
//! of an application is what its own keys and GetApplicationIDs say: take names from here for finding and
//! showing applications, not for deciding whom to trust.
//!
//! In an EV1 session the joined frames carry one CMAC, as those of GetVersion do; that is the word
//! of one card simulation (proxmark3's), and no reader is known to check it. Here it is checked
//! like any other: on a card that does not send it the command fails and loses the session. Call it
//! before authentication where listing is free.

use super::Command;
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{Aid, CommandCode, DfName, IsoFileId, Reader, WireError, Writer};

/// The most applications a card has.
const MAX: usize = 28;

/// GetDFNames (`6D`): see [`Session::get_df_names`].
pub struct GetDfNames<'b> {
    buffer: &'b mut [u8],
    ends: [u16; MAX],
    frames: usize,
}

/// One application that ISO 7816-4 programs can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedApplication {
    /// Its AID.
    pub aid: Aid,
    /// Its ISO FID.
    pub file_id: IsoFileId,
    /// Its DF name, if it has one.
    pub df_name: Option<DfName>,
}

/// The applications that have an ISO FID, in the card's order: an iterator.
#[derive(Clone, Debug)]
pub struct DfNames<'b> {
    bytes: &'b [u8],
    ends: [u16; MAX],
    next: usize,
    count: usize,
}

impl NamedApplication {
    fn decode(entry: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(entry);
        let aid = Aid::from_bytes(reader.array()?);
        // As in GetApplicationIDs.
        if aid == Aid::PICC {
            let field = "AID in the list of applications";
            return Err(WireError::Value { field, value: 0 });
        }
        let file_id = IsoFileId::from_native(reader.array()?);
        let df_name = match reader.rest() {
            [] => None,
            name => Some(DfName::new(name)?),
        };
        Ok(Self {
            aid,
            file_id,
            df_name,
        })
    }
}

impl DfNames<'_> {
    fn entry(&self, index: usize) -> Option<&[u8]> {
        let end = |index: usize| self.ends.get(index).map(|end| usize::from(*end));
        let start = match index.checked_sub(1) {
            None => 0,
            Some(previous) => end(previous)?,
        };
        self.bytes.get(start..end(index)?)
    }
}

impl Iterator for DfNames<'_> {
    type Item = NamedApplication;

    fn next(&mut self) -> Option<NamedApplication> {
        if self.next == self.count {
            return None;
        }
        // All entries have been decoded once before anybody got this iterator.
        let entry = NamedApplication::decode(self.entry(self.next)?).ok();
        self.next += 1;
        entry
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count - self.next, Some(self.count - self.next))
    }
}

impl ExactSizeIterator for DfNames<'_> {}

impl<'b> Command for GetDfNames<'b> {
    type Output = DfNames<'b>;
    const CODE: CommandCode = CommandCode::GetDfNames;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_picc_level()?;
        Ok(Protection::STANDARD)
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn too_long(&self) -> ErrorKind {
        Misuse::AnswerTooLong.into()
    }

    fn frame_ends(&mut self, received: usize) {
        if let Some(end) = self.ends.get_mut(self.frames) {
            *end = u16::try_from(received).unwrap_or(u16::MAX);
        }
        self.frames += 1;
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<DfNames<'b>, ErrorKind> {
        // The last frame ends where the data do, before the MAC. Without any application there is
        // one empty frame.
        if len > 0 {
            self.frame_ends(len);
        }
        if self.frames > MAX {
            return Err(crate::error::Malformed::TooLong.into());
        }
        // All are decoded before the buffer is given away: until then an error wipes it.
        let decoded = DfNames {
            bytes: self.buffer.get(..len).unwrap_or_default(),
            ends: self.ends,
            next: 0,
            count: self.frames,
        };
        for index in 0..decoded.count {
            NamedApplication::decode(decoded.entry(index).unwrap_or_default())?;
        }
        Ok(DfNames {
            bytes: core::mem::take(&mut self.buffer)
                .get(..len)
                .unwrap_or_default(),
            ends: self.ends,
            next: 0,
            count: self.frames,
        })
    }
}

impl<S> Session<S> {
    /// The applications that have an ISO FID. `buffer` takes up to 21 bytes for each.
    ///
    /// **Even in an EV1 session nothing proves where one entry ends and the next begins**: the CMAC is
    /// over the bytes, and the end of an entry is the border of a frame. Somebody on the link can move it.
    /// Decide nothing on a name; [`Session::get_application_ids`] is proved whole.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, command::IsoName, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new();
    /// # let aid = Aid::new(1)?;
    /// # let name = IsoName {
    /// #     file_id: IsoFileId(0xE110),
    /// #     df_name: Some(DfName::new(b"\xD2\x76\x00\x00\x85\x01\x01")?),
    /// # };
    /// # let keys = KeyInfo::new(KeyFamily::Aes, 1)?;
    /// # session.create_application(aid, KeySettings::DEFAULT, keys, Some(name)).run(&mut reader)?;
    /// let mut buffer = [0; 28 * 21];
    /// let names = session.get_df_names(&mut buffer).run(&mut reader)?;
    /// for application in names {
    ///     assert_eq!((application.aid, application.file_id), (aid, IsoFileId(0xE110)));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::AnswerTooLong`] if the buffer is too small.
    pub fn get_df_names<'s, 'b>(
        &'s mut self,
        buffer: &'b mut [u8],
    ) -> Exchange<&'s mut Self, GetDfNames<'b>> {
        let command = GetDfNames {
            buffer,
            ends: [0; MAX],
            frames: 0,
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use super::NamedApplication;
    use crate::error::{Malformed, Misuse};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, DfName, IsoFileId};
    use std::vec::Vec;

    #[test]
    fn literal_bytes() {
        let script = [
            ("6d", "af 010000 10e1 d2760000850101"),
            ("af", "af 020000 11e1"),
            ("af", "00 030000 12e1 41"),
        ];
        let entry = |aid, id, name: &[u8]| NamedApplication {
            aid: Aid::new(aid).unwrap(),
            file_id: IsoFileId(id),
            df_name: DfName::new(name).ok(),
        };
        let expected = [
            entry(1, 0xE110, b"\xD2\x76\x00\x00\x85\x01\x01"),
            entry(2, 0xE111, b""),
            entry(3, 0xE112, b"A"),
        ];
        let mut buffer = [0; 64];
        let names = native(Session::new().get_df_names(&mut buffer), &script).unwrap();
        assert_eq!(names.len(), 3);
        let mut rest = names.clone();
        assert_eq!((rest.next(), rest.len()), (Some(expected[0]), 2));
        assert_eq!(names.collect::<Vec<_>>(), expected);
        assert!(wrapped(Session::new().get_df_names(&mut buffer), &script).is_ok());
        let none = native(Session::new().get_df_names(&mut buffer), &[("6d", "00")]).unwrap();
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn hostile_lists() {
        let mut buffer = [0; 64];
        let machine = &mut Session::new();
        let short = native(machine.get_df_names(&mut buffer), &[("6d", "00 01000010")]);
        assert!(short.is_err());
        assert_eq!(buffer[..4], [0; 4]);
        let machine = &mut Session::new();
        let card = native(
            machine.get_df_names(&mut buffer),
            &[("6d", "00 000000 10e1")],
        );
        assert!(card.is_err());
        let long = "00 010000 10e1 4141414141414141414141414141414141";
        let machine = &mut Session::new();
        assert!(native(machine.get_df_names(&mut buffer), &[("6d", long)]).is_err());
        // 29 entries.
        let mut script = Vec::from([("6d", "af 010000 10e1")]);
        script.extend([("af", "af 010000 10e1"); 27]);
        script.push(("af", "00 010000 10e1"));
        let mut buffer = [0; 600];
        let machine = &mut Session::new();
        let error = native(machine.get_df_names(&mut buffer), &script).unwrap_err();
        assert_eq!(error.kind, Malformed::TooLong.into());
        // 28 are as many as a card has.
        script.remove(1);
        let names = native(Session::new().get_df_names(&mut buffer), &script).unwrap();
        assert_eq!(names.len(), 28);
        let mut inside = Session::at_level(Aid::new(1).unwrap());
        let error = refused_unsent(inside.get_df_names(&mut buffer));
        assert_eq!(error.kind, Misuse::NotAtPiccLevel.into());
    }
}
