//! This crate beside `desox` and `desfire`, on the same recorded replies.
//!
//! ```console
//! $ cargo run --release -p rivals             # some seconds
//! $ cargo run --release -p rivals -- --long --figures
//! ```
//!
//! Each session is played by each crate in turn, many times; of each step the quickest time counts. Before
//! that, one round compares every command with the recorded one, and every result with what was recorded.
//! All three do the same exchanges over replies in memory; what they do with them differs:
//!
//! | | this crate | `desox` | `desfire` |
//! |---|---|---|---|
//! | MAC of a reply | checked in constant time | checked | not looked at |
//! | CMAC chain of commands | kept | kept | not computed |
//! | CRC of enciphered file data | checked | not looked at | – |
//! | keys, nonces, plaintext | wiped | left | left |
//! | heap | none | some | most values |
//!
//! The floor of an exchange is its bare cipher and CRC calls ([`bare_calls`]), timed in the same way; no time
//! contains what the clock itself takes. A crate that computes them all cannot be faster than the faster one
//! by more than that one's time over the floor, which is printed as what the floor permits.
//!
//! `desox` takes its ciphers from the same crates as this one. Cargo builds them once, with the features that
//! this crate asks for: here they wipe their key schedules for `desox` too.

use std::error::Error;
use std::process::ExitCode;

use desfire_ev1::LinkFormat;

#[path = "../../support/bare.rs"]
mod bare;
mod bare_calls;
mod clock;
#[path = "../../support/figure.rs"]
mod figure;
mod ours;
mod recording;
mod steps;
mod text;
mod with_desfire;
mod with_desox;

use bare_calls::BareCalls;
use clock::Clock;
use ours::Ours;
use with_desfire::WithDesfire;
use with_desox::Desox;

const GOAL: f64 = 3.0;

struct Players {
    native: Ours,
    wrapped: Ours,
    desox: Desox,
    desfire: WithDesfire,
    floor: BareCalls,
}

#[derive(Default)]
struct Clocks {
    native: Clock,
    wrapped: Clock,
    desox: Clock,
    desfire: Clock,
    floor: Clock,
}

impl Clocks {
    fn all(&mut self) -> [&mut Clock; 5] {
        [
            &mut self.native,
            &mut self.wrapped,
            &mut self.desox,
            &mut self.desfire,
            &mut self.floor,
        ]
    }
}

impl Players {
    fn round(&mut self, clocks: &mut Clocks) -> Result<(), Box<dyn Error>> {
        self.native.play_part_17(&mut clocks.native)?;
        self.desox.play_part_17(&mut clocks.desox)?;
        self.wrapped.play_part_17(&mut clocks.wrapped)?;
        self.desfire.play_part_17(&mut clocks.desfire)?;
        self.native.play_metadata(&mut clocks.native)?;
        self.desox.play_metadata(&mut clocks.desox)?;
        self.wrapped.play_metadata(&mut clocks.wrapped)?;
        self.desfire.play_metadata(&mut clocks.desfire)?;
        self.native.play_file_io(&mut clocks.native)?;
        self.desox.play_file_io(&mut clocks.desox)?;
        self.floor.play(&mut clocks.floor);
        for clock in clocks.all() {
            clock.time_nothing();
        }
        Ok(())
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let mut players = Players {
        native: Ours::new(LinkFormat::NATIVE)?,
        wrapped: Ours::new(LinkFormat::WRAPPED)?,
        desox: Desox::new()?,
        desfire: WithDesfire::new()?,
        floor: BareCalls::new(),
    };
    players.round(&mut Clocks::default())?;
    players.native.checking(false);
    players.wrapped.checking(false);
    players.desox.checking(false);
    players.desfire.checking(false)?;
    println!("all commands and results as recorded");

    let mut clocks = Clocks::default();
    let rounds = match (given("--smoke"), given("--long")) {
        (true, _) => 10,
        (_, true) => 200_000,
        _ => 10_000,
    };
    for _ in 0..rounds {
        players.round(&mut clocks)?;
    }
    println!(
        "{:<30}{:>14}{:>14}{:>10}{:>10}{:>10}{:>10}{:>16}",
        "nanoseconds",
        "ours, native",
        "ours, wrapped",
        "desox",
        "desfire",
        "floor",
        "faster",
        "floor permits"
    );
    let mut rows = Vec::new();
    let (mut missed, mut beyond) = (0, 0);
    for step in steps::ALL {
        let times = [
            &clocks.native,
            &clocks.wrapped,
            &clocks.desox,
            &clocks.desfire,
            &clocks.floor,
        ];
        let [native, wrapped, desox, desfire, floor] = times.map(|clock| clock.nanos(step));
        // desox frames natively, desfire wraps: each is held against ours in its own framing.
        let quotients = [(desox, native), (desfire, wrapped)]
            .into_iter()
            .filter_map(|(theirs, ours)| Some(theirs? / ours?));
        let faster = quotients.fold(f64::INFINITY, f64::min);
        let permitted = [desox, desfire]
            .into_iter()
            .filter_map(|theirs| Some(theirs? / floor?))
            .fold(f64::INFINITY, f64::min);
        let show = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |t| format!("{t:.0}"));
        println!(
            "{step:<30}{:>14}{:>14}{:>10}{:>10}{:>10}{:>10}{:>16}",
            show(native),
            show(wrapped),
            show(desox),
            show(desfire),
            show(floor),
            format!("{faster:.2}x{}", if faster < GOAL { " !" } else { "" }),
            format!("{permitted:.2}x")
        );
        missed += usize::from(faster < GOAL);
        beyond += usize::from(permitted < GOAL);
        let base = if desox.is_some() { native } else { wrapped };
        let bar = |time: Option<f64>| {
            let (time, base) = (time?, base?);
            Some((time / base, format!("{time:.0} ns")))
        };
        rows.push(figure::Row {
            name: step.to_owned(),
            bars: vec![bar(base), bar(desox), bar(desfire), bar(floor)],
        });
    }
    println!(
        "{} exchanges; on {missed} not {GOAL} times as fast as the faster of the two, which on {beyond} is \
         more than the floor permits",
        steps::ALL.len()
    );
    if given("--figures") {
        let figure = figure::Figure {
            title: "One exchange, replies from memory: time in units of this crate's",
            below: "Quickest of many, in turn. desfire checks no MAC; desox no CRC of file data. The bare calls \
                    are what the protocol asks of cipher and CRC.",
            series: &[
                "desfire-ev1 (this crate)",
                "desox 0.5.4",
                "desfire 0.2.0-alpha3",
                "bare cipher and CRC calls",
            ],
            rows,
            lines: &[(1.0, "1"), (3.0, "3")],
            most: 4.0,
        };
        figure.write("benches/figures/rivals.svg")?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rivals: {error}");
            ExitCode::FAILURE
        }
    }
}
