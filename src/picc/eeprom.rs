//! The one door to the non-volatile state.
//!
//! Every change goes through [`Eeprom::change`], is all or nothing, and has a number, so that
//! power can be cut right before or right after any of them.

use super::faults::Faults;
use super::state::State;

/// The card has lost power in the middle of a command. It says nothing more.
#[derive(Clone, Copy, Debug)]
pub(super) struct PowerLost;

/// The non-volatile memory.
#[derive(Clone, Debug)]
pub(super) struct Eeprom {
    state: State,
    effects: u64,
    pub(super) faults: Faults,
}

impl Eeprom {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            effects: 0,
            faults: Faults::default(),
        }
    }

    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// For preparing a state in a test; no effect, so no fault hits it.
    pub(super) const fn prepare(&mut self) -> &mut State {
        &mut self.state
    }

    /// How many changes there have been.
    pub(super) const fn effects(&self) -> u64 {
        self.effects
    }

    /// One effect. Changes of a pending image that is kept elsewhere count too: `apply` makes
    /// them and leaves the state alone.
    pub(super) fn change<R>(
        &mut self,
        apply: impl FnOnce(&mut State) -> R,
    ) -> Result<R, PowerLost> {
        self.effects = self.effects.saturating_add(1);
        if self.faults.cut_before(self.effects) {
            return Err(PowerLost);
        }
        let result = apply(&mut self.state);
        if self.faults.cut_after(self.effects) {
            return Err(PowerLost);
        }
        Ok(result)
    }
}
