//! The secure messagings that are measured: what the library does, and the floor under it.

#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "shared by two benches; they are allowed to fail loudly"
)]

use std::hint::black_box;

use desfire_ev1::internals::{self, Chain, Codec, Plaintext};
use desfire_ev1::wire::CommMode;
use desfire_ev1::{Key, Messaging};

use crate::bare::{Bare, cipher, crc16, crc32};
use crate::timing::Work;

pub const LENGTHS: [usize; 4] = [8, 32, 1024, 8192];
/// WriteData: code and header, which EV1 protects as well.
const CODE: u8 = 0x3D;
const HEADER: [u8; 7] = [1, 0, 0, 0, 0, 0x20, 0];
const KEY: [u8; 24] = *b"benched with three keys.";

/// One messaging with one cipher.
pub struct Scheme {
    pub name: &'static str,
    messaging: Messaging,
    key: Key,
    bare: Box<dyn Bare>,
}

pub fn schemes() -> Vec<Scheme> {
    let des = || Key::des(KEY[..8].try_into().expect("8 bytes"));
    let two = || Key::two_key_3des(KEY[..16].try_into().expect("16 bytes")).expect("a 2K3DES key");
    let three = || Key::three_key_3des(KEY);
    let aes = || Key::aes(KEY[..16].try_into().expect("16 bytes"));
    let bare_des = || Box::new(cipher::<des::Des>(&KEY[..8]));
    let bare_two = || Box::new(cipher::<des::TdesEde2>(&KEY[..16]));
    let bare_three = Box::new(cipher::<des::TdesEde3>(&KEY));
    let bare_aes = Box::new(cipher::<aes::Aes128>(&KEY[..16]));
    let scheme = |name, messaging, key, bare| Scheme {
        name,
        messaging,
        key,
        bare,
    };
    vec![
        scheme("D40 DES", Messaging::D40, des(), bare_des()),
        scheme("D40 2K3DES", Messaging::D40, two(), bare_two()),
        scheme("EV1 DES", Messaging::Ev1, des(), bare_des()),
        scheme("EV1 2K3DES", Messaging::Ev1, two(), bare_two()),
        scheme("EV1 3K3DES", Messaging::Ev1, three(), bare_three),
        scheme("EV1 AES", Messaging::Ev1, aes(), bare_aes),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Seal,
    Open,
}

impl Scheme {
    pub fn is_ev1(&self) -> bool {
        self.messaging == Messaging::Ev1
    }

    fn codec(&self) -> Codec {
        Codec::new(self.messaging, &self.key, &[])
    }

    fn padded(&self, len: usize) -> usize {
        len.next_multiple_of(self.bare.block_len())
    }

    /// A genuine reply, made of the parts.
    fn reply(&self, mode: CommMode, data: &[u8]) -> Vec<u8> {
        let mut chain = Chain::new(&self.key, &[]);
        let mut reply = data.to_vec();
        match (mode, self.messaging) {
            (CommMode::Plain | CommMode::Mac, Messaging::Ev1) => {
                let mac = chain.mac(&[data, &[0x00]].concat())[..8].to_vec();
                reply.extend(mac);
            }
            (CommMode::Plain, Messaging::D40) => {}
            (CommMode::Mac, Messaging::D40) => {
                let mut blocks = data.to_vec();
                blocks.resize(self.padded(blocks.len()), 0);
                chain.cbc_encrypt(&mut blocks);
                let last = blocks.len() - 8;
                reply.extend(&blocks[last..last + 4]);
            }
            (CommMode::Enciphered, messaging) => {
                match messaging {
                    Messaging::Ev1 => {
                        reply.extend(internals::crc32(&[data, &[0x00]].concat()));
                    }
                    Messaging::D40 => reply.extend(internals::crc16(data)),
                }
                reply.resize(self.padded(reply.len()), 0);
                chain.cbc_encrypt(&mut reply);
            }
        }
        reply
    }

    /// The library's work.
    pub fn library(&self, direction: Direction, mode: CommMode, len: usize) -> Work<'_> {
        let mut codec = self.codec();
        let data: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        match direction {
            Direction::Seal => {
                let mut out = vec![0; len + 32];
                Box::new(move || {
                    let plain = Plaintext {
                        code: CODE,
                        header: &HEADER,
                        data: black_box(&data),
                        second_crc: &[],
                    };
                    let sealed = codec.seal(plain, mode, black_box(&mut out));
                    black_box(sealed.expect("it can be sealed"));
                })
            }
            Direction::Open => {
                let reply = self.reply(mode, &data);
                let mut buffer = vec![0; len];
                assert_eq!(
                    codec.open(&reply, mode, Some(len), &mut buffer).ok(),
                    Some(len)
                );
                assert_eq!(buffer, data);
                Box::new(move || {
                    codec.rewind(&[]);
                    let opened =
                        codec.open(black_box(&reply), mode, Some(len), black_box(&mut buffer));
                    assert!(opened.is_ok());
                })
            }
        }
    }

    /// The floor under the same.
    pub fn floor(&self, direction: Direction, mode: CommMode, len: usize) -> Work<'_> {
        let crc = if self.is_ev1() { crc32 } else { crc16 };
        let crc_len = if self.is_ev1() { 4 } else { 2 };
        let (before, after) = match (self.is_ev1(), direction) {
            (true, Direction::Seal) => (1 + HEADER.len(), 0),
            (true, Direction::Open) => (0, 1),
            (false, _) => (0, 0),
        };
        let covered = vec![0x5A; before + len + after];
        match mode {
            CommMode::Plain | CommMode::Mac => {
                let blocks = vec![0x5A; self.padded(covered.len())];
                Box::new(move || self.bare.chain(black_box(&blocks)))
            }
            CommMode::Enciphered => {
                let mut blocks = vec![0x5A; self.padded(len + crc_len)];
                let mut out = blocks.clone();
                Box::new(move || match direction {
                    Direction::Seal => {
                        crc(&covered);
                        if self.is_ev1() {
                            self.bare.encrypt(black_box(&mut blocks));
                        } else {
                            self.bare.send(black_box(&mut blocks));
                        }
                    }
                    Direction::Open => {
                        self.bare.decrypt(black_box(&blocks), black_box(&mut out));
                        crc(&covered);
                    }
                })
            }
        }
    }
}
