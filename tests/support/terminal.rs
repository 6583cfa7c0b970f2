//! The other end of the line for the software card's scenarios: handshakes, MACs and ciphers of
//! a reader in the small.
//!
//! Written from the protocol alone, with the `cbc` and `crc` crates, and apart from both the
//! library and the card. It panics at whatever is not as it should be.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "shared by several test programs, each of which uses a part; a test speaks by panicking"
)]

use aes::Aes128;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit, KeyIvInit};
use cbc::{Decryptor, Encryptor};
use crc::{CRC_16_ISO_IEC_14443_3_A, CRC_32_JAMCRC, Crc};
use des::TdesEde3;

/// A key with its cipher.
#[derive(Clone)]
pub struct Key {
    bytes: Vec<u8>,
    aes: bool,
}

impl Key {
    /// The DES family: 8, 16 or 24 bytes, or AES with 16.
    #[must_use]
    pub fn new(bytes: &[u8], aes: bool) -> Self {
        let fits = if aes {
            bytes.len() == 16
        } else {
            [8, 16, 24].contains(&bytes.len())
        };
        assert!(fits, "a key of {} bytes", bytes.len());
        // Equal halves are a DES key.
        let (first, second) = bytes.split_at(8);
        let bytes = if !aes && first == second {
            first
        } else {
            bytes
        };
        Self {
            bytes: bytes.to_vec(),
            aes,
        }
    }

    fn block(&self) -> usize {
        if self.aes { 16 } else { 8 }
    }

    fn nonce_len(&self) -> usize {
        if self.bytes.len() <= 16 && !self.aes {
            8
        } else {
            16
        }
    }

    fn three_keys(&self) -> Vec<u8> {
        match self.bytes.len() {
            8 => self.bytes.repeat(3),
            16 => [&self.bytes[..], &self.bytes[..8]].concat(),
            _ => self.bytes.clone(),
        }
    }

    /// CBC; gives the ciphertext.
    fn encrypt(&self, iv: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = data.to_vec();
        if self.aes {
            let mut cbc = Encryptor::<Aes128>::new_from_slices(&self.bytes, iv).expect("lengths");
            for block in out.chunks_mut(16) {
                cbc.encrypt_block(block.try_into().expect("whole blocks"));
            }
        } else {
            let key = TdesEde3::new_from_slice(&self.three_keys()).expect("24 bytes");
            let mut cbc = Encryptor::inner_iv_slice_init(key, iv).expect("8 bytes");
            for block in out.chunks_mut(8) {
                cbc.encrypt_block(block.try_into().expect("whole blocks"));
            }
        }
        out
    }

    /// CBC; gives the plaintext.
    fn decrypt(&self, iv: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = data.to_vec();
        if self.aes {
            let mut cbc = Decryptor::<Aes128>::new_from_slices(&self.bytes, iv).expect("lengths");
            for block in out.chunks_mut(16) {
                cbc.decrypt_block(block.try_into().expect("whole blocks"));
            }
        } else {
            let key = TdesEde3::new_from_slice(&self.three_keys()).expect("24 bytes");
            let mut cbc = Decryptor::inner_iv_slice_init(key, iv).expect("8 bytes");
            for block in out.chunks_mut(8) {
                cbc.decrypt_block(block.try_into().expect("whole blocks"));
            }
        }
        out
    }

    /// What a legacy reader does to send: each block xored with the one sent before, then
    /// deciphered.
    fn send_d40(&self, data: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut last = vec![0; 8];
        for block in data.chunks(8) {
            let mixed: Vec<u8> = block.iter().zip(&last).map(|(a, b)| a ^ b).collect();
            last = self.decrypt(&[0; 8], &mixed);
            sent.extend(&last);
        }
        sent
    }

    fn cmac(&self, iv: &[u8], message: &[u8]) -> Vec<u8> {
        let len = self.block();
        let doubled = |bytes: &[u8]| {
            let mut out: Vec<u8> = bytes
                .iter()
                .zip(bytes.iter().skip(1).chain([&0]))
                .map(|(high, low)| high << 1 | low >> 7)
                .collect();
            if bytes[0] & 0x80 != 0 {
                out[len - 1] ^= if len == 16 { 0x87 } else { 0x1B };
            }
            out
        };
        let k1 = doubled(&self.encrypt(&vec![0; len], &vec![0; len]));
        let mut padded = message.to_vec();
        let subkey = if !message.is_empty() && message.len().is_multiple_of(len) {
            k1
        } else {
            padded.push(0x80);
            padded.resize(padded.len().div_ceil(len) * len, 0);
            doubled(&k1)
        };
        let last = padded.len() - len;
        for (byte, key) in padded[last..].iter_mut().zip(subkey) {
            *byte ^= key;
        }
        self.encrypt(iv, &padded)[last..].to_vec()
    }
}

/// A session as the terminal sees it.
#[derive(Clone)]
pub struct Session {
    key: Key,
    /// Of an EV1 session; a D40 session has none.
    iv: Option<Vec<u8>>,
}

/// How something travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Mac,
    Enciphered,
}

impl Session {
    /// The legacy, ISO or AES handshake: gives the token to a challenge, and what finishes it.
    #[must_use]
    pub fn token(ins: u8, key: &Key, challenge: &[u8]) -> (Vec<u8>, Handshake) {
        let len = key.nonce_len();
        assert_eq!(challenge.len(), len, "length of the challenge");
        let legacy = ins == 0x0A;
        let zero = vec![0; key.block()];
        let rnd_a: Vec<u8> = (0xA0..).take(len).collect();
        let rnd_b = key.decrypt(&zero, challenge);
        let both = [&rnd_a[..], &rnd_b[1..], &rnd_b[..1]].concat();
        let token = if legacy {
            key.send_d40(&both)
        } else {
            key.encrypt(&challenge[len - key.block()..], &both)
        };
        let iv = if legacy {
            zero
        } else {
            token[2 * len - key.block()..].to_vec()
        };
        (
            token,
            Handshake {
                legacy,
                key: key.clone(),
                rnd_a,
                rnd_b,
                iv,
            },
        )
    }

    /// A session out of two nonces.
    #[must_use]
    pub fn new(key: &Key, legacy: bool, rnd_a: &[u8], rnd_b: &[u8]) -> Self {
        let offsets: &[usize] = match (key.aes, key.bytes.len()) {
            (true, _) => &[0, 12],
            (_, 8) => &[0],
            (_, 16) => &[0, 4],
            _ => &[0, 6, 12],
        };
        let bytes: Vec<u8> = offsets
            .iter()
            .flat_map(|&at| [&rnd_a[at..at + 4], &rnd_b[at..at + 4]].concat())
            .collect();
        // Not through `Key::new`: whether it is DES was the card key's matter.
        let session_key = Key {
            bytes,
            aes: key.aes,
        };
        let iv = (!legacy).then(|| vec![0; session_key.block()]);
        Self {
            key: session_key,
            iv,
        }
    }

    #[must_use]
    pub const fn is_ev1(&self) -> bool {
        self.iv.is_some()
    }

    fn padded(&self, mut data: Vec<u8>) -> Vec<u8> {
        let len = self.key.block();
        data.resize(data.len().div_ceil(len) * len, 0);
        data
    }

    /// The whole command as sent: `head` is the code and the clear parameters.
    pub fn request(&mut self, mode: Mode, head: &[u8], data: &[u8]) -> Vec<u8> {
        let clear = [head, data].concat();
        let key = self.key.clone();
        let protected = match (mode, &mut self.iv) {
            (Mode::Plain, None) => data.to_vec(),
            (Mode::Plain, Some(iv)) => {
                *iv = key.cmac(iv, &clear);
                data.to_vec()
            }
            (Mode::Mac, None) => [data, &self.d40_mac(data)].concat(),
            (Mode::Mac, Some(iv)) => {
                *iv = key.cmac(iv, &clear);
                [data, &iv[..8]].concat()
            }
            (Mode::Enciphered, _) => {
                let crc = self.crc(head, data);
                let plain = self.padded([data, &crc].concat());
                self.encipher(&plain)
            }
        };
        [head, &protected].concat()
    }

    /// Blocks of plaintext, as a reader sends them.
    pub fn encipher(&mut self, plain: &[u8]) -> Vec<u8> {
        match &mut self.iv {
            None => self.key.send_d40(plain),
            Some(iv) => {
                let sent = self.key.encrypt(iv, plain);
                *iv = sent[sent.len() - self.key.block()..].to_vec();
                sent
            }
        }
    }

    /// CRC16 over the data alone, or CRC32 over everything.
    #[must_use]
    pub fn crc(&self, head: &[u8], data: &[u8]) -> Vec<u8> {
        if self.is_ev1() {
            let crc = Crc::<u32>::new(&CRC_32_JAMCRC).checksum(&[head, data].concat());
            crc.to_le_bytes().to_vec()
        } else {
            let crc = Crc::<u16>::new(&CRC_16_ISO_IEC_14443_3_A).checksum(data);
            crc.to_le_bytes().to_vec()
        }
    }

    fn d40_mac(&self, data: &[u8]) -> Vec<u8> {
        let sent = self.key.encrypt(&[0; 8], &self.padded(data.to_vec()));
        sent[sent.len() - 8..][..4].to_vec()
    }

    /// The data in a successful reply.
    ///
    /// # Panics
    ///
    /// When MAC, CRC or padding are not exactly what they should be.
    pub fn reply(&mut self, mode: Mode, payload: &[u8], expected: &[u8], marked: bool) -> Vec<u8> {
        let key = self.key.clone();
        match (mode, &mut self.iv) {
            (Mode::Plain, None) => payload.to_vec(),
            (Mode::Mac, None) => {
                let (data, mac) = payload.split_at(payload.len().saturating_sub(4));
                assert_eq!(mac, self.d40_mac(data), "MAC of the reply");
                data.to_vec()
            }
            (Mode::Plain | Mode::Mac, Some(iv)) => {
                let (data, mac) = payload.split_at(payload.len().saturating_sub(8));
                *iv = key.cmac(iv, &[data, &[0x00]].concat());
                assert_eq!(mac, &iv[..8], "CMAC of the reply");
                data.to_vec()
            }
            (Mode::Enciphered, iv) => {
                let start = iv.clone().unwrap_or_else(|| vec![0; 8]);
                let plain = key.decrypt(&start, payload);
                if let Some(iv) = iv {
                    *iv = payload[payload.len() - key.block()..].to_vec();
                }
                let (data, rest) = plain.split_at(expected.len().min(plain.len()));
                let covered = if self.is_ev1() {
                    [data, &[0x00]].concat()
                } else {
                    data.to_vec()
                };
                let mut tail = self.crc(&[], &covered);
                if marked {
                    tail.push(0x80);
                }
                let tail_len = self.padded([data, &tail].concat()).len() - data.len();
                tail.resize(tail_len, 0);
                assert_eq!(rest, tail, "CRC and padding of the reply");
                data.to_vec()
            }
        }
    }

    /// The cryptogram of ChangeKey.
    pub fn change_key(
        &mut self,
        number: u8,
        new: &[u8],
        version: Option<u8>,
        old: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut data = new.to_vec();
        if let Some(old) = old {
            data = data.iter().zip(old).map(|(new, old)| new ^ old).collect();
        }
        data.extend(version);
        let head = [0xC4, number];
        let mut plain = [&data[..], &self.crc(&head, &data)].concat();
        if old.is_some() {
            plain.extend(self.crc(&[], new));
        }
        let plain = self.padded(plain);
        [&head[..], &self.encipher(&plain)].concat()
    }

    /// SetConfiguration of an ATS: the one request that is padded with 80.
    pub fn marked_request(&mut self, head: &[u8], data: &[u8]) -> Vec<u8> {
        let mut plain = [data, &self.crc(head, data), &[0x80]].concat();
        plain = self.padded(plain);
        [head, &self.encipher(&plain)].concat()
    }
}

/// A handshake whose token is out.
pub struct Handshake {
    legacy: bool,
    key: Key,
    rnd_a: Vec<u8>,
    rnd_b: Vec<u8>,
    iv: Vec<u8>,
}

impl Handshake {
    /// The session, once the card has proved itself.
    ///
    /// # Panics
    ///
    /// When it has not.
    #[must_use]
    pub fn finish(self, proof: &[u8]) -> Session {
        let answer = self.key.decrypt(&self.iv, proof);
        assert_eq!(
            answer,
            [&self.rnd_a[1..], &self.rnd_a[..1]].concat(),
            "the card's proof"
        );
        Session::new(&self.key, self.legacy, &self.rnd_a, &self.rnd_b)
    }
}

/// The three steps of the ISO authentication: what EXTERNAL AUTHENTICATE takes, RPCD2, and the
/// session of the card's answer.
pub struct IsoHandshake {
    key: Key,
    rnd_pcd: Vec<u8>,
    /// The data of EXTERNAL AUTHENTICATE.
    pub token: Vec<u8>,
    /// The data of INTERNAL AUTHENTICATE.
    pub challenge: Vec<u8>,
}

impl IsoHandshake {
    #[must_use]
    pub fn new(key: &Key, rnd_picc: &[u8]) -> Self {
        let rnd_pcd: Vec<u8> = (0xB0..).take(rnd_picc.len()).collect();
        let token = key.encrypt(&vec![0; key.block()], &[&rnd_pcd, rnd_picc].concat());
        let challenge = (0xC0..).take(rnd_picc.len()).collect();
        Self {
            key: key.clone(),
            rnd_pcd,
            token,
            challenge,
        }
    }

    /// # Panics
    ///
    /// When the card has not proved itself.
    #[must_use]
    pub fn finish(self, proof: &[u8]) -> Session {
        let iv = &self.token[self.token.len() - self.key.block()..];
        let plain = self.key.decrypt(iv, proof);
        let (rnd_picc, answer) = plain.split_at(plain.len() / 2);
        assert_eq!(answer, self.challenge, "the card's proof");
        Session::new(&self.key, false, &self.rnd_pcd, rnd_picc)
    }
}
