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
//!   [`PcscCard`] is dropped. A card that is known to have left is let go of without one.
//! - What another program has left on a card, a session or half a command, is still there when it is
//!   connected. SelectApplication ends both; if it is refused with
//!   [`Status::CommandAborted`](crate::wire::Status::CommandAborted), the second one will do.
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
//! lets go of a card which left while nothing was sent. [`PcscCard::keep_alive`] tells that one, and
//! then there is no reset.
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
    /// [`PcscError::NoService`] if it is not running; [`PcscError::NotAllowed`].
    pub fn new() -> Result<Self, PcscError> {
        let context = Context::establish(Scope::User).map_err(PcscError::of_service)?;
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
            Err(error) => Err(PcscError::of_service(error)),
        }
    }

    /// The readers that are meant by `wanted`; all if nothing is wanted.
    fn matching(&self, wanted: Option<&str>) -> Result<Vec<CString>, PcscError> {
        let names = self.names()?;
        match wanted {
            Some(wanted) => meant(wanted, names),
            None => Ok(names),
        }
    }

    /// Waits until a card lies on a reader that `reader` names, as in [`PcscContext::connect`] (on
    /// any, if none is named), and connects to it. With a time-out of zero it looks once. Of several
    /// cards it takes the first that no other program holds.
    ///
    /// # Errors
    /// [`PcscError::NoCard`] after `timeout`; [`PcscError::ReaderGone`] if every such reader is
    /// unplugged meanwhile; [`PcscError::ReaderBusy`] if other programs keep all cards that there are
    /// for two seconds; otherwise as [`PcscContext::connect`].
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
                Err(error) => return Err(PcscError::of_service(error)),
            }
            if states
                .iter()
                .all(|state| state.event_state().contains(State::UNKNOWN))
            {
                return Err(PcscError::ReaderGone);
            }
            let (mut busy, mut gone) = (false, false);
            for state in &states {
                if state.event_state().contains(State::PRESENT) {
                    match self.open(state.name()) {
                        Err(PcscError::ReaderBusy) => busy = true,
                        // Lifted off again meanwhile; there is time for another try.
                        Err(PcscError::NoCard { .. }) => gone = true,
                        opened => return opened,
                    }
                }
            }
            if busy {
                let since = busy_since.get_or_insert_with(Instant::now);
                if started.elapsed() >= timeout || since.elapsed() >= BUSY_PATIENCE {
                    return Err(PcscError::ReaderBusy);
                }
                std::thread::sleep(PAUSE);
                continue;
            }
            busy_since = None;
            if started.elapsed() >= timeout {
                return Err(PcscError::NoCard {
                    readers: states.iter().map(|state| text(state.name())).collect(),
                });
            }
            if gone {
                std::thread::sleep(PAUSE);
                continue;
            }
            for state in &mut states {
                state.sync_current_state();
            }
        }
    }

    /// Connects to the card that lies on the reader of this name or, if there is none of it, on the
    /// first whose name contains `reader`, regardless of case.
    ///
    /// # Errors
    /// [`PcscError::NoSuchReader`], [`PcscError::NoCard`], [`PcscError::ReaderBusy`],
    /// [`PcscError::NotAllowed`], and what else the service finds wrong.
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

    /// An ACR122U or a relative of it, without a card: commands go as escape codes. `reader` names it
    /// as in [`PcscContext::connect`].
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

/// The reader of this name, or else those whose name contains it: names end in numbers, and
/// `Reader 1` is in `Reader 10` too.
fn meant(wanted: &str, names: Vec<CString>) -> Result<Vec<CString>, PcscError> {
    if let Some(name) = names.iter().find(|name| text(name) == wanted) {
        return Ok(Vec::from([name.clone()]));
    }
    let lower = wanted.to_lowercase();
    let (matching, others): (Vec<CString>, _) = names
        .into_iter()
        .partition(|name| text(name).to_lowercase().contains(&lower));
    if matching.is_empty() {
        return Err(PcscError::NoSuchReader {
            wanted: wanted.to_string(),
            readers: others.iter().map(|name| text(name)).collect(),
        });
    }
    Ok(matching)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_means_one_reader() {
        let names = || Vec::from([c"ACS 10".into(), c"ACS 1".into(), c"Omnikey 1".into()]);
        for (wanted, found) in [
            ("ACS 1", &[c"ACS 1"][..]),
            ("acs 1", &[c"ACS 10", c"ACS 1"]),
            ("OMNI", &[c"Omnikey 1"]),
            ("", &[c"ACS 10", c"ACS 1", c"Omnikey 1"]),
        ] {
            let meant = meant(wanted, names()).unwrap();
            assert_eq!(meant, found, "{wanted}");
        }
        match meant("ACS 2", names()) {
            Err(PcscError::NoSuchReader { wanted, readers }) => {
                assert_eq!((wanted.as_str(), readers.len()), ("ACS 2", 3));
            }
            other => panic!("{other:?}"),
        }
    }
}
