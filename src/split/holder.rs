//! The key holder: from a challenge to whatever its mode allows to give away.
//!
//! For: checking a challenge, having it answered under a key that is elsewhere, releasing. May know:
//! messages, policies, key handles. May not know: where keys are, how messages travel.

use rand_core::TryCryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::answer::{self, CardLockedMessage, ReleaseMessage, TokenMessage};
use super::builder::ScriptBuilder;
use super::challenge::{Challenge, Freshness, Mode};
use super::error::{HolderError, MessageError, Refusal};
use super::kdf;
use super::key::{AsyncCbcKey, AsyncKeyStore, CbcKey, KeyRequest, KeyStore, work, work_async};
use super::message::{Binding, Kind, Message};
use super::policy::{Modes, Policy, ReplayGuard};
use super::storage::StorageKey;
use super::transport_key::{TransportKey, TransportKeyId};
use crate::error::ErrorKind;
use crate::pcd::doors::{Answer, KeyHalf};
use crate::wire::{KeyType, Reader, Writer};
use crate::{Authenticated, Session, SessionKey};

/// A challenge that the key holder is going to answer: made with the terminal's key, granted, and
/// no repetition.
pub struct Accepted {
    challenge: Challenge,
    binding: Binding,
}

impl Accepted {
    /// Checks a challenge against the key holder's books, in this order: form, terminal and its transport
    /// key, MAC, what is granted, freshness.
    ///
    /// # Errors
    /// [`Refusal::Message`], [`Refusal::UnknownTerminal`], [`Refusal::NotGranted`],
    /// [`Refusal::Unsuitable`], [`Refusal::CounterMismatch`], [`Refusal::Replayed`],
    /// [`Refusal::NotFresh`], [`Refusal::Full`].
    pub fn check(
        message: &[u8],
        policy: &(impl Policy + ?Sized),
        guard: &mut (impl ReplayGuard + ?Sized),
    ) -> Result<Self, Refusal> {
        let claimed = Challenge::claimed(message)?.intent;
        let known = policy
            .terminal(&claimed.terminal, claimed.transport)
            .filter(|known| known.id == claimed.terminal)
            .ok_or(Refusal::UnknownTerminal)?;
        // Another terminal's key does not speak for this one.
        let key = known
            .transport_key(claimed.transport)
            .ok_or(Refusal::UnknownTerminal)?;
        let challenge = Challenge::open(message, &key)?;
        let binding = Binding::new(&challenge, &key)?;
        let accepted = Self { challenge, binding };
        let intent = &accepted.challenge.intent;
        let request = accepted.key_request();
        if !known.modes(&request).contains(Modes::from(intent.mode)) {
            return Err(Refusal::NotGranted {
                mode: intent.mode,
                aid: request.aid,
                key_no: request.key_no,
            });
        }
        accepted.suitable()?;
        // One key, one tap: the counter that names the key must be the one that cannot come
        // again.
        if let TransportKeyId::Dukpt(ksn) = intent.transport
            && intent.freshness != Freshness::Counter(u64::from(ksn.counter))
        {
            return Err(Refusal::CounterMismatch);
        }
        guard.accept(&intent.terminal, &intent.freshness)?;
        Ok(accepted)
    }

    fn suitable(&self) -> Result<(), Refusal> {
        let intent = &self.challenge.intent;
        let fits = match intent.mode {
            Mode::Proven | Mode::Remote => true,
            Mode::CardLocked => intent.key_type.nonce_len() == 16,
            // D40 messaging proves nothing of plain commands.
            Mode::Script => intent.scheme != crate::wire::AuthScheme::Legacy,
        };
        if fits {
            Ok(())
        } else {
            Err(Refusal::Unsuitable {
                mode: intent.mode,
                key_type: intent.key_type,
            })
        }
    }

    /// The challenge.
    #[must_use]
    pub const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// The key that it needs.
    #[must_use]
    pub const fn key_request(&self) -> KeyRequest {
        let intent = &self.challenge.intent;
        KeyRequest {
            aid: self.challenge.aid,
            key_no: intent.key_no,
            scheme: intent.scheme,
            key_type: intent.key_type,
            uid: intent.uid,
        }
    }

    pub(super) const fn binding(&self) -> &Binding {
        &self.binding
    }

    fn begin<R: TryCryptoRng + ?Sized>(
        &self,
        key_type: KeyType,
        rng: &mut R,
    ) -> Result<KeyHalf, Refusal> {
        let intent = &self.challenge.intent;
        if intent.mode == Mode::Remote {
            return Err(Refusal::WrongMode { asked: intent.mode });
        }
        if key_type != intent.key_type {
            return Err(Refusal::KeyType(key_type));
        }
        let mut rnd_a = Zeroizing::new([0; 16]);
        rng.try_fill_bytes(rnd_a.as_mut())
            .map_err(|_| Refusal::Randomness)?;
        KeyHalf::new(intent.scheme, key_type, &rnd_a, &self.challenge.cryptogram).map_err(malformed)
    }

    fn end(self, half: KeyHalf) -> Result<Answered, Refusal> {
        let answer = half.finish().map_err(malformed)?;
        Ok(Answered {
            accepted: self,
            answer,
        })
    }

    /// Has it answered under `key`.
    ///
    /// # Errors
    /// [`HolderError::Key`]; [`Refusal::KeyType`], [`Refusal::Randomness`],
    /// [`Refusal::WrongMode`] for a remote dialogue.
    pub fn answer<K: CbcKey + ?Sized, R: TryCryptoRng + ?Sized>(
        self,
        key: &mut K,
        rng: &mut R,
    ) -> Result<Answered, HolderError<K::Error>> {
        let mut half = self.begin(key.key_type(), rng)?;
        work(key, &mut half).map_err(HolderError::Key)?;
        Ok(self.end(half)?)
    }

    /// The same for a key that takes its time.
    ///
    /// # Errors
    /// As [`Accepted::answer`].
    pub async fn answer_async<K: AsyncCbcKey + ?Sized, R: TryCryptoRng + ?Sized>(
        self,
        key: &mut K,
        rng: &mut R,
    ) -> Result<Answered, HolderError<K::Error>> {
        let mut half = self.begin(key.key_type(), rng)?;
        work_async(key, &mut half).await.map_err(HolderError::Key)?;
        Ok(self.end(half)?)
    }

    /// Finds the key and has the challenge answered under it.
    ///
    /// # Errors
    /// As [`Accepted::answer`].
    pub fn answer_from<S: KeyStore + ?Sized, R: TryCryptoRng + ?Sized>(
        self,
        store: &mut S,
        rng: &mut R,
    ) -> Result<Answered, HolderError<S::Error>> {
        let mut key = store.find(&self.key_request()).map_err(HolderError::Key)?;
        self.answer(&mut key, rng)
    }

    /// The same for a store that takes its time.
    ///
    /// # Errors
    /// As [`Accepted::answer`].
    pub async fn answer_from_async<S: AsyncKeyStore + ?Sized, R: TryCryptoRng + ?Sized>(
        self,
        store: &mut S,
        rng: &mut R,
    ) -> Result<Answered, HolderError<S::Error>> {
        let request = self.key_request();
        let mut key = store.find(&request).await.map_err(HolderError::Key)?;
        self.answer_async(&mut key, rng).await
    }
}

/// What cannot be, since the challenge's form has been checked.
const fn malformed(_: ErrorKind) -> Refusal {
    Refusal::Message(MessageError::Altered)
}

/// An answered challenge. Nothing has left yet; there is one way out for each mode, and only the
/// one that the challenge asked for is open. There is none that gives a session key for the bare
/// challenge.
pub struct Answered {
    pub(super) accepted: Accepted,
    pub(super) answer: Answer,
}

impl Answered {
    /// The challenge.
    #[must_use]
    pub const fn challenge(&self) -> &Challenge {
        self.accepted.challenge()
    }

    pub(super) fn only_for(&self, mode: Mode) -> Result<(), Refusal> {
        let asked = self.challenge().intent.mode;
        if asked == mode {
            Ok(())
        } else {
            Err(Refusal::WrongMode { asked })
        }
    }

    /// Card-locked: token and session key, which only the card's proof unlocks. Nothing is left to
    /// do for the key holder.
    ///
    /// # Errors
    /// [`Refusal::WrongMode`]; [`Refusal::Unsuitable`] for keys with 8-byte answers.
    pub fn card_locked(self) -> Result<CardLockedMessage, Refusal> {
        self.only_for(Mode::CardLocked)?;
        answer::card_locked(&self.accepted.binding, &self.answer)
    }

    /// Proven: the token, and what waits for the card's proof. `deadline` is on whatever clock
    /// [`Pending::release`] is asked by.
    ///
    /// # Errors
    /// [`Refusal::WrongMode`].
    pub fn proven(self, deadline: u64) -> Result<(TokenMessage, Pending), Refusal> {
        self.only_for(Mode::Proven)?;
        let Self { accepted, answer } = self;
        let message = answer::token(&accepted.binding, answer.token())?;
        let mut expected = Zeroizing::new([0; 16]);
        for (to, from) in expected.iter_mut().zip(answer.expected()) {
            *to = *from;
        }
        let pending = Pending {
            challenge: accepted.challenge,
            binding: accepted.binding,
            expected,
            session_key: Zeroizing::new(*answer.session_key().key().cipher_bytes()),
            deadline,
            over: false,
        };
        Ok((message, pending))
    }

    /// Script: the session that the card is going to have, in which typed commands are put into a
    /// script instead of being run. `script` takes what goes to the terminal, `record` what the
    /// key holder keeps; a frame with its share of the rest takes up to 90 bytes of either.
    ///
    /// # Errors
    /// [`Refusal::WrongMode`], [`Refusal::BufferTooSmall`].
    pub fn script<'b>(
        self,
        script: &'b mut [u8],
        record: &'b mut [u8],
    ) -> Result<(Session<Authenticated>, ScriptBuilder<'b>), Refusal> {
        self.only_for(Mode::Script)?;
        ScriptBuilder::begin(self, script, record)
    }
}

/// A proven release that waits for the card's proof. Wiped when dropped.
pub struct Pending {
    challenge: Challenge,
    binding: Binding,
    expected: Zeroizing<[u8; 16]>,
    session_key: Zeroizing<[u8; 24]>,
    deadline: u64,
    /// A proof has been judged.
    over: bool,
}

impl Pending {
    /// Length of the plain form: format and kind 2, deadline 8, expected answer 16, session key 24,
    /// challenge.
    const PLAIN: usize = 2 + 8 + 16 + 24 + Challenge::MAX_LEN;

    /// The challenge.
    #[must_use]
    pub const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    fn session_key(&self) -> SessionKey {
        let intent = &self.challenge.intent;
        answer::session_key(
            messaging(&self.challenge),
            intent.key_type,
            &self.session_key,
        )
    }

    /// Releases the session key if the proof is the card's.
    ///
    /// A message that is not this terminal's, or not of this tap, changes nothing: the right one can still
    /// come. Any other is the last: afterwards the keys are wiped and the answer is
    /// [`Refusal::Expired`].
    ///
    /// # Errors
    /// [`Refusal::Message`], [`Refusal::Expired`], [`Refusal::NotProved`].
    pub fn release(&mut self, proof: &[u8], now: u64) -> Result<ReleaseMessage, Refusal> {
        let proof = answer::open_proof(&self.binding, proof)?;
        let released = self.released(&proof, now);
        self.wipe();
        released
    }

    fn released(&self, proof: &[u8], now: u64) -> Result<ReleaseMessage, Refusal> {
        if self.over || now > self.deadline {
            return Err(Refusal::Expired);
        }
        let len = self.challenge.intent.key_type.nonce_len();
        let expected = self.expected.get(..len).unwrap_or_default();
        if !kdf::same(expected, proof) {
            return Err(Refusal::NotProved);
        }
        answer::release(&self.binding, proof, &self.session_key())
    }

    fn wipe(&mut self) {
        self.over = true;
        self.expected.zeroize();
        self.session_key.zeroize();
    }

    /// The value for a key holder that keeps no state: enciphered and proof against changes, to be
    /// sent along with the token and brought back with the proof. Such a holder cannot know that it has
    /// judged a proof already, and judges until the deadline.
    ///
    /// # Errors
    /// [`Refusal::Expired`] after a proof has been judged.
    pub fn seal(&self, key: &StorageKey) -> Result<PendingMessage, Refusal> {
        if self.over {
            return Err(Refusal::Expired);
        }
        let mut plain = Zeroizing::new([0; Self::PLAIN]);
        let mut writer = Writer::new(plain.as_mut());
        writer.put(&[super::FORMAT, Kind::Pending as u8])?;
        writer.put(&self.deadline.to_le_bytes())?;
        writer.put(self.expected.as_ref())?;
        writer.put(self.session_key.as_ref())?;
        writer.put(&self.challenge.seal(self.binding.transport())?)?;
        let len = writer.written();
        let plain = plain.get(..len).unwrap_or_default();
        Message::make(|out| key.seal(plain, out))
    }

    /// What [`Pending::seal`] made.
    ///
    /// # Errors
    /// [`Refusal::Stored`] if it was changed or is under another key; [`Refusal::Message`] if the
    /// transport key is another.
    pub fn unseal(
        sealed: &[u8],
        key: &StorageKey,
        transport: &TransportKey,
    ) -> Result<Self, Refusal> {
        let mut plain = Zeroizing::new([0; StorageKey::sealed_len(Self::PLAIN)]);
        let len = key.unseal(sealed, plain.as_mut())?;
        let mut reader = Reader::new(plain.get(..len).unwrap_or_default());
        if reader.array()? != [super::FORMAT, Kind::Pending as u8] {
            return Err(Refusal::Stored);
        }
        let deadline = u64::from_le_bytes(reader.array()?);
        let expected = Zeroizing::new(reader.array()?);
        let session_key = Zeroizing::new(reader.array()?);
        let challenge = Challenge::open(reader.rest(), transport)?;
        Ok(Self {
            binding: Binding::new(&challenge, transport)?,
            challenge,
            expected,
            session_key,
            deadline,
            over: false,
        })
    }
}

/// A sealed [`Pending`].
pub type PendingMessage = Message<{ StorageKey::sealed_len(Pending::PLAIN) }>;

/// The messaging that a challenge's handshake leads to.
pub(super) const fn messaging(challenge: &Challenge) -> crate::Messaging {
    match challenge.intent.scheme {
        crate::wire::AuthScheme::Legacy => crate::Messaging::D40,
        crate::wire::AuthScheme::Iso | crate::wire::AuthScheme::Aes => crate::Messaging::Ev1,
    }
}
