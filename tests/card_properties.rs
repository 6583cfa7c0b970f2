//! Whatever the software card is given, it answers, stays a possible card, and can be stored.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test speaks by panicking"
)]

#[path = "support/terminal.rs"]
mod terminal;

use crc::{CRC_32_JAMCRC, Crc};
use desfire_ev1::picc::{Card, Fault, StateError};
use desfire_ev1::wire::{CommandCode, Uid};
use proptest::collection::vec;
use proptest::prelude::*;
use terminal::{Key, Mode, Session};

/// A card with an application of each key family and free files of all types; the AES
/// application is selected.
fn prepared() -> Card {
    let mut card = Card::new(Uid([0x04, 1, 2, 3, 4, 5, 6]));
    let applications: [&[u8]; 3] = [
        &[0xCA, 3, 0, 0, 0x0F, 0x62, 0x11, 0xE1, b'3', b'k'],
        &[0xCA, 2, 0, 0, 0x0F, 0x22, 0x12, 0xE1],
        &[0xCA, 1, 0, 0, 0xEF, 0xA2, 0x10, 0xE1, b'a'],
    ];
    for application in applications {
        assert_eq!(card.handle(application), [0x00]);
        let [_, a, b, c, ..] = *application else {
            panic!("an AID")
        };
        assert_eq!(card.handle(&[0x5A, a, b, c]), [0x00]);
        let files: [&[u8]; 7] = [
            &[0xCD, 1, 0x03, 0xE1, 0, 0xEE, 0xEE, 100, 0, 0],
            &[0xCD, 7, 0x07, 0xE1, 1, 0x10, 0x11, 100, 0, 0],
            &[0xCD, 8, 0x08, 0xE1, 3, 0x10, 0x11, 100, 0, 0],
            &[0xCB, 2, 0x04, 0xE1, 0, 0xEE, 0xEE, 40, 0, 0],
            &[
                0xCC, 4, 0, 0xEE, 0xEE, 0, 0, 0, 0, 0xFF, 0, 0, 0, 9, 0, 0, 0, 3,
            ],
            &[0xC1, 5, 0x05, 0xE1, 0, 0xEE, 0xEE, 4, 0, 0, 3, 0, 0],
            &[0xC0, 6, 0x06, 0xE1, 0, 0xEE, 0xEE, 4, 0, 0, 3, 0, 0],
        ];
        for file in files {
            assert_eq!(card.handle(file), [0x00]);
        }
        card.handle(&[0x5A, 0, 0, 0]);
    }
    assert_eq!(card.handle(&[0x5A, 1, 0, 0]), [0x00]);
    card
}

/// What is true of a card at any time.
fn intact(card: &Card) {
    card.state().check().expect("a possible state");
    let stored = card.save();
    let again = Card::load(&stored).expect("a state that can be stored");
    assert_eq!(again.state(), card.state());
    assert_eq!(again.save(), stored);
}

/// Bytes, from noise to commands that are almost right.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let code = prop::sample::select(CommandCode::ALL).prop_map(CommandCode::to_byte);
    let file = prop_oneof![4 => 0..9_u8, 1 => any::<u8>()];
    let small = || prop_oneof![4 => vec(0..6_u8, 0..12), 1 => vec(any::<u8>(), 0..60)];
    prop_oneof![
        2 => vec(any::<u8>(), 0..70),
        1 => Just(vec![0xAF]),
        1 => vec(any::<u8>(), 0..59).prop_map(|data| [&[0xAF], &data[..]].concat()),
        6 => (code.clone(), file.clone(), small())
            .prop_map(|(code, file, rest)| [&[code, file], &rest[..]].concat()),
        // Reads and writes of six bytes of header, in range more often than not.
        6 => (prop::sample::select(vec![0xBD, 0x3D, 0x3B, 0xBB]), file, 0..6_u8, 0..70_u8, vec(any::<u8>(), 0..52))
            .prop_map(|(code, file, offset, len, data)| {
                let header = [code, file, offset, 0, 0, len, 0, 0];
                let data = if code & 0x80 == 0 { &data[..data.len().min(len.into())] } else { &[] };
                [&header[..], data].concat()
            }),
        3 => (code, vec(0..6_u8, 0..20)).prop_map(|(code, data)| {
            let mut apdu = vec![0x90, code, 0, 0];
            if !data.is_empty() {
                apdu.push(u8::try_from(data.len()).expect("short"));
                apdu.extend(data);
            }
            apdu.push(0);
            apdu
        }),
        4 => (
            prop::sample::select(vec![0xA4, 0xB0, 0xD6, 0xB2, 0xE2, 0x84, 0x82, 0x88]),
            prop_oneof![0..6_u8, 0x80..0x8A_u8],
            prop_oneof![0..2_u8, Just(0x0C), 0x20..0x40_u8],
            vec(any::<u8>(), 0..20),
            prop::option::of(0..20_u8),
        ).prop_map(|(ins, p1, p2, data, le)| {
            let mut apdu = vec![0x00, ins, p1, p2];
            if !data.is_empty() {
                apdu.push(u8::try_from(data.len()).expect("short"));
                apdu.extend(data);
            }
            apdu.extend(le);
            apdu
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_frames(frames in vec(frame(), 1..40)) {
        let mut card = prepared();
        for frame in &frames {
            let reply = card.handle(frame);
            prop_assert!((1..=61).contains(&reply.len()), "{} bytes", reply.len());
        }
        intact(&card);
    }

    /// In a session every reply with status 00 carries the right CMAC, whatever was asked.
    #[test]
    fn any_commands_in_sessions(
        scheme in prop::sample::select(vec![(0x1A_u8, 2_u8), (0x1A, 3), (0xAA, 1), (0x0A, 2)]),
        commands in vec(frame().prop_filter("one native frame", |frame| {
            // No handshakes, selections, continuations and other framings; nor commands whose
            // request or reply is not plain, or that can make a file enciphered.
            !frame.is_empty() && frame.len() <= 60
                && ![0x00, 0x90, 0x0A, 0x1A, 0xAA, 0xAF, 0x5A, 0x51, 0x54, 0x5C, 0x5F, 0xC4, 0xDA]
                    .contains(&frame[0])
        }), 1..30),
    ) {
        let mut card = prepared();
        let (ins, application) = scheme;
        prop_assert_eq!(card.handle(&[0x5A, application, 0, 0]), [0x00]);
        let key = Key::new(&vec![0; if application == 3 { 24 } else { 16 }], ins == 0xAA);
        let mut session = None;
        for command in commands {
            if session.is_none() {
                let challenge = card.handle(&[ins, 0]);
                let (token, handshake) = Session::token(ins, &key, &challenge[1..]);
                let proof = card.handle(&[&[0xAF], &token[..]].concat());
                prop_assert_eq!(proof[0], 0x00);
                session = Some(handshake.finish(&proof[1..]));
            }
            let mut reply = card.handle(&command);
            let mut data = reply[1..].to_vec();
            while reply[0] == 0xAF && !data.is_empty() {
                reply = card.handle(&[0xAF]);
                data.extend(&reply[1..]);
            }
            if reply[0] == 0x00 {
                let current = session.as_mut().expect("a session");
                current.request(Mode::Plain, &command, &[]);
                current.reply(Mode::Plain, &data, &[], false);
            } else {
                // An error, or a write that waits for more and is dropped.
                prop_assert!(reply.len() == 1);
                session = None;
            }
            if reply[0] == 0xAF {
                card.handle(&[0x60]);
            }
        }
        intact(&card);
    }

    /// A cut right before an effect leaves what a cut right after the one before leaves, and
    /// a card that is whole.
    #[test]
    fn power_can_be_cut_anywhere(frames in vec(frame(), 1..30), number in 1..20_u64) {
        let torn = |fault| {
            let mut card = prepared();
            let before = card.effects();
            card.arrange_fault(match fault {
                Fault::CutBefore(n) => Fault::CutBefore(before + n),
                Fault::CutAfter(n) => Fault::CutAfter(before + n),
                other => other,
            });
            for frame in &frames {
                card.handle(frame);
            }
            card
        };
        let before = torn(Fault::CutBefore(number + 1));
        let mut after = torn(Fault::CutAfter(number));
        if before.effects() == prepared().effects() + number + 1 {
            prop_assert_eq!(before.state(), after.state());
        }
        if after.effects() == prepared().effects() + number {
            // It may have been the last frame, but the card is out of the field either way.
            let state = after.state().clone();
            prop_assert!(after.handle(&[0x60]).is_empty());
            after.activate();
            prop_assert_eq!(after.handle(&[0x60]).len(), 8);
            prop_assert_eq!(after.state(), &state);
        }
        intact(&before);
        intact(&after);
    }

    /// Bytes with a right checksum are no reason to believe them: they are refused, or they
    /// are exactly what storing the state would give.
    #[test]
    fn hostile_states(changes in vec((0..4096_usize, any::<u8>()), 1..4), cut in prop::option::of(0..4096_usize)) {
        let mut stored = prepared().save();
        stored.truncate(stored.len() - 4);
        for (at, byte) in changes {
            let at = at % stored.len();
            stored[at] = byte;
        }
        if let Some(cut) = cut {
            stored.truncate(cut);
        }
        let crc = Crc::<u32>::new(&CRC_32_JAMCRC).checksum(&stored);
        stored.extend(crc.to_le_bytes());
        if let Ok(card) = Card::load(&stored) {
            prop_assert!(card.state().check().is_ok());
            prop_assert_eq!(card.save(), stored);
        }
    }

    #[test]
    fn noise_is_no_state(noise in vec(any::<u8>(), 0..300)) {
        prop_assert!(Card::load(&noise).is_err());
    }
}

#[test]
fn damaged_states_are_refused() {
    let stored = prepared().save();
    assert_eq!(Card::load(&stored).expect("whole").save(), stored);
    for at in 0..stored.len() {
        for bit in 0..8 {
            let mut damaged = stored.clone();
            damaged[at] ^= 1 << bit;
            assert!(Card::load(&damaged).is_err(), "byte {at}, bit {bit}");
        }
        assert!(Card::load(&stored[..at]).is_err(), "cut at {at}");
    }
    assert!(Card::load(&[&stored[..], &[0]].concat()).is_err());
    assert!(matches!(
        Card::load(b"another file"),
        Err(StateError::NotAState)
    ));
    let mut newer = stored;
    newer[8] = 2;
    assert!(matches!(Card::load(&newer), Err(StateError::Version(2))));
}

/// A delivered card as the first form stored it. It must load for ever; a new form gets
/// another number and another sample.
const FORM_1: &str = concat!(
    "4445534663617264010004010101001a0504010101041a0504010203040506000000000001100000",
    "0000000000000000000000000000000000000000000000000f000000000000000000000000000000",
    "0000000000000000000000060675778102800000000053a428be",
);

#[test]
fn stored_cards_of_old_still_load() {
    let stored: Vec<u8> = (0..FORM_1.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&FORM_1[at..at + 2], 16).expect("hex"))
        .collect();
    let card = Card::load(&stored).expect("the first form");
    let new = Card::new(Uid([0x04, 1, 2, 3, 4, 5, 6]));
    assert_eq!(card.state(), new.state());
    assert_eq!(new.save(), stored);
}

#[test]
fn a_card_can_cross_threads() {
    const fn send<T: Send + Clone>() {}
    send::<Card>();
}
