//! The software card against recordings from the other side: given the recorded card's state,
//! UID and RndB, it answers the recorded reader's bytes with the recorded card's bytes.
//!
//! Every session of `tests/vectors/full_session.txt` is played, in native frames and, where it
//! was recorded so, in its APDUs. Sessions of one source go on from each other, so each one's
//! starting state is put in place on its own; what is put there is what the recording itself
//! shows later on (versions, key versions, file contents).
//!
//! Run with `--nocapture` for the list.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test speaks by panicking"
)]

#[path = "support/vectors.rs"]
mod vectors;

use desfire_ev1::picc::{
    Application, Card, CardKey, File, FileContent, Records, StorageSize, Value,
};
use desfire_ev1::wire::{
    AccessRights, Aid, CommMode, FileNo, KeyInfo, KeyNo, KeySettings, U24, Uid, ValueFlags, Version,
};
use vectors::{Op, Vector};

#[test]
fn recorded_sessions() {
    let sessions = vectors::load("full_session.txt");
    let (mut played, mut exchanges) = (0, 0);
    for session in &sessions {
        let native = play(session, Form::Native);
        let wrapped = play(session, Form::Wrapped);
        println!(
            "{}: {native} native and {wrapped} wrapped exchanges agree",
            session.id
        );
        played += 1;
        exchanges += native + wrapped;
    }
    println!("{played} recorded sessions, {exchanges} exchanges, none left out");
    assert_eq!((played, exchanges), (34, 433));

    // No card is in a state to answer these: the generator draws file, mode and amount of
    // each command anew, so that one file is plain and enciphered, data and value file, and
    // is credited negative amounts. Their cryptography is checked command by command, in the
    // unit tests of the card (generated_enciphered_exchange.txt, generated_changekey.txt).
    let generated = vectors::load("generated_full_session.txt");
    for session in &generated {
        println!(
            "{}: left out, generated and not a possible card",
            session.id
        );
    }
    assert_eq!(generated.len(), 8);
}

/// Authentications by themselves, also those cut out of sessions, with tokens that a card
/// refused, and the generated ones with keys of every type.
#[test]
fn handshakes() {
    let (mut accepted, mut refused) = (0, 0);
    for file in ["auth_handshake.txt", "generated_auth_handshake.txt"] {
        for vector in vectors::load(file) {
            let tx = vector.expect.hex_list("tx");
            let mut rx = vector.input.hex_list("rx");
            rx.extend(vector.expect.opt_hex("rx2"));
            assert_eq!((tx.len(), rx.len()), (2, 2), "{vector}");

            let mut card = handshake_card(&vector);
            assert_eq!(card.handle(&tx[0]), rx[0], "{vector}");
            assert_eq!(card.handle(&tx[1]), rx[1], "{vector}");
            accepted += 1;

            if let Some(rejected) = &vector.rejected {
                let mut card = handshake_card(&vector);
                assert_eq!(card.handle(&tx[0]), rx[0], "{vector}");
                assert_eq!(card.handle(&rejected.tx), rejected.rx, "{vector}");
                refused += 1;
            }
        }
    }
    println!("{accepted} handshakes agree, {refused} tokens refused as by the card");
    assert_eq!((accepted, refused), (60 + 4, 4));
}

/// A card with the key of a handshake in a selected application, about to draw its RndB.
fn handshake_card(vector: &Vector) -> Card {
    let mut key = vector.input.hex("key");
    if key.len() == 8 {
        key = key.repeat(2);
    }
    let (key, info) = match vector.input.text("key_type") {
        "AES" => (CardKey::aes(exactly(key), 0), info(0x8E)),
        "3K3DES" => (CardKey::three_key_3des(exactly(key)), info(0x4E)),
        _ => (CardKey::des(exactly(key)), info(0x0E)),
    };
    let number = key_no(vector.input.number("key_no"));
    let app = Application::new(aid(1), KeySettings::DEFAULT, info).with_key(number, key);
    let mut card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6]));
    put(&mut card, app);
    select(&mut card, 1);
    card.set_nonces_for_testing_only([vector.expect.hex("rnd_b")]);
    card
}

fn exactly<const N: usize>(key: Vec<u8>) -> [u8; N] {
    key.try_into().expect("a key of the right length")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Native,
    Wrapped,
}

/// Plays a session; gives the number of exchanges there are in this form.
fn play(session: &Vector, form: Form) -> usize {
    let mut card = card_of(session);
    card.set_nonces_for_testing_only(
        session
            .steps
            .iter()
            .filter(|step| step.op == Op::Auth)
            .map(|step| step.fields.hex("rnd_b")),
    );
    let mut exchanges = 0;
    for step in &session.steps {
        for (index, frame) in step.frames.iter().enumerate() {
            let (command, reply) = match form {
                Form::Native => (&frame.tx, &frame.rx),
                Form::Wrapped => match (&frame.tx_apdu, &frame.rx_apdu) {
                    (Some(command), Some(reply)) => (command, reply),
                    _ => continue,
                },
            };
            assert_eq!(
                hex(&card.handle(command)),
                hex(reply),
                "{session}, step {} (line {}), frame {index}: {}",
                step.name,
                step.line,
                hex(command),
            );
            exchanges += 1;
        }
    }
    exchanges
}

/// The card that lay on the reader, as it was when the session began.
fn card_of(session: &Vector) -> Card {
    let mut card = blank_card(session);
    match session.id.as_str() {
        // A card as delivered, or one whose applications the session does not touch.
        "rfdoorlock-01" | "rfdoorlock-18" | "nfccpp-log-d40" | "skjolber-d40" => {}
        id if id.starts_with("desox-") => {
            if id == "desox-capture-aes" {
                put(
                    &mut card,
                    Application::new(aid(0x30201), KeySettings::DEFAULT, info(0x81)),
                );
                select(&mut card, 0x30201);
            }
        }

        // Application 00DE16 with two keys of DES type.
        "rfdoorlock-02" | "rfdoorlock-03" => put(&mut card, des_app()),
        "rfdoorlock-04" => {
            let key = CardKey::des(session.steps[0].fields.array("key"));
            put(&mut card, des_app().with_key(KeyNo::MASTER, key));
            select(&mut card, 0x00DE16);
        }
        "rfdoorlock-05" => {
            // The key that session 04 leaves; this session's own log shows it without the
            // version 10 that GetKeyVersion then tells.
            put(
                &mut card,
                des_app().with_key(KeyNo::MASTER, CardKey::des(DES_V10)),
            );
            select(&mut card, 0x00DE16);
        }
        "rfdoorlock-06" => {
            put(&mut card, des_app());
            select(&mut card, 0x00DE16);
        }
        "rfdoorlock-07" => {
            put(
                &mut card,
                des_app().with_key(key_no(1), CardKey::des(DES_V10)),
            );
            select(&mut card, 0x00DE16);
        }

        // Application 00DE24 with two 3K3DES keys.
        "rfdoorlock-08" => put(&mut card, three_key_app()),
        "rfdoorlock-09" | "rfdoorlock-10" => {
            let key = CardKey::three_key_3des(session.steps[0].fields.array("key"));
            put(&mut card, three_key_app().with_key(KeyNo::MASTER, key));
            select(&mut card, 0x00DE24);
        }
        "rfdoorlock-11" => {
            put(&mut card, three_key_app());
            select(&mut card, 0x00DE24);
        }
        "rfdoorlock-12" => {
            let key = CardKey::three_key_3des(session.steps[0].fields.array("key"));
            put(&mut card, three_key_app().with_key(key_no(1), key));
            select(&mut card, 0x00DE24);
        }

        // Application 00AE16 with two AES keys.
        "rfdoorlock-13" => put(&mut card, aes_app()),
        "rfdoorlock-14" | "rfdoorlock-15" => {
            let key = CardKey::aes(session.steps[0].fields.array("key"), 0x10);
            put(&mut card, aes_app().with_key(KeyNo::MASTER, key));
            select(&mut card, 0x00AE16);
        }
        "rfdoorlock-16" => {
            put(&mut card, aes_app());
            select(&mut card, 0x00AE16);
        }
        "rfdoorlock-17" => {
            let key = CardKey::aes(session.steps[0].fields.array("key"), 0x10);
            put(&mut card, aes_app().with_key(key_no(1), key));
            select(&mut card, 0x00AE16);
        }

        // PICC master key AES zero, version 42.
        "skjolber-aes1" | "skjolber-aes2" | "skjolber-aes3" => {
            card.state_mut().set_picc_key(CardKey::aes([0; 16], 0x42));
        }
        "skjolber-3k3des1" => {
            let app = Application::new(aid(0xCCCCCC), KeySettings::DEFAULT, info(0x4E));
            put(
                &mut card,
                app.with_key(KeyNo::MASTER, CardKey::three_key_3des(ZERO_V55)),
            );
        }
        "skjolber-3k3des2" | "skjolber-3k3des3" | "skjolber-3k3des4" => {
            put(&mut card, three_key_app_with_files());
        }
        id => panic!("no starting state for {id}"),
    }
    card
}

/// A delivered card with the version block that the session shows.
fn blank_card(session: &Vector) -> Card {
    let shown = session.steps.iter().find(|step| step.name == "GetVersion");
    let Some(step) = shown else {
        let uid = session
            .steps
            .iter()
            .find(|step| step.name == "GetCardUID")
            .map_or([4, 1, 2, 3, 4, 5, 6], |step| step.fields.array("rx_data"));
        return Card::new(Uid(uid));
    };
    let version = Version::decode(&step.fields.hex("rx_data")).expect("28 bytes");
    let storage = match version.hardware.storage {
        0x18 => StorageSize::Ev1_4K,
        0x1A => StorageSize::Ev1_8K,
        other => panic!("{session}: storage byte {other:02X}"),
    };
    Card::builder()
        .uid(version.uid)
        .storage(storage)
        .modules(version.hardware, version.software)
        .production(version.batch, version.week_bcd, version.year_bcd)
        .build()
}

/// The key that the RFDoorLock log gives version 10.
const DES_V10: [u8; 16] = [
    0x10, 0x18, 0x20, 0x29, 0x30, 0x38, 0x40, 0x48, 0x50, 0x58, 0x60, 0x68, 0x70, 0x78, 0x80, 0x88,
];

/// A zero 3K3DES key with version 55.
const ZERO_V55: [u8; 24] = [
    0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn des_app() -> Application {
    Application::new(aid(0x00DE16), KeySettings::DEFAULT, info(0x02))
}

fn three_key_app() -> Application {
    Application::new(aid(0x00DE24), KeySettings::DEFAULT, info(0x42))
}

fn aes_app() -> Application {
    Application::new(aid(0x00AE16), KeySettings::DEFAULT, info(0x82))
}

/// Files 0F, 05, 04 and 00 in the order in which GetFileIDs lists them, rights 1254, all
/// enciphered. Of file 0F only the number is shown.
fn three_key_app_with_files() -> Application {
    let rights = AccessRights::from_bytes([0x54, 0x12]);
    let file = |number, content| {
        let number = FileNo::new(number).expect("in range");
        File::new(number, CommMode::Enciphered, rights, content)
    };
    let mut backup = vec![0; 64];
    backup[..2].copy_from_slice(b"00");
    let value = Value {
        lower: 0,
        upper: 1000,
        value: 3,
        limited_credit: 97,
        flags: ValueFlags::empty(),
    };
    let records = Records::new(u24(4), u24(10), b"r.00".to_vec());
    Application::new(aid(0xBBBBBB), KeySettings::DEFAULT, info(0x4E))
        .with_key(key_no(5), CardKey::three_key_3des(ZERO_V55))
        .with_file(file(0x0F, FileContent::Standard(vec![0; 100])))
        .with_file(file(0x05, FileContent::Backup(backup)))
        .with_file(file(0x04, FileContent::Value(value)))
        .with_file(file(0x00, FileContent::Cyclic(records)))
}

fn put(card: &mut Card, application: Application) {
    card.state_mut()
        .put_application(application)
        .expect("a possible state");
}

/// What an earlier session of the same log has selected.
fn select(card: &mut Card, number: u32) {
    let [a, b, c] = aid(number).to_bytes();
    assert_eq!(card.handle(&[0x5A, a, b, c]), [0x00]);
}

fn aid(number: u32) -> Aid {
    Aid::new(number).expect("in range")
}

fn info(byte: u8) -> KeyInfo {
    KeyInfo::from_byte(byte)
}

fn key_no(number: u8) -> KeyNo {
    KeyNo::new(number).expect("in range")
}

fn u24(number: u32) -> U24 {
    U24::new(number).expect("in range")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
