//! What the service is told at its start.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use desfire_ev1::split::{BaseKey, Modes, TerminalId, TransportKey, TransportKeyId};

use super::problem::Problem;

/// A terminal that may ask.
#[derive(Clone, Copy, Debug)]
pub struct KnownTerminal {
    /// The id of its initial DUKPT key.
    pub key_id: [u8; 8],
    /// What it may have with the redeeming key. [`Modes::default`] unless there is a reason.
    pub modes: Modes,
}

/// Settings of the service.
pub struct Config {
    /// The terminals by their names.
    pub terminals: HashMap<TerminalId, KnownTerminal>,
    /// What all transport keys come from.
    pub base_key: BaseKey,
    /// The longest that a card is kept waiting for one answer.
    pub deadline: Duration,
    /// The longest from the challenge to the last message of proven and remote taps.
    pub patience: Duration,
    /// Taps per second of one terminal, and as many at once.
    pub per_terminal: NonZeroU32,
    /// Taps per second of one card, and as many at once.
    pub per_card: NonZeroU32,
    /// How many calls to the key holder run at once; more wait, within the deadline.
    pub at_once: usize,
    /// How many taps are kept open. Those that are settled make room; otherwise a tap is refused.
    pub open_taps: usize,
    /// How many scripts of one terminal can be without a receipt. Then its oldest is given up.
    pub unsettled: usize,
}

impl Config {
    /// With the settings that the demonstration uses.
    #[must_use]
    pub fn new(base_key: BaseKey, terminals: HashMap<TerminalId, KnownTerminal>) -> Self {
        const fn number(number: u32) -> NonZeroU32 {
            match NonZeroU32::new(number) {
                Some(number) => number,
                None => NonZeroU32::MIN,
            }
        }
        Self {
            terminals,
            base_key,
            deadline: Duration::from_millis(500),
            patience: Duration::from_secs(5),
            per_terminal: number(20),
            per_card: number(5),
            at_once: 4,
            open_taps: 4096,
            unsettled: 32,
        }
    }

    /// The terminal and the transport key that a message claims. A terminal has its own initial key:
    /// that of another one does not speak for it.
    pub(super) fn transport(
        &self,
        terminal: &TerminalId,
        id: TransportKeyId,
    ) -> Result<(KnownTerminal, TransportKey), Problem> {
        let known = self.terminals.get(terminal);
        let TransportKeyId::Dukpt(ksn) = id else {
            return Err(Problem::unknown_terminal());
        };
        match (known, self.base_key.transport_key(ksn)) {
            (Some(known), Some(key)) if known.key_id == ksn.key_id => Ok((*known, key)),
            _ => Err(Problem::unknown_terminal()),
        }
    }
}
