//! A card on a reader: what goes to it, and why an answer may be missing.

use std::string::String;
use std::time::{Duration, Instant};
use std::vec::Vec;

use pcsc::Card;

use super::{Acr122u, PAUSE, PcscError};
use crate::pcd::driver::{Link, Transport};
use crate::pcd::exchange::LinkFormat;
use crate::wire::StatusWord;
use crate::wire::apdu::ResponseApdu;

/// After how long the service must have noticed that a card has left: pcsc-lite looks every 0.4 s
/// (`PCSCLITE_STATUS_POLL_RATE`) where a reader does not tell by itself.
const NOTICE: Duration = Duration::from_secs(1);

/// A card on a reader, held exclusively; a [`Transport`] with wrapped framing.
pub struct PcscCard {
    /// Until it is known to have left.
    card: Option<Card>,
    reader: String,
    atr: Vec<u8>,
    last_use: Instant,
}

impl PcscCard {
    pub(super) fn new(card: Card, reader: String) -> Result<Self, PcscError> {
        let status = card.status2_owned().map_err(PcscError::from_pcsc)?;
        Ok(Self {
            atr: status.atr().to_vec(),
            card: Some(card),
            reader,
            last_use: Instant::now(),
        })
    }

    /// After how much silence the host resets a card that a program holds: Windows after five
    /// seconds. (Its documentation says so of a card held in a transaction; for one held exclusively
    /// it is the careful reading.) pcsc-lite never does.
    pub const IDLE_LIMIT: Option<Duration> = if cfg!(windows) {
        Some(Duration::from_secs(5))
    } else {
        None
    };

    /// The reader's name.
    #[must_use]
    pub fn reader(&self) -> &str {
        &self.reader
    }

    /// The answer to reset: `3B 81 80 01 80 80` for a DESFire EV1 with its own ATS.
    #[must_use]
    pub fn atr(&self) -> &[u8] {
        &self.atr
    }

    /// What the reader took for the UID at activation (`FF CA 00 00 00`): seven bytes, or four
    /// random ones in random-ID mode. Nothing proves it.
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if the reader cannot tell.
    pub fn uid(&mut self) -> Result<Vec<u8>, PcscError> {
        self.reader_data(0x00)
    }

    /// The answer to select (`FF CA 01 00 00`), its own length first.
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if the reader cannot tell.
    pub fn ats(&mut self) -> Result<Vec<u8>, PcscError> {
        self.reader_data(0x01)
    }

    fn reader_data(&mut self, p1: u8) -> Result<Vec<u8>, PcscError> {
        let mut reply = [0; 64];
        let len = self.transmit(&[0xFF, 0xCA, p1, 0x00, 0x00], &mut reply)?;
        let reply = ResponseApdu::parse(reply.get(..len).unwrap_or_default())
            .map_err(|_| PcscError::EmptyReply)?;
        if reply.sw != StatusWord::OK {
            return Err(PcscError::ReaderStatus(reply.sw));
        }
        Ok(reply.data.to_vec())
    }

    /// Tells the service that the card is still wanted, without a byte to the card: for long
    /// pauses, such as that of a remote key holder.
    ///
    /// # Errors
    /// The card is gone or has been reset meanwhile; a session with it is lost.
    pub fn keep_alive(&mut self) -> Result<(), PcscError> {
        self.ask(|card| status(card).map_err(PcscError::from_pcsc))?;
        self.last_use = Instant::now();
        Ok(())
    }

    /// When the host would have reset the card if nothing is sent and [`PcscCard::keep_alive`] is
    /// not called; nothing if it does not do so.
    #[must_use]
    pub fn idle_deadline(&self) -> Option<Instant> {
        deadline(self.last_use, Self::IDLE_LIMIT)
    }

    /// The reader's own functions, if it is an ACR122U or a relative of it, by pseudo-APDUs.
    pub const fn acr122u(&mut self) -> Acr122u<&mut Self> {
        Acr122u::new(self)
    }

    /// Resets the card and lets go of it. Dropping does the same, and says nothing.
    ///
    /// # Errors
    /// [`PcscError::CardRemoved`], and what else the service finds wrong.
    pub fn disconnect(self) -> Result<(), PcscError> {
        let card = self.card.ok_or(PcscError::CardRemoved)?;
        card.disconnect(pcsc::Disposition::ResetCard)
            .map_err(|(_, error)| PcscError::from_pcsc(error))
    }

    pub(super) fn transmit(
        &mut self,
        command: &[u8],
        reply: &mut [u8],
    ) -> Result<usize, PcscError> {
        let answer = self.ask(|card| {
            let answer = card.transmit(command, reply).map(<[u8]>::len);
            match answer.map_err(PcscError::from_pcsc) {
                Ok(0) => Err(why(card, PcscError::EmptyReply)),
                Err(PcscError::CardMute) => Err(why(card, PcscError::CardMute)),
                answer => answer,
            }
        });
        if answer.is_ok() {
            self.last_use = Instant::now();
        }
        answer
    }

    /// Asks something of the service. A card that turns out to have left is let go of at once, and without
    /// the reset, which would hit another one that lies there by now and confuse pcsc-lite about the two.
    fn ask<T>(&mut self, what: impl FnOnce(&Card) -> Result<T, PcscError>) -> Result<T, PcscError> {
        let card = self.card.as_ref().ok_or(PcscError::CardRemoved)?;
        let answer = what(card);
        if matches!(answer, Err(PcscError::CardRemoved))
            && let Some(card) = self.card.take()
        {
            let _ = card.disconnect(pcsc::Disposition::LeaveCard);
        }
        answer
    }
}

fn status(card: &Card) -> Result<(), pcsc::Error> {
    card.status2_owned().map(drop)
}

/// Why no answer has come: the service at first only knows that none has.
fn why(card: &Card, silence: PcscError) -> PcscError {
    let until = Instant::now() + NOTICE;
    explain(
        silence,
        || status(card),
        || {
            std::thread::sleep(PAUSE);
            Instant::now() < until
        },
    )
}

/// Asks until the service knows of a reason, or until it is no use to wait on.
fn explain(
    silence: PcscError,
    ask: impl Fn() -> Result<(), pcsc::Error>,
    wait: impl Fn() -> bool,
) -> PcscError {
    loop {
        match ask().map_err(PcscError::from_pcsc) {
            Err(
                reason @ (PcscError::CardRemoved
                | PcscError::CardReset
                | PcscError::ReaderGone
                | PcscError::NoService),
            ) => return reason,
            Ok(()) | Err(_) if wait() => {}
            Ok(()) | Err(_) => return silence,
        }
    }
}

impl Link for PcscCard {
    type Error = PcscError;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for PcscCard {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError> {
        let len = self.transmit(command, reply)?;
        match reader_status(reply.get(..len).unwrap_or_default()) {
            // Mostly because the card has left.
            Some(status) => self.ask(|card| Err(why(card, PcscError::ReaderStatus(status)))),
            None => Ok(len),
        }
    }
}

/// A DESFire has no status word 63xx: where one comes, it is the reader that speaks.
fn reader_status(reply: &[u8]) -> Option<StatusWord> {
    match reply {
        [0x63, low] => Some(StatusWord(u16::from_be_bytes([0x63, *low]))),
        _ => None,
    }
}

fn deadline(last_use: Instant, limit: Option<Duration>) -> Option<Instant> {
    last_use.checked_add(limit?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// What the service says, one answer after the other; the last one for ever.
    fn explained(silence: PcscError, answers: &[Result<(), pcsc::Error>]) -> (PcscError, usize) {
        let asked = Cell::new(0);
        let error = explain(
            silence,
            || {
                asked.set(asked.get() + 1);
                answers[asked.get().min(answers.len()) - 1]
            },
            || asked.get() < 10,
        );
        (error, asked.get())
    }

    #[test]
    fn silence_is_explained() {
        use pcsc::Error;
        let mute = PcscError::CardMute;
        for (answers, error, asked) in [
            (&[Err(Error::RemovedCard)][..], PcscError::CardRemoved, 1),
            (
                &[Ok(()), Ok(()), Err(Error::RemovedCard)],
                PcscError::CardRemoved,
                3,
            ),
            (&[Ok(()), Err(Error::ResetCard)], PcscError::CardReset, 2),
            (&[Err(Error::ReaderUnavailable)], PcscError::ReaderGone, 1),
            (&[Err(Error::NoService)], PcscError::NoService, 1),
            (&[Ok(())], PcscError::CardMute, 10),
            // Of no use.
            (&[Err(Error::CommError)], PcscError::CardMute, 10),
        ] {
            assert_eq!(explained(mute.clone(), answers), (error, asked));
        }
        let (error, _) = explained(PcscError::EmptyReply, &[Ok(())]);
        assert_eq!(error, PcscError::EmptyReply);
    }

    #[test]
    fn the_reader_is_not_the_card() {
        assert_eq!(reader_status(&[0x63, 0x00]), Some(StatusWord(0x6300)));
        assert_eq!(reader_status(&[0x63, 0x27]), Some(StatusWord(0x6327)));
        for card in [
            &[0x91, 0x63][..],
            &[0x63],
            &[0x63, 0x00, 0x91, 0x00],
            &[0x90, 0x00],
            &[],
        ] {
            assert_eq!(reader_status(card), None, "{card:02X?}");
        }
    }

    #[test]
    fn a_deadline_counts_from_the_last_use() {
        let now = Instant::now();
        let limit = Duration::from_secs(5);
        assert_eq!(deadline(now, Some(limit)), Some(now + limit));
        assert_eq!(deadline(now, None), None);
        assert_eq!(PcscCard::IDLE_LIMIT.is_some(), cfg!(windows));
    }
}
