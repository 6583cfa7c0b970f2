//! Where keys are: the traits that an HSM, a SAM or a file of keys stands behind.
//!
//! All that is asked of a key is CBC over at most 48 bytes with a given IV. PKCS#11 has that as
//! `CKM_AES_CBC`, `CKM_DES3_CBC` (with K1 ‖ K2 ‖ K1 for a 2K3DES key) and `CKM_DES_CBC`.
//!
//! | call | for |
//! |---|---|
//! | decrypt 8 or 16 bytes | the card's challenge |
//! | encrypt 24 or 48 bytes | token and expected proof, `1A` and `AA` |
//! | decrypt 8 bytes, twice; encrypt 8 | the same, `0A` |
//! | encrypt one block; two blocks, once per part | AN10922 |
//!
//! What computes has no I/O ([`CbcWork`]); the two drivers below are one small loop each.

use core::convert::Infallible;

use crate::Key;
use crate::pcd::doors::KeyCipher;
pub use crate::pcd::doors::{CbcDirection, CbcTask, CbcWork, Diversification};
use crate::wire::{Aid, AuthScheme, KeyNo, KeyType, Uid};

/// A key that can be used but not seen, for blocking callers.
pub trait CbcKey {
    /// How the keeper of the key fails.
    type Error;

    /// The key's type.
    fn key_type(&self) -> KeyType;

    /// CBC over `data`, whole blocks, in place, without padding; `iv` is one block. Every call is
    /// by itself: no state is carried on.
    ///
    /// # Errors
    /// The keeper of the key cannot or does not want to.
    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), Self::Error>;
}

/// The same for async callers. The contract is that of [`CbcKey`]; futures that are `Send` make
/// everything that is built on them `Send`.
pub trait AsyncCbcKey {
    /// How the keeper of the key fails.
    type Error;

    /// The key's type.
    fn key_type(&self) -> KeyType;

    /// As [`CbcKey::cbc`].
    ///
    /// # Errors
    /// The keeper of the key cannot or does not want to.
    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> impl Future<Output = Result<(), Self::Error>>;
}

impl<K: CbcKey + ?Sized> CbcKey for &mut K {
    type Error = K::Error;

    fn key_type(&self) -> KeyType {
        (**self).key_type()
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), Self::Error> {
        (**self).cbc(direction, iv, data)
    }
}

impl<K: AsyncCbcKey + ?Sized> AsyncCbcKey for &mut K {
    type Error = K::Error;

    fn key_type(&self) -> KeyType {
        (**self).key_type()
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> impl Future<Output = Result<(), Self::Error>> {
        (**self).cbc(direction, iv, data)
    }
}

/// Does all that a computation asks, under `key`.
///
/// # Errors
/// What the keeper of the key says.
pub fn work<K: CbcKey + ?Sized>(
    key: &mut K,
    work: &mut (impl CbcWork + ?Sized),
) -> Result<(), K::Error> {
    while let Some(task) = work.task() {
        key.cbc(task.direction, task.iv, task.data)?;
        work.done();
    }
    Ok(())
}

/// The same, async.
///
/// # Errors
/// What the keeper of the key says.
pub async fn work_async<K: AsyncCbcKey + ?Sized, W: CbcWork + ?Sized>(
    key: &mut K,
    work: &mut W,
) -> Result<(), K::Error> {
    while let Some(task) = work.task() {
        key.cbc(task.direction, task.iv, task.data).await?;
        work.done();
    }
    Ok(())
}

/// Which key is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRequest {
    /// The application, or [`Aid::PICC`].
    pub aid: Aid,
    /// The key's number.
    pub key_no: KeyNo,
    /// The authentication that it is for.
    pub scheme: AuthScheme,
    /// Its type.
    pub key_type: KeyType,
    /// The card, as far as the terminal says. A wrong UID finds a wrong key, and the card refuses.
    pub uid: Option<Uid>,
}

/// Finds keys, for blocking callers. A key that is diversified by UID may stay where it was
/// derived: see [`Diversification`].
pub trait KeyStore {
    /// What a key is referred to by.
    type Key<'s>: CbcKey<Error = Self::Error>
    where
        Self: 's;
    /// How the store fails; also when there is no such key.
    type Error;

    /// Finds a key.
    ///
    /// # Errors
    /// There is no such key, or the store fails.
    fn find(&mut self, wanted: &KeyRequest) -> Result<Self::Key<'_>, Self::Error>;
}

/// Finds keys, for async callers.
pub trait AsyncKeyStore {
    /// What a key is referred to by.
    type Key<'s>: AsyncCbcKey<Error = Self::Error>
    where
        Self: 's;
    /// How the store fails; also when there is no such key.
    type Error;

    /// Finds a key.
    ///
    /// # Errors
    /// There is no such key, or the store fails.
    fn find(
        &mut self,
        wanted: &KeyRequest,
    ) -> impl Future<Output = Result<Self::Key<'_>, Self::Error>>;
}

/// A key in this process, ready for use. Wiped when dropped.
pub struct SoftKey {
    cipher: KeyCipher,
    key_type: KeyType,
}

impl SoftKey {
    /// From a key at hand.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self {
            cipher: KeyCipher::new(key),
            key_type: key.key_type(),
        }
    }
}

impl core::fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SoftKey({}, ..)", self.key_type)
    }
}

impl CbcKey for SoftKey {
    type Error = Infallible;

    fn key_type(&self) -> KeyType {
        self.key_type
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), Infallible> {
        self.cipher.cbc(direction, iv, data);
        Ok(())
    }
}

impl AsyncCbcKey for SoftKey {
    type Error = Infallible;

    fn key_type(&self) -> KeyType {
        self.key_type
    }

    async fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), Infallible> {
        self.cipher.cbc(direction, iv, data);
        Ok(())
    }
}

/// One key of a [`SoftKeys`].
pub struct SoftEntry {
    /// The application, or [`Aid::PICC`].
    pub aid: Aid,
    /// The key's number.
    pub key_no: KeyNo,
    /// The key itself, or the master key that the cards' keys come from.
    pub key: Key,
    /// What AN10922 makes a card's key of, if the key is diversified.
    pub diversified: Option<Diversified>,
}

/// How a card's key comes from a master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diversified {
    /// Whether the AID goes between UID and suffix, as AN10922 proposes.
    pub with_aid: bool,
    /// The end of the input, the same for the whole system.
    pub suffix: crate::wire::InlineBytes<16>,
}

impl Diversified {
    /// The input of AN10922: UID \[‖ AID\] ‖ suffix.
    #[must_use]
    pub fn input(&self, uid: &Uid, aid: Aid) -> crate::wire::InlineBytes<31> {
        let mut input = [0; 26];
        let aid = aid.to_bytes();
        let aid: &[u8] = if self.with_aid { &aid } else { &[] };
        let len = uid.0.len() + aid.len() + self.suffix.len();
        let parts = uid.0.iter().chain(aid).chain(self.suffix.iter());
        for (to, from) in input.iter_mut().zip(parts) {
            *to = *from;
        }
        // 7 + 3 + 16 always fit.
        let input = input.get(..len).unwrap_or_default();
        crate::wire::InlineBytes::new(input).unwrap_or(crate::wire::InlineBytes::EMPTY)
    }
}

/// Why a [`SoftKeys`] has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoftKeyError {
    /// There is none.
    #[error("there is no such key")]
    Unknown,
    /// The key is diversified and the terminal has not said which card it is.
    #[error("the key is diversified: the card's UID is needed")]
    NeedsUid,
    /// AN10922 does not take this.
    #[error(transparent)]
    Diversification(#[from] crate::KeyError),
}

/// Keys in this process: for tests, for demonstrations, and for holders without an HSM.
pub struct SoftKeys<'k> {
    entries: &'k [SoftEntry],
}

impl<'k> SoftKeys<'k> {
    /// Over a table of keys.
    #[must_use]
    pub const fn new(entries: &'k [SoftEntry]) -> Self {
        Self { entries }
    }

    fn look_up(&self, wanted: &KeyRequest) -> Result<SoftKey, SoftKeyError> {
        let entry = self
            .entries
            .iter()
            .find(|entry| {
                (entry.aid, entry.key_no, entry.key.key_type())
                    == (wanted.aid, wanted.key_no, wanted.key_type)
            })
            .ok_or(SoftKeyError::Unknown)?;
        let Some(rule) = entry.diversified else {
            return Ok(SoftKey::new(&entry.key));
        };
        let uid = wanted.uid.ok_or(SoftKeyError::NeedsUid)?;
        let input = rule.input(&uid, entry.aid);
        Ok(SoftKey::new(&entry.key.diversify(&input)?))
    }
}

impl core::fmt::Debug for SoftKeys<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SoftKeys({})", self.entries.len())
    }
}

/// A key store's key fails as the store does.
pub struct Found(SoftKey);

impl CbcKey for Found {
    type Error = SoftKeyError;

    fn key_type(&self) -> KeyType {
        self.0.key_type
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), SoftKeyError> {
        self.0.cipher.cbc(direction, iv, data);
        Ok(())
    }
}

impl AsyncCbcKey for Found {
    type Error = SoftKeyError;

    fn key_type(&self) -> KeyType {
        self.0.key_type
    }

    async fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), SoftKeyError> {
        self.0.cipher.cbc(direction, iv, data);
        Ok(())
    }
}

impl KeyStore for SoftKeys<'_> {
    type Key<'s>
        = Found
    where
        Self: 's;
    type Error = SoftKeyError;

    fn find(&mut self, wanted: &KeyRequest) -> Result<Found, SoftKeyError> {
        self.look_up(wanted).map(Found)
    }
}

impl AsyncKeyStore for SoftKeys<'_> {
    type Key<'s>
        = Found
    where
        Self: 's;
    type Error = SoftKeyError;

    async fn find(&mut self, wanted: &KeyRequest) -> Result<Found, SoftKeyError> {
        self.look_up(wanted).map(Found)
    }
}
