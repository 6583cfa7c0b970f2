//! The half of a handshake that has the key: from the card's challenge to the answer, and from
//! the card's proof to the session key. No I/O.

use core::fmt;

use subtle::ConstantTimeEq as _;

use crate::error::{Authenticity, ErrorKind, Malformed, Misuse};
use crate::pcd::bytes::{Wiped, copy};
use crate::pcd::crypto::cipher::Cipher;
use crate::pcd::crypto::work::{CbcDirection, CbcTask, CbcWork};
use crate::pcd::key::Key;
use crate::wire::{AuthScheme, InlineBytes, KeyType};

/// Which secure messaging a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Messaging {
    /// After `0A`.
    D40,
    /// After `1A` and `AA`.
    Ev1,
}

/// What a handshake leaves: the key of one session. Wiped when dropped; does not print itself.
pub struct SessionKey {
    messaging: Messaging,
    key: Key,
}

impl SessionKey {
    #[cfg(any(feature = "internals", feature = "split"))]
    pub(crate) const fn new(messaging: Messaging, key: Key) -> Self {
        Self { messaging, key }
    }

    /// The messaging that it is for.
    #[must_use]
    pub const fn messaging(&self) -> Messaging {
        self.messaging
    }

    /// Its cipher.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key.key_type()
    }

    pub(crate) const fn key(&self) -> &Key {
        &self.key
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SessionKey({:?}, {}, ..)",
            self.messaging,
            self.key_type()
        )
    }
}

/// The key holder's answer to a challenge, before the card has proved itself.
pub(crate) struct Answer {
    token: InlineBytes<32>,
    /// What an honest card will say. Whoever knows it can play the card: it stays in here.
    expected: Wiped<16>,
    session_key: SessionKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// RndB out of the challenge.
    Challenge,
    /// RndA ‖ RndB' ‖ RndA' in one chain: token and proof.
    Chain,
    /// `0A`: D(RndA).
    First,
    /// `0A`: D(RndB' ⊕ first block).
    Second,
    /// `0A`: E(RndA').
    Proof,
    Over,
}

/// What has to be computed under the key to answer a challenge, as calls of CBC: wherever the key
/// is, this is all that is asked of it.
///
/// | scheme | calls |
/// |---|---|
/// | `1A`, `AA` | decrypt the challenge; encrypt RndA ‖ RndB' ‖ RndA' with the challenge's last block as IV |
/// | `0A` | decrypt the challenge; decrypt one block; decrypt one block; encrypt RndA' |
pub(crate) struct KeyHalf {
    scheme: AuthScheme,
    key_type: KeyType,
    stage: Stage,
    iv: [u8; 16],
    /// The last block of the challenge.
    chain_from: [u8; 16],
    data: Wiped<48>,
    rnd_a: Wiped<16>,
    rnd_b: Wiped<16>,
    token: [u8; 32],
}

impl KeyHalf {
    /// Answers the challenge E(RndB) with fresh `rnd_a`, of which as many bytes are used as the
    /// key type's nonces have.
    pub(crate) fn new(
        scheme: AuthScheme,
        key_type: KeyType,
        rnd_a: &[u8; 16],
        challenge: &[u8],
    ) -> Result<Self, ErrorKind> {
        if !scheme.accepts(key_type) {
            return Err(Misuse::KeyType(key_type).into());
        }
        let nonce_len = key_type.nonce_len();
        if challenge.len() != nonce_len {
            return Err(Malformed::Length {
                expected: nonce_len,
                received: challenge.len(),
            }
            .into());
        }
        let mut half = Self {
            scheme,
            key_type,
            stage: Stage::Challenge,
            iv: [0; 16],
            chain_from: [0; 16],
            data: Wiped::default(),
            rnd_a: Wiped::new(*rnd_a),
            rnd_b: Wiped::default(),
            token: [0; 32],
        };
        let last_block = challenge.rchunks(key_type.block_len()).next();
        copy(last_block.unwrap_or_default(), &mut half.chain_from);
        copy(challenge, &mut *half.data);
        Ok(half)
    }

    /// Bytes of the next call.
    const fn len(&self) -> usize {
        match self.stage {
            Stage::Chain => 3 * self.key_type.nonce_len(),
            _ => self.key_type.nonce_len(),
        }
    }

    /// The result, once there is no more [`CbcWork::task`].
    pub(crate) fn finish(self) -> Result<Answer, ErrorKind> {
        if self.stage != Stage::Over {
            return Err(Misuse::OutOfTurn.into());
        }
        let nonce_len = self.key_type.nonce_len();
        let mut expected = Wiped::default();
        copy(
            self.data.get(..nonce_len).unwrap_or_default(),
            &mut *expected,
        );
        let rnd_a = self.rnd_a.get(..nonce_len).unwrap_or_default();
        let rnd_b = self.rnd_b.get(..nonce_len).unwrap_or_default();
        Ok(Answer {
            token: InlineBytes::new(self.token.get(..2 * nonce_len).unwrap_or_default())?,
            expected,
            session_key: derive(self.scheme, self.key_type, rnd_a, rnd_b),
        })
    }
}

impl CbcWork for KeyHalf {
    fn task(&mut self) -> Option<CbcTask<'_>> {
        let len = self.len();
        Some(CbcTask {
            direction: match self.stage {
                Stage::Challenge | Stage::First | Stage::Second => CbcDirection::Decrypt,
                Stage::Chain | Stage::Proof => CbcDirection::Encrypt,
                Stage::Over => return None,
            },
            iv: self.iv.get(..self.key_type.block_len())?,
            data: self.data.get_mut(..len)?,
        })
    }

    fn done(&mut self) {
        let nonce_len = self.key_type.nonce_len();
        let Self {
            stage,
            data,
            token,
            rnd_a,
            rnd_b,
            ..
        } = self;
        let [rnd_a, rnd_b] =
            [rnd_a, rnd_b].map(|nonce| nonce.get_mut(..nonce_len).unwrap_or_default());
        let (first, rest) = data.split_at_mut(nonce_len);
        let (second, third) = rest.split_at_mut(nonce_len);
        let (first_token, second_token) = token.split_at_mut(nonce_len);
        match *stage {
            Stage::Challenge => {
                copy(first, rnd_b);
                copy(rnd_a, first);
                *stage = if self.scheme == AuthScheme::Legacy {
                    Stage::First
                } else {
                    // After deciphering, the chain stands at the last block of the challenge.
                    self.iv = self.chain_from;
                    rotate(rnd_b, second);
                    rotate(rnd_a, third);
                    Stage::Chain
                };
            }
            Stage::Chain => {
                copy(first, first_token);
                copy(second, second_token);
                copy(third, first);
                *stage = Stage::Over;
            }
            Stage::First => {
                copy(first, first_token);
                rotate(rnd_b, second);
                for (byte, nonce) in first.iter_mut().zip(second) {
                    *byte ^= *nonce;
                }
                *stage = Stage::Second;
            }
            Stage::Second => {
                copy(first, second_token);
                rotate(rnd_a, first);
                *stage = Stage::Proof;
            }
            Stage::Proof => *stage = Stage::Over,
            Stage::Over => {}
        }
    }
}

/// The same with the key at hand.
pub(in crate::pcd) fn answer(
    scheme: AuthScheme,
    key: &Key,
    rnd_a: &[u8; 16],
    challenge: &[u8],
) -> Result<Answer, ErrorKind> {
    let mut half = KeyHalf::new(scheme, key.key_type(), rnd_a, challenge)?;
    Cipher::new(key).work(&mut half);
    half.finish()
}

impl Answer {
    /// What goes to the card.
    pub(crate) fn token(&self) -> &[u8] {
        &self.token
    }

    /// What an honest card will say.
    pub(crate) fn expected(&self) -> &[u8] {
        let nonce_len = self.session_key.key_type().nonce_len();
        self.expected.get(..nonce_len).unwrap_or_default()
    }

    #[cfg(test)]
    pub(in crate::pcd) fn expected_for_testing_only(&self) -> std::vec::Vec<u8> {
        self.expected().to_vec()
    }

    /// The session key before the card has proved itself. Nothing may leave the key holder with it
    /// that is of use without the card.
    #[cfg(feature = "split")]
    pub(crate) const fn session_key(&self) -> &SessionKey {
        &self.session_key
    }

    /// Checks the card's proof; only then there is a session key.
    pub(crate) fn verify(&self, proof: &[u8]) -> Result<SessionKey, ErrorKind> {
        if bool::from(self.expected().ct_eq(proof)) {
            Ok(SessionKey {
                messaging: self.session_key.messaging,
                key: self.session_key.key.clone(),
            })
        } else {
            Err(Authenticity::ProofWrong.into())
        }
    }
}

/// RndX' at the front of `to`.
fn rotate(nonce: &[u8], to: &mut [u8]) {
    if let Some((first, rest)) = nonce.split_first() {
        copy(rest, to);
        copy(&[*first], to.get_mut(rest.len()..).unwrap_or_default());
    }
}

/// The session key out of both nonces.
///
/// | key | session key |
/// |---|---|
/// | DES | A0–3 B0–3 |
/// | 2K3DES | A0–3 B0–3 A4–7 B4–7 |
/// | 3K3DES | A0–3 B0–3 A6–9 B6–9 A12–15 B12–15 |
/// | AES | A0–3 B0–3 A12–15 B12–15 |
pub(super) fn derive(
    scheme: AuthScheme,
    key_type: KeyType,
    rnd_a: &[u8],
    rnd_b: &[u8],
) -> SessionKey {
    let starts: &[usize] = match key_type {
        KeyType::Des => &[0, 0],
        KeyType::TwoKey3Des => &[0, 4],
        KeyType::ThreeKey3Des => &[0, 6, 12],
        KeyType::Aes => &[0, 12],
    };
    let mut bytes = Wiped::<24>::default();
    for (start, part) in starts.iter().zip(bytes.chunks_exact_mut(8)) {
        let (from_a, from_b) = part.split_at_mut(4);
        copy(rnd_a.get(*start..).unwrap_or_default(), from_a);
        copy(rnd_b.get(*start..).unwrap_or_default(), from_b);
    }
    SessionKey {
        messaging: match scheme {
            AuthScheme::Legacy => Messaging::D40,
            AuthScheme::Iso | AuthScheme::Aes => Messaging::Ev1,
        },
        key: Key::from_session_bytes(key_type, &bytes),
    }
}
