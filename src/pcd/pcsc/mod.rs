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
mod card;
mod error;

use std::ffi::{CStr, CString};
use std::string::{String, ToString as _};
use std::time::{Duration, Instant};
use std::vec::Vec;

use pcsc::{Card, Context, Protocols, ReaderState, Scope, ShareMode, State};

pub use acr122u::{Acr122u, Buzzer, Led, PiccParameters};
pub use card::PcscCard;
pub use error::PcscError;

/// How long to wait before asking the service again.
const PAUSE: Duration = Duration::from_millis(25);

/// How long somebody else may look at a new card before the reader counts as busy: systems do that
/// for a moment.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

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
        PcscCard::new(card, text(name))
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

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
