//! From the names of keys to keys, and which keys a card may have now.
//!
//! For: the door to whatever keeps the keys, diversification, candidates. Keys live here only as long
//! as one handshake or one ChangeKey takes, and are wiped when they go.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use super::check::Place;
use super::layout::{KeyRef, KeySlot, Layout};
use crate::wire::{Aid, KeyFamily, KeyNo, KeyType, Uid};
use crate::{Key, KeyError};

/// Where the keys are kept.
///
/// [`MemoryKeys`] keeps them in memory; an HSM or a key server implements this itself, and if it can
/// derive card keys inside, [`KeyStore::card_key`] too.
pub trait KeyStore {
    /// The key of that name and version: the card key itself, or the master of a diversification.
    ///
    /// # Errors
    /// [`KeyFault::Missing`] if there is none.
    fn key(&self, name: &str, version: u8) -> Result<Key, KeyFault>;

    /// The key that AN10922 makes of the key of that name and version for one card.
    ///
    /// # Errors
    /// [`KeyFault`]
    fn card_key(&self, name: &str, version: u8, input: &[u8]) -> Result<Key, KeyFault> {
        let master = self.key(name, version)?;
        master.diversify(input).map_err(|why| KeyFault::Unusable {
            name: name.to_string(),
            version,
            why,
        })
    }
}

impl<K: KeyStore + ?Sized> KeyStore for &K {
    fn key(&self, name: &str, version: u8) -> Result<Key, KeyFault> {
        (**self).key(name, version)
    }

    fn card_key(&self, name: &str, version: u8, input: &[u8]) -> Result<Key, KeyFault> {
        (**self).card_key(name, version, input)
    }
}

/// Keys in memory, wiped when they go.
#[derive(Clone, Default)]
pub struct MemoryKeys {
    // In boxes: where a table grows or closes up, what it held stays behind, and nobody wipes that.
    keys: Vec<(String, u8, Box<Key>)>,
}

impl MemoryKeys {
    /// No keys.
    #[must_use]
    pub const fn new() -> Self {
        Self { keys: Vec::new() }
    }

    /// Adds a key; one of the same name and version is replaced.
    pub fn insert(&mut self, name: impl Into<String>, version: u8, key: Key) {
        let name = name.into();
        self.keys
            .retain(|(other, v, _)| (other, *v) != (&name, version));
        self.keys.push((name, version, Box::new(key)));
    }

    /// The same with one more key.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, version: u8, key: Key) -> Self {
        self.insert(name, version, key);
        self
    }

    /// Names, versions and types of all keys.
    pub fn list(&self) -> impl Iterator<Item = (&str, u8, KeyType)> {
        self.keys
            .iter()
            .map(|(name, version, key)| (name.as_str(), *version, key.key_type()))
    }
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl KeyStore for MemoryKeys {
    fn key(&self, name: &str, version: u8) -> Result<Key, KeyFault> {
        self.keys
            .iter()
            .find(|(other, v, _)| other == name && *v == version)
            .map(|(_, _, key)| (**key).clone())
            .ok_or_else(|| KeyFault::Missing {
                name: name.to_string(),
                version,
            })
    }
}

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The store does not have it.
    #[error("there is no key '{name}' of version {version}")]
    Missing {
        /// Its name.
        name: String,
        /// Its version.
        version: u8,
    },
    /// It cannot be diversified, or is none that a card can be relied on to take.
    #[error("the key '{name}' of version {version} cannot be used: {why}")]
    Unusable {
        /// Its name.
        name: String,
        /// Its version.
        version: u8,
        /// Why not.
        why: KeyError,
    },
    /// It is of another type than the application's keys.
    #[error("the key '{name}' of version {version} is of type {found}, where {expected} belongs")]
    Family {
        /// Its name.
        name: String,
        /// Its version.
        version: u8,
        /// What the application has.
        expected: KeyFamily,
        /// What it is.
        found: KeyType,
    },
    /// The store itself has failed.
    #[error("the key store: {0}")]
    Store(String),
}

/// What a key on a card turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// What the layout asks for.
    Wanted,
    /// One that the layout lists as older.
    Older(KeyRef),
    /// One that the layout lists as the manufacturer's.
    Transport(KeyRef),
    /// The default key of new applications.
    Default,
    /// Zero, as delivered.
    Factory,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted => f.write_str("the layout's key"),
            Self::Older(key) => write!(f, "the older key {key}"),
            Self::Transport(key) => write!(f, "the transport key {key}"),
            Self::Default => f.write_str("the default key of new applications"),
            Self::Factory => f.write_str("the zero key of delivery"),
        }
    }
}

/// A level of the card, as the layout counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Picc,
    App(usize),
}

impl Level {
    pub(super) fn aid(self, layout: &Layout) -> Aid {
        match self {
            Self::Picc => Aid::PICC,
            Self::App(index) => layout
                .applications
                .get(index)
                .map_or(Aid::PICC, |app| app.aid),
        }
    }

    pub(super) fn slots(self, layout: &Layout) -> &[KeySlot] {
        match self {
            Self::Picc => core::slice::from_ref(&layout.picc.key),
            Self::App(index) => layout
                .applications
                .get(index)
                .map_or(&[], |app| app.keys.as_slice()),
        }
    }

    /// The place of a key of this level in the layout.
    pub(super) fn key_place(self, key_no: KeyNo) -> Place {
        match self {
            Self::Picc => Place::Picc,
            Self::App(index) => Place::Key(index, usize::from(key_no.number())),
        }
    }
}

/// A key that the card may have.
pub(super) struct Candidate {
    pub(super) origin: Origin,
    pub(super) key: Key,
}

/// The keys of one card.
pub(super) struct Ring<'a, K: ?Sized> {
    pub(super) layout: &'a Layout,
    pub(super) store: &'a K,
    /// Unknown as long as the card hides it.
    pub(super) uid: Option<Uid>,
}

impl<K: KeyStore + ?Sized> Ring<'_, K> {
    /// A key with its version; nothing if it takes the UID and that is not known.
    pub(super) fn resolve(&self, aid: Aid, wanted: &KeyRef) -> Result<Option<Key>, KeyFault> {
        let KeyRef {
            name,
            version,
            diversified,
        } = wanted;
        let key = if *diversified {
            let Some(uid) = self.uid else { return Ok(None) };
            let [low, middle, high] = aid.to_bytes();
            let mut input = uid.0.to_vec();
            input.extend([high, middle, low]);
            input.extend(&self.layout.system_id);
            self.store.card_key(name, *version, &input)?
        } else {
            self.store.key(name, *version)?
        };
        // The low bits of a DES key that has the version are left as they are in the store: older
        // cards may have been issued with them.
        Ok(Some(if key.version() == *version {
            key
        } else {
            key.with_version(*version)
        }))
    }

    pub(super) fn slot(&self, level: Level, key_no: KeyNo) -> Option<&KeySlot> {
        level.slots(self.layout).get(usize::from(key_no.number()))
    }

    /// What the key of an application that has just been created is.
    pub(super) fn initial(&self, app: usize) -> Result<Option<Candidate>, KeyFault> {
        let Some(app) = self.layout.applications.get(app) else {
            return Ok(None);
        };
        let Some(default) = &self.layout.picc.default_key else {
            return Ok(Some(Candidate {
                origin: Origin::Factory,
                key: Key::zero(app.family),
            }));
        };
        let Some(key) = self.resolve(Aid::PICC, default)? else {
            return Ok(None);
        };
        let key = key
            .in_new_application(app.family)
            .map_err(|why| KeyFault::Unusable {
                name: default.name.clone(),
                version: default.version,
                why,
            })?;
        Ok(Some(Candidate {
            origin: Origin::Default,
            key,
        }))
    }

    /// What a key may be now, the most likely first, none twice.
    pub(super) fn candidates(
        &self,
        level: Level,
        key_no: KeyNo,
    ) -> Result<Vec<Candidate>, KeyFault> {
        let aid = level.aid(self.layout);
        let Some(slot) = self.slot(level, key_no) else {
            return Ok(Vec::new());
        };
        // Room for all of them, so that it does not move: that would leave keys behind.
        let most = 3 + slot.older.len() + self.layout.picc.transport.len();
        let mut all: Vec<Candidate> = Vec::with_capacity(most);
        let mut add = |origin: Origin, key: Option<Key>| {
            if let Some(key) = key
                && !all.iter().any(|other| other.key.is_same_as(&key))
            {
                all.push(Candidate { origin, key });
            }
        };
        add(Origin::Wanted, self.resolve(aid, &slot.key)?);
        for older in &slot.older {
            let key = self.known(aid, older)?;
            add(Origin::Older(older.clone()), key);
        }
        match level {
            Level::Picc => {
                for transport in &self.layout.picc.transport {
                    let key = self.known(aid, transport)?;
                    add(Origin::Transport(transport.clone()), key);
                }
                add(Origin::Factory, Some(Key::zero(KeyFamily::Des)));
            }
            Level::App(index) => {
                if let Some(initial) = self.initial(index)? {
                    add(initial.origin, Some(initial.key));
                }
                let family = self.layout.applications.get(index).map(|app| app.family);
                add(Origin::Factory, family.map(Key::zero));
            }
        }
        Ok(all)
    }

    /// An old key, which the store need not have any more.
    fn known(&self, aid: Aid, key: &KeyRef) -> Result<Option<Key>, KeyFault> {
        match self.resolve(aid, key) {
            Err(KeyFault::Missing { .. }) => Ok(None),
            other => other,
        }
    }

    /// Whether all keys are there and fit, with the place of the first that does not.
    pub(super) fn check(&self) -> Result<(), (Place, KeyFault)> {
        let levels = (0..self.layout.applications.len()).map(Level::App);
        for level in [Level::Picc].into_iter().chain(levels) {
            let family = match level {
                Level::Picc => None,
                Level::App(index) => self.layout.applications.get(index).map(|app| app.family),
            };
            let count = u8::try_from(level.slots(self.layout).len()).unwrap_or(u8::MAX);
            for key_no in (0..count).filter_map(|number| KeyNo::new(number).ok()) {
                let place = level.key_place(key_no);
                self.check_slot(level, key_no, family)
                    .map_err(|fault| (place, fault))?;
            }
        }
        Ok(())
    }

    fn check_slot(
        &self,
        level: Level,
        key_no: KeyNo,
        family: Option<KeyFamily>,
    ) -> Result<(), KeyFault> {
        let Some(slot) = self.slot(level, key_no) else {
            return Ok(());
        };
        for candidate in self.candidates(level, key_no)? {
            let named = match &candidate.origin {
                Origin::Wanted => &slot.key,
                Origin::Older(key) => key,
                _ => continue,
            };
            if let Some(expected) = family
                && candidate.key.key_type().family() != expected
            {
                return Err(KeyFault::Family {
                    name: named.name.clone(),
                    version: named.version,
                    expected,
                    found: candidate.key.key_type(),
                });
            }
        }
        Ok(())
    }
}
