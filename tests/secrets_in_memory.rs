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
//! A table of keys is followed to where it has the keys on the heap. That the search finds what is there is
//! shown on live values, and on a type that wipes nothing.
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

use desfire_ev1::internals::Chain;
use desfire_ev1::picc::{Card, CardKey};
use desfire_ev1::provision::MemoryKeys;
use desfire_ev1::split::{
    Accepted, Answered, BaseKey, Counters, Dukpt, Freshness, Grant, InitialKey, Intent,
    KnownTerminal, Mode, Modes, Record, Relay, RelayGate, RemoteCard, SoftKey, StorageKey, Tap,
    TerminalId, TransportKey, TransportKeyId, TransportKeys, Waiting,
};
use desfire_ev1::wire::{CommMode, InlineBytes, KeyNo, KeyType};
use desfire_ev1::{Authenticated, Key, LinkFormat, Machine, Session, Step, Transport};
use rig::{
    AID, MODES, SUITES, Script, Seeded, Suite, UID, Wire, at_application, file_no,
    handshake_secrets, key_no, standard, value,
};

/// Where a value lies, and still lies when it has been dropped.
struct Slot<T>(Vec<T>);

impl<T> Slot<T> {
    fn new(value: T) -> Self {
        let mut place: Vec<T> = Vec::with_capacity(1);
        // What has been freed comes back; a gap between two fields must not show what this test had there.
        clear(place.as_ptr().addr(), size_of::<T>());
        place.push(value);
        Self(place)
    }

    fn take(mut self) -> T {
        self.0.remove(0)
    }

    /// Drops the value where it lies.
    fn end(&mut self) {
        self.0.clear();
        assert!(self.0.capacity() >= 1, "the memory is still ours");
    }

    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; size_of::<T>()];
        assert!(look_at(self.0.as_ptr().addr(), &mut image), "our memory");
        image
    }
}

/// Reads what lies at an address; whether that is ours.
fn look_at(address: usize, image: &mut [u8]) -> bool {
    let memory = File::open("/proc/self/mem").expect("Linux");
    memory.read_exact_at(image, address as u64).is_ok()
}

/// Overwrites what lies at an address of ours.
fn clear(address: usize, len: usize) {
    let memory = File::options().write(true).open("/proc/self/mem");
    let zeros = vec![0; len];
    let written = memory.and_then(|memory| memory.write_all_at(&zeros, address as u64));
    written.expect("our memory");
}

/// The first secret of which four neighbouring bytes are in an image.
fn found<'s>(image: &[u8], secrets: &'s [(&'static str, Vec<u8>)]) -> Option<&'s str> {
    found_at_least(4, image, secrets)
}

fn found_at_least<'s>(
    len: usize,
    image: &[u8],
    secrets: &'s [(&'static str, Vec<u8>)],
) -> Option<&'s str> {
    let mut secrets = secrets.iter();
    secrets
        .find(|(_, secret)| holds(len, image, secret))
        .map(|(name, _)| *name)
}

/// Whether so many neighbouring bytes of a secret are in an image.
fn holds(len: usize, image: &[u8], secret: &[u8]) -> bool {
    secret
        .windows(len)
        .any(|part| image.windows(len).any(|bytes| bytes == part))
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

/// Makes a value on a stack that is clean: what lies there comes along with it where it is not filled,
/// and a session that was moved has been there.
fn made<T>(make: impl FnOnce() -> T) -> Slot<T> {
    #[inline(never)]
    fn apart<T>(make: impl FnOnce() -> T) -> Slot<T> {
        Slot::new(make())
    }
    scrub_stack();
    apart(make)
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
                let mut slot = made(|| session);
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
fn drive<M: Machine>(mut slot: Slot<M>, wire: &mut Wire, until: Until) -> Vec<u8> {
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
            let slot =
                made(|| session.authenticate(suite.scheme, KeyNo::MASTER, &key, &mut Seeded(33)));
            if until == Until::Made {
                assert!(
                    found(&slot.image(), &secrets).is_some(),
                    "RndA is there before"
                );
                continue;
            }
            let image = drive(slot, &mut wire, until);
            assert_eq!(found(&image, &secrets), None, "{suite:?} {until:?}");

            let mut wire = Wire::new(card(suite), LinkFormat::NATIVE);
            let session = Session::new()
                .select_application(AID)
                .run(&mut wire)
                .unwrap();
            let mut secrets = vec![("the key", suite.key_bytes(0))];
            let nonces = Seeded(33).bytes(32);
            secrets.push(("RPCD1", nonces[..suite.key_type.nonce_len()].to_vec()));
            let mut slot =
                made(|| session.authenticate_iso7816(KeyNo::MASTER, &key, &mut Seeded(33)));
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
            let machine = made(|| opened.session.change_key(key_no(1), &old, &new));
            look(drive(machine, &mut opened.wire, until), &keys, "ChangeKey");

            let opened = open(suite, 44);
            let mut wire = opened.wire;
            let machine = made(|| opened.session.change_key_in_use(&new));
            // The session is in the machine, and over with it.
            look(
                drive(machine, &mut wire, until),
                &keys,
                "ChangeKey of the key in use",
            );

            let mut opened = open(suite, 44);
            let machine = made(|| opened.session.get_card_uid());
            let uid = [("the UID", UID_TAIL.to_vec())];
            look(drive(machine, &mut opened.wire, until), &uid, "GetCardUID");

            let mut opened = open(suite, 44);
            let machine = made(|| {
                opened
                    .session
                    .get_value(file_no(5))
                    .comm_mode(CommMode::Enciphered)
            });
            let told = [("the value", VALUE.to_le_bytes().to_vec())];
            look(drive(machine, &mut opened.wire, until), &told, "GetValue");

            let mut opened = open(suite, 44);
            let machine = made(|| {
                opened
                    .session
                    .write_data(file_no(2), 0, plain)
                    .comm_mode(CommMode::Enciphered)
            });
            let written = [("what was written", plain.to_vec())];
            look(
                drive(machine, &mut opened.wire, until),
                &written,
                "WriteData",
            );

            let mut opened = open(suite, 44);
            let mut buffer = [0; 100];
            let machine = made(|| {
                opened
                    .session
                    .read_data(file_no(2), 0..100, &mut buffer)
                    .comm_mode(CommMode::Enciphered)
            });
            let read = [("what was read", Seeded(2).bytes(100))];
            look(drive(machine, &mut opened.wire, until), &read, "ReadData");

            // What does not fit into the buffer is deciphered behind it before that shows.
            let mut opened = open(suite, 44);
            let mut buffer = [0; 80];
            let machine = made(|| {
                opened
                    .session
                    .read_data_to_end(file_no(2), 0, &mut buffer)
                    .comm_mode(CommMode::Enciphered)
            });
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

// ---------------------------------------------------------------------------------------------
// split

const TRANSPORT_KEY: [u8; 16] = [
    0x5E, 0xA9, 0x13, 0xF4, 0x68, 0xCD, 0x92, 0x07, 0xBB, 0x36, 0xE1, 0x7C, 0x4F, 0xD0, 0x85, 0x2A,
];

/// As [`found`], but more than fits into a gap between two fields. These values are moved from one into
/// the next, and in a gap the compiler leaves what lay there before.
fn held<'s>(image: &[u8], secrets: &'s [(&'static str, Vec<u8>)]) -> Option<&'s str> {
    found_at_least(align_of::<u64>(), image, secrets)
}

/// Drops a value where it lies; what was in it before must be gone.
fn leaves_nothing<T>(mut slot: Slot<T>, secrets: &[(&'static str, Vec<u8>)], what: &str) {
    assert!(
        held(&slot.image(), secrets).is_some(),
        "{what}: nothing is there before"
    );
    slot.end();
    assert_eq!(held(&slot.image(), secrets), None, "{what}");
}

#[test]
fn keys_of_split_that_are_dropped_are_gone() {
    let bytes = TRANSPORT_KEY;
    let secrets = [("the key", bytes.to_vec())];
    leaves_nothing(made(|| TransportKey::new(bytes)), &secrets, "TransportKey");
    leaves_nothing(made(|| StorageKey::new(bytes)), &secrets, "StorageKey");
    leaves_nothing(made(|| BaseKey::new(bytes)), &secrets, "BaseKey");
    leaves_nothing(
        made(|| InitialKey::new(bytes, [0; 8])),
        &secrets,
        "InitialKey",
    );
    // Key schedules: that of AES begins with the key's bytes, the others cannot be named.
    for suite in SUITES {
        let [one, other] = [1, 2].map(|number| {
            let mut slot = Slot::new(SoftKey::new(&suite.key(number)));
            let alive = slot.image();
            slot.end();
            (alive, slot.image())
        });
        assert!(one.0 != other.0, "two keys cannot be told apart: {suite:?}");
        assert!(one.1 == other.1, "{suite:?}: something depends on the key");
    }
}

#[test]
fn a_register_of_dukpt_keys_leaves_nothing() {
    let initial = InitialKey::new(TRANSPORT_KEY, [0; 8]);
    let registers = |dukpt: &Dukpt| {
        let mut saved = [0; Dukpt::SAVED];
        dukpt.save(&mut saved);
        let (keys, _) = saved[..512].as_chunks::<16>();
        let held = keys.iter().filter(|key| **key != [0; 16]);
        held.map(|key| ("a register", key.to_vec()))
            .collect::<Vec<_>>()
    };
    let slot = made(|| Dukpt::load(&initial));
    let mut secrets = registers(&slot.0[0]);
    assert_eq!(secrets.len(), 32);
    secrets.push(("the initial key", TRANSPORT_KEY.to_vec()));
    leaves_nothing(slot, &secrets, "Dukpt");

    // A key that has been used is gone while the register lives, and so is what it was made of.
    let mut slot = made(|| Dukpt::load(&initial));
    let used = &registers(&slot.0[0])[..1];
    assert!(found(&slot.image(), used).is_some());
    let (_, key) = slot.0[0].next_key().unwrap();
    assert_eq!(found(&slot.image(), used), None, "a used register");
    let mut key = Slot::new(key);
    let working = [("a transport key", key.image())];
    assert_eq!(found(&slot.image(), &working), None, "a used key");
    key.end();
    assert_eq!(found(&key.image(), &working), None, "TransportKey");
}

/// A terminal with a card, and what the key holder knows of it.
struct Counter {
    suite: Suite,
    wire: Wire,
    transport: TransportKey,
}

/// The nonces of everything in this part.
const SEED: u64 = 55;

impl Counter {
    fn new(suite: Suite) -> Self {
        Self {
            suite,
            wire: Wire::new(card(suite), LinkFormat::NATIVE),
            transport: TransportKey::new(TRANSPORT_KEY),
        }
    }

    /// What a tap must not leave behind: its handshake is that of any session of the same seed.
    fn secrets(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut secrets = open(self.suite, SEED).secrets;
        secrets.push(("the transport key", TRANSPORT_KEY.to_vec()));
        secrets
    }

    fn intent(&self, mode: Mode) -> Intent {
        Intent {
            mode,
            scheme: self.suite.scheme,
            key_type: self.suite.key_type,
            key_no: KeyNo::MASTER,
            uid: None,
            terminal: TerminalId::new(b"till 7").unwrap(),
            transport: TransportKeyId::Preshared(1),
            freshness: Freshness::Counter(1),
            purpose: InlineBytes::new(b"coffee").unwrap(),
        }
    }

    fn tap(&mut self, mode: Mode) -> Tap {
        let session = Session::new().select_application(AID).run(&mut self.wire);
        Tap::new(session.unwrap(), self.intent(mode), &self.transport)
    }

    fn waiting(&mut self, mode: Mode) -> Waiting {
        scrub_stack();
        self.tap(mode).run(&mut self.wire).unwrap()
    }

    fn accepted(&self, challenge: &[u8]) -> Accepted {
        let grants = [Grant {
            aid: AID,
            key_no: KeyNo::MASTER,
            scheme: self.suite.scheme,
            modes: Modes::all(),
        }];
        let till = KnownTerminal {
            id: TerminalId::new(b"till 7").unwrap(),
            transport: TransportKeys::One {
                id: TransportKeyId::Preshared(1),
                key: &self.transport,
            },
            grants: &grants,
        };
        Accepted::check(challenge, &till, &mut Counters::<1>::new()).unwrap()
    }

    fn answered(&self, waiting: &Waiting) -> Answered {
        scrub_stack();
        let mut key = SoftKey::new(&self.suite.key(0));
        let accepted = self.accepted(&waiting.message().unwrap());
        accepted.answer(&mut key, &mut Seeded(SEED)).unwrap()
    }
}

/// Both sides of a tap, wherever it ends.
#[test]
fn a_tap_leaves_nothing() {
    for suite in SUITES {
        let secrets = Counter::new(suite).secrets();
        let mut counter = Counter::new(suite);
        leaves_nothing(made(|| counter.tap(Mode::Proven)), &secrets, "Tap");
        let waiting = counter.waiting(Mode::Proven);
        let challenge = waiting.message().unwrap();
        leaves_nothing(made(|| counter.accepted(&challenge)), &secrets, "Accepted");
        leaves_nothing(made(|| counter.answered(&waiting)), &secrets, "Answered");
        let answered = counter.answered(&waiting);
        let pending = made(|| answered.proven(9).unwrap().1);
        leaves_nothing(pending, &secrets, "Pending");

        for until in UNTIL {
            let look = |image: Vec<u8>, what: &str| {
                assert_eq!(held(&image, &secrets), None, "{suite:?} {what} {until:?}");
            };
            let mut counter = Counter::new(suite);
            let tap = made(|| counter.tap(Mode::Proven));
            look(drive(tap, &mut counter.wire, until), "Tap");

            let mut counter = Counter::new(suite);
            let waiting = counter.waiting(Mode::Proven);
            let (token, _) = counter.answered(&waiting).proven(9).unwrap();
            let prove = made(|| waiting.proven(&token).unwrap());
            look(drive(prove, &mut counter.wire, until), "Prove");

            if suite.key_type.nonce_len() == 16 {
                let mut counter = Counter::new(suite);
                let waiting = counter.waiting(Mode::CardLocked);
                let locked = counter.answered(&waiting).card_locked().unwrap();
                let unlock = made(|| waiting.card_locked(&locked).unwrap());
                look(drive(unlock, &mut counter.wire, until), "Unlock");
            }
        }

        // What waits for a proof has no keys any more once one has been judged.
        let mut counter = Counter::new(suite);
        let waiting = made(|| counter.waiting(Mode::Proven));
        let answered = counter.answered(&waiting.0[0]);
        leaves_nothing(waiting, &secrets, "Waiting");
        let (_, pending) = answered.proven(9).unwrap();
        let mut counter = Counter::new(suite);
        let waiting = counter.waiting(Mode::Proven);
        let (token, _) = counter.answered(&waiting).proven(9).unwrap();
        let prove = made(|| waiting.proven(&token).unwrap()).take();
        let proven = made(|| prove.run(&mut counter.wire).unwrap());
        let proof = proven.0[0].message().unwrap();
        leaves_nothing(proven, &secrets, "Proven");
        let handshake = &secrets[..secrets.len() - 1];
        let mut slot = made(|| pending);
        assert!(held(&slot.image(), handshake).is_some());
        slot.0[0].release(&proof, 1).unwrap();
        assert_eq!(held(&slot.image(), handshake), None, "a judged Pending");
        slot.end();
        assert_eq!(held(&slot.image(), &secrets), None, "a judged Pending");
    }
}

/// Both sides of a remote dialogue, which have no key of a card, but one of their messages.
#[test]
fn a_remote_dialogue_leaves_nothing() {
    let suite = SUITES[0];
    let counter = Counter::new(suite);
    let secrets = [("the transport key", TRANSPORT_KEY.to_vec())];
    let relay = || {
        let intent = counter.intent(Mode::Remote);
        Relay::new(intent, AID, LinkFormat::NATIVE, &counter.transport).unwrap()
    };
    let relay = made(relay);
    let challenge = relay.0[0].message().unwrap();
    leaves_nothing(relay, &secrets, "Relay");
    let accepted = counter.accepted(&challenge);
    let gate = made(|| RelayGate::new(&accepted).unwrap());
    leaves_nothing(gate, &secrets, "RelayGate");
    let card = made(|| RemoteCard::new(&accepted, ()).unwrap());
    leaves_nothing(card, &secrets, "RemoteCard");
}

/// A script in the making, the record of one with its buffer, which is the caller's, and who plays it.
#[test]
fn a_script_leaves_nothing() {
    for suite in SUITES.into_iter().filter(|suite| suite.is_ev1()) {
        let mut counter = Counter::new(suite);
        let mut secrets = counter.secrets();
        let (_, session_key) = &secrets[1];
        let mut chain = Chain::new(&Key::from_slice(suite.key_type, session_key).unwrap(), &[]);
        chain.mac(&[0x64, 0]);
        let (sent, kept) = chain.mac(&[0, 0]).split_at(8);
        if !kept.is_empty() {
            secrets.push(("the chain", kept.to_vec()));
        }
        assert_eq!(sent.len(), 8);
        let waiting = counter.waiting(Mode::Script);
        for finished in [false, true] {
            let (mut script, mut buffer) = ([0; 256], [0; 512]);
            let place = buffer.as_ptr().addr();
            let builder = made(|| {
                let answered = counter.answered(&waiting);
                let (mut session, mut builder) = answered.script(&mut script, &mut buffer).unwrap();
                let command = session.get_key_version(KeyNo::MASTER);
                builder.expect(command, &[0]).unwrap();
                builder
            });
            let mut image = [0; 512];
            assert!(look_at(place, &mut image));
            assert!(found(&image, &secrets).is_some(), "a record holds keys");
            if finished {
                let record = builder.take().finish().unwrap().record;
                let key = StorageKey::new(*b"storage of shops");
                let mut sealed = vec![0; record.sealed_len()];
                record.seal(&key, &mut sealed).unwrap();
                drop(record);
                assert!(look_at(place, &mut image));
                assert!(image == [0; 512], "{suite:?}: the record's buffer");
                Record::unseal(&sealed, &key, &mut buffer).unwrap();
            } else {
                leaves_nothing(builder, &secrets, "ScriptBuilder");
            }
            assert!(look_at(place, &mut image));
            assert!(image == [0; 512], "{suite:?}: the record's buffer");
            assert_eq!(found(&script, &secrets), None, "{suite:?}: the script");
        }
        let answered = counter.answered(&waiting);
        let (mut script, mut buffer, mut receipt) = ([0; 256], [0; 512], [0; 256]);
        let (mut session, mut builder) = answered.script(&mut script, &mut buffer).unwrap();
        builder
            .expect(session.get_key_version(KeyNo::MASTER), &[0])
            .unwrap();
        let finished = builder.finish().unwrap();
        let mut player = made(|| waiting.script(finished.script, &mut receipt).unwrap());
        player.0[0].play(&mut counter.wire).unwrap();
        leaves_nothing(player, &secrets, "Player");
    }
}

// ---------------------------------------------------------------------------------------------
// provision

/// In no heap but where the library puts it: what is found anywhere else would be this test's own.
const TABLE_KEY: [u8; 16] = [
    0x91, 0x2D, 0xE8, 0x47, 0xBA, 0x06, 0x7F, 0xC3, 0x58, 0xF1, 0x34, 0xAD, 0x6B, 0xD2, 0x1C, 0x85,
];

/// Also where a key was that has been replaced, or whose table has grown and moved.
#[test]
fn a_table_of_keys_leaves_nothing() {
    const KEYS: usize = 20;
    const PLACES: usize = 10_000;
    const TABLE: usize = KEYS * size_of::<(String, u8, Key)>();

    let key = Key::aes(TABLE_KEY);
    // Does not grow: where it had been, a key could come to lie.
    let mut places: Vec<usize> = Vec::with_capacity(PLACES);
    let mut slot = Slot::new(MemoryKeys::new());
    for number in (0..KEYS).chain([3, 7]) {
        slot.0[0].insert(number.to_string(), 0, key.clone());
        // Follows what may be a pointer, to the table and from there.
        for table in addresses(&slot.image()) {
            let mut image = [0; TABLE];
            if !look_at(table, &mut image) {
                continue;
            }
            places.extend(places_of(&image, table));
            for entry in addresses(&image) {
                let mut image = [0; size_of::<Key>()];
                if look_at(entry, &mut image) {
                    places.extend(places_of(&image, entry));
                }
            }
        }
    }
    assert!((KEYS..PLACES).contains(&places.len()), "{}", places.len());
    slot.end();
    for place in places {
        let mut image = [0; TABLE_KEY.len()];
        // What is not there any more has been given back.
        if look_at(place, &mut image) {
            assert!(!holds(4, &image, &TABLE_KEY), "a key is left");
        }
    }
}

/// What may be pointers in an image.
fn addresses(image: &[u8]) -> impl Iterator<Item = usize> {
    let (words, _) = image.as_chunks::<{ size_of::<usize>() }>();
    words.iter().map(|word| usize::from_ne_bytes(*word))
}

/// Where [`TABLE_KEY`] is in what lies at an address.
fn places_of(image: &[u8], address: usize) -> impl Iterator<Item = usize> {
    let windows = image.windows(TABLE_KEY.len()).enumerate();
    windows.filter_map(move |(at, bytes)| (bytes == TABLE_KEY).then_some(address + at))
}
