//! Making a card that is not the standard one.

use core::fmt;

use super::card::Card;
use super::memory::StorageSize;
use super::random::Random;
use super::state::State;
use crate::wire::{ModuleVersion, Uid, Version};

/// The seed of a card that is given none: every run is the same.
const SEED: [u8; 16] = *b"desfire-ev1 card";

/// What GetVersion says of the hardware of an EV1 (proxmark3, Elmue); the storage byte comes
/// with the storage size.
const HARDWARE: ModuleVersion = ModuleVersion {
    vendor: 0x04,
    module_type: 0x01,
    subtype: 0x01,
    major: 1,
    minor: 0,
    storage: 0,
    protocol: 0x05,
};

/// The software: version 1.4.
const SOFTWARE: ModuleVersion = ModuleVersion {
    minor: 4,
    ..HARDWARE
};

/// Settings of a card to be.
///
/// ```
/// use desfire_ev1::picc::{Card, StorageSize};
/// use desfire_ev1::wire::Uid;
///
/// let card = Card::builder()
///     .uid(Uid([0x04, 1, 2, 3, 4, 5, 6]))
///     .storage(StorageSize::Ev1_2K)
///     .production([0; 5], 0x49, 0x13)
///     .build();
/// assert_eq!(card.state().free_memory(), 2304);
/// ```
#[derive(Clone)]
pub struct CardBuilder {
    version: Version,
    storage: StorageSize,
    seed: [u8; 16],
    state: Option<State>,
}

impl fmt::Debug for CardBuilder {
    /// Without the seed, out of which all nonces come.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardBuilder")
            .field("version", &self.version)
            .field("storage", &self.storage)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl CardBuilder {
    pub(super) const fn new() -> Self {
        Self {
            version: Version {
                hardware: HARDWARE,
                software: SOFTWARE,
                uid: Uid([0x04, 0, 0, 0, 0, 0, 0]),
                batch: [0; 5],
                week_bcd: 0x01,
                year_bcd: 0x10,
            },
            storage: StorageSize::Ev1_8K,
            seed: SEED,
            state: None,
        }
    }

    /// The UID.
    #[must_use]
    pub const fn uid(mut self, uid: Uid) -> Self {
        self.version.uid = uid;
        self
    }

    /// The storage size.
    #[must_use]
    pub const fn storage(mut self, storage: StorageSize) -> Self {
        self.storage = storage;
        self
    }

    /// Hardware and software of GetVersion, for instance those of another generation. The
    /// storage bytes are those of the storage size.
    #[must_use]
    pub const fn modules(mut self, hardware: ModuleVersion, software: ModuleVersion) -> Self {
        self.version.hardware = hardware;
        self.version.software = software;
        self
    }

    /// Batch number, and week and year of production as two decimal digits each.
    #[must_use]
    pub const fn production(mut self, batch: [u8; 5], week_bcd: u8, year_bcd: u8) -> Self {
        self.version.batch = batch;
        self.version.week_bcd = week_bcd;
        self.version.year_bcd = year_bcd;
        self
    }

    /// The seed of the card's nonces. Without it they are the same in every run.
    #[must_use]
    pub const fn seed(mut self, seed: [u8; 16]) -> Self {
        self.seed = seed;
        self
    }

    /// A state in place of that of delivery. It brings UID, version block and storage size
    /// along, whatever else was set.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// The card, lying on a reader.
    #[must_use]
    pub fn build(self) -> Card {
        let Self {
            version,
            storage,
            seed,
            state,
        } = self;
        let state = state.unwrap_or_else(|| State::delivered(version, storage));
        Card::with(state, Random::new(seed))
    }
}
