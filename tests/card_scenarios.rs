//! The software card against the protocol, as a person would check it: `tests/scenarios/*.txt`
//! hold commands and the replies that the rules ask for; `support/scenario.rs` tells how they
//! read. A status that no scenario gets, or a rule that none covers, fails.
//!
//! The same scenarios are then torn: played again with the power cut before and after every
//! effect that they have.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test speaks by panicking"
)]

#[path = "support/scenario.rs"]
mod scenario;
#[path = "support/terminal.rs"]
mod terminal;

use std::collections::BTreeMap;

use desfire_ev1::picc::Fault;
use desfire_ev1::wire::Status;
use scenario::{Played, Seen};

/// The files, each about one chapter.
const FILES: &[(&str, &str)] = &[
    ("status.txt", include_str!("scenarios/status.txt")),
    ("rights.txt", include_str!("scenarios/rights.txt")),
    ("keys.txt", include_str!("scenarios/keys.txt")),
    ("settings.txt", include_str!("scenarios/settings.txt")),
    ("sessions.txt", include_str!("scenarios/sessions.txt")),
    ("chaining.txt", include_str!("scenarios/chaining.txt")),
    (
        "applications.txt",
        include_str!("scenarios/applications.txt"),
    ),
    ("files.txt", include_str!("scenarios/files.txt")),
    (
        "transactions.txt",
        include_str!("scenarios/transactions.txt"),
    ),
    (
        "configuration.txt",
        include_str!("scenarios/configuration.txt"),
    ),
    ("memory.txt", include_str!("scenarios/memory.txt")),
    ("iso.txt", include_str!("scenarios/iso.txt")),
    ("tearing.txt", include_str!("scenarios/tearing.txt")),
];

/// Statuses that an intact card cannot give, and why.
const IMPOSSIBLE: &[(Status, &str)] = &[
    (
        Status::ApplicationIntegrityError,
        "an application's data would have to be corrupt",
    ),
    (
        Status::PiccIntegrityError,
        "the PICC's data would have to be corrupt",
    ),
    (Status::PiccDisabled, "follows C1"),
    (Status::EepromError, "the memory would have to fail"),
    (
        Status::FileIntegrityError,
        "a file's data would have to be corrupt",
    ),
];

/// Status words that a scenario must get besides 9000 and 91xx.
const WORDS: &[u16] = &[
    0x6700, 0x6982, 0x6985, 0x6A82, 0x6A83, 0x6A84, 0x6A86, 0x6A87, 0x6C, 0x6D00,
];

/// The rules that must be covered: the cases of 3.1, 3.5 and chapter 5 of the reference.
const RULES: &[&str] = &[
    // 3.1: which protection a file command uses, by session and way to the right.
    "3.1/none/free",
    "3.1/none/key",
    "3.1/none/never",
    "3.1/d40/named/plain",
    "3.1/d40/named/mac",
    "3.1/d40/named/enc",
    "3.1/d40/free",
    "3.1/d40/other",
    "3.1/d40/never",
    "3.1/ev1/named/plain",
    "3.1/ev1/named/mac",
    "3.1/ev1/named/enc",
    "3.1/ev1/free",
    "3.1/ev1/other",
    "3.1/ev1/never",
    "3.1/named-and-free",
    "3.1/free-get-value",
    // 3.0: which rights grant which command.
    "right/ReadData/R",
    "right/ReadData/RW",
    "right/ReadData/not-W",
    "right/WriteData/W",
    "right/WriteData/RW",
    "right/WriteData/not-R",
    "right/GetValue/R",
    "right/GetValue/W",
    "right/GetValue/RW",
    "right/Debit/R",
    "right/Debit/W",
    "right/Debit/RW",
    "right/LimitedCredit/W",
    "right/LimitedCredit/RW",
    "right/LimitedCredit/not-R",
    "right/Credit/RW",
    "right/Credit/not-R",
    "right/Credit/not-W",
    "right/ReadRecords/R",
    "right/ReadRecords/RW",
    "right/ReadRecords/not-W",
    "right/WriteRecord/W",
    "right/WriteRecord/RW",
    "right/WriteRecord/not-R",
    "right/ClearRecordFile/RW",
    "right/ClearRecordFile/not-W",
    "right/ChangeFileSettings/key",
    "right/ChangeFileSettings/other",
    "right/ChangeFileSettings/free",
    "right/ChangeFileSettings/never",
    // 3.5: ChangeKey.
    "3.5/key0",
    "3.5/key0/other",
    "3.5/key0/frozen",
    "3.5/n=0",
    "3.5/n=0/other",
    "3.5/n=k",
    "3.5/n=k/other",
    "3.5/n=k/itself",
    "3.5/n=k/by-master",
    "3.5/n=E",
    "3.5/n=E/other",
    "3.5/n=F",
    "3.5/d40/own",
    "3.5/d40/other",
    "3.5/ev1/own",
    "3.5/ev1/other",
    "3.5/des",
    "3.5/2k3des",
    "3.5/3k3des",
    "3.5/aes",
    "3.5/picc/des-aes",
    "3.5/picc/aes-des",
    "3.5/picc/aes-3k3des",
    "3.5/picc/3k3des-des",
    "3.5/picc/d40-aes",
    "3.5/type-in-application",
    "3.5/wrong-old-key",
    "3.5/no-session",
    // 5.2: key settings.
    "5.2/picc/bit0",
    "5.2/picc/bit1",
    "5.2/picc/bit2",
    "5.2/picc/bit3",
    "5.2/app/bit0",
    "5.2/app/bit1",
    "5.2/app/bit2",
    "5.2/app/bit3",
    // 5.3: communication byte.
    "5.3/02-is-plain",
    "5.3/others",
];

/// Plays every file.
fn play_all() -> (Vec<Played>, Seen) {
    let parts = scenario::parts(include_str!("scenarios/parts.txt"));
    let mut seen = Seen::default();
    let mut played = Vec::new();
    for (name, text) in FILES {
        played.extend(scenario::play(name, text, &parts, &mut seen));
    }
    (played, seen)
}

#[test]
fn scenarios() {
    let (played, seen) = play_all();
    check(&seen);
    println!("{} scenarios, {} commands", played.len(), seen.commands);
    for (status, times) in &seen.statuses {
        println!("  status {status:02X}: {times}");
    }
    for (word, times) in &seen.words {
        println!("  word {word:04X}: {times}");
    }
    for (status, why) in IMPOSSIBLE {
        println!("  not from an intact card: {status}: {why}");
    }
}

fn check(seen: &Seen) {
    for status in Status::ALL {
        let impossible = IMPOSSIBLE.iter().any(|(known, _)| known == status);
        let found = seen.statuses.contains_key(&status.to_byte());
        assert_ne!(found, impossible, "scenarios and {status}");
    }
    for word in WORDS {
        // 6C stands for all of 6Cxx.
        let is_it = |seen: &u16| seen == word || seen >> 8 == *word;
        assert!(seen.words.keys().any(is_it), "no scenario gets {word:04X}");
    }
    for rule in RULES {
        assert!(seen.rules.contains(*rule), "no scenario covers {rule}");
    }
    for rule in &seen.rules {
        assert!(RULES.contains(&rule.as_str()), "there is no rule {rule}");
    }
}

/// Power is cut before and after every effect of every scenario. A cut leaves the state that
/// the effects so far have made, no more and no less, and a card that says nothing until it
/// is in the field again. The card's nonces are the same in every run, so the reader's bytes
/// can be played again.
#[test]
fn torn_scenarios() {
    let (played, _) = play_all();
    let (mut cuts, mut compared) = (0, 0);
    for scenario in played.iter().filter(|scenario| !scenario.has_faults) {
        // The state after so many effects, known between commands.
        let mut states = BTreeMap::new();
        let mut card = scenario.start.clone();
        states.insert(0, card.state().clone());
        for frame in &scenario.frames {
            match frame {
                Some(frame) => drop(card.handle(frame)),
                None => drop(card.activate()),
            }
            states.insert(card.effects(), card.state().clone());
        }
        for effect in 1..=card.effects() {
            for (fault, done) in [
                (Fault::CutBefore(effect), effect - 1),
                (Fault::CutAfter(effect), effect),
            ] {
                let mut card = scenario.start.clone();
                card.arrange_fault(fault);
                let mut frames = scenario.frames.iter();
                let torn = frames.any(|frame| match frame {
                    Some(frame) => card.handle(frame).is_empty(),
                    None => {
                        card.activate();
                        false
                    }
                });
                let title = format!("{}, {fault:?}", scenario.title);
                assert!(torn, "{title}: the card never fell silent");
                assert!(
                    card.handle(&[0x60]).is_empty(),
                    "{title}: not out of the field"
                );
                card.state().check().expect(&title);
                if let Some(state) = states.get(&done) {
                    assert!(card.state() == state, "{title}: another state");
                    compared += 1;
                }
                card.activate();
                assert_eq!(card.handle(&[0xC7]), [0x9D], "{title}: not at PICC level");
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts, {compared} states compared");
    assert!(cuts > 1000 && compared > 1000);
}
