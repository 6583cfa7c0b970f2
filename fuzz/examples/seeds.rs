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
    clippy::cast_possible_truncation,
    reason = "a program for developers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use desfire_ev1::picc::{Application, Card, CardKey, File, FileContent};
use desfire_ev1::wire::{
    AccessRights, Aid, CommMode, FileNo, Framing, KeyInfo, KeyNo, KeySettings, Uid,
};
use desfire_ev1_fuzz::hostile_card::Answer;
use desfire_ev1_fuzz::{
    hostile_card, hostile_reader, key_file, layout, operations, procedures, seeds, split,
};

#[path = "../../tests/support/vectors.rs"]
mod vectors;

use vectors::{Op, Vector, Wrapping};

/// What of a target's seeds is written.
const MOST: usize = 112;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recordings = load(root, "full_session.txt");
    let handshakes = load(root, "auth_handshake.txt");
    let all: [(&str, Vec<Seed>); 8] = [
        (
            "card_state",
            recordings.iter().filter_map(card_state).flatten().collect(),
        ),
        (
            "hostile_card",
            made_calls()
                .into_iter()
                .chain(made_procedures())
                .chain(recordings.iter().flat_map(card_replies))
                .collect(),
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
    for (target, seeds) in all {
        let folder = root.join("seeds").join(target);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for seeds");
        let (mut written, mut bytes) = (0, 0);
        for seed in chosen(target, seeds) {
            written += 1;
            bytes += seed.bytes.len();
            let name = format!("{written:02}-{}", seed.name.replace('/', "-"));
            fs::write(folder.join(name), seed.bytes).expect("a seed");
        }
        println!("{target}: {written} seeds, {bytes} bytes");
    }
}

/// One of each kind, then a second of each that has one, and so on.
fn chosen(target: &str, seeds: Vec<Seed>) -> Vec<Seed> {
    let mut seen = BTreeSet::new();
    let mut so_far: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Seed)> = Vec::new();
    for seed in seeds {
        if seen.insert(seed.bytes.clone()) {
            let rank = so_far.entry(seeds::kind(target, &seed.bytes)).or_default();
            ranked.push((*rank, seed));
            *rank += 1;
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
        .into_iter()
        .take(MOST)
        .map(|(_, seed)| seed)
        .collect()
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

/// Numbers of the suites that a recording is for, in the order of `tests/support/rig.rs`: that of its first
/// authentication. No recording has D40 under 2K3DES, so that those under DES stand for it too.
fn suites(vector: &Vector) -> &'static [u8] {
    let auth = vector.steps.iter().find(|step| step.op == Op::Auth);
    let auth = auth.expect("a session");
    match (auth.fields.byte("auth"), auth.fields.text("key_type")) {
        (0x0A, _) => &[4, 5],
        (0x1A, "DES") => &[0],
        (0x1A, "2K3DES") => &[1],
        (0x1A, _) => &[2],
        _ => &[3],
    }
}

/// Honest calls in every suite and without a session, of both framings, at both levels.
fn made_calls() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for suite in 0..=6 {
        for framing in [Framing::Native, Framing::Wrapped] {
            for (level, at_picc_level) in [("app", false), ("picc", true)] {
                seeds.push(Seed {
                    name: format!("calls-{suite}-{framing:?}-{level}").to_lowercase(),
                    bytes: hostile_card::seed_calls(suite, framing, at_picc_level),
                });
            }
        }
    }
    seeds
}

/// Purses and the issue of cards, with lies and without.
fn made_procedures() -> Vec<Seed> {
    const TAP: [u8; 9] = [0; 9];
    // Not made but there, contents as they should be; a credit, the history, the settlement, also
    // as a changed intent.
    let honest = [
        &[0, 0][..],
        &TAP,
        &[50, 1, 0, 0, 0, 0, 3, 0, 0, 0, 0, 2, 0, 0, 4, 0, 70, 1],
    ]
    .concat();
    // The commit or its reply is lost; settled in the next tap.
    let [unpaid, paid] = [0xC8, 0xD8].map(|lost| {
        let first = [&[0, 0][..], &TAP, &[50, 1, 0, 0, lost]].concat();
        [&first[..], &TAP, &[0, 2, 0]].concat()
    });
    // Somebody commits half of a debit; seen by the next tap.
    let half = [&[0, 0][..], &TAP, &[50, 0, 0, 0xD0, 0], &TAP].concat();
    // The newest record has another balance.
    let other = [&[0, 1, 1, 92, 1][..], &TAP].concat();
    // The commit is lost, the next selection kept back, and the commit slipped in after "not paid".
    let kept_back = |selected: &[u8]| {
        let first = [&[0, 0][..], &TAP, &[50, 1, 0, 0, 0xC8]].concat();
        let selection = [&[1, 0, 0xCC, selected.len() as u8], selected].concat();
        [
            &first[..],
            &selection,
            &[0; 6],
            &[0, 2, 0, 0, 0],
            &[0, 5, 0xD0, 0],
        ]
        .concat()
    };
    let purses = [
        ("honest", honest),
        ("made", vec![3]),
        ("unpaid", unpaid),
        ("paid", paid),
        ("half", half),
        ("other", other),
    ];
    let mut seeds = Vec::new();
    let ways: [(_, _, &[u8]); 2] = [
        (3, Framing::Native, &[0x00]),
        (1, Framing::Wrapped, &[0x91, 0x00]),
    ];
    for (suite, framing, selected) in ways {
        let kept_back = ("kept-back", kept_back(selected));
        for (name, taps) in purses.iter().chain([&kept_back]) {
            seeds.push(Seed {
                name: format!("purse-{name}-{suite}"),
                bytes: procedures::seed_purse(framing, suite, taps),
            });
        }
        for how in 0..4 {
            let lies = match how {
                0 | 2 => vec![],
                _ => [&[0; 20][..], &[0xE0, 3, 1]].concat(),
            };
            seeds.push(Seed {
                name: format!("issue-{suite}-{how}"),
                bytes: procedures::seed_issue(framing, suite / 2, how, &lies),
            });
        }
    }
    seeds
}

/// The commands after an authentication, under the keys of the fuzzed session: once with the data
/// that the card gave, once with its very frames.
fn card_replies(vector: &Vector) -> Vec<Seed> {
    let framing = match vector.wrapping {
        Some(Wrapping::Iso7816) => Framing::Wrapped,
        _ => Framing::Native,
    };
    let mut seeds = Vec::new();
    let answers = [("sealed", true), ("frames", false)];
    let ways = suites(vector)
        .iter()
        .flat_map(|suite| answers.map(|how| (*suite, how)));
    for (suite, (how, sealed)) in ways {
        let mut bytes = hostile_card::seed(usize::from(suite), framing, false);
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
            name: format!("{}-{suite}-{how}", vector.id),
            bytes,
        });
    }
    seeds
}

/// The reader's frames as they are, and its commands sealed under the keys of the fuzzed session.
fn reader_frames(vector: &Vector) -> Vec<Seed> {
    let each = suites(vector).iter();
    each.flat_map(|suite| reader_frames_in(vector, *suite))
        .collect()
}

fn reader_frames_in(vector: &Vector, suite: u8) -> [Seed; 3] {
    let mut keyless = hostile_reader::seed(0, suite);
    let mut free = hostile_reader::seed(1, suite);
    let mut keyed = hostile_reader::seed(2, suite);
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
    [("keyed", keyed), ("free", free), ("keyless", keyless)].map(|(name, bytes)| Seed {
        name: format!("{}-{suite}-{name}", vector.id),
        bytes,
    })
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

/// A card that has what the recording creates, as far as it is created in clear: without its CRC and with it.
fn card_state(vector: &Vector) -> Option<[Seed; 2]> {
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
    let whole = [&[1], &stored[..]].concat();
    let parts = [("body", [&[0], body].concat()), ("whole", whole)];
    (there > 0).then(|| {
        parts.map(|(name, bytes)| Seed {
            name: format!("{}-{name}", vector.id),
            bytes,
        })
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
    let frames: [&[u8]; 3] = [&[0x91, 0x00], &[0x5A; 40], &[]];
    for (name, to_holder) in [("replies", true), ("commands", false)] {
        seeds.push(Seed {
            name: format!("remote-{name}"),
            bytes: split::seed_dialogue(to_holder, &frames),
        });
    }
    for changes in [
        &[][..],
        &[0xC0, 0],
        &[0, 0, 0xC0, 0],
        &[0, 0, 0, 0xC0, 1],
        &[0xE0, 30, 1],
    ] {
        seeds.push(Seed {
            name: format!("network-{}", changes.len()),
            bytes: split::seed_network(changes),
        });
    }
    for kind in 0..3 {
        // Registers: as they are after some keys, with another byte, at another counter.
        seeds.push(Seed {
            name: format!("stored-{kind}"),
            bytes: split::seed_stored(kind, 40 * kind, &[kind | 0x20, 0x40, 0x01, 0xFE, 0xFF]),
        });
    }
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
