//! Which terminals a key holder knows and what it grants them, and how it tells a repetition.

use rand_core::TryCryptoRng;

use super::challenge::{Freshness, Mode, TerminalId};
use super::dukpt::BaseKey;
use super::error::Refusal;
use super::kdf;
use super::key::KeyRequest;
use super::transport_key::{TransportKey, TransportKeyId};
use crate::wire::{Aid, AuthScheme, KeyNo};

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

/// One card key, and the modes in which a terminal may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The application, or [`Aid::PICC`].
    pub aid: Aid,
    /// The key's number.
    pub key_no: KeyNo,
    /// The authentication: `0A` and `1A` take the same keys, and each is granted for itself.
    pub scheme: AuthScheme,
    /// [`Modes::default`] unless there is a reason.
    pub modes: Modes,
}

impl Grant {
    fn names(&self, key: &KeyRequest) -> bool {
        (self.aid, self.key_no, self.scheme) == (key.aid, key.key_no, key.scheme)
    }
}

/// Where the transport keys of one terminal come from.
#[derive(Clone, Copy, Debug)]
pub enum TransportKeys<'k> {
    /// This one key, for messages that name it: a pre-shared key; or the key of one transaction, derived
    /// elsewhere from a base key that is in an HSM. Whoever derives it has to know that the initial key is
    /// this terminal's.
    One {
        /// Its name.
        id: TransportKeyId,
        /// The key.
        key: &'k TransportKey,
    },
    /// A key for every transaction from this terminal's own initial key, by AES-DUKPT.
    Dukpt {
        /// The base key of the fleet.
        base: &'k BaseKey,
        /// The id of the terminal's initial key: each terminal has its own.
        key_id: [u8; 8],
    },
}

/// A terminal in the key holder's books: its name, its transport keys, and all that it may have. What
/// is not granted here is refused.
#[derive(Clone, Copy, Debug)]
pub struct KnownTerminal<'k> {
    /// Its name.
    pub id: TerminalId,
    /// Its transport keys, and nobody else's.
    pub transport: TransportKeys<'k>,
    /// What it may have.
    pub grants: &'k [Grant],
}

impl KnownTerminal<'_> {
    /// The transport key of this name, if it is this terminal's. Under DUKPT nothing for a counter that
    /// no terminal uses, see [`BaseKey::transport_key`].
    #[must_use]
    pub fn transport_key(&self, named: TransportKeyId) -> Option<TransportKey> {
        match (self.transport, named) {
            (TransportKeys::One { id, key }, named) if id == named => Some(key.clone()),
            (TransportKeys::Dukpt { base, key_id }, TransportKeyId::Dukpt(ksn))
                if key_id == ksn.key_id =>
            {
                base.transport_key(ksn)
            }
            _ => None,
        }
    }

    /// The modes in which it may have this key.
    #[must_use]
    pub fn modes(&self, key: &KeyRequest) -> Modes {
        let grants = self.grants.iter().filter(|grant| grant.names(key));
        grants.fold(Modes::empty(), |modes, grant| modes | grant.modes)
    }
}

/// The key holder's books: which terminals there are, and what each may have. A [`KnownTerminal`] and a
/// slice of them are such books; a database implements it, or looks one up by [`Challenge::claimed`] and
/// gives that.
///
/// [`Challenge::claimed`]: super::Challenge::claimed
pub trait Policy {
    /// The entry of the terminal of this name with the transport key of this name. Both are what a
    /// message claims. An entry that does not have both is as good as none: that is checked again.
    fn terminal(&self, name: &TerminalId, transport: TransportKeyId) -> Option<KnownTerminal<'_>>;
}

impl Policy for KnownTerminal<'_> {
    fn terminal(&self, name: &TerminalId, _: TransportKeyId) -> Option<KnownTerminal<'_>> {
        (self.id == *name).then_some(*self)
    }
}

/// A terminal may be there twice, with an old and a new pre-shared key.
impl Policy for [KnownTerminal<'_>] {
    fn terminal(&self, name: &TerminalId, transport: TransportKeyId) -> Option<KnownTerminal<'_>> {
        let mut alike = self.iter().filter(|known| known.id == *name);
        alike
            .find(|known| known.transport_key(transport).is_some())
            .copied()
    }
}

impl<P: Policy + ?Sized> Policy for &P {
    fn terminal(&self, name: &TerminalId, transport: TransportKeyId) -> Option<KnownTerminal<'_>> {
        (**self).terminal(name, transport)
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

/// Nonces that have been issued and not yet used, of at most `TERMINALS` terminals, `EACH` of each.
///
/// Of one terminal the oldest goes when one too many is issued: whoever asks for nonces in its name can
/// push out that terminal's, and no other's. A terminal whose nonces are all used leaves its place to
/// others; as long as one is not, it keeps it, so make `TERMINALS` as many as there are, and issue to no
/// others.
#[derive(Clone, Debug)]
pub struct Nonces<const TERMINALS: usize, const EACH: usize> {
    issued: [Option<(TerminalId, Issued<EACH>)>; TERMINALS],
}

/// The nonces of one terminal.
#[derive(Clone, Copy, Debug)]
struct Issued<const EACH: usize> {
    /// The oldest first, then the free places.
    nonces: [Option<[u8; 16]>; EACH],
}

impl<const EACH: usize> Issued<EACH> {
    const NONE: Self = Self {
        nonces: [None; EACH],
    };

    fn put(&mut self, nonce: [u8; 16]) -> Result<(), Refusal> {
        let free = self.nonces.iter().position(Option::is_none);
        if free.is_none() {
            // The oldest goes to the end, to be overwritten there.
            self.nonces.rotate_left(EACH.min(1));
        }
        let place = free.or(EACH.checked_sub(1));
        let place = place.and_then(|place| self.nonces.get_mut(place));
        *place.ok_or(Refusal::Full)? = Some(nonce);
        Ok(())
    }

    fn take(&mut self, nonce: [u8; 16]) -> Result<(), Refusal> {
        let is_it = |place: &Option<[u8; 16]>| place.is_some_and(|place| kdf::same(&place, &nonce));
        let its = self.nonces.iter().position(is_it);
        let from = its.and_then(|place| self.nonces.get_mut(place..));
        let from = from.ok_or(Refusal::NotFresh)?;
        // Those that are younger move up, and the place is free at the end.
        from.rotate_left(1);
        if let Some(last) = from.last_mut() {
            *last = None;
        }
        Ok(())
    }

    fn all_used(&self) -> bool {
        self.nonces.iter().all(Option::is_none)
    }
}

impl<const TERMINALS: usize, const EACH: usize> Nonces<TERMINALS, EACH> {
    /// None issued.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            issued: [None; TERMINALS],
        }
    }

    /// A nonce for one terminal's next tap.
    ///
    /// # Errors
    /// [`Refusal::Randomness`]; [`Refusal::Full`] if `TERMINALS` others have nonces that are not used,
    /// or `EACH` is zero.
    pub fn issue<R: TryCryptoRng + ?Sized>(
        &mut self,
        terminal: &TerminalId,
        rng: &mut R,
    ) -> Result<Freshness, Refusal> {
        let mut nonce = [0; 16];
        rng.try_fill_bytes(&mut nonce)
            .map_err(|_| Refusal::Randomness)?;
        let known = |place: &Option<(TerminalId, _)>| place.is_some_and(|(id, _)| id == *terminal);
        let free = |place: &Option<(_, Issued<EACH>)>| place.is_none_or(|(_, of)| of.all_used());
        let index = self.issued.iter().position(known);
        let index = index.or_else(|| self.issued.iter().position(free));
        let place = index.and_then(|index| self.issued.get_mut(index));
        let place = place.ok_or(Refusal::Full)?;
        let (_, issued) = match place {
            Some(mine) if mine.0 == *terminal => mine,
            place => place.insert((*terminal, Issued::NONE)),
        };
        issued.put(nonce)?;
        Ok(Freshness::Nonce(nonce))
    }
}

impl<const TERMINALS: usize, const EACH: usize> Default for Nonces<TERMINALS, EACH> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const TERMINALS: usize, const EACH: usize> ReplayGuard for Nonces<TERMINALS, EACH> {
    fn accept(&mut self, terminal: &TerminalId, freshness: &Freshness) -> Result<(), Refusal> {
        let Freshness::Nonce(nonce) = *freshness else {
            return Err(Refusal::NotFresh);
        };
        let mut places = self.issued.iter_mut().flatten();
        let of_it = places.find(|(id, _)| id == terminal);
        let (_, issued) = of_it.ok_or(Refusal::NotFresh)?;
        issued.take(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::KeyType;

    #[test]
    fn a_guard_by_reference_is_the_guard() {
        fn accept(mut guard: impl ReplayGuard, counter: u64) -> Result<(), Refusal> {
            let till = TerminalId::new(b"till").unwrap();
            guard.accept(&till, &Freshness::Counter(counter))
        }
        let mut guard = Counters::<1>::new();
        assert_eq!(accept(&mut guard, 5), Ok(()));
        assert_eq!(accept(&mut guard, 5), Err(Refusal::Replayed));
        assert_eq!(accept(&mut guard, 6), Ok(()));
    }

    /// All grants of a key together, each mode once.
    #[test]
    fn grants_add_up() {
        let aid = Aid::from_bytes([1, 2, 3]);
        let grant = |key_no, modes| Grant {
            aid,
            key_no: KeyNo::new(key_no).unwrap_or(KeyNo::MASTER),
            scheme: AuthScheme::Aes,
            modes,
        };
        let grants = [
            grant(0, Modes::CARD_LOCKED | Modes::SCRIPT),
            grant(1, Modes::REMOTE),
            grant(0, Modes::CARD_LOCKED | Modes::PROVEN),
        ];
        let key = TransportKey::new([0; 16]);
        let till = KnownTerminal {
            id: TerminalId::new(b"till").unwrap(),
            transport: TransportKeys::One {
                id: TransportKeyId::Preshared(1),
                key: &key,
            },
            grants: &grants,
        };
        let wanted = KeyRequest {
            aid,
            key_no: KeyNo::MASTER,
            scheme: AuthScheme::Aes,
            key_type: KeyType::Aes,
            uid: None,
        };
        let expected = Modes::CARD_LOCKED | Modes::SCRIPT | Modes::PROVEN;
        assert_eq!(till.modes(&wanted), expected);
        let scheme = AuthScheme::Iso;
        assert_eq!(till.modes(&KeyRequest { scheme, ..wanted }), Modes::empty());
    }
}
