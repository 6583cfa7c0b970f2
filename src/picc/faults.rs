//! Faults that a test can arrange inside the card.
//!
//! What happens on the way to the card (bits flip, frames are cut, time passes) is a matter
//! of the transport and not of the card.

use alloc::vec::Vec;

/// Something that goes wrong once.
///
/// Effects are the changes of non-volatile memory and of pending images, counted by
/// [`super::Card::effects`] from 1; commands are counted by [`super::Card::commands`], every
/// frame being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The card leaves the field right before this effect: it does not happen.
    CutBefore(u64),
    /// The card leaves the field right after this effect: it has happened, nobody was told.
    CutAfter(u64),
    /// The command is carried out and its reply lost; the card stays in the field.
    LoseReply(u64),
}

/// The faults that are still to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    arranged: Vec<Fault>,
}

impl Faults {
    pub(super) fn arrange(&mut self, fault: Fault) {
        self.arranged.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.arranged.clear();
    }

    pub(super) fn cut_before(&mut self, effect: u64) -> bool {
        self.strikes(Fault::CutBefore(effect))
    }

    pub(super) fn cut_after(&mut self, effect: u64) -> bool {
        self.strikes(Fault::CutAfter(effect))
    }

    pub(super) fn loses_reply(&mut self, command: u64) -> bool {
        self.strikes(Fault::LoseReply(command))
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        let before = self.arranged.len();
        self.arranged.retain(|arranged| *arranged != fault);
        self.arranged.len() < before
    }
}
