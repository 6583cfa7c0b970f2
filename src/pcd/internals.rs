//! Doors for this crate's own tests, benches and fuzz targets, behind the feature `internals`.
//!
//! Not part of the API. What is here lets published vectors of the parts (a CMAC in the middle of
//! a session, one enciphered exchange) and the messaging codec be used without a card.

use crate::error::ErrorKind;
use crate::pcd::auth::{self, Messaging, SessionKey};
use crate::pcd::channel::{
    Channel, DataLength, Incoming, Padding, ReplyProtection, Request, RequestProtection, Sealed,
    TAIL,
};
use crate::pcd::crypto::cipher::{Cipher, Iv};
use crate::pcd::crypto::cmac::{self, Subkeys};
use crate::pcd::crypto::crc;
use crate::pcd::key::Key;
use crate::wire::{AuthScheme, CommMode};

/// CRC16 as sent.
#[must_use]
pub fn crc16(message: &[u8]) -> [u8; 2] {
    crc::CRC16.checksum(message).to_le_bytes()
}

/// CRC32 as sent.
#[must_use]
pub fn crc32(message: &[u8]) -> [u8; 4] {
    crc::CRC32.checksum(message).to_le_bytes()
}

/// A CMAC key with its running IV.
pub struct Chain {
    cipher: Cipher,
    subkeys: Subkeys,
    iv: Iv,
}

impl Chain {
    /// Starts at `iv`.
    #[must_use]
    pub fn new(key: &Key, iv: &[u8]) -> Self {
        let cipher = Cipher::new(key);
        Self {
            subkeys: Subkeys::new(&cipher),
            cipher,
            iv: Iv::from_slice(iv),
        }
    }

    /// K1 and K2.
    #[must_use]
    pub fn subkeys(&self) -> [&[u8]; 2] {
        self.subkeys.bytes(self.cipher.block_len())
    }

    /// The whole CMAC over the message, which is the next IV.
    pub fn mac(&mut self, message: &[u8]) -> &[u8] {
        cmac::cmac(&self.cipher, &self.subkeys, &mut self.iv, &[message]);
        self.iv.bytes(self.cipher.block_len())
    }

    /// CBC over whole blocks.
    pub fn cbc_encrypt(&mut self, data: &mut [u8]) {
        self.cipher.cbc_encrypt(&mut self.iv, data);
    }

    /// CBC over whole blocks.
    pub fn cbc_decrypt(&mut self, data: &mut [u8]) {
        self.cipher.cbc_decrypt(&mut self.iv, data);
    }

    /// The D40 reader's direction over whole blocks.
    pub fn send_mode(&mut self, data: &mut [u8]) {
        self.cipher.send_mode(&mut self.iv, data);
    }
}

/// The key holder's half: token, the card's proof, and the session key's bytes.
pub struct Answered {
    /// What goes to the card.
    pub token: [u8; 32],
    /// How much of it.
    pub token_len: usize,
    /// The session key, padded with zeros.
    pub session_key: [u8; 24],
    /// Its type.
    pub session_key_type: crate::wire::KeyType,
}

/// Answers a challenge and checks the card's proof.
///
/// # Errors
/// As the handshake has them.
pub fn handshake(
    scheme: AuthScheme,
    key: &Key,
    rnd_a: &[u8; 16],
    challenge: &[u8],
    proof: &[u8],
) -> Result<Answered, ErrorKind> {
    let answer = auth::answer(scheme, key, rnd_a, challenge)?;
    let mut token = [0; 32];
    let token_len = answer.token().len();
    for (to, from) in token.iter_mut().zip(answer.token()) {
        *to = *from;
    }
    let session_key = answer.verify(proof)?;
    Ok(Answered {
        token,
        token_len,
        session_key: *session_key.key().cipher_bytes(),
        session_key_type: session_key.key_type(),
    })
}

/// A session key without a handshake.
#[must_use]
pub fn session_key(messaging: Messaging, key: &Key) -> SessionKey {
    SessionKey::new(messaging, key.clone())
}

/// Secure messaging without a session around it.
pub struct Codec {
    channel: Channel,
    /// The request that was sealed last.
    sealed: Sealed,
}

/// A request to be protected.
#[derive(Clone, Copy, Debug)]
pub struct Plaintext<'a> {
    /// The command.
    pub code: u8,
    /// What travels in clear.
    pub header: &'a [u8],
    /// What is protected.
    pub data: &'a [u8],
    /// ChangeKey's second CRC is over this, if it is not empty.
    pub second_crc: &'a [u8],
}

impl Codec {
    /// With a session key and, for EV1, the IV reached so far.
    #[must_use]
    pub fn new(messaging: Messaging, session_key: &Key, iv: &[u8]) -> Self {
        let key = self::session_key(messaging, session_key);
        let mut channel = Channel::new(&key);
        channel.set_iv(Iv::from_slice(iv));
        Self {
            channel,
            sealed: Sealed::empty(),
        }
    }

    /// Goes back to an IV, to do the same again; nothing happens in D40.
    pub fn rewind(&mut self, iv: &[u8]) {
        self.channel.set_iv(Iv::from_slice(iv));
    }

    /// The IV reached so far; nothing in D40.
    #[must_use]
    pub fn iv(&self) -> Option<&[u8]> {
        self.channel.iv()
    }

    /// The protected data, put into `out`; their length. The header is not repeated.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] if there is no such protection.
    pub fn seal(
        &mut self,
        plain: Plaintext<'_>,
        mode: CommMode,
        out: &mut [u8],
    ) -> Result<usize, ErrorKind> {
        let protection = match mode {
            CommMode::Plain => RequestProtection::Plain,
            CommMode::Mac => RequestProtection::Mac,
            CommMode::Enciphered => RequestProtection::Enciphered {
                padding: Padding::Zeros,
                second_crc: plain.second_crc,
            },
        };
        let Plaintext {
            code, header, data, ..
        } = plain;
        self.channel
            .seal(Request { code, header, data }, protection, &mut self.sealed)?;
        Ok(self.channel.take(&mut self.sealed, data, out))
    }

    /// Opens a reply's joined payload; the data are then at the front of `buffer`, which has room
    /// for the data only.
    ///
    /// # Errors
    /// As an exchange has them.
    pub fn open(
        &mut self,
        payload: &[u8],
        mode: CommMode,
        length: Option<usize>,
        buffer: &mut [u8],
    ) -> Result<usize, ErrorKind> {
        let protection = match mode {
            CommMode::Plain => ReplyProtection::Standard,
            CommMode::Mac => ReplyProtection::Mac,
            CommMode::Enciphered => ReplyProtection::Enciphered {
                length: length.map_or(DataLength::UNKNOWN, DataLength::Exactly),
            },
        };
        let mut tail = [0; TAIL];
        let (to_buffer, to_tail) = payload.split_at(buffer.len().min(payload.len()));
        for (to, from) in buffer.iter_mut().zip(to_buffer) {
            *to = *from;
        }
        for (to, from) in tail.iter_mut().zip(to_tail) {
            *to = *from;
        }
        self.channel.open(
            protection,
            &mut Incoming {
                buffer,
                tail: &mut tail,
                len: payload.len(),
            },
        )
    }
}
