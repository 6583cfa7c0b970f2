//! The air between a terminal and a card: the one place where things go wrong.

use desfire_ev1::picc::{Card, Fault};
use desfire_ev1::{Link, LinkFormat, Transport};
use rand::{Rng, RngExt};

/// The card did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the card does not answer")]
pub struct Gone;

/// A card on a reader, with what will go wrong.
#[derive(Debug)]
pub struct Field<'c> {
    card: &'c mut Card,
    exchanges: u32,
    trouble: Option<Trouble>,
}

/// Something that happens to the link in one of its exchanges, counted from 1. (Power cuts inside the
/// card are [`Fault`]s of the card itself.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The card is pulled away before it gets the command.
    PulledBefore(u32),
    /// The card gets the command, and stays, but its answer is lost.
    ReplyLost(u32),
    /// The card does not get the command, but stays.
    CommandLost(u32),
    /// A bit of the answer flips.
    BitFlip(u32, u8),
}

impl<'c> Field<'c> {
    /// Puts a card on the reader, with nothing wrong.
    pub fn new(card: &'c mut Card) -> Self {
        card.activate();
        Self {
            card,
            exchanges: 0,
            trouble: None,
        }
    }

    /// With something going wrong in one of the first exchanges or EEPROM effects of a tap.
    pub fn with_some_trouble(mut self, rng: &mut impl Rng) -> Self {
        // A tap has nine to twelve exchanges and three effects or so.
        let exchange = rng.random_range(1..=13);
        let effect = self.card.effects() + rng.random_range(1..=5);
        match rng.random_range(0..6) {
            0 => self.trouble = Some(Trouble::PulledBefore(exchange)),
            1 => self.trouble = Some(Trouble::ReplyLost(exchange)),
            2 => self.trouble = Some(Trouble::CommandLost(exchange)),
            3 => self.trouble = Some(Trouble::BitFlip(exchange, rng.random())),
            4 => self.card.arrange_fault(Fault::CutBefore(effect)),
            _ => self.card.arrange_fault(Fault::CutAfter(effect)),
        }
        self
    }

    /// With this going wrong.
    #[must_use]
    pub const fn with_trouble(mut self, trouble: Trouble) -> Self {
        self.trouble = Some(trouble);
        self
    }

    /// How many exchanges there have been.
    #[must_use]
    pub const fn exchanges(&self) -> u32 {
        self.exchanges
    }
}

impl Drop for Field<'_> {
    /// The card is taken away, and what has not gone wrong by now will not.
    fn drop(&mut self) {
        self.card.clear_faults();
        self.card.field_off();
    }
}

impl Link for Field<'_> {
    type Error = Gone;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Field<'_> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        self.exchanges += 1;
        let now = self.exchanges;
        match self.trouble {
            Some(Trouble::PulledBefore(at)) if at == now => self.card.field_off(),
            Some(Trouble::CommandLost(at)) if at == now => return Err(Gone),
            _ => {}
        }
        let mut answer = self.card.handle(command);
        match self.trouble {
            Some(Trouble::ReplyLost(at)) if at == now => return Err(Gone),
            Some(Trouble::BitFlip(at, bit)) if at == now && !answer.is_empty() => {
                let place = usize::from(bit / 8) % answer.len();
                if let Some(byte) = answer.get_mut(place) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            _ => {}
        }
        if answer.is_empty() {
            return Err(Gone);
        }
        let room = reply.get_mut(..answer.len()).ok_or(Gone)?;
        room.copy_from_slice(&answer);
        Ok(answer.len())
    }
}
