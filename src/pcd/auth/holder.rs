//! The half of a handshake that has the key: from the card's challenge to the answer, and from
//! the card's proof to the session key. No I/O.

use core::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::error::{Authenticity, ErrorKind, Malformed, Misuse};
use crate::pcd::crypto::cipher::{Cipher, Iv};
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
    #[cfg(feature = "internals")]
    pub(in crate::pcd) const fn new(messaging: Messaging, key: Key) -> Self {
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

    pub(in crate::pcd) const fn key(&self) -> &Key {
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
pub(in crate::pcd) struct Answer {
    token: InlineBytes<32>,
    /// What an honest card will say. Whoever knows it can play the card: it stays in here.
    expected: Zeroizing<[u8; 16]>,
    session_key: SessionKey,
}

/// Answers the challenge E(RndB) with fresh `rnd_a`, of which as many bytes are used as the
/// key type's nonces have.
pub(in crate::pcd) fn answer(
    scheme: AuthScheme,
    key: &Key,
    rnd_a: &[u8; 16],
    challenge: &[u8],
) -> Result<Answer, ErrorKind> {
    let key_type = key.key_type();
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
    let cipher = Cipher::new(key);
    let mut iv = Iv::ZERO;

    let mut rnd_b = Zeroizing::new([0; 16]);
    let rnd_b = rnd_b.get_mut(..nonce_len).unwrap_or_default();
    rnd_b.copy_from_slice(challenge);
    cipher.cbc_decrypt(&mut iv, rnd_b);
    let rnd_a = rnd_a.get(..nonce_len).unwrap_or_default();
    let session_key = derive(scheme, key_type, rnd_a, rnd_b);

    let mut token = Zeroizing::new([0; 32]);
    let token = token.get_mut(..2 * nonce_len).unwrap_or_default();
    for (to, from) in token.iter_mut().zip(rnd_a.iter().chain(rotated(rnd_b))) {
        *to = *from;
    }
    let mut expected = Zeroizing::new([0; 16]);
    let proof = expected.get_mut(..nonce_len).unwrap_or_default();
    for (to, from) in proof.iter_mut().zip(rotated(rnd_a)) {
        *to = *from;
    }
    if scheme == AuthScheme::Legacy {
        cipher.send_mode(&mut Iv::ZERO.clone(), token);
        cipher.cbc_encrypt(&mut Iv::ZERO.clone(), proof);
    } else {
        // After deciphering, the chain stands at the last block of the challenge.
        cipher.cbc_encrypt(&mut iv, token);
        cipher.cbc_encrypt(&mut iv, proof);
    }
    Ok(Answer {
        token: InlineBytes::new(token)?,
        expected,
        session_key,
    })
}

impl Answer {
    /// What goes to the card.
    pub(in crate::pcd) fn token(&self) -> &[u8] {
        &self.token
    }

    fn expected(&self) -> &[u8] {
        let nonce_len = self.session_key.key_type().nonce_len();
        self.expected.get(..nonce_len).unwrap_or_default()
    }

    #[cfg(test)]
    pub(in crate::pcd) fn expected_for_testing_only(&self) -> std::vec::Vec<u8> {
        self.expected().to_vec()
    }

    /// Checks the card's proof; only then there is a session key.
    pub(in crate::pcd) fn verify(&self, proof: &[u8]) -> Result<SessionKey, ErrorKind> {
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

fn rotated(nonce: &[u8]) -> impl Iterator<Item = &u8> {
    nonce.iter().skip(1).chain(nonce.first())
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
    let parts = starts.iter().flat_map(|start| {
        let part = |nonce| <[u8]>::iter(nonce).skip(*start).take(4);
        part(rnd_a).chain(part(rnd_b))
    });
    let mut bytes = Zeroizing::new([0; 24]);
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = *from;
    }
    SessionKey {
        messaging: match scheme {
            AuthScheme::Legacy => Messaging::D40,
            AuthScheme::Iso | AuthScheme::Aes => Messaging::Ev1,
        },
        key: Key::from_session_bytes(key_type, &bytes),
    }
}
