//! Saved states of the software card.
//!
//! A state ends in a CRC32 that no fuzzer guesses: the harness puts the right one behind every
//! input, except where the first byte says not to.
//!
//! Oracle: what loads is saved again as the same bytes, is a state that the card's own check allows,
//! and makes a card that answers.

use desfire_ev1::internals::crc32;
use desfire_ev1::picc::Card;

use crate::input::Input;

/// `00` and a state without its CRC, or anything else and a whole state.
pub fn run(data: &[u8]) {
    play(data);
}

/// Whether it is a state.
pub(crate) fn play(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let stored = match data.get(1..) {
        None => return false,
        Some(body) if input.byte() == 0 => [body, &crc32(body)].concat(),
        Some(whole) => whole.to_vec(),
    };
    let Ok(state) = Card::load_state(&stored) else {
        assert!(Card::load(&stored).is_err());
        return false;
    };
    assert_eq!(state.check(), Ok(()));
    let mut card = Card::load(&stored).expect("the same bytes load again");
    assert!(*card.state() == state);
    assert_eq!(
        card.save(),
        stored,
        "what was loaded is saved as something else"
    );
    // It answers, and answering changes nothing.
    for command in [
        &[0x60][..],
        &[0xAF],
        &[0xAF],
        &[0x6A],
        &[0x6D],
        &[0x45],
        &[0x64, 0],
        &[0x90, 0x6E, 0, 0, 0],
    ] {
        let _ = card.handle(command);
    }
    for application in state.applications() {
        let aid = application.aid().to_bytes();
        let selected = card.handle(&[&[0x5A][..], &aid].concat());
        assert_eq!(selected, [0x00], "an application that cannot be selected");
        for file in application.files() {
            let number = file.number().number();
            for command in [
                &[0xF5, number][..],
                &[0x6C, number],
                &[0xBD, number, 0, 0, 0, 0, 0, 0],
                &[0xBB, number, 0, 0, 0, 0, 0, 0],
                &[0x64, 0],
            ] {
                let reply = card.handle(command);
                assert!((1..=60).contains(&reply.len()));
            }
        }
    }
    assert!(*card.state() == state, "reading has changed the card");
    assert_eq!(card.save(), stored);
    true
}
