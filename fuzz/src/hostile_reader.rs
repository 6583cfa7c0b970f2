//! A hostile reader against the software card.
//!
//! | first byte, modulo 3 | the reader | judged by |
//! |---|---|---|
//! | 0 | has no key, and the card gives nothing away without one | the state stays as it is; no secret is ever in a reply |
//! | 1 | has no key, and everything is free | the state stays one that can be |
//! | 2 | has the master key and seals what it sends | the library's messaging understands every good reply; a damaged request does nothing |
//!
//! In all of them the card answers whatever comes, in frames of legal length, and its state can be
//! stored and loaded.

use desfire_ev1::internals::{self, Codec, Plaintext};
use desfire_ev1::picc::{Application, Card, CardKey, Fault, File, FileContent, Records, Value};
use desfire_ev1::wire::{AccessRights, CommMode, KeyInfo, KeyNo, KeySettings, KeyType, ValueFlags};
use desfire_ev1::{Key, LinkFormat, Machine, Messaging, Session};

use crate::input::{Input, put_chunk};
use crate::rig::{AID, MODES, SUITES, Suite, UID, Wire, card_key, file_no, rights, u24};

const MAX_STEPS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Keyless,
    Free,
    Keyed,
}

/// Reader and suite, then steps.
pub fn run(data: &[u8]) {
    play(data);
}

/// How many commands have succeeded: of a reader with the key those that were sealed.
pub(crate) fn play(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let reader = [Reader::Keyless, Reader::Free, Reader::Keyed][input.below(3)];
    let suite = SUITES[input.below(6)];
    let mut table = Table {
        card: card(suite, reader),
        reader,
        suite,
        codec: None,
        good: 0,
    };
    let before = table.card.save();
    for _ in 0..MAX_STEPS {
        if input.is_over() {
            break;
        }
        table.step(&mut input);
        let state = table.card.state();
        assert_eq!(state.check(), Ok(()));
        if reader == Reader::Keyless {
            assert_eq!(table.card.save(), before, "changed by nobody");
        }
    }
    let stored = table.card.save();
    let loaded = Card::load_state(&stored).expect("a card's own state");
    assert!(loaded == *table.card.state());
    table.good
}

/// The seed of one recorded session: the first two bytes, see [`put_frame`].
#[must_use]
pub fn seed(reader: u8, suite: u8) -> Vec<u8> {
    vec![reader, suite]
}

/// Appends a frame that is sent as it is.
pub fn put_frame(out: &mut Vec<u8>, frame: &[u8]) {
    out.push(0);
    put_chunk(out, frame);
}

/// Appends a handshake with the master key, at either level.
pub fn put_handshake(out: &mut Vec<u8>, at_picc_level: bool) {
    out.extend([6, u8::from(at_picc_level)]);
}

/// Appends a command that is sealed under the session's keys.
pub fn put_sealed(out: &mut Vec<u8>, code: u8, mode: CommMode, header: &[u8], data: &[u8]) {
    let mode = MODES.iter().position(|each| *each == mode).unwrap() as u8;
    out.extend([7, code, mode]);
    put_chunk(out, header);
    put_chunk(out, data);
    out.push(0);
}

/// Bytes that look like nothing else.
fn secret(number: u8) -> [u8; 32] {
    core::array::from_fn(|index| {
        (index as u8).wrapping_mul(0x6D) ^ number.wrapping_mul(0x35) ^ 0xC9
    })
}

fn card(suite: Suite, reader: Reader) -> Card {
    let (settings, rights) = match reader {
        Reader::Keyless => (0x00, rights(0x0000)),
        Reader::Free => (0x0F, rights(0xEEEE)),
        Reader::Keyed => (0x0F, rights(0x0000)),
    };
    let info = KeyInfo::new(suite.family(), 3).unwrap();
    let mut application = Application::new(AID, KeySettings::from_byte(settings), info);
    for number in 0..3 {
        let key = KeyNo::new(number).unwrap();
        application = application.with_key(key, suite.card_key(number));
    }
    for file in files(rights) {
        application = application.with_file(file);
    }
    let mut card = Card::new(UID);
    let state = card.state_mut();
    state.put_application(application).unwrap();
    state.set_picc_key(picc_key(suite, reader));
    state.set_picc_settings(KeySettings::from_byte(settings));
    card
}

/// Free for everybody is a card with a key that everybody knows.
fn picc_key(suite: Suite, reader: Reader) -> CardKey {
    match reader {
        Reader::Free => card_key(KeyType::Des, &[0; 8], 0),
        _ => suite.card_key(0),
    }
}

fn files(rights: AccessRights) -> Vec<File> {
    let mut files = Vec::new();
    for (number, mode) in (0..).zip(MODES) {
        let records = |number| Records::new(u24(16), u24(4), secret(number).to_vec());
        let value = Value {
            lower: -1000,
            upper: 100_000,
            value: 500,
            limited_credit: 7,
            flags: ValueFlags::LIMITED_CREDIT,
        };
        let long = [secret(number), secret(number + 3), secret(number + 6)].concat();
        for (first, content) in [
            (0, FileContent::Standard(long)),
            (3, FileContent::Backup(secret(3 + number).to_vec())),
            (6, FileContent::Value(value)),
            (9, FileContent::Linear(records(9 + number))),
            (12, FileContent::Cyclic(records(12 + number))),
        ] {
            files.push(File::new(file_no(first + number), mode, rights, content));
        }
    }
    files
}

struct Table {
    card: Card,
    reader: Reader,
    suite: Suite,
    /// The reader's end of the session, if there is one.
    codec: Option<Reading>,
    /// Commands that have succeeded.
    good: usize,
}

/// Key and IV of a session.
struct Reading {
    key: Key,
    messaging: Messaging,
    codec: Codec,
}

impl Table {
    fn step(&mut self, input: &mut Input<'_>) {
        let tag = input.byte();
        match tag & 7 {
            0 | 1 => {
                let frame = input.chunk();
                self.lose_step();
                self.send(frame);
            }
            2 => {
                let (code, payload) = (input.byte(), input.chunk());
                self.lose_step();
                self.send(&wrapped(code, payload));
            }
            3 => {
                self.lose_step();
                let mut apdu = vec![0x00];
                apdu.extend(input.chunk());
                self.send(&apdu);
            }
            4 => {
                self.codec = None;
                if tag & 8 == 0 {
                    self.card.activate();
                } else {
                    self.card.field_off();
                    assert!(self.card.handle(&[0x60]).is_empty());
                }
            }
            5 => {
                let effect = self.card.effects() + 1 + input.below(3) as u64;
                let fault = match input.below(3) {
                    0 => Fault::CutBefore(effect),
                    1 => Fault::CutAfter(effect),
                    _ => Fault::LoseReply(self.card.commands() + 1),
                };
                self.card.arrange_fault(fault);
            }
            6 => {
                let at_picc_level = input.byte() & 1 != 0;
                if self.reader == Reader::Keyed {
                    self.authenticate(at_picc_level);
                }
            }
            _ => self.sealed(input),
        }
    }

    /// Something is sent that the session does not know of.
    fn lose_step(&mut self) {
        self.codec = None;
    }

    fn send(&mut self, frame: &[u8]) {
        let reply = self.card.handle(frame);
        assert!(reply.len() <= 61, "a reply of {} bytes", reply.len());
        let done = matches!(reply[..], [0x00, ..] | [.., 0x91, 0x00]);
        self.good += usize::from(done && self.reader != Reader::Keyed);
        if self.reader == Reader::Keyless {
            assert_tells_nothing(self.suite, &reply);
        }
    }

    fn authenticate(&mut self, at_picc_level: bool) {
        self.card.clear_faults();
        self.card.activate();
        self.codec = None;
        let rnd_a = [0x6B; 16];
        let key = self.suite.key(0);
        let card = core::mem::replace(&mut self.card, Card::new(UID));
        let mut wire = Wire::new(card, LinkFormat::NATIVE);
        let session = if at_picc_level {
            Ok(Session::new())
        } else {
            Session::new().select_application(AID).run(&mut wire)
        };
        // The application may have been deleted, or the key changed.
        let done = session.and_then(|session| {
            let scheme = self.suite.scheme;
            session
                .authenticate_with_fixed_nonce_for_testing_only(scheme, KeyNo::MASTER, &key, rnd_a)
                .run(&mut wire)
        });
        if done.is_ok() {
            let [.., (_, challenge), (_, proof)] = &wire.log[..] else {
                panic!("a handshake of fewer than two exchanges");
            };
            let (challenge, proof) = (&challenge[1..], &proof[1..]);
            let answered =
                internals::handshake(self.suite.scheme, &key, &rnd_a, challenge, proof).unwrap();
            let key_type = answered.session_key_type;
            let len = match key_type {
                KeyType::Des => 8,
                KeyType::TwoKey3Des | KeyType::Aes => 16,
                KeyType::ThreeKey3Des => 24,
            };
            let messaging = if self.suite.is_ev1() {
                Messaging::Ev1
            } else {
                Messaging::D40
            };
            if let Ok(key) = Key::from_slice(key_type, &answered.session_key[..len]) {
                let codec = Codec::new(messaging, &key, &[]);
                self.codec = Some(Reading {
                    key,
                    messaging,
                    codec,
                });
            }
        }
        self.card = wire.card;
    }

    fn sealed(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        let mode = input.pick(&MODES);
        let (header, data) = (input.chunk(), input.chunk());
        let damage = input.byte();
        let Some(mut reading) = self.codec.take() else {
            return;
        };
        let plain = Plaintext {
            code,
            header,
            data,
            second_crc: if code == 0xC4 { data } else { &[] },
        };
        let mut room = vec![0; data.len() + 64];
        let Ok(len) = reading.codec.seal(plain, mode, &mut room) else {
            return;
        };
        let mut sealed = room[..len].to_vec();
        let damaged = damage != 0 && !sealed.is_empty();
        if damaged {
            let at = usize::from(damage) % sealed.len();
            sealed[at] ^= damage;
        }
        let effects = self.card.effects();
        let Some((status, payload)) = self.converse(code, &[header, &sealed].concat()) else {
            return;
        };
        if damaged && self.suite.is_ev1() && mode != CommMode::Plain && is_write(code, header, data)
        {
            assert_ne!(status, 0x00, "a damaged request was carried out");
            assert_eq!(
                self.card.effects(),
                effects,
                "a damaged request has had an effect"
            );
        }
        if status != 0x00 || damaged {
            return;
        }
        self.good += 1;
        // Of other commands the card may take a MAC for parameters, such as a DF name.
        let as_meant =
            mode == CommMode::Plain || is_write(code, header, data) || matches!(code, 0x54 | 0x5C);
        if !as_meant {
            return;
        }
        // What ends the session, and what is no command, is not sealed.
        let ends = matches!(code, 0x5A | 0x0A | 0x1A | 0xAA | 0xC4 | 0xDA | 0xFC | 0xAF);
        if reading.messaging == Messaging::Ev1 && !ends {
            let iv = reading.codec.iv().unwrap().to_vec();
            let opened = [CommMode::Mac, CommMode::Enciphered]
                .into_iter()
                .find_map(|mode| {
                    let mut codec = Codec::new(Messaging::Ev1, &reading.key, &iv);
                    let mut buffer = [0; 512];
                    codec
                        .open(&payload, mode, None, &mut buffer)
                        .is_ok()
                        .then_some(codec)
                });
            reading.codec = opened.unwrap_or_else(|| {
                panic!("code {code:02X} {header:02X?} {data:02X?} in {mode}: the reader does not understand {payload:02X?}")
            });
        }
        if !ends {
            self.codec = Some(reading);
        }
    }

    /// Sends a command in as many frames as it takes and collects the reply.
    fn converse(&mut self, code: u8, payload: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut parts = payload.chunks(59);
        let first = parts.next().unwrap_or_default();
        let mut reply = self.card.handle(&[&[code], first].concat());
        for part in parts {
            match reply[..] {
                [0xAF] => reply = self.card.handle(&[&[0xAF], part].concat()),
                // Refused, or complete before its end: then the rest was never asked for.
                _ => break,
            }
        }
        let mut all = Vec::new();
        for _ in 0..64 {
            let (status, payload) = reply.split_first()?;
            all.extend(payload);
            if *status != 0xAF || payload.is_empty() {
                return Some((*status, all));
            }
            reply = self.card.handle(&[0xAF]);
        }
        panic!("a reply that goes on and on");
    }
}

fn wrapped(code: u8, payload: &[u8]) -> Vec<u8> {
    if payload.is_empty() {
        return vec![0x90, code, 0, 0, 0];
    }
    let mut apdu = vec![0x90, code, 0, 0, payload.len() as u8];
    apdu.extend(payload);
    apdu.push(0);
    apdu
}

/// Whether a command is one whose data cannot be taken for anything else.
fn is_write(code: u8, header: &[u8], data: &[u8]) -> bool {
    match (code, header) {
        (0x3D | 0x3B, [_, _, _, _, low, mid, high]) => {
            u32::from_le_bytes([*low, *mid, *high, 0]) as usize == data.len()
        }
        (0x0C | 0xDC | 0x1C, [_]) => data.len() == 4,
        _ => false,
    }
}

/// No eight bytes of a file or a key.
fn assert_tells_nothing(suite: Suite, reply: &[u8]) {
    for window in reply.windows(8) {
        for number in 0..16 {
            let secret = secret(number);
            assert!(
                !secret.windows(8).any(|part| part == window),
                "a file was told"
            );
        }
        for number in 0..3 {
            let key = suite.key_bytes(number);
            assert!(!key.windows(8).any(|part| part == window), "a key was told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reader that has the key gets somewhere: what is asserted of it is not said of nothing.
    #[test]
    fn sealed_commands_are_carried_out() {
        for (number, suite) in (0..).zip(SUITES) {
            let mut table = Table {
                card: card(suite, Reader::Keyed),
                reader: Reader::Keyed,
                suite,
                codec: None,
                good: 0,
            };
            let mut bytes = Vec::new();
            put_handshake(&mut bytes, false);
            for (file, mode) in (0..).zip(MODES) {
                let header = [file, 0, 0, 0, 4, 0, 0];
                put_sealed(&mut bytes, 0x3D, mode, &header, &[9, 8, 7, 6]);
                put_sealed(&mut bytes, 0xBD, CommMode::Plain, &header, &[]);
                put_sealed(&mut bytes, 0x0C, mode, &[6 + file], &[5, 0, 0, 0]);
            }
            put_sealed(&mut bytes, 0xC7, CommMode::Plain, &[], &[]);
            let mut input = Input::new(&bytes);
            while !input.is_over() {
                table.step(&mut input);
                assert!(table.codec.is_some(), "suite {number}");
            }
            let app = table.card.state().application(AID).unwrap();
            for number in 0..3 {
                let content = app.file(file_no(number)).unwrap().content();
                let FileContent::Standard(data) = content else {
                    panic!("no data file");
                };
                assert_eq!(data[..4], [9, 8, 7, 6]);
                let content = app.file(file_no(6 + number)).unwrap().content();
                assert!(matches!(content, FileContent::Value(value) if value.value == 505));
            }
        }
    }
}
