//! Random sequences of operations, run through the library on the software card, against a model
//! of what a card must hold and answer and of what the library must refuse.
//!
//! The model (`support/model/card.rs`, `reader.rs`) is written from the protocol reference. For
//! every operation it says beforehand: success with exactly these data; a refusal by the card
//! with this status; a refusal by the library, for this reason and with nothing sent; or an
//! answer that the library cannot take in. After every operation the card's whole state, and what
//! the session says of itself, must be what the model has. At the end of a sequence everything is
//! also read through the library.
//!
//! All native commands take part, sent by the library or, where it has no call for them, by hand; the
//! ISO 7816-4 commands do not.
//!
//! Now and then something goes wrong: power is cut before or after an effect, a frame is lost on
//! its way to the card or back, the card is taken away before a frame. Then the library must say that the outcome is unknown, the
//! card must be in the state before or after (or, in a chained write to a standard file, hold
//! whole frames of it), and the model goes on from what the card shows.
//!
//! | variable | default | |
//! |---|---|---|
//! | `DESFIRE_MODEL_SEED` | 1 | seed of the first sequence; each has the one after |
//! | `DESFIRE_MODEL_SEQUENCES` | 20000 | how many |
//! | `DESFIRE_MODEL_TABLE` | | if set, what has become of which command is printed too |
//!
//! A sequence that fails is shortened, by leaving operations out as long as it fails, and printed
//! with its seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/model/mod.rs"]
mod model;
#[path = "support/radio.rs"]
mod radio;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use desfire_ev1::LinkFormat;
use desfire_ev1::wire::{CommandCode, Status};
use model::card::Kept;
use model::draw::{self, Dice};
use model::ops::Step;
use model::world::{Ending, Tally, World};

const SEQUENCES: u64 = 20_000;
const MIN_STEPS: u32 = 20;
const MAX_STEPS: u32 = 60;

/// A card, a link and what is done.
#[derive(Clone, Debug)]
struct Sequence {
    kept: Kept,
    format: LinkFormat,
    steps: Vec<Step>,
}

/// What a run has counted, and apart from it the reading at the end.
struct Counts {
    sequence: Tally,
    audit: Tally,
}

impl Counts {
    fn new() -> Self {
        Self {
            sequence: Tally::new(),
            audit: Tally::new(),
        }
    }
}

/// Where a sequence fails, and why.
#[derive(Clone, Debug)]
struct Failure {
    at: String,
    why: String,
}

/// Draws the steps of a sequence while it runs, as `steps` wants them, and reads everything at the
/// end.
fn play(
    kept: &Kept,
    format: LinkFormat,
    counts: &mut Counts,
    mut next: impl FnMut(&World) -> Option<Step>,
) -> Result<(), Failure> {
    let mut at = "the beginning".to_owned();
    let run = AssertUnwindSafe(|| -> Result<(), String> {
        let mut world = World::new(kept.clone(), format)?;
        while let Some(step) = next(&world) {
            at = format!("{step:?}");
            world.step(&step)?;
        }
        counts.sequence.add(&world.tally);
        world.tally = Tally::new();
        for op in draw::audit(&world.card) {
            at = format!("the reading at the end, {op:?}");
            world.step(&Step { op, fault: None })?;
        }
        counts.audit.add(&world.tally);
        Ok(())
    });
    let why = match catch_unwind(run) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => format!("panic: {text}"),
            (_, Some(text)) => format!("panic: {text}"),
            _ => "panic".to_owned(),
        },
    };
    Err(Failure { at, why })
}

impl Sequence {
    /// Draws a sequence and runs it.
    fn draw(seed: u64, counts: &mut Counts) -> Result<(), Box<(Self, Failure)>> {
        let mut dice = Dice::new(seed);
        let (kept, format) = (draw::kept(&mut dice), draw::format(&mut dice));
        let len = MIN_STEPS + dice.below(MAX_STEPS - MIN_STEPS + 1);
        let mut steps = Vec::new();
        let played = play(&kept, format, counts, |world| {
            if steps.len() as u32 == len {
                return None;
            }
            let step = draw::step(&mut dice, &world.card, &world.reader);
            steps.push(step);
            Some(step)
        });
        played.map_err(|failure| {
            let sequence = Self {
                kept,
                format,
                steps,
            };
            Box::new((sequence, failure))
        })
    }

    fn replay(&self) -> Result<(), Failure> {
        let mut steps = self.steps.iter();
        let next = |_: &World| steps.next().copied();
        play(&self.kept, self.format, &mut Counts::new(), next)
    }

    /// Leaves out what is not needed to fail, operations first.
    fn shortened(mut self, mut failure: Failure) -> (Self, Failure) {
        let mut attempts = 3000;
        let mut chunk = self.steps.len().div_ceil(2);
        while chunk > 0 && attempts > 0 {
            let mut at = 0;
            let mut removed = false;
            while at < self.steps.len() && attempts > 0 {
                attempts -= 1;
                let mut shorter = self.clone();
                let end = (at + chunk).min(shorter.steps.len());
                shorter.steps.drain(at..end);
                match shorter.replay() {
                    Err(why) => {
                        (self, failure) = (shorter, why);
                        removed = true;
                    }
                    Ok(()) => at += chunk,
                }
            }
            if !removed || chunk > 1 {
                chunk /= 2;
            }
        }
        for index in 0..self.steps.len() {
            let mut simpler = self.clone();
            simpler.steps[index].fault = None;
            if let Err(why) = simpler.replay() {
                (self, failure) = (simpler, why);
            }
        }
        // What is on the card; that costs memory, which stays as it was.
        for app in (0..self.kept.apps.len()).rev() {
            let mut simpler = self.clone();
            simpler.kept.apps.remove(app);
            simpler.kept.used = cost(&simpler.kept);
            if let Err(why) = simpler.replay() {
                (self, failure) = (simpler, why);
                continue;
            }
            for file in (0..self.kept.apps[app].files.len()).rev() {
                let mut simpler = self.clone();
                simpler.kept.apps[app].files.remove(file);
                simpler.kept.used = cost(&simpler.kept);
                if let Err(why) = simpler.replay() {
                    (self, failure) = (simpler, why);
                }
            }
        }
        (self, failure)
    }
}

/// What the applications and files of a card that has just been made take.
fn cost(kept: &Kept) -> u32 {
    let files = kept.apps.iter().flat_map(|app| &app.files);
    let files: u64 = files.map(draw::cost_of).sum();
    let apps = kept.apps.iter();
    let apps: u64 = apps
        .map(|app| model::card::application_cost(app.info))
        .sum();
    (files + apps) as u32
}

fn variable(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn library_and_card_against_the_model() {
    let first = variable("DESFIRE_MODEL_SEED", 1);
    let sequences = variable("DESFIRE_MODEL_SEQUENCES", SEQUENCES);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    let total = Mutex::new(Counts::new());
    let started = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut counts = Counts::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= sequences {
                        break;
                    }
                    let seed = first.wrapping_add(index);
                    if let Err(what) = Sequence::draw(seed, &mut counts) {
                        // The others stop; the first to come is shown.
                        next.store(sequences, Ordering::Relaxed);
                        failed.lock().unwrap().get_or_insert((seed, what));
                    }
                }
                let mut total = total.lock().unwrap();
                total.sequence.add(&counts.sequence);
                total.audit.add(&counts.audit);
            });
        }
    });
    if let Some((seed, what)) = failed.into_inner().unwrap() {
        let (sequence, failure) = *what;
        let (sequence, failure) = sequence.shortened(failure);
        let mut text = String::new();
        for step in &sequence.steps {
            text.push_str(&format!("    {step:?}\n"));
        }
        panic!(
            "card and model part ways.\n  seed {seed}; alone: DESFIRE_MODEL_SEED={seed} \
             DESFIRE_MODEL_SEQUENCES=1\n  {:?}\n  {:?}\n{text}  at {}\n  {}\n\nmodel: 1 divergence",
            sequence.kept, sequence.format, failure.at, failure.why
        );
    }
    let Counts { sequence, audit } = total.into_inner().unwrap();
    println!(
        "model: {sequences} sequences, {} operations, {} commands sent, {} faults, 0 divergences",
        sequence.operations, sequence.frames, sequence.faults,
    );
    println!(
        "model: {} done, {} refused, {} not sent, {} not understood, {} unanswered; \
         {} operations more to read everything; {:.1} s",
        sequence.ended(Ending::Done),
        sequence.ended(Ending::Refused),
        sequence.ended(Ending::NotSent),
        sequence.ended(Ending::Garbled),
        sequence.ended(Ending::Silent),
        audit.operations,
        started.elapsed().as_secs_f64(),
    );
    if std::env::var_os("DESFIRE_MODEL_TABLE").is_some() {
        table(&sequence);
    }
    if sequences >= SEQUENCES {
        covers(&sequence);
    }
}

/// What has become of which command.
fn table(tally: &Tally) {
    println!("done, refused, not sent, not understood, unanswered:");
    for (code, endings) in (0_u8..=0xFF).zip(tally.endings.iter()) {
        if endings.iter().sum::<u64>() > 0 {
            println!(
                "{:32} {endings:7?}",
                CommandCode::from_byte(code).to_string()
            );
        }
    }
    for (status, count) in (0_u8..=0xFF).zip(tally.statuses.iter()) {
        if *count > 0 {
            println!("{:32} {count:7}", Status::from_byte(status).to_string());
        }
    }
}

/// A run of the usual length has seen everything there is, or it shows nothing.
fn covers(tally: &Tally) {
    for code in CommandCode::ALL {
        if *code == CommandCode::AdditionalFrame {
            continue;
        }
        let ended = |ending| tally.endings[usize::from(code.to_byte())][ending as usize];
        assert!(ended(Ending::Done) > 20, "{code} has hardly ever succeeded");
        let refused = ended(Ending::Refused);
        let never = matches!(
            code,
            CommandCode::FreeMem | CommandCode::GetVersion | CommandCode::GetKeySettings
        );
        assert!(never || refused > 5, "{code} has hardly ever been refused");
    }
    for status in Status::ALL {
        let unseen = matches!(
            status,
            Status::Ok
                | Status::AdditionalFrame
                | Status::ApplicationIntegrityError
                | Status::PiccIntegrityError
                | Status::PiccDisabled
                | Status::EepromError
                | Status::FileIntegrityError
        );
        let count = tally.statuses[usize::from(status.to_byte())];
        assert!(
            unseen || count > 5,
            "the card has hardly ever said {status}"
        );
    }
}
