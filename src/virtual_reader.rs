//! A reader with a software card on it.
//!
//! For: running whole applications, examples and doctests without a reader. This is the one file
//! that knows both sides, and only by their public doors: it hands the reader side's bytes to the
//! card and the card's bytes back.

use alloc::vec::Vec;

use crate::pcd::{AsyncTransport, Link, LinkFormat, Transport};
use crate::picc::{Application, Card, File, FileContent, Records, Value};
use crate::wire::{
    Access, AccessRights, Aid, CommMode, FileNo, KeyFamily, KeyInfo, KeyNo, KeySettings, U24, Uid,
    ValueFlags,
};

/// A transport to a [`Card`] in the same process; wrapped framing unless told otherwise.
///
/// ```
/// use desfire_ev1::{Machine, Session, VirtualReader};
///
/// let mut reader = VirtualReader::default();
/// let version = Session::new().get_version().run(&mut reader)?;
/// assert_eq!(version.hardware.major, 1);
/// reader.card_mut().field_off();
/// assert!(Session::new().get_version().run(&mut reader).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct VirtualReader {
    card: Card,
    format: LinkFormat,
}

/// The card does not answer: it is out of the field or has lost power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the card does not answer; put it back on the reader")]
pub struct CardMute;

impl VirtualReader {
    /// The application of [`VirtualReader::demo`].
    pub const DEMO_AID: Aid = Aid::from_bytes([0x16, 0xDE, 0x00]);

    /// Puts a card on the reader, as it is.
    #[must_use]
    pub const fn new(card: Card) -> Self {
        Self {
            card,
            format: LinkFormat::WRAPPED,
        }
    }

    /// With another framing or limit.
    #[must_use]
    pub const fn with_format(mut self, format: LinkFormat) -> Self {
        self.format = format;
        self
    }

    /// A card to play with: a fresh EV1 8K with the application [`VirtualReader::DEMO_AID`], which
    /// has three AES keys of zeros and five files, all rights with key 0:
    ///
    /// | number | type | mode | |
    /// |---|---|---|---|
    /// | 0 | standard data | plain | 32 bytes, zero |
    /// | 1 | backup data | MACed | 32 bytes, zero |
    /// | 2 | value | enciphered | 1000, between 0 and 1 000 000, limited credit enabled |
    /// | 3 | linear record | MACed | 4 records of 16 bytes, empty |
    /// | 4 | cyclic record | enciphered | 4 records of 16 bytes, empty |
    #[must_use]
    pub fn demo() -> Self {
        let mut reader = Self::default();
        if let Ok(application) = demo_application() {
            // The card is fresh: there is room, and nothing to clash with. A test sees to it.
            let _ = reader.card.state_mut().put_application(application);
        }
        reader
    }

    /// The card.
    #[must_use]
    pub const fn card(&self) -> &Card {
        &self.card
    }

    /// The card, to be taken away, put back, or given a fault.
    pub const fn card_mut(&mut self) -> &mut Card {
        &mut self.card
    }

    /// Takes the card off the reader.
    #[must_use]
    pub fn into_card(self) -> Card {
        self.card
    }

    /// Hands one command to the card; no bytes if it does not answer.
    pub fn handle(&mut self, command: &[u8]) -> Vec<u8> {
        self.card.handle(command)
    }

    fn answer(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, CardMute> {
        let answer = self.card.handle(command);
        let room = reply.get_mut(..answer.len()).ok_or(CardMute)?;
        if answer.is_empty() {
            return Err(CardMute);
        }
        room.copy_from_slice(&answer);
        Ok(answer.len())
    }
}

fn demo_application() -> Result<Application, crate::wire::WireError> {
    let master = Access::Key(KeyNo::MASTER);
    let rights = AccessRights {
        read: master,
        write: master,
        read_write: master,
        change: master,
    };
    let file = |number, mode, content| {
        FileNo::new(number).map(|number| File::new(number, mode, rights, content))
    };
    let records = || -> Result<Records, crate::wire::WireError> {
        Ok(Records::new(U24::new(16)?, U24::new(4)?, Vec::new()))
    };
    let info = KeyInfo::new(KeyFamily::Aes, 3)?;
    let value = Value {
        lower: 0,
        upper: 1_000_000,
        value: 1000,
        limited_credit: 0,
        flags: ValueFlags::LIMITED_CREDIT,
    };
    Ok(
        Application::new(VirtualReader::DEMO_AID, KeySettings::DEFAULT, info)
            .with_file(file(
                0,
                CommMode::Plain,
                FileContent::Standard(alloc::vec![0; 32]),
            )?)
            .with_file(file(
                1,
                CommMode::Mac,
                FileContent::Backup(alloc::vec![0; 32]),
            )?)
            .with_file(file(2, CommMode::Enciphered, FileContent::Value(value))?)
            .with_file(file(3, CommMode::Mac, FileContent::Linear(records()?))?)
            .with_file(file(
                4,
                CommMode::Enciphered,
                FileContent::Cyclic(records()?),
            )?),
    )
}

impl Default for VirtualReader {
    /// A fresh EV1 8K in delivery state.
    fn default() -> Self {
        Self::new(Card::new(Uid([0x04, 0x5A, 0x21, 0x7A, 0x3C, 0x5B, 0x80])))
    }
}

impl Link for VirtualReader {
    type Error = CardMute;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for VirtualReader {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, CardMute> {
        self.answer(command, reply)
    }
}

impl AsyncTransport for VirtualReader {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, CardMute> {
        self.answer(command, reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demonstration_card_is_complete() {
        let reader = VirtualReader::demo();
        let application = reader.card().state().application(VirtualReader::DEMO_AID);
        assert_eq!(application.unwrap().files().len(), 5);
        assert_eq!(reader.card().state().check(), Ok(()));
    }

    #[test]
    fn a_reply_that_does_not_fit_is_an_error() {
        let mut reader = VirtualReader::default();
        let mut reply = [0; 4];
        let answer = Transport::exchange(&mut reader, &[0x90, 0x60, 0, 0, 0], &mut reply);
        assert_eq!(answer, Err(CardMute));
    }
}
