//! Which modes a key holder grants to whom, and how it tells a repetition.

use rand_core::TryCryptoRng;

use super::challenge::{Freshness, Mode, TerminalId};
use super::error::Refusal;
use super::key::KeyRequest;

bitflags::bitflags! {
    /// A set of modes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Modes: u8 {
        /// [`Mode::Proven`].
        const PROVEN = 0b0001;
        /// [`Mode::CardLocked`].
        const CARD_LOCKED = 0b0010;
        /// [`Mode::Script`].
        const SCRIPT = 0b0100;
        /// [`Mode::Remote`].
        const REMOTE = 0b1000;
    }
}

impl Default for Modes {
    /// None that is weaker than card-locked: card-locked, script and remote. In proven release the
    /// transport key alone protects the session key on its way; and it is the only one that takes
    /// proofs of 64 bits for a session key.
    fn default() -> Self {
        Self::CARD_LOCKED | Self::SCRIPT | Self::REMOTE
    }
}

impl From<Mode> for Modes {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Proven => Self::PROVEN,
            Mode::CardLocked => Self::CARD_LOCKED,
            Mode::Script => Self::SCRIPT,
            Mode::Remote => Self::REMOTE,
        }
    }
}

/// What a key holder grants. A [`Modes`] is the policy that grants the same to every terminal
/// with every key.
pub trait Policy {
    /// The modes that this terminal may have with this key.
    fn modes(&self, terminal: &TerminalId, key: &KeyRequest) -> Modes;
}

impl Policy for Modes {
    fn modes(&self, _terminal: &TerminalId, _key: &KeyRequest) -> Modes {
        *self
    }
}

impl<P: Policy + ?Sized> Policy for &P {
    fn modes(&self, terminal: &TerminalId, key: &KeyRequest) -> Modes {
        (**self).modes(terminal, key)
    }
}

/// A policy that is a function.
#[derive(Clone, Copy, Debug)]
pub struct PolicyFn<F>(pub F);

impl<F: Fn(&TerminalId, &KeyRequest) -> Modes> Policy for PolicyFn<F> {
    fn modes(&self, terminal: &TerminalId, key: &KeyRequest) -> Modes {
        (self.0)(terminal, key)
    }
}

/// Remembers what has been answered. It must survive a restart of the key holder, or refuse
/// everything from before it.
pub trait ReplayGuard {
    /// Takes a freshness value, once. It is asked only for challenges whose MAC is right and whose
    /// mode is granted, so that nobody else can use values up.
    ///
    /// # Errors
    /// [`Refusal::Replayed`], [`Refusal::NotFresh`], [`Refusal::Full`].
    fn accept(&mut self, terminal: &TerminalId, freshness: &Freshness) -> Result<(), Refusal>;
}

impl<G: ReplayGuard + ?Sized> ReplayGuard for &mut G {
    fn accept(&mut self, terminal: &TerminalId, freshness: &Freshness) -> Result<(), Refusal> {
        (**self).accept(terminal, freshness)
    }
}

/// The highest counter of each of at most `N` terminals. Gaps are allowed, going back is not.
#[derive(Clone, Debug)]
pub struct Counters<const N: usize> {
    seen: [Option<(TerminalId, u64)>; N],
}

impl<const N: usize> Counters<N> {
    /// Without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: [None; N] }
    }

    /// What it remembers, to be stored.
    pub fn iter(&self) -> impl Iterator<Item = (TerminalId, u64)> {
        self.seen.iter().flatten().copied()
    }

    /// Puts back what was stored.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn set(&mut self, terminal: &TerminalId, counter: u64) -> Result<(), Refusal> {
        *self.place(terminal)? = Some((*terminal, counter));
        Ok(())
    }

    fn place(&mut self, terminal: &TerminalId) -> Result<&mut Option<(TerminalId, u64)>, Refusal> {
        let known =
            |place: &Option<(TerminalId, u64)>| place.is_some_and(|(known, _)| known == *terminal);
        let index = self.seen.iter().position(known);
        let index = index.or_else(|| self.seen.iter().position(Option::is_none));
        index
            .and_then(|index| self.seen.get_mut(index))
            .ok_or(Refusal::Full)
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> ReplayGuard for Counters<N> {
    fn accept(&mut self, terminal: &TerminalId, freshness: &Freshness) -> Result<(), Refusal> {
        let Freshness::Counter(counter) = *freshness else {
            return Err(Refusal::NotFresh);
        };
        let place = self.place(terminal)?;
        match place {
            Some((_, seen)) if counter <= *seen => Err(Refusal::Replayed),
            place => {
                *place = Some((*terminal, counter));
                Ok(())
            }
        }
    }
}

/// Nonces that have been issued and not yet used: at most `N`, of which the oldest goes when one
/// too many is issued.
#[derive(Clone, Debug)]
pub struct Nonces<const N: usize> {
    issued: [Option<(TerminalId, [u8; 16])>; N],
    next: usize,
}

impl<const N: usize> Nonces<N> {
    /// None issued.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            issued: [None; N],
            next: 0,
        }
    }

    /// A nonce for one terminal's next tap.
    ///
    /// # Errors
    /// [`Refusal::Randomness`]; [`Refusal::Full`] if `N` is zero.
    pub fn issue<R: TryCryptoRng + ?Sized>(
        &mut self,
        terminal: &TerminalId,
        rng: &mut R,
    ) -> Result<Freshness, Refusal> {
        let mut nonce = [0; 16];
        rng.try_fill_bytes(&mut nonce)
            .map_err(|_| Refusal::Randomness)?;
        let place = self.issued.get_mut(self.next).ok_or(Refusal::Full)?;
        *place = Some((*terminal, nonce));
        self.next = (self.next + 1) % N.max(1);
        Ok(Freshness::Nonce(nonce))
    }
}

impl<const N: usize> Default for Nonces<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> ReplayGuard for Nonces<N> {
    fn accept(&mut self, terminal: &TerminalId, freshness: &Freshness) -> Result<(), Refusal> {
        let Freshness::Nonce(nonce) = *freshness else {
            return Err(Refusal::NotFresh);
        };
        let wanted = Some((*terminal, nonce));
        let place = self.issued.iter_mut().find(|issued| **issued == wanted);
        *place.ok_or(Refusal::NotFresh)? = None;
        Ok(())
    }
}
