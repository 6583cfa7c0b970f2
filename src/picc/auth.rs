//! The three native authentications, card side.

use alloc::vec::Vec;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::card::Card;
use super::chain::{Chain, Step};
use super::choices::TOKEN_LENGTH;
use super::crypto::{Cipher, Iv, rotated, session_key};
use super::reply::{Refusal, Reply};
use super::session::Session;
use crate::wire::{AuthScheme, KeyNo, KeyType, Status};

/// A handshake that waits for the reader's token.
#[derive(Clone)]
pub(super) struct Handshake {
    scheme: AuthScheme,
    key_no: KeyNo,
    key_type: KeyType,
    cipher: Cipher,
    rnd_b: Zeroizing<Vec<u8>>,
    /// Where the CBC of the three messages stands; stays zero in the legacy scheme.
    iv: Iv,
}

impl Card {
    /// First frame: picks RndB and enciphers it.
    pub(super) fn authenticate(
        &mut self,
        scheme: AuthScheme,
        params: &[u8],
    ) -> Result<Step, Refusal> {
        // Whatever comes of it, the session before is over.
        self.field.session = None;
        let [number] = *params else {
            return Err(Status::LengthError.into());
        };
        let (key_no, key) = self.key(number)?;
        let (key_type, cipher) = (key.key_type(), key.cipher());
        if !scheme.accepts(key_type) {
            return Err(Status::AuthenticationError.into());
        }
        let rnd_b = self.random.nonce(key_type.nonce_len());
        let mut handshake = Handshake {
            scheme,
            key_no,
            key_type,
            cipher,
            rnd_b,
            iv: [0; 16],
        };
        let challenge = handshake.encipher(handshake.rnd_b.clone());
        Ok(Step::Continue {
            payload: challenge,
            chain: Chain::Handshake(handshake),
        })
    }

    /// Second frame: checks the token and proves itself.
    pub(super) fn finish_authentication(
        &mut self,
        handshake: Handshake,
        token: &[u8],
    ) -> Result<Step, Refusal> {
        let (session, proof) = handshake.finish(token)?;
        self.field.session = Some(session);
        Ok(Step::Done(Reply::bare(proof)))
    }
}

impl Handshake {
    /// The session and the card's proof, if the token is right.
    fn finish(mut self, token: &[u8]) -> Result<(Session, Vec<u8>), Status> {
        let nonce_len = self.key_type.nonce_len();
        if token.len() != nonce_len.saturating_mul(2) {
            return Err(TOKEN_LENGTH);
        }
        let mut plain = Zeroizing::new(token.to_vec());
        match self.scheme {
            AuthScheme::Legacy => self.cipher.receive_d40(&mut plain),
            AuthScheme::Iso | AuthScheme::Aes => self.cipher.decrypt(&mut self.iv, &mut plain),
        }
        let (rnd_a, answer) = plain.split_at_checked(nonce_len).ok_or(TOKEN_LENGTH)?;
        if !bool::from(rotated(&self.rnd_b).ct_eq(answer)) {
            return Err(Status::AuthenticationError);
        }
        let key = session_key(self.key_type, rnd_a, &self.rnd_b);
        let cipher = Cipher::new(self.key_type, &key);
        let number = self.key_no.number();
        let session = match self.scheme {
            AuthScheme::Legacy => Session::d40(number, cipher),
            AuthScheme::Iso | AuthScheme::Aes => Session::ev1(number, cipher),
        };
        let proof = self.encipher(rotated(rnd_a));
        Ok((session, proof))
    }

    /// A message of the card. In the legacy scheme each begins with a zero IV.
    fn encipher(&mut self, nonce: Zeroizing<Vec<u8>>) -> Vec<u8> {
        let mut message = nonce.to_vec();
        let mut zero = [0; 16];
        let iv = match self.scheme {
            AuthScheme::Legacy => &mut zero,
            AuthScheme::Iso | AuthScheme::Aes => &mut self.iv,
        };
        self.cipher.encrypt(iv, &mut message);
        message
    }
}
