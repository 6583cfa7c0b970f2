//! Makes the seeds in `fuzz/seeds/` from the recordings in `tests/vectors/`.
//!
//! ```text
//! cargo run --no-default-features --example seeds
//! ```
//!
//! Whatever was there before is replaced. What comes out depends on nothing but the recordings.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a program for developers"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use desfire_ev1::picc::{Application, Card, CardKey, File, FileContent};
use desfire_ev1::wire::{
    AccessRights, Aid, CommMode, FileNo, Framing, KeyInfo, KeyNo, KeySettings, Uid,
};
use desfire_ev1_fuzz::hostile_card::Answer;
use desfire_ev1_fuzz::{hostile_card, hostile_reader, key_file, layout, operations, split};

#[path = "../../tests/support/vectors.rs"]
mod vectors;

use vectors::{Op, Step, Vector, Wrapping};

/// What of a target's seeds is written.
const MOST: usize = 48;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recordings = load(root, "full_session.txt");
    let handshakes = load(root, "auth_handshake.txt");
    let seeds: [(&str, Vec<Seed>); 8] = [
        (
            "card_state",
            recordings.iter().filter_map(card_state).collect(),
        ),
        (
            "hostile_card",
            recordings.iter().flat_map(card_replies).collect(),
        ),
        (
            "hostile_reader",
            recordings.iter().flat_map(reader_frames).collect(),
        ),
        ("key_file", key_files()),
        ("layout", layouts()),
        (
            "operations",
            recordings.iter().filter_map(sequence).collect(),
        ),
        ("split", splits(&handshakes)),
        ("wire", recordings.iter().flat_map(frames).collect()),
    ];
    for (target, seeds) in seeds {
        let folder = root.join("seeds").join(target);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for seeds");
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for seed in seeds {
            if seen.len() < MOST && seen.insert(seed.bytes.clone()) {
                bytes += seed.bytes.len();
                fs::write(
                    folder.join(format!("{:02}-{}", seen.len(), seed.name.replace('/', "-"))),
                    seed.bytes,
                )
                .expect("a seed");
            }
        }
        println!("{target}: {} seeds, {bytes} bytes", seen.len());
    }
}

struct Seed {
    name: String,
    bytes: Vec<u8>,
}

fn load(root: &Path, file: &str) -> Vec<Vector> {
    let path = root.join("../tests/vectors").join(file);
    let text = fs::read_to_string(path).expect("a file of recordings");
    vectors::parse(file, &text).unwrap_or_else(|error| panic!("{error}"))
}

fn mode(name: &str) -> CommMode {
    match name {
        "mac" => CommMode::Mac,
        "enc" => CommMode::Enciphered,
        _ => CommMode::Plain,
    }
}

/// Number of the suite of an authentication, in the order of `tests/support/rig.rs`.
fn suite(step: &Step) -> u8 {
    match (step.fields.byte("auth"), step.fields.text("key_type")) {
        (0x0A, "DES") => 4,
        (0x0A, _) => 5,
        (0x1A, "DES") => 0,
        (0x1A, "2K3DES") => 1,
        (0x1A, _) => 2,
        _ => 3,
    }
}

/// The commands after an authentication, under the keys of the fuzzed session: once with the data
/// that the card gave, once with its very frames.
fn card_replies(vector: &Vector) -> Vec<Seed> {
    let framing = match vector.wrapping {
        Some(Wrapping::Iso7816) => Framing::Wrapped,
        _ => Framing::Native,
    };
    let auth = vector.steps.iter().find(|step| step.op == Op::Auth);
    let number = auth.map_or(6, suite);
    let mut seeds = Vec::new();
    for (how, sealed) in [("sealed", true), ("frames", false)] {
        let mut bytes = hostile_card::seed(usize::from(number), framing, false);
        for step in vector.steps.iter().filter(|step| step.op == Op::Command) {
            let fields = &step.fields;
            let data = fields.opt_hex("rx_data").unwrap_or_default();
            let len = data.len().max(fields.hex("data").len());
            let comm = if data.is_empty() {
                "tx_comm"
            } else {
                "rx_comm"
            };
            let replies: Vec<Vec<u8>> = step
                .frames
                .iter()
                .map(|frame| frame.rx_apdu.as_ref().unwrap_or(&frame.rx).clone())
                .collect();
            let answer = if sealed {
                Answer::Sealed(&data)
            } else {
                Answer::Frames(&replies)
            };
            hostile_card::put_command(
                &mut bytes,
                fields.byte("cmd"),
                mode(fields.text(comm)),
                len,
                answer,
            );
        }
        seeds.push(Seed {
            name: format!("{}-{how}", vector.id),
            bytes,
        });
    }
    seeds
}

/// The reader's frames as they are, and its commands sealed under the keys of the fuzzed session.
fn reader_frames(vector: &Vector) -> Vec<Seed> {
    let auth = vector.steps.iter().find(|step| step.op == Op::Auth);
    let number = auth.map_or(3, suite);
    let mut keyless = hostile_reader::seed(0, number);
    let mut free = hostile_reader::seed(1, number);
    let mut keyed = hostile_reader::seed(2, number);
    for step in &vector.steps {
        for frame in &step.frames {
            let sent = frame.tx_apdu.as_ref().unwrap_or(&frame.tx);
            hostile_reader::put_frame(&mut keyless, sent);
            hostile_reader::put_frame(&mut free, sent);
        }
        match step.op {
            Op::Auth => hostile_reader::put_handshake(&mut keyed, false),
            Op::Command => {
                let fields = &step.fields;
                let (header, data) = (fields.hex("header"), fields.hex("data"));
                let mode = mode(fields.text("tx_comm"));
                hostile_reader::put_sealed(
                    &mut keyed,
                    fields.byte("cmd"),
                    mode,
                    &header,
                    &data[..data.len().min(255)],
                );
            }
            Op::ChangeKey => {}
        }
    }
    let named = |name: &str, bytes| Seed {
        name: format!("{}-{name}", vector.id),
        bytes,
    };
    match auth {
        Some(_) => vec![named("keyed", keyed), named("free", free)],
        None => vec![named("keyless", keyless), named("free", free)],
    }
}

/// The recorded order of commands, on a card and with parameters that the model draws.
fn sequence(vector: &Vector) -> Option<Seed> {
    let codes: Vec<u8> = vector
        .steps
        .iter()
        .filter_map(|step| step.frames.first()?.tx.first().copied())
        .collect();
    let number = vector.id.bytes().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(131).wrapping_add(u64::from(byte))
    });
    let bytes = operations::seed(&codes, number);
    (!bytes.is_empty()).then(|| Seed {
        name: vector.id.clone(),
        bytes,
    })
}

/// A card that has what the recording creates, as far as it is created in clear.
fn card_state(vector: &Vector) -> Option<Seed> {
    let mut card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6]));
    let mut there = 0;
    // A free application that the recording's frames may go on from.
    let free = AccessRights::from_bytes([0xEE, 0xEE]);
    let file = File::new(
        FileNo::new(9).ok()?,
        CommMode::Plain,
        free,
        FileContent::Standard(vec![7; 8]),
    );
    let key = match vector.steps.iter().find(|step| step.op == Op::Auth) {
        Some(step) if step.fields.hex("key").len() == 24 => {
            CardKey::three_key_3des(step.fields.array("key"))
        }
        Some(step) if step.fields.hex("key").len() == 16 => {
            CardKey::aes(step.fields.array("key"), 3)
        }
        _ => CardKey::des([0; 16]),
    };
    let info = KeyInfo::new(key.family(), 2).ok()?;
    let application = Application::new(Aid::new(0x42).ok()?, KeySettings::DEFAULT, info)
        .with_key(KeyNo::MASTER, key)
        .with_file(file);
    card.state_mut().put_application(application).ok()?;
    for step in &vector.steps {
        for frame in &step.frames {
            let reply = card.handle(&frame.tx);
            there += usize::from(reply.first() == Some(&0));
        }
    }
    let stored = card.save();
    let body = stored.strip_suffix(stored.last_chunk::<4>()?)?;
    (there > 0).then(|| Seed {
        name: vector.id.clone(),
        bytes: [&[0], body].concat(),
    })
}

/// Single frames, for the parsers of either framing.
fn frames(vector: &Vector) -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut put = |kind: u8, what: &str, bytes: &[u8]| {
        seeds.push(Seed {
            name: format!("{}-{what}", vector.id),
            bytes: [&[kind], bytes].concat(),
        });
    };
    // One step of each session, every session another one.
    let number = vector.id.bytes().map(usize::from).sum::<usize>() % vector.steps.len();
    for step in vector.steps.iter().skip(number).take(1) {
        let frame = &step.frames[0];
        put(0, "sent", &frame.tx);
        put(2, "received", &frame.rx);
        if let (Some(sent), Some(received)) = (&frame.tx_apdu, &frame.rx_apdu) {
            put(1, "sent-apdu", sent);
            put(3, "received-apdu", received);
            put(4, "apdu", sent);
        }
    }
    for step in vector.steps.iter().filter(|step| step.op == Op::Command) {
        let data = step.fields.opt_hex("rx_data").unwrap_or_default();
        match step.fields.byte("cmd") {
            0xF5 => put(5, "settings", &data),
            0x60 => put(6, "version", &data),
            0x6A | 0x6D | 0x45 => put(7, "small", &data),
            _ => {}
        }
    }
    // The short ones first, so that the rare kinds are not cut off.
    seeds.sort_by_key(|seed| core::cmp::Reverse(seed.bytes[0]));
    seeds
}

/// Challenges and proofs that cards have sent, and true answers and scripts on the software card.
fn splits(handshakes: &[Vector]) -> Vec<Seed> {
    let mut seeds: Vec<Seed> = (0..3)
        .map(|mode| Seed {
            name: format!("answer-{mode}"),
            bytes: split::seed_answer(mode),
        })
        .collect();
    for frame in 0..5 {
        for change in 0..4 {
            seeds.push(Seed {
                name: format!("script-{frame}-{change}"),
                bytes: split::seed_script(frame, change),
            });
        }
    }
    for (mode, handshake) in (0..).zip(handshakes) {
        let rx = handshake.input.hex_list("rx");
        let proof = handshake.expect.opt_hex("rx2");
        let proof = proof.or_else(|| rx.get(1).cloned()).unwrap_or_default();
        seeds.push(Seed {
            name: handshake.id.clone(),
            bytes: split::seed_challenge(mode % 3, &rx[0][1..], proof.get(1..).unwrap_or_default()),
        });
    }
    seeds
}

fn key_files() -> Vec<Seed> {
    let texts = key_file::TEXTS.iter().map(|text| text.as_bytes());
    let seeds = [key_file::SEALED].into_iter().chain(texts).enumerate();
    seeds
        .map(|(number, bytes)| Seed {
            name: format!("key-file-{number}"),
            bytes: bytes.to_vec(),
        })
        .collect()
}

fn layouts() -> Vec<Seed> {
    let seeds = layout::SEEDS.iter().enumerate();
    seeds
        .map(|(number, text)| Seed {
            name: format!("layout-{number}"),
            bytes: text.as_bytes().to_vec(),
        })
        .collect()
}
