//! What the service is told at its start.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use desfire_ev1::split::{
    BaseKey, Grant, Intent, KnownTerminal, Policy, TerminalId, TransportKey, TransportKeyId,
    TransportKeys,
};

use super::problem::Problem;

/// A terminal that may ask.
#[derive(Clone, Debug)]
pub struct Till {
    /// The id of its initial DUKPT key, which is no other terminal's.
    pub key_id: [u8; 8],
    /// What it may have.
    pub grants: Vec<Grant>,
}

/// Settings of the service.
pub struct Config {
    /// The terminals by their names.
    pub terminals: HashMap<TerminalId, Till>,
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
    /// How many scripts are kept, and how many proven and remote taps together. Scripts that are
    /// settled make room; otherwise a tap is refused. Card-locked ones are not kept, and never refused
    /// for this.
    pub open_taps: usize,
    /// How many scripts of one terminal can be without a receipt. Then its oldest is given up.
    pub unsettled: usize,
    /// How long a script can be without a receipt. Then it is given up.
    pub unsettled_for: Duration,
}

impl Config {
    /// With the settings that the demonstration uses.
    #[must_use]
    pub fn new(base_key: BaseKey, terminals: HashMap<TerminalId, Till>) -> Self {
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
            unsettled_for: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// Whether each terminal has an initial key of its own.
    pub(super) fn no_key_is_shared(&self) -> bool {
        let mut ids = HashSet::new();
        self.terminals.values().all(|till| ids.insert(till.key_id))
    }

    /// The transport key that a message claims.
    pub(super) fn transport_key(&self, claimed: &Intent) -> Result<TransportKey, Problem> {
        let known = self.terminal(&claimed.terminal, claimed.transport);
        let key = known.and_then(|known| known.transport_key(claimed.transport));
        key.ok_or_else(Problem::unknown_terminal)
    }
}

/// The books that the library checks challenges against.
impl Policy for Config {
    fn terminal(&self, name: &TerminalId, _: TransportKeyId) -> Option<KnownTerminal<'_>> {
        let till = self.terminals.get(name)?;
        Some(KnownTerminal {
            id: *name,
            transport: TransportKeys::Dukpt {
                base: &self.base_key,
                key_id: till.key_id,
            },
            grants: &till.grants,
        })
    }
}
