//! Keys, nonces and plaintexts are gone from where they lay, once what held them has ended.
//!
//! A session or machine is put into a `Vec`, which is then emptied: that drops it in place, and its
//! memory stays allocated and is read through `/proc/self/mem`, so no unsafe code is needed to look.
//! Two ways of looking:
//!
//! - secrets that can be named (keys, session keys, subkeys, nonces, plaintexts) must not occur;
//! - what cannot be named, such as key schedules and IVs: two sessions that differ in nothing but their
//!   keys must leave the same memory.
//!
//! That the search finds what is there is shown on live sessions, and on a type that wipes nothing.
//!
//! Copies that a compiler leaves behind when it moves a value are out of reach, here too.

#![cfg(target_os = "linux")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/rig.rs"]
mod rig;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use desfire_ev1::picc::{Card, CardKey};
use desfire_ev1::wire::{CommMode, KeyNo, KeyType};
use desfire_ev1::{Authenticated, Key, LinkFormat, Machine, Session, Step, Transport};
use rig::{
    AID, MODES, SUITES, Script, Seeded, Suite, UID, Wire, at_application, file_no,
    handshake_secrets, key_no, standard, value,
};

/// Where a value lies, and still lies when it has been dropped.
struct Slot<T>(Vec<T>);

impl<T> Slot<T> {
    fn new(value: T) -> Self {
        Self(vec![value])
    }

    /// Drops the value where it lies.
    fn end(&mut self) {
        self.0.clear();
        assert!(self.0.capacity() >= 1, "the memory is still ours");
    }

    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; size_of::<T>()];
        let memory = File::open("/proc/self/mem").expect("Linux");
        memory
            .read_exact_at(&mut image, self.0.as_ptr().addr() as u64)
            .expect("our own memory");
        image
    }
}

/// The first secret of which four neighbouring bytes are in an image.
fn found<'s>(image: &[u8], secrets: &'s [(&'static str, Vec<u8>)]) -> Option<&'s str> {
    let held = |secret: &[u8]| {
        secret
            .windows(4)
            .any(|part| image.windows(4).any(|bytes| bytes == part))
    };
    let mut secrets = secrets.iter();
    secrets
        .find(|(_, secret)| held(secret))
        .map(|(name, _)| *name)
}

const UID_TAIL: [u8; 7] = UID.0;
const VALUE: i32 = 0x3AC3_B7E9;

fn card(suite: Suite) -> Card {
    let mut files = Vec::new();
    for (number, mode) in (0..).zip(MODES) {
        files.push(standard(number, mode, Seeded(number.into()).bytes(100)));
        files.push(value(3 + number, mode, VALUE));
    }
    suite.card(files)
}

/// A session with what it must not leave behind.
struct Opened {
    wire: Wire,
    session: Session<Authenticated>,
    secrets: Vec<(&'static str, Vec<u8>)>,
}

/// Overwrites what the handshake and this test's own calculations have left on the stack. It is out of
/// the library's reach, and would come along where a machine is made later on.
#[inline(never)]
fn scrub_stack() {
    std::hint::black_box(&mut [0_u8; 1 << 16]);
}

fn open(suite: Suite, seed: u64) -> Opened {
    let mut wire = Wire::new(card(suite), LinkFormat::NATIVE);
    let session = suite.open(&mut wire, 0, seed).unwrap();
    let secrets = secrets(suite, seed, &wire);
    scrub_stack();
    Opened {
        wire,
        session,
        secrets,
    }
}

/// Those of the handshake that a wire has seen last.
fn secrets(suite: Suite, seed: u64, wire: &Wire) -> Vec<(&'static str, Vec<u8>)> {
    let rnd_a = Seeded(seed).bytes(16).try_into().unwrap();
    let mut secrets = vec![("the key", suite.key_bytes(0))];
    secrets.extend(handshake_secrets(suite, &suite.key(0), &rnd_a, &wire.log));
    secrets
}

/// How a session ends where it lies.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Dropped,
    Refused,
    NotAuthentic,
    Malformed,
    Unanswered,
    /// A machine of it was dropped in the middle.
    MachineDropped,
    /// The same after one frame of a reply.
    MachineDroppedLater,
}

const ENDINGS: [Ending; 7] = [
    Ending::Dropped,
    Ending::Refused,
    Ending::NotAuthentic,
    Ending::Malformed,
    Ending::Unanswered,
    Ending::MachineDropped,
    Ending::MachineDroppedLater,
];

fn end(slot: &mut Slot<Session<Authenticated>>, ending: Ending) {
    let reply: &[&[u8]] = match ending {
        Ending::Dropped => return slot.end(),
        Ending::Refused => &[&[0x9D]],
        Ending::NotAuthentic => &[&[0x00; 17]],
        Ending::Malformed => &[&[0xAF]],
        Ending::Unanswered => &[],
        Ending::MachineDropped => {
            let mut machine = slot.0[0].get_card_uid();
            machine.start(LinkFormat::NATIVE).unwrap();
            drop(machine);
            assert!(slot.0[0].is_lost());
            return;
        }
        Ending::MachineDroppedLater => {
            let mut machine = slot.0[0].get_version();
            machine.start(LinkFormat::NATIVE).unwrap();
            machine.step(&[0xAF, 4, 1, 1, 1, 0, 0x1A, 5]).unwrap();
            drop(machine);
            assert!(slot.0[0].is_lost());
            return;
        }
    };
    let mut script = Script::new(LinkFormat::NATIVE, reply.iter().map(|reply| reply.to_vec()));
    slot.0[0].get_card_uid().run(&mut script).unwrap_err();
    assert!(slot.0[0].is_lost());
}

#[test]
fn a_session_that_is_over_leaves_no_keys() {
    for suite in SUITES {
        for ending in ENDINGS {
            let [one, other] = [11, 22].map(|seed| {
                let Opened {
                    mut wire,
                    mut session,
                    secrets,
                } = open(suite, seed);
                // The IV has moved.
                session
                    .get_key_version(KeyNo::MASTER)
                    .run(&mut wire)
                    .unwrap();
                let mut slot = Slot::new(session);
                let alive = slot.image();
                end(&mut slot, ending);
                let over = slot.image();
                assert_eq!(found(&over, &secrets), None, "{suite:?} {ending:?}");
                (alive, over)
            });
            let differ = |one: &[u8], other: &[u8]| {
                one.iter()
                    .zip(other)
                    .filter(|(one, other)| one != other)
                    .count()
            };
            let alive = differ(&one.0, &other.0);
            assert!(
                alive >= 24,
                "two keys cannot be told apart: {suite:?}, {alive} bytes"
            );
            let over = differ(&one.1, &other.1);
            if over > 0 {
                for (i, (a, b)) in one.1.iter().zip(&other.1).enumerate() {
                    if a != b {
                        eprintln!(
                            "{suite:?} {ending:?} at {i} of {}: {a:02x} {b:02x} alive {:02x}",
                            one.1.len(),
                            one.0[i]
                        );
                    }
                }
            }
            assert_eq!(
                over, 0,
                "{suite:?} {ending:?}: {over} bytes depend on the key"
            );
        }
    }
}

/// The search finds what is there.
#[test]
fn a_live_session_has_its_keys() {
    for suite in SUITES {
        let Opened {
            session, secrets, ..
        } = open(suite, 11);
        let slot = Slot::new(session);
        let image = slot.image();
        // A DES schedule does not have the key's bytes as they are, an AES schedule begins with them.
        if suite.key_type == KeyType::Aes {
            assert!(found(&image, &secrets[1..2]).is_some(), "the session key");
        }
        if suite.is_ev1() {
            assert!(found(&image, &secrets[2..3]).is_some(), "subkey K1");
        }
    }
    /// Wipes nothing.
    struct Careless([u8; 64]);
    let mut slot = Slot::new(Careless([0xA7; 64]));
    assert_eq!(slot.0[0].0, [0xA7; 64]);
    slot.end();
    assert_eq!(slot.image(), [0xA7; 64], "emptying wipes by itself");
}

#[test]
fn a_key_that_is_dropped_is_gone() {
    for suite in SUITES {
        let secrets = [("the key", suite.key_bytes(1))];
        let mut slot = Slot::new(suite.key(1));
        assert!(found(&slot.image(), &secrets).is_some());
        slot.end();
        assert_eq!(found(&slot.image(), &secrets), None);

        let mut slot: Slot<CardKey> = Slot::new(suite.card_key(1));
        assert!(found(&slot.image(), &secrets).is_some());
        slot.end();
        assert_eq!(found(&slot.image(), &secrets), None);
    }
}

/// How far a machine gets before it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Made,
    Started,
    /// So many replies have been taken in.
    Replies(usize),
    /// The last reply is spoilt.
    Failed,
    Done,
}

const UNTIL: [Until; 6] = [
    Until::Made,
    Until::Started,
    Until::Replies(1),
    Until::Replies(2),
    Until::Failed,
    Until::Done,
];

/// Steps a machine where it lies, drops it, and looks.
fn drive<M: Machine>(machine: M, wire: &mut Wire, until: Until) -> Vec<u8> {
    let mut slot = Slot::new(machine);
    step(&mut slot.0[0], wire, until);
    slot.end();
    slot.image()
}

fn step<M: Machine>(machine: &mut M, wire: &mut Wire, until: Until) {
    if until == Until::Made {
        return;
    }
    let mut sent = machine.start(LinkFormat::NATIVE).unwrap().to_vec();
    if until == Until::Started {
        return;
    }
    for replies in 1.. {
        let mut reply = [0; 64];
        let len = Transport::exchange(wire, &sent, &mut reply).unwrap();
        let is_last = match reply[..len] {
            [.., 0x90, 0x00] => replies == 3,
            [status, ..] => status != 0xAF,
            [] => panic!("no reply"),
        };
        if until == Until::Failed && is_last {
            reply[1.min(len - 1)] ^= 0x80;
        }
        match machine.step(&reply[..len]) {
            Ok(Step::Transmit(next)) => sent = next.to_vec(),
            Ok(Step::Done(_)) | Err(_) => return,
        }
        if until == Until::Replies(replies) {
            return;
        }
    }
}

#[test]
fn a_handshake_leaves_nothing() {
    for suite in SUITES {
        let key = suite.key(0);
        for until in UNTIL {
            // What the nonces and the key will be, from a handshake with the same ones.
            let secrets = open(suite, 33).secrets;
            let mut wire = Wire::new(card(suite), LinkFormat::NATIVE);
            let session = Session::new()
                .select_application(AID)
                .run(&mut wire)
                .unwrap();
            let machine = session.authenticate(suite.scheme, KeyNo::MASTER, &key, &mut Seeded(33));
            if until == Until::Made {
                let slot = Slot::new(machine);
                assert!(
                    found(&slot.image(), &secrets).is_some(),
                    "RndA is there before"
                );
                continue;
            }
            let image = drive(machine, &mut wire, until);
            assert_eq!(found(&image, &secrets), None, "{suite:?} {until:?}");

            let mut wire = Wire::new(card(suite), LinkFormat::NATIVE);
            let session = Session::new()
                .select_application(AID)
                .run(&mut wire)
                .unwrap();
            let mut secrets = vec![("the key", suite.key_bytes(0))];
            let nonces = Seeded(33).bytes(32);
            secrets.push(("RPCD1", nonces[..suite.key_type.nonce_len()].to_vec()));
            let machine = session.authenticate_iso7816(KeyNo::MASTER, &key, &mut Seeded(33));
            let mut slot = Slot::new(machine);
            assert!(
                found(&slot.image(), &secrets).is_some(),
                "it is there before"
            );
            step(&mut slot.0[0], &mut wire, until);
            slot.end();
            assert_eq!(
                found(&slot.image(), &secrets),
                None,
                "ISO {suite:?} {until:?}"
            );
        }
    }
}

#[test]
fn commands_with_secrets_leave_nothing() {
    for suite in SUITES {
        let (old, new) = (suite.key(1), suite.key(2));
        let plain = b"forty bytes that nobody else must see...";
        for until in UNTIL {
            let look = |image: Vec<u8>, more: &[(&'static str, Vec<u8>)], what: &str| {
                let secrets = [&open(suite, 44).secrets[..], more].concat();
                assert_eq!(found(&image, &secrets), None, "{suite:?} {what} {until:?}");
            };
            let changed: Vec<u8> = suite
                .key_bytes(1)
                .iter()
                .zip(suite.key_bytes(2))
                .map(|(old, new)| old ^ new)
                .collect();
            let keys = [
                ("the new key", suite.key_bytes(2)),
                ("the old key", suite.key_bytes(1)),
                ("their difference", changed),
            ];
            let mut opened = open(suite, 44);
            let machine = opened.session.change_key(key_no(1), &old, &new);
            look(drive(machine, &mut opened.wire, until), &keys, "ChangeKey");

            let opened = open(suite, 44);
            let mut wire = opened.wire;
            let machine = opened.session.change_key_in_use(&new);
            // The session is in the machine, and over with it.
            look(
                drive(machine, &mut wire, until),
                &keys,
                "ChangeKey of the key in use",
            );

            let mut opened = open(suite, 44);
            let machine = opened.session.get_card_uid();
            let uid = [("the UID", UID_TAIL.to_vec())];
            look(drive(machine, &mut opened.wire, until), &uid, "GetCardUID");

            let mut opened = open(suite, 44);
            let machine = opened
                .session
                .get_value(file_no(5))
                .comm_mode(CommMode::Enciphered);
            let told = [("the value", VALUE.to_le_bytes().to_vec())];
            look(drive(machine, &mut opened.wire, until), &told, "GetValue");

            let mut opened = open(suite, 44);
            let machine = opened
                .session
                .write_data(file_no(2), 0, plain)
                .comm_mode(CommMode::Enciphered);
            let written = [("what was written", plain.to_vec())];
            look(
                drive(machine, &mut opened.wire, until),
                &written,
                "WriteData",
            );

            let mut opened = open(suite, 44);
            let mut buffer = [0; 100];
            let machine = opened
                .session
                .read_data(file_no(2), 0..100, &mut buffer)
                .comm_mode(CommMode::Enciphered);
            let read = [("what was read", Seeded(2).bytes(100))];
            look(drive(machine, &mut opened.wire, until), &read, "ReadData");

            // What does not fit into the buffer is deciphered behind it before that shows.
            let mut opened = open(suite, 44);
            let mut buffer = [0; 80];
            let machine = opened
                .session
                .read_data_to_end(file_no(2), 0, &mut buffer)
                .comm_mode(CommMode::Enciphered);
            let rest = [("what did not fit", Seeded(2).bytes(100)[80..].to_vec())];
            look(
                drive(machine, &mut opened.wire, until),
                &rest,
                "ReadData to the end",
            );
        }
    }
    // Not so without a session, or this would show nothing: what is written in clear is in the frame.
    let mut session = at_application();
    let machine = session
        .write_data(file_no(0), 0, b"in clear")
        .comm_mode(CommMode::Plain);
    let mut slot = Slot::new(machine);
    slot.0[0].start(LinkFormat::NATIVE).unwrap();
    let clear = [("what was written", b"in clear".to_vec())];
    assert!(found(&slot.image(), &clear).is_some());
}
