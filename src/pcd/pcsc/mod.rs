//! Readers of the host's PC/SC service (feature `pcsc`).
//!
//! For: finding a reader and a card, holding the card alone, and carrying wrapped commands to it.
//! May know: PC/SC. May not know: what the commands say.
//!
//! - Commands travel wrapped, as short APDUs, by whatever of T=0 and T=1 the reader has made active.
//! - A card is connected **exclusively**: no other program, nor the system's own probing, gets
//!   between two frames of a handshake. Another program that holds it makes connecting fail with
//!   [`PcscError::ReaderBusy`].
//! - The connection ends with a reset, so that no authenticated card is left behind; also when a
//!   [`PcscCard`] is dropped.
//! - Nothing is ever connected anew by itself: after an error the card may be another one.
//! - A command without an answer is told as what it is: the service is asked for up to a second
//!   whether the card has left, has been reset, or is there and mute.
//!
//! The ATR of a DESFire is that of any card with its ATS and proves nothing: ask GetVersion.
//!
//! pcsc-lite 1.9 has a gap that this module keeps away from where it can. A connection that ends
//! with a reset after its card has left, but before the service has noticed (0.4 s), marks the reader
//! as empty; a card put on within that time is then overlooked until it is taken off and put on
//! again. Waiting as above closes the gap after a failed command; it stays open for a program that
//! lets go of a card which left while nothing was sent. [`PcscCard::keep_alive`] tells that one.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use desfire_ev1::{Machine, Session, pcsc::PcscContext};
//!
//! let context = PcscContext::new()?;
//! let mut card = context.wait_for_card(None, Duration::from_secs(10))?;
//! println!("{} with ATR {:02X?}", card.reader(), card.atr());
//! let version = Session::new().get_version().run(&mut card)?;
//! println!("DESFire EV1: {}", version.is_ev1());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acr122u;
mod error;

use std::ffi::{CStr, CString};
use std::string::{String, ToString as _};
use std::time::{Duration, Instant};
use std::vec::Vec;

use pcsc::{Card, Context, Protocols, ReaderState, Scope, ShareMode, State};

pub use acr122u::{Acr122u, Buzzer, Led, PiccParameters};
pub use error::PcscError;

use super::driver::{Link, Transport};
use super::exchange::LinkFormat;
use crate::wire::StatusWord;
use crate::wire::apdu::ResponseApdu;

/// How long to wait before asking the service again.
const PAUSE: Duration = Duration::from_millis(25);

/// How long somebody else may look at a new card before the reader counts as busy: systems do that
/// for a moment.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// After how long the service must have noticed that a card has left: pcsc-lite looks every 0.4 s
/// (`PCSCLITE_STATUS_POLL_RATE`) where a reader does not tell by itself.
const NOTICE: Duration = Duration::from_secs(1);

/// The host's PC/SC service.
pub struct PcscContext {
    context: Context,
}

impl PcscContext {
    /// Connects to the service.
    ///
    /// # Errors
    /// [`PcscError::NoService`] if it is not running.
    pub fn new() -> Result<Self, PcscError> {
        let context = Context::establish(Scope::User).map_err(PcscError::from_pcsc)?;
        Ok(Self { context })
    }

    /// The names of all readers.
    ///
    /// # Errors
    /// [`PcscError::NoReader`] if there is none.
    pub fn readers(&self) -> Result<Vec<String>, PcscError> {
        let names = self.names()?;
        Ok(names.iter().map(|name| text(name)).collect())
    }

    fn names(&self) -> Result<Vec<CString>, PcscError> {
        match self.context.list_readers_owned() {
            Ok(names) if names.is_empty() => Err(PcscError::no_reader()),
            Ok(names) => Ok(names),
            Err(pcsc::Error::NoReadersAvailable) => Err(PcscError::no_reader()),
            Err(error) => Err(PcscError::from_pcsc(error)),
        }
    }

    /// The readers whose name contains `wanted`, regardless of case; all if nothing is wanted.
    fn matching(&self, wanted: Option<&str>) -> Result<Vec<CString>, PcscError> {
        let names = self.names()?;
        let Some(wanted) = wanted else {
            return Ok(names);
        };
        let lower = wanted.to_lowercase();
        let matching: Vec<CString> = names
            .iter()
            .filter(|name| text(name).to_lowercase().contains(&lower))
            .cloned()
            .collect();
        if matching.is_empty() {
            return Err(PcscError::NoSuchReader {
                wanted: wanted.to_string(),
                readers: names.iter().map(|name| text(name)).collect(),
            });
        }
        Ok(matching)
    }

    /// Waits until a card lies on a reader whose name contains `reader` (on any, if none is named)
    /// and connects to it. With a time-out of zero it looks once.
    ///
    /// # Errors
    /// [`PcscError::NoCard`] after `timeout`; [`PcscError::ReaderGone`] if every such reader is
    /// unplugged meanwhile; [`PcscError::ReaderBusy`] if another program keeps the
    /// card for two seconds; otherwise as [`PcscContext::connect`].
    pub fn wait_for_card(
        &self,
        reader: Option<&str>,
        timeout: Duration,
    ) -> Result<PcscCard, PcscError> {
        let started = Instant::now();
        let mut busy_since = None;
        let mut states: Vec<ReaderState> = self
            .matching(reader)?
            .into_iter()
            .map(|name| ReaderState::new(name, State::UNAWARE))
            .collect();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            match self.context.get_status_change(left, &mut states) {
                Ok(()) | Err(pcsc::Error::Timeout) => {}
                // No card takes part in this: it is the service that has ended.
                Err(pcsc::Error::CommError) => return Err(PcscError::NoService),
                Err(error) => return Err(PcscError::from_pcsc(error)),
            }
            if states
                .iter()
                .all(|state| state.event_state().contains(State::UNKNOWN))
            {
                return Err(PcscError::ReaderGone);
            }
            let with_card = states
                .iter()
                .find(|state| state.event_state().contains(State::PRESENT));
            if let Some(state) = with_card {
                match self.open(state.name()) {
                    Err(PcscError::ReaderBusy)
                        if started.elapsed() < timeout
                            && busy_since.get_or_insert_with(Instant::now).elapsed()
                                < BUSY_PATIENCE =>
                    {
                        std::thread::sleep(PAUSE);
                        continue;
                    }
                    opened => return opened,
                }
            }
            if started.elapsed() >= timeout {
                return Err(PcscError::NoCard {
                    readers: states.iter().map(|state| text(state.name())).collect(),
                });
            }
            for state in &mut states {
                state.sync_current_state();
            }
        }
    }

    /// Connects to the card that lies on the first reader whose name contains `reader`.
    ///
    /// # Errors
    /// [`PcscError::NoSuchReader`], [`PcscError::NoCard`], [`PcscError::ReaderBusy`], and what else
    /// the service finds wrong.
    pub fn connect(&self, reader: &str) -> Result<PcscCard, PcscError> {
        let names = self.matching(Some(reader))?;
        match names.first() {
            Some(name) => self.open(name),
            None => Err(PcscError::no_reader()),
        }
    }

    fn open(&self, name: &CStr) -> Result<PcscCard, PcscError> {
        let card = self
            .context
            .connect(name, ShareMode::Exclusive, Protocols::ANY)
            .map_err(|error| match error {
                pcsc::Error::NoSmartcard => PcscError::NoCard {
                    readers: Vec::from([text(name)]),
                },
                error => PcscError::from_pcsc(error),
            })?;
        let atr = card
            .status2_owned()
            .map_err(PcscError::from_pcsc)?
            .atr()
            .to_vec();
        Ok(PcscCard {
            card,
            reader: text(name),
            atr,
            last_use: Instant::now(),
        })
    }

    /// An ACR122U or a relative of it, without a card: commands go as escape codes.
    ///
    /// # Errors
    /// [`PcscError::NoSuchReader`], and what else the service finds wrong.
    pub fn acr122u(&self, reader: &str) -> Result<Acr122u<Card>, PcscError> {
        let names = self.matching(Some(reader))?;
        let name = names.first().ok_or_else(PcscError::no_reader)?;
        let card = self
            .context
            .connect(name, ShareMode::Direct, Protocols::UNDEFINED)
            .map_err(PcscError::from_pcsc)?;
        Ok(Acr122u::new(card))
    }
}

fn deadline(last_use: Instant, limit: Option<Duration>) -> Option<Instant> {
    last_use.checked_add(limit?)
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

/// A card on a reader, held exclusively; a [`Transport`] with wrapped framing.
pub struct PcscCard {
    card: Card,
    reader: String,
    atr: Vec<u8>,
    last_use: Instant,
}

impl PcscCard {
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
        self.card.status2_owned().map_err(PcscError::from_pcsc)?;
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
    /// What the service finds wrong.
    pub fn disconnect(self) -> Result<(), PcscError> {
        self.card
            .disconnect(pcsc::Disposition::ResetCard)
            .map_err(|(_, error)| PcscError::from_pcsc(error))
    }

    fn transmit(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError> {
        match self.card.transmit(command, reply).map(<[u8]>::len) {
            Ok(0) => Err(self.explain(PcscError::EmptyReply)),
            Ok(len) => {
                self.last_use = Instant::now();
                Ok(len)
            }
            Err(error) => Err(match PcscError::from_pcsc(error) {
                silence @ PcscError::CardMute => self.explain(silence),
                error => error,
            }),
        }
    }

    /// Why no answer has come: the service at first only knows that none has.
    fn explain(&self, silence: PcscError) -> PcscError {
        let until = Instant::now() + NOTICE;
        explain(
            silence,
            || self.card.status2_owned().map(drop),
            || {
                std::thread::sleep(PAUSE);
                Instant::now() < until
            },
        )
    }
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
            Some(status) => Err(self.explain(PcscError::ReaderStatus(status))),
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
