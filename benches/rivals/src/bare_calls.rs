//! The floor under each exchange: its key schedules, block cipher calls and CRCs, called directly on bytes
//! that lie ready, and nothing else. Lengths are those of the recorded exchanges, filled up to whole
//! blocks: a command is `code ‖ header ‖ data`, a reply `data ‖ status`.

use std::hint::black_box;

use aes::Aes128;
use des::Des;

use crate::bare::{Bare, cipher, crc32};
use crate::clock::Clock;
use crate::steps;

/// The longest that is enciphered at once.
const ROOM: usize = 336;

/// Ciphers with their schedules, and bytes for them.
pub struct BareCalls {
    aes: Aes128,
    des: Des,
    bytes: [u8; ROOM],
    out: [u8; ROOM],
}

impl BareCalls {
    pub fn new() -> Self {
        Self {
            aes: cipher(&steps::PART_17_KEY),
            des: cipher(&steps::METADATA_NONCE),
            bytes: [0x5A; ROOM],
            out: [0; ROOM],
        }
    }

    pub fn play(&mut self, clock: &mut Clock) {
        let Self {
            aes,
            des,
            bytes,
            out,
        } = self;
        // What is given back is dropped, and so wiped, after the clock has stopped.
        // Two schedules; the challenge, the token with the proof to be expected, a block for the subkeys.
        clock.time(steps::AES, || {
            let key: Aes128 = cipher(black_box(&steps::PART_17_KEY));
            decrypt(&key, bytes, out, 16);
            encrypt(&key, out, 48);
            let session: Aes128 = cipher(black_box(&steps::PART_17_KEY));
            chain(&session, bytes, 16);
            (key, session)
        });
        clock.time(steps::DES, || {
            let key: Des = cipher(black_box(&steps::METADATA_NONCE));
            decrypt(&key, bytes, out, 8);
            encrypt(&key, out, 24);
            let session: Des = cipher(black_box(&steps::METADATA_NONCE));
            chain(&session, bytes, 8);
            (key, session)
        });
        clock.time(steps::KEY_SETTINGS, || {
            chain(des, bytes, 8);
            chain(des, bytes, 8);
        });
        clock.time(steps::UID, || {
            chain(des, bytes, 8);
            decrypt(des, bytes, out, 16);
            crc(bytes, 8);
        });
        clock.time(steps::VERSION, || {
            chain(des, bytes, 8);
            chain(des, bytes, 32);
        });
        clock.time(steps::WRITE_28, || {
            chain(aes, bytes, 48);
            chain(aes, bytes, 16);
        });
        clock.time(steps::READ_32, || {
            chain(aes, bytes, 16);
            chain(aes, bytes, 48);
        });
        let [write_plain, write_mac, write_enciphered] = steps::WRITES;
        let [read_plain, read_mac, read_enciphered] = steps::READS;
        for step in [write_plain, write_mac] {
            clock.time(step, || {
                chain(aes, bytes, 336);
                chain(aes, bytes, 16);
            });
        }
        for step in [read_plain, read_mac] {
            clock.time(step, || {
                chain(aes, bytes, 16);
                chain(aes, bytes, 336);
            });
        }
        clock.time(write_enciphered, || {
            crc(bytes, 336);
            encrypt(aes, out, 336);
            chain(aes, bytes, 16);
        });
        clock.time(read_enciphered, || {
            chain(aes, bytes, 16);
            decrypt(aes, bytes, out, 336);
            crc(bytes, 329);
        });
    }
}

fn chain(cipher: &impl Bare, bytes: &[u8], len: usize) {
    cipher.chain(black_box(bytes.get(..len).unwrap_or_default()));
}

fn encrypt(cipher: &impl Bare, bytes: &mut [u8], len: usize) {
    cipher.encrypt(black_box(bytes.get_mut(..len).unwrap_or_default()));
}

fn decrypt(cipher: &impl Bare, bytes: &[u8], out: &mut [u8], len: usize) {
    let out = out.get_mut(..len).unwrap_or_default();
    cipher.decrypt(
        black_box(bytes.get(..len).unwrap_or_default()),
        black_box(out),
    );
}

fn crc(bytes: &[u8], len: usize) {
    crc32(bytes.get(..len).unwrap_or_default());
}
