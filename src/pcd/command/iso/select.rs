//! SELECT (`00 A4`): selects the card, an application, or a file by its ISO name.
//!
//! | P1 | data | selects |
//! |---|---|---|
//! | `00` | FID 2 or none | master file, application or file; none is the master file |
//! | `01` | FID 2 | application |
//! | `02` | FID 2 | file of the selected application |
//! | `03` | – | the master file |
//! | `04` | DF name 1–16 | application, or the card by its own name |
//!
//! P2 is `0C`: no file control information is asked for. Selecting an application or the card ends the
//! session, as SelectApplication does; a failure leaves the selection as it was.

use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::iso_exchange::{IsoCommand, IsoExchange};
use crate::pcd::session::{Inner, Level, Session, Unauthenticated};
use crate::wire::apdu::CommandApdu;
use crate::wire::{DfName, IsoFileId, IsoInstruction};

const NO_FCI: u8 = 0x0C;

/// What to select in place of the selected application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsoTarget {
    /// The card itself: P1 `03`.
    MasterFile,
    /// By FID, whatever it belongs to: P1 `00`. If it turns out to be a file of the selected
    /// application, the application stays selected; so it is refused while a session or a transaction
    /// is open, which would then go on unseen.
    FileId(IsoFileId),
    /// An application by FID: P1 `01`.
    Application(IsoFileId),
    /// An application by DF name: P1 `04`.
    Name(DfName),
}

/// SELECT (`00 A4`) of an application or the card: see [`Session::iso_select`].
#[derive(Debug)]
pub struct SelectApplicationByName {
    p1: u8,
    data: crate::wire::InlineBytes<16>,
    level: Level,
}

impl SelectApplicationByName {
    fn new(target: IsoTarget, inner: &Inner) -> Result<Self, Misuse> {
        let before = inner.place.level;
        let (p1, data, level) = match target {
            IsoTarget::MasterFile => (0x03, &[][..], Level::Picc),
            IsoTarget::FileId(id) if id == IsoFileId::MF => (0x00, &id.to_iso()[..], Level::Picc),
            IsoTarget::FileId(_) if !inner.nothing_open() => {
                return Err(Misuse::Invalid(
                    "by this form a file may be selected and the session stay open; name an application, or use iso_select_file",
                ));
            }
            IsoTarget::FileId(id) => {
                // A file of the card's root does not exist: from there it can only be an
                // application.
                let level = match before {
                    Level::Picc => Level::IsoNamed,
                    other => other.without_aid(),
                };
                (0x00, &id.to_iso()[..], level)
            }
            IsoTarget::Application(id) => (0x01, &id.to_iso()[..], Level::IsoNamed),
            IsoTarget::Name(ref name) => (0x04, name.as_bytes(), name_level(name)),
        };
        Ok(Self {
            p1,
            data: crate::wire::InlineBytes::new(data)?,
            level,
        })
    }
}

/// The card has a DF name too.
fn name_level(name: &DfName) -> Level {
    const CARD: [u8; 7] = [0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x00];
    if name.as_bytes() == CARD {
        Level::Picc
    } else {
        Level::IsoNamed
    }
}

fn no_data(len: usize) -> Result<(), ErrorKind> {
    match len {
        0 => Ok(()),
        received => Err(Malformed::Length {
            expected: 0,
            received,
        }
        .into()),
    }
}

impl IsoCommand for SelectApplicationByName {
    type Output = Session<Unauthenticated>;
    const INSTRUCTION: IsoInstruction = IsoInstruction::Select;

    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse> {
        Ok(CommandApdu {
            cla: 0x00,
            ins: Self::INSTRUCTION.to_byte(),
            p1: self.p1,
            p2: NO_FCI,
            data: &self.data,
            le: None,
        })
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<Self::Output, ErrorKind> {
        no_data(len)?;
        Ok(Session::at(self.level))
    }
}

/// SELECT (`00 A4`) of a file: see [`Session::iso_select_file`].
///
/// Its answer is a bare `9000` in every session: whoever controls the link can have another file
/// selected than the reader believes.
#[derive(Debug)]
pub struct SelectFile {
    id: [u8; 2],
}

impl IsoCommand for SelectFile {
    type Output = ();
    const INSTRUCTION: IsoInstruction = IsoInstruction::Select;

    fn check(&mut self, inner: &Inner) -> Result<(), Misuse> {
        inner.require_application()
    }

    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse> {
        Ok(CommandApdu {
            cla: 0x00,
            ins: Self::INSTRUCTION.to_byte(),
            p1: 0x02,
            p2: NO_FCI,
            data: &self.id,
            le: None,
        })
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        no_data(len)
    }
}

impl<S> Session<S> {
    /// Selects an application or the card by its ISO name. Ends the session, whatever its state;
    /// its keys are wiped before anything is sent.
    ///
    /// ```
    /// # use desfire_ev1::{Machine, Session, VirtualReader, command::IsoName, wire::*};
    /// use desfire_ev1::command::iso::IsoTarget;
    ///
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new();
    /// # let ndef = DfName::new(b"\xD2\x76\x00\x00\x85\x01\x01")?;
    /// # let name = IsoName { file_id: IsoFileId(0xE110), df_name: Some(ndef) };
    /// # let keys = KeyInfo::new(KeyFamily::Aes, 1)?;
    /// # session
    /// #     .create_application(Aid::new(1)?, KeySettings::DEFAULT, keys, Some(name))
    /// #     .run(&mut reader)?;
    /// let name = DfName::new(b"\xD2\x76\x00\x00\x85\x01\x01")?;
    /// let session = session.iso_select(IsoTarget::Name(name)).run(&mut reader)?;
    /// // The name does not tell the AID.
    /// assert_eq!(session.selected(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The card's `6A82` if there is nothing of this name.
    pub fn iso_select(
        self,
        target: IsoTarget,
    ) -> IsoExchange<Session<Unauthenticated>, SelectApplicationByName> {
        let command = SelectApplicationByName::new(target, &self.inner);
        drop(self);
        IsoExchange::new(Session::new(), command)
    }

    /// Selects a file of the selected application for the commands that follow. A session goes on.
    ///
    /// ```
    /// # use desfire_ev1::{Machine, Session, VirtualReader, command::IsoName, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new();
    /// # let name = IsoName { file_id: IsoFileId(0xE110), df_name: None };
    /// # let keys = KeyInfo::new(KeyFamily::Aes, 1)?.with_iso_file_ids();
    /// # let aid = Aid::new(1)?;
    /// # session.create_application(aid, KeySettings::DEFAULT, keys, Some(name)).run(&mut reader)?;
    /// # let mut session = session.select_application(aid).run(&mut reader)?;
    /// # let free = AccessRights::from_bytes([0xEE, 0xEE]);
    /// # session
    /// #     .create_std_data_file(
    /// #         FileNo::new(1)?, Some(IsoFileId(0xE103)), CommMode::Plain, free, U24::new(15)?,
    /// #     )
    /// #     .run(&mut reader)?;
    /// session.iso_select_file(IsoFileId(0xE103)).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iso_select_file(&mut self, id: IsoFileId) -> IsoExchange<&mut Self, SelectFile> {
        IsoExchange::new(self, Ok(SelectFile { id: id.to_iso() }))
    }
}

#[cfg(test)]
mod tests {
    use super::IsoTarget;
    use crate::error::{ErrorKind, Misuse, Outcome};
    use crate::pcd::command::testing::{iso, refused_unsent};
    use crate::pcd::session::Session;
    use crate::wire::{Aid, DfName, IsoFileId, StatusWord};

    #[test]
    fn all_forms() {
        let name = |name: &[u8]| IsoTarget::Name(DfName::new(name).unwrap());
        let cases = [
            (IsoTarget::MasterFile, "00a4030c", Some(Aid::PICC)),
            (
                IsoTarget::FileId(IsoFileId::MF),
                "00a4000c 02 3f00",
                Some(Aid::PICC),
            ),
            (
                IsoTarget::FileId(IsoFileId(0xE110)),
                "00a4000c 02 e110",
                None,
            ),
            (
                IsoTarget::Application(IsoFileId(0xE110)),
                "00a4010c 02 e110",
                None,
            ),
            (
                name(b"\xD2\x76\x00\x00\x85\x01\x01"),
                "00a4040c 07 d2760000850101",
                None,
            ),
            (
                name(b"\xD2\x76\x00\x00\x85\x01\x00"),
                "00a4040c 07 d2760000850100",
                Some(Aid::PICC),
            ),
        ];
        for (target, bytes, selected) in cases {
            let session = iso(Session::new().iso_select(target), bytes, "9000").unwrap();
            assert_eq!(session.selected(), selected);
            let error = iso(Session::new().iso_select(target), bytes, "6a82").unwrap_err();
            assert_eq!(error.kind, ErrorKind::RefusedIso(StatusWord::NOT_FOUND));
            assert_eq!(error.outcome, Outcome::Refused);
            assert!(iso(Session::new().iso_select(target), bytes, "77 9000").is_err());
            assert!(iso(Session::new().iso_select(target), bytes, "90").is_err());
        }
    }

    #[test]
    fn a_file() {
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let id = IsoFileId(0xE103);
        iso(session.iso_select_file(id), "00a4020c 02 e103", "9000").unwrap();
        let error = iso(session.iso_select_file(id), "00a4020c 02 e103", "6a82");
        assert_eq!(error.unwrap_err().outcome, Outcome::Refused);
        // A native status is named as such.
        let error = iso(session.iso_select_file(id), "00a4020c 02 e103", "91ae");
        assert!(error.unwrap_err().status().is_some());
        let error = refused_unsent(Session::new().iso_select_file(id));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
