//! The short messages of a tap: what the key holder answers in proven and card-locked mode, the
//! card's proof, and the release.
//!
//! | message | body |
//! |---|---|
//! | card-locked answer | token, wrapped session key 32 |
//! | token | token |
//! | proof | the card's last answer |
//! | release | wrapped session key 32 |
//!
//! Token and last answer have their length before them. A session key is wrapped as 24 bytes,
//! whatever its type: filled up with zeros, a DES key twice before them.
//!
//! | release | key encryption key |
//! |---|---|
//! | card-locked | from transport key **and** the card's last answer, label `card-locked`, context challenge |
//! | proven | from the transport key, label `proven`, context challenge ‖ the card's last answer |

use zeroize::Zeroizing;

use super::challenge::Mode;
use super::error::{MessageError, Refusal};
use super::kdf;
use super::message::{Binding, From, Kind, Message, OVERHEAD, put_short, take_short};
use crate::SessionKey;
use crate::pcd::doors::Answer;
use crate::wire::{InlineBytes, KeyType};
use crate::{Key, Messaging};

/// Length of a wrapped session key.
const WRAPPED: usize = 32;

/// Token and locked session key, from the key holder.
pub type CardLockedMessage = Message<{ OVERHEAD + 33 + WRAPPED }>;
/// The token alone, from the key holder.
pub type TokenMessage = Message<{ OVERHEAD + 33 }>;
/// The card's last answer, from the terminal.
pub type ProofMessage = Message<{ OVERHEAD + 17 }>;
/// The session key, from the key holder.
pub type ReleaseMessage = Message<{ OVERHEAD + WRAPPED }>;

const CARD_LOCKED: &[u8] = b"desfire split 1 card-locked";
const PROVEN: &[u8] = b"desfire split 1 proven";

/// The key that only transport key and card together give.
fn locking_key(binding: &Binding, proof: &[u8]) -> kdf::Block {
    let salt = binding.transport().bytes();
    kdf::derive_from_both(salt, proof, CARD_LOCKED, binding.context())
}

fn release_key(binding: &Binding, proof: &[u8]) -> kdf::Block {
    let context = [binding.context(), proof];
    kdf::derive(binding.transport().bytes(), PROVEN, context)
}

pub(super) fn card_locked(
    binding: &Binding,
    answer: &Answer,
) -> Result<CardLockedMessage, Refusal> {
    let key_type = answer.session_key().key_type();
    let expected: &[u8; 16] = answer
        .expected()
        .try_into()
        .map_err(|_| Refusal::Unsuitable {
            mode: Mode::CardLocked,
            key_type,
        })?;
    let key = locking_key(binding, expected);
    let wrapped = kdf::wrap(&key, answer.session_key().key().cipher_bytes())?;
    Ok(Message::make(|out| {
        binding.seal(From::Holder, Kind::CardLocked, out, |out| {
            put_short(out, answer.token())?;
            out.put(&wrapped)
        })
    })?)
}

/// A card-locked answer at the terminal.
pub(super) struct CardLocked {
    pub(super) token: InlineBytes<32>,
    wrapped: [u8; WRAPPED],
}

impl CardLocked {
    pub(super) fn open(binding: &Binding, message: &[u8]) -> Result<Self, MessageError> {
        let mut body = binding.open(From::Holder, Kind::CardLocked, message)?;
        let token = take_short(&mut body, "token")?;
        let wrapped = body.array()?;
        body.finish()?;
        Ok(Self { token, wrapped })
    }

    /// The session key, if the card has said what it had to.
    pub(super) fn unlock(
        &self,
        binding: &Binding,
        proof: &[u8],
        key_type: KeyType,
    ) -> Option<SessionKey> {
        let plain = kdf::unwrap(&locking_key(binding, proof), &self.wrapped)?;
        // Only schemes with EV1 messaging have answers of 16 bytes.
        Some(session_key(Messaging::Ev1, key_type, &plain))
    }
}

pub(super) fn session_key(
    messaging: Messaging,
    key_type: KeyType,
    bytes: &Zeroizing<[u8; 24]>,
) -> SessionKey {
    SessionKey::new(messaging, Key::from_session_bytes(key_type, bytes))
}

pub(super) fn token(binding: &Binding, token: &[u8]) -> Result<TokenMessage, Refusal> {
    Ok(Message::make(|out| {
        binding.seal(From::Holder, Kind::Token, out, |out| put_short(out, token))
    })?)
}

pub(super) fn open_token(
    binding: &Binding,
    message: &[u8],
) -> Result<InlineBytes<32>, MessageError> {
    let mut body = binding.open(From::Holder, Kind::Token, message)?;
    let token = take_short(&mut body, "token")?;
    body.finish()?;
    Ok(token)
}

pub(super) fn proof(binding: &Binding, proof: &[u8]) -> Result<ProofMessage, MessageError> {
    Ok(Message::make(|out| {
        binding.seal(From::Terminal, Kind::Proof, out, |out| {
            put_short(out, proof)
        })
    })?)
}

pub(super) fn open_proof(
    binding: &Binding,
    message: &[u8],
) -> Result<InlineBytes<16>, MessageError> {
    let mut body = binding.open(From::Terminal, Kind::Proof, message)?;
    let proof = take_short(&mut body, "proof")?;
    body.finish()?;
    Ok(proof)
}

/// Once the proof has been found right.
pub(super) fn release(
    binding: &Binding,
    proof: &[u8],
    key: &SessionKey,
) -> Result<ReleaseMessage, Refusal> {
    let wrapped = kdf::wrap(&release_key(binding, proof), key.key().cipher_bytes())?;
    Ok(Message::make(|out| {
        binding.seal(From::Holder, Kind::Release, out, |out| out.put(&wrapped))
    })?)
}

pub(super) fn open_release(
    binding: &Binding,
    proof: &[u8],
    messaging: Messaging,
    key_type: KeyType,
    message: &[u8],
) -> Result<SessionKey, MessageError> {
    let mut body = binding.open(From::Holder, Kind::Release, message)?;
    let wrapped: [u8; WRAPPED] = body.array()?;
    body.finish()?;
    let plain = kdf::unwrap(&release_key(binding, proof), &wrapped).ok_or(MessageError::Altered)?;
    Ok(session_key(messaging, key_type, &plain))
}
