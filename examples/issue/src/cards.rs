//! A box of software cards, some of which are pulled off the reader at the worst moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use desfire_ev1::VirtualReader;
use desfire_ev1::picc::{Card, CardKey, Fault, StorageSize};
use desfire_ev1::wire::Uid;

/// Numbers that look random and are the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        // SplitMix64.
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        match (z ^ (z >> 31)).checked_rem(limit) {
            Some(number) => number,
            None => 0,
        }
    }
}

/// A card as it comes from the factory. Cards of a box have UIDs one after the other.
#[must_use]
pub fn delivered(number: u32, storage: StorageSize) -> Card {
    let [a, b, c, d] = number.wrapping_add(0x517A_0E22).to_be_bytes();
    Card::builder()
        .uid(Uid([0x04, a, b, c, d, 0x6B, 0x80]))
        .storage(storage)
        .build()
}

/// One that somebody else has issued: its PICC master key is not ours.
#[must_use]
pub fn strange(number: u32, storage: StorageSize) -> Card {
    let mut card = delivered(number, storage);
    card.state_mut().set_picc_key(CardKey::aes([0xC7; 16], 9));
    card
}

/// Arranges for the card to be pulled away, or an answer to be lost, within the next commands.
pub fn arrange_trouble(reader: &mut VirtualReader, dice: &mut Dice) {
    let card = reader.card_mut();
    let (effects, commands) = (card.effects(), card.commands());
    let fault = match dice.below(3) {
        0 => Fault::CutBefore(effects.saturating_add(1 + dice.below(50))),
        1 => Fault::CutAfter(effects.saturating_add(1 + dice.below(50))),
        _ => Fault::LoseReply(commands.saturating_add(1 + dice.below(120))),
    };
    card.arrange_fault(fault);
}

/// A folder in which the cards of a box are kept from run to run, one file each. (Software cards keep
/// their keys in clear.)
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    fn path(&self, card: &Card) -> PathBuf {
        self.0.join(format!("{}.card", card.state().version().uid))
    }

    /// The card as it was stored, or as given.
    ///
    /// # Errors
    /// What is stored cannot be read, or is no card.
    pub fn load(&self, fresh: Card) -> io::Result<Card> {
        match fs::read(self.path(&fresh)) {
            Ok(stored) => Card::load(&stored).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fresh),
            Err(error) => Err(error),
        }
    }

    /// Stores a card.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, card: &Card) -> io::Result<()> {
        fs::write(self.path(card), card.save())
    }
}
