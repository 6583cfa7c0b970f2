//! Issuing and rollover, torn at every point there is.
//!
//! The layout has three applications of three key types with all five file types, diversified keys, a
//! default key, ISO names, frozen settings, random ID: see `support/issue.rs`. It is brought about once
//! undisturbed, which gives the state at the end and the number of EEPROM effects and frames. Then it is
//! brought about again and again on a card like the first, each time with one thing going wrong, and
//! `apply` is called until it says that it is done. The state at the end must be the same, byte for
//! byte, key for key, in every run.
//!
//! | disturbance | where |
//! |---|---|
//! | power is cut before an effect | every effect |
//! | power is cut after an effect | every effect |
//! | a reply is lost, and the card is taken away | every frame |
//! | a reply is lost, and the card stays in the field | every frame |
//! | two and three of them in a row | at random |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/issue.rs"]
mod issue;

use desfire_ev1::VirtualReader;
use desfire_ev1::picc::{Card, CardKey, Fault, State};
use desfire_ev1::provision::{Issuer, Layout, MemoryKeys, ProvisionError, Report, Step};
use getrandom::SysRng;
use issue::{Dice, NEW, OLD, keys, layout};

/// What is done again and again.
struct Trial {
    name: &'static str,
    start: Card,
    layout: Layout,
    rollover: bool,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    fault: Fault,
    /// Whether the field is reset before the next attempt.
    taken_away: bool,
}

/// What an undisturbed run is.
struct Quiet {
    end: State,
    effects: u64,
    commands: u64,
}

impl Trial {
    fn issuer<'a>(&'a self, keys: &'a MemoryKeys) -> Issuer<'a, MemoryKeys> {
        let issuer = Issuer::new(&self.layout, keys).unwrap();
        if self.rollover {
            issuer.rollover()
        } else {
            issuer.irreversible()
        }
    }

    fn quiet(&self, keys: &MemoryKeys) -> Quiet {
        let mut reader = VirtualReader::new(self.start.clone());
        let (effects, commands) = (reader.card().effects(), reader.card().commands());
        self.issuer(keys).apply(&mut reader, &mut SysRng).unwrap();
        let quiet = Quiet {
            effects: reader.card().effects() - effects,
            commands: reader.card().commands() - commands,
            end: reader.card().state().clone(),
        };
        // It has done what it says: nothing is left, and asking again changes nothing.
        let verdict = self.issuer(keys).verify(&mut reader, &mut SysRng).unwrap();
        assert!(verdict.is_ok(), "{verdict}");
        let again = self.issuer(keys).apply(&mut reader, &mut SysRng).unwrap();
        assert!(again.steps.iter().all(Step::is_repeated));
        assert_eq!(*reader.card().state(), quiet.end);
        quiet
    }

    /// How many attempts it took.
    fn run(&self, keys: &MemoryKeys, troubles: &[Trouble], quiet: &Quiet) -> usize {
        let mut reader = VirtualReader::new(self.start.clone());
        let mut next = troubles.iter();
        let mut attempts = 0;
        loop {
            let trouble = next.next();
            if let Some(trouble) = trouble {
                let card = reader.card_mut();
                // Counted from the start of this attempt.
                let fault = match trouble.fault {
                    Fault::CutBefore(effect) => Fault::CutBefore(card.effects() + effect),
                    Fault::CutAfter(effect) => Fault::CutAfter(card.effects() + effect),
                    Fault::LoseReply(command) => Fault::LoseReply(card.commands() + command),
                    other => other,
                };
                card.arrange_fault(fault);
            }
            attempts += 1;
            match self.issuer(keys).apply(&mut reader, &mut SysRng) {
                Ok(_) => break,
                Err(ProvisionError::Card { .. }) if trouble.is_some() => {}
                Err(error) => panic!("{} with {troubles:?}: {error}", self.name),
            }
            reader.card_mut().clear_faults();
            if trouble.is_some_and(|trouble| trouble.taken_away)
                || !matches!(trouble.map(|t| t.fault), Some(Fault::LoseReply(_)))
            {
                reader.card_mut().activate();
            }
            assert_eq!(reader.card().state().check(), Ok(()));
        }
        assert_eq!(
            *reader.card().state(),
            quiet.end,
            "{} with {troubles:?} ended elsewhere",
            self.name
        );
        attempts
    }

    fn every_point(&self, keys: &MemoryKeys) {
        let quiet = self.quiet(keys);
        let mut single = Vec::new();
        for effect in 1..=quiet.effects {
            for fault in [Fault::CutBefore(effect), Fault::CutAfter(effect)] {
                single.push(Trouble {
                    fault,
                    taken_away: true,
                });
            }
        }
        for command in 1..=quiet.commands {
            for taken_away in [true, false] {
                single.push(Trouble {
                    fault: Fault::LoseReply(command),
                    taken_away,
                });
            }
        }
        let mut runs = 0;
        for trouble in &single {
            let attempts = self.run(keys, &[*trouble], &quiet);
            assert_eq!(attempts, 2, "{trouble:?} did not strike");
            runs += 1;
        }
        let mut dice = Dice(0x5EED_0001);
        let draw = |dice: &mut Dice| {
            let place = dice.below(single.len() as u64) as usize;
            single[place]
        };
        let (mut in_a_row, mut attempts) = (0, 0);
        for _ in 0..single.len() {
            let many = 2 + dice.below(2);
            let troubles: Vec<Trouble> = (0..many).map(|_| draw(&mut dice)).collect();
            attempts += self.run(keys, &troubles, &quiet);
            in_a_row += 1;
        }
        println!(
            "{}: {} effects and {} frames; {runs} runs with one fault each, {in_a_row} with two or three in a row ({attempts} attempts); all ended in the same state",
            self.name, quiet.effects, quiet.commands
        );
        assert!(runs > 100);
    }
}

fn delivered() -> Card {
    issue::reader().into_card()
}

fn issued(layout: &Layout, irreversible: bool) -> Card {
    let keys = keys();
    let mut reader = issue::reader();
    let issuer = Issuer::new(layout, &keys).unwrap();
    let issuer = if irreversible {
        issuer.irreversible()
    } else {
        issuer
    };
    let _: Report = issuer.apply(&mut reader, &mut SysRng).unwrap();
    let mut card = reader.into_card();
    card.activate();
    card
}

#[test]
fn issuing_survives_every_tear() {
    Trial {
        name: "issuing a delivered card",
        start: delivered(),
        layout: layout(OLD),
        rollover: false,
    }
    .every_point(&keys());
}

#[test]
fn issuing_from_a_transport_key_survives_every_tear() {
    let mut start = delivered();
    // 2K3DES, as `issue::keys` has it.
    let mut reader = VirtualReader::new(start.clone());
    let transport = Layout {
        applications: Vec::new(),
        picc: desfire_ev1::provision::PiccLayout::new(desfire_ev1::provision::KeyRef::same(
            "transport",
            0,
        )),
        ..layout(OLD)
    };
    let keys = keys();
    let issuer = Issuer::new(&transport, &keys).unwrap();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    start.state_mut().clone_from(reader.card().state());
    assert_ne!(*start.state().picc_key(), CardKey::des([0; 16]));
    let mut layout = layout(OLD);
    // Without what can never be undone, and without a default key.
    layout.picc.random_id = false;
    layout.picc.default_key = None;
    layout.system_id.clear();
    Trial {
        name: "issuing a card with a transport key",
        start,
        layout,
        rollover: false,
    }
    .every_point(&keys);
}

#[test]
fn rollover_survives_every_tear() {
    // What is frozen stays so: the third application changes each key with itself, the second has a
    // key that changes the others, and its settings can be opened.
    Trial {
        name: "rollover of a card in the field",
        start: issued(&layout(OLD), true),
        layout: layout(NEW),
        rollover: true,
    }
    .every_point(&keys());
}

#[test]
fn rollover_of_an_open_card_survives_every_tear() {
    Trial {
        name: "rollover of a card with nothing frozen",
        start: issued(&layout(OLD), false),
        layout: layout(NEW),
        rollover: true,
    }
    .every_point(&keys());
}
