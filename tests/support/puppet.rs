//! A third card: it does the handshake and then answers whatever the test says, sealed by code of
//! its own. Written from chapter 7 of the protocol reference on the bare block ciphers, so that a
//! test that uses it depends on neither half of the crate.

#![allow(dead_code, reason = "each test file uses a part of it")]

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use desfire_ev1::wire::{Framing, KeyType};
use desfire_ev1::{Link, LinkFormat, Transport};

use crate::rig::{Silent, Suite, command, framed, put};

/// A block cipher with its key.
#[derive(Clone)]
pub(crate) enum Engine {
    Des(des::Des),
    Two(des::TdesEde2),
    Three(des::TdesEde3),
    Aes(aes::Aes128),
}

fn encrypt<C: BlockCipherEncrypt>(cipher: &C, data: &[u8]) -> Vec<u8> {
    let mut block = Block::<C>::default();
    block.copy_from_slice(data);
    cipher.encrypt_block(&mut block);
    block.to_vec()
}

fn decrypt<C: BlockCipherDecrypt>(cipher: &C, data: &[u8]) -> Vec<u8> {
    let mut block = Block::<C>::default();
    block.copy_from_slice(data);
    cipher.decrypt_block(&mut block);
    block.to_vec()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

impl Engine {
    pub(crate) fn new(key_type: KeyType, key: &[u8]) -> Self {
        match key_type {
            KeyType::Des => Self::Des(KeyInit::new_from_slice(&key[..8]).unwrap()),
            KeyType::TwoKey3Des => Self::Two(KeyInit::new_from_slice(&key[..16]).unwrap()),
            KeyType::ThreeKey3Des => Self::Three(KeyInit::new_from_slice(&key[..24]).unwrap()),
            KeyType::Aes => Self::Aes(KeyInit::new_from_slice(&key[..16]).unwrap()),
        }
    }

    pub(crate) fn block_len(&self) -> usize {
        if matches!(self, Self::Aes(_)) { 16 } else { 8 }
    }

    pub(crate) fn encrypt(&self, block: &[u8]) -> Vec<u8> {
        match self {
            Self::Des(cipher) => encrypt(cipher, block),
            Self::Two(cipher) => encrypt(cipher, block),
            Self::Three(cipher) => encrypt(cipher, block),
            Self::Aes(cipher) => encrypt(cipher, block),
        }
    }

    pub(crate) fn decrypt(&self, block: &[u8]) -> Vec<u8> {
        match self {
            Self::Des(cipher) => decrypt(cipher, block),
            Self::Two(cipher) => decrypt(cipher, block),
            Self::Three(cipher) => decrypt(cipher, block),
            Self::Aes(cipher) => decrypt(cipher, block),
        }
    }

    fn cbc_encrypt(&self, iv: &mut Vec<u8>, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for block in data.chunks(self.block_len()) {
            *iv = self.encrypt(&xor(block, iv));
            out.extend_from_slice(iv);
        }
        out
    }

    fn cbc_decrypt(&self, iv: &mut Vec<u8>, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for block in data.chunks(self.block_len()) {
            out.extend(xor(&self.decrypt(block), iv));
            *iv = block.to_vec();
        }
        out
    }
}

/// CRC-32/JAMCRC, bit by bit.
pub(crate) fn crc32(data: &[u8]) -> [u8; 4] {
    let crc = data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    });
    crc.to_le_bytes()
}

/// CRC-16/ISO-IEC-14443-3-A, bit by bit.
pub(crate) fn crc16(data: &[u8]) -> [u8; 2] {
    let crc = data.iter().fold(0x6363_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x8408 & (crc & 1).wrapping_neg())
        })
    });
    crc.to_le_bytes()
}

/// The card's end of secure messaging.
#[derive(Clone)]
pub(crate) struct Seal {
    engine: Engine,
    iv: Vec<u8>,
    ev1: bool,
}

impl Seal {
    pub(crate) fn new(suite: Suite, session_key: &[u8]) -> Self {
        let engine = Engine::new(suite.key_type, session_key);
        Self {
            iv: vec![0; engine.block_len()],
            engine,
            ev1: suite.is_ev1(),
        }
    }

    pub(crate) fn block_len(&self) -> usize {
        self.engine.block_len()
    }

    fn doubled(&self, block: &[u8]) -> Vec<u8> {
        let reduce = if self.block_len() == 16 { 0x87 } else { 0x1B };
        let mut out: Vec<u8> = (0..block.len())
            .map(|i| block[i] << 1 | block.get(i + 1).map_or(0, |next| next >> 7))
            .collect();
        if block[0] & 0x80 != 0 {
            *out.last_mut().unwrap() ^= reduce;
        }
        out
    }

    /// Moves the IV on over a message that travels plain; the whole CMAC.
    pub(crate) fn absorb(&mut self, message: &[u8]) -> Vec<u8> {
        let len = self.block_len();
        let k1 = self.doubled(&self.engine.encrypt(&vec![0; len]));
        let mut message = message.to_vec();
        let key = if !message.is_empty() && message.len().is_multiple_of(len) {
            k1
        } else {
            message.push(0x80);
            message.resize(message.len().next_multiple_of(len), 0);
            self.doubled(&k1)
        };
        let last = message.len() - len;
        let end = xor(&message[last..], &key);
        message.truncate(last);
        message.extend(end);
        self.engine.cbc_encrypt(&mut self.iv, &message);
        self.iv.clone()
    }

    /// The command as it came: what every command but an enciphered one does to the IV.
    pub(crate) fn heard(&mut self, code: u8, params: &[u8]) {
        if self.ev1 {
            self.absorb(&[&[code], params].concat());
        }
    }

    /// A reply as a plain exchange has it.
    pub(crate) fn plain(&mut self, data: &[u8]) -> Vec<u8> {
        if !self.ev1 {
            return data.to_vec();
        }
        let mac = self.absorb(&[data, &[0]].concat());
        [data, &mac[..8]].concat()
    }

    /// A reply with file data in MACed mode.
    pub(crate) fn maced(&mut self, data: &[u8]) -> Vec<u8> {
        if self.ev1 {
            return self.plain(data);
        }
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(8), 0);
        let mut iv = vec![0; 8];
        self.engine.cbc_encrypt(&mut iv, &padded);
        [data, &iv[..4]].concat()
    }

    /// The CRC of a reply's data.
    pub(crate) fn crc(&self, data: &[u8]) -> Vec<u8> {
        if self.ev1 {
            crc32(&[data, &[0]].concat()).to_vec()
        } else {
            crc16(data).to_vec()
        }
    }

    /// Data, CRC, and zeros up to the block.
    pub(crate) fn zero_padded(&mut self, data: &[u8]) -> Vec<u8> {
        let mut all = [data, &self.crc(data)].concat();
        all.resize(all.len().next_multiple_of(self.block_len()), 0);
        self.encrypt(&all)
    }

    /// Data, CRC, `80`, and zeros up to the block.
    pub(crate) fn mark_padded(&mut self, data: &[u8]) -> Vec<u8> {
        let mut all = [data, &self.crc(data), &[0x80]].concat();
        all.resize(all.len().next_multiple_of(self.block_len()), 0);
        self.encrypt(&all)
    }

    /// Whole blocks as the card enciphers them.
    pub(crate) fn encrypt(&mut self, blocks: &[u8]) -> Vec<u8> {
        let mut zero = vec![0; self.block_len()];
        let iv = if self.ev1 { &mut self.iv } else { &mut zero };
        self.engine.cbc_encrypt(iv, blocks)
    }

    /// Whole blocks as the reader sees them that [`Self::encrypt`] makes.
    pub(crate) fn deciphered(&self, blocks: &[u8]) -> Vec<u8> {
        let mut iv = vec![0; self.block_len()];
        if self.ev1 {
            iv.clone_from(&self.iv);
        }
        self.engine.cbc_decrypt(&mut iv, blocks)
    }

    /// What the reader's IV is after an enciphered reply.
    pub(crate) fn follow(&mut self, blocks: &[u8]) {
        if self.ev1 {
            self.iv = blocks[blocks.len() - self.block_len()..].to_vec();
        }
    }

    /// Whole blocks as the reader has enciphered them.
    pub(crate) fn decrypt(&mut self, blocks: &[u8]) -> Vec<u8> {
        if self.ev1 {
            return self.engine.cbc_decrypt(&mut self.iv, blocks);
        }
        // The reader has deciphered with the previous ciphertext XORed in.
        let mut before = vec![0; 8];
        let mut out = Vec::new();
        for block in blocks.chunks(8) {
            out.extend(xor(&self.engine.encrypt(block), &before));
            before = block.to_vec();
        }
        out
    }
}

/// Frames of a reply: status and payload.
pub(crate) type Frames = Vec<(u8, Vec<u8>)>;

/// A single frame.
pub(crate) fn one(payload: Vec<u8>) -> Frames {
    vec![(0x00, payload)]
}

/// A payload cut into frames.
pub(crate) fn cut(payload: &[u8], chunk: usize) -> Frames {
    let mut frames: Frames = payload
        .chunks(chunk)
        .map(|part| (0xAF, part.to_vec()))
        .collect();
    if let Some(last) = frames.last_mut() {
        last.0 = 0x00;
    }
    frames
}

enum Phase {
    Idle,
    Handshake {
        code: u8,
        rnd_b: Vec<u8>,
        iv: Vec<u8>,
    },
    Frames(std::collections::VecDeque<(u8, Vec<u8>)>),
}

/// The card. `A` gets every command but the handshake's and SelectApplication, and its reply is
/// sent as it stands.
pub(crate) struct Puppet<A> {
    suite: Suite,
    format: LinkFormat,
    phase: Phase,
    /// Nothing before the handshake.
    pub(crate) seal: Option<Seal>,
    answer: A,
    /// Every command that has come.
    pub(crate) sent: Vec<Vec<u8>>,
}

impl<A: FnMut(&mut Seal, u8, &[u8]) -> Frames> Puppet<A> {
    pub(crate) fn new(suite: Suite, framing: Framing, answer: A) -> Self {
        Self {
            suite,
            format: LinkFormat {
                framing,
                max_command: 60,
            },
            phase: Phase::Idle,
            seal: None,
            answer,
            sent: Vec::new(),
        }
    }

    fn challenge(&mut self, code: u8) -> (u8, Vec<u8>) {
        let engine = Engine::new(self.suite.key_type, &self.suite.key_bytes(0));
        let nonce_len = self.suite.key_type.nonce_len();
        let rnd_b: Vec<u8> = (0..nonce_len)
            .map(|i| 0xB0 ^ (i as u8).wrapping_mul(29))
            .collect();
        let mut iv = vec![0; engine.block_len()];
        let challenge = engine.cbc_encrypt(&mut iv, &rnd_b);
        self.seal = None;
        self.phase = Phase::Handshake { code, rnd_b, iv };
        (0xAF, challenge)
    }

    fn prove(&mut self, code: u8, rnd_b: &[u8], mut iv: Vec<u8>, token: &[u8]) -> (u8, Vec<u8>) {
        let key_type = self.suite.key_type;
        let engine = Engine::new(key_type, &self.suite.key_bytes(0));
        let mut turned = rnd_b.to_vec();
        turned.rotate_left(1);
        let plain = if code == 0x0A {
            // The card only encrypts: RndA = E(y1), RndB' = E(y2) XOR y1.
            let (y1, y2) = token.split_at(8);
            [engine.encrypt(y1), xor(&engine.encrypt(y2), y1)].concat()
        } else {
            engine.cbc_decrypt(&mut iv, token)
        };
        let (rnd_a, answer) = plain.split_at(rnd_b.len());
        if answer != turned {
            return (0xAE, Vec::new());
        }
        let mut proof = rnd_a.to_vec();
        proof.rotate_left(1);
        if code == 0x0A {
            iv.fill(0);
        }
        let proof = engine.cbc_encrypt(&mut iv, &proof);
        let starts: &[usize] = match key_type {
            KeyType::Des => &[0],
            KeyType::TwoKey3Des => &[0, 4],
            KeyType::ThreeKey3Des => &[0, 6, 12],
            KeyType::Aes => &[0, 12],
        };
        let session_key: Vec<u8> = starts
            .iter()
            .flat_map(|start| [&rnd_a[*start..start + 4], &rnd_b[*start..start + 4]].concat())
            .collect();
        self.seal = Some(Seal::new(self.suite, &session_key));
        (0x00, proof)
    }

    fn next_frame(
        &mut self,
        mut frames: std::collections::VecDeque<(u8, Vec<u8>)>,
    ) -> (u8, Vec<u8>) {
        let frame = frames.pop_front().unwrap_or((0x00, Vec::new()));
        if !frames.is_empty() {
            self.phase = Phase::Frames(frames);
        }
        frame
    }

    fn frame(&mut self, code: u8, params: &[u8]) -> (u8, Vec<u8>) {
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Handshake { code, rnd_b, iv } => return self.prove(code, &rnd_b, iv, params),
            Phase::Frames(frames) => return self.next_frame(frames),
            Phase::Idle => {}
        }
        match code {
            0x0A | 0x1A | 0xAA => self.challenge(code),
            0x5A => {
                self.seal = None;
                (0x00, Vec::new())
            }
            _ => {
                let mut nobody = Seal::new(self.suite, &self.suite.key_bytes(0));
                nobody.ev1 = false;
                let seal = self.seal.as_mut().unwrap_or(&mut nobody);
                let frames = (self.answer)(seal, code, params);
                self.next_frame(frames.into())
            }
        }
    }
}

impl<A> Link for Puppet<A> {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl<A: FnMut(&mut Seal, u8, &[u8]) -> Frames> Transport for Puppet<A> {
    fn exchange(&mut self, sent: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        self.sent.push(sent.to_vec());
        let (code, params) = command(self.format.framing, sent);
        let (status, payload) = self.frame(code, &params);
        put(&framed(self.format.framing, status, &payload), reply)
    }
}
