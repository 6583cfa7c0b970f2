//! What secure messaging costs beside the ciphers themselves.
//!
//! ```console
//! $ cargo bench --bench floor                       # some seconds
//! $ cargo bench --bench floor -- --long --figures   # some minutes, and draws benches/figures/floor.svg
//! ```
//!
//! For each messaging, mode, direction and length: nanoseconds of the library's sealing or opening, the
//! same of the bare cipher and CRC calls on the same bytes (the floor, see `support/bare.rs`), measured in
//! turn, and the quotient. Sealing makes the bytes that go to the card, opening checks a genuine reply and
//! lays its data open; both end in a copy of the data, which the floor does without. CMAC subkeys and key
//! schedules are ready on both sides.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a bench is allowed to fail loudly"
)]

use desfire_ev1::wire::CommMode;

#[path = "support/bare.rs"]
mod bare;
#[path = "support/figure.rs"]
mod figure;
#[path = "support/schemes.rs"]
mod schemes;
#[path = "support/timing.rs"]
mod timing;

use schemes::{Direction, LENGTHS, schemes};
use timing::{Effort, in_turn};

/// Twice that is more than a busy machine explains.
const FAR_TOO_SLOW: f64 = 2.0;

/// At most this many times the floor.
const fn goal(len: usize) -> f64 {
    if len <= 32 { 2.0 } else { 1.15 }
}

fn main() {
    let effort = Effort::from_args();
    // What else is said: parts of the names of what is to be measured.
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let at: Option<usize> = only.iter().find_map(|only| only.parse().ok());
    let mut rows: Vec<figure::Row> = Vec::new();
    let mut cases = 0;
    let mut far_too_slow = false;
    let mut missed = Vec::new();
    print!("{:<34}", "times the floor (ns)");
    for len in LENGTHS {
        print!("{:>18}", format!("{len} B"));
    }
    println!();
    for scheme in &schemes() {
        for (mode, mode_name) in [
            (CommMode::Plain, "plain, CMAC chain"),
            (CommMode::Mac, "MAC"),
            (CommMode::Enciphered, "enciphered"),
        ] {
            // Plain under D40 is nothing at all.
            if mode == CommMode::Plain && !scheme.is_ev1() {
                continue;
            }
            for (direction, direction_name) in
                [(Direction::Seal, "seal"), (Direction::Open, "open")]
            {
                let name = format!("{} {direction_name} {mode_name}", scheme.name);
                if !only.is_empty() && !only.iter().any(|only| name.contains(only)) {
                    continue;
                }
                print!("{name:<34}");
                let mut bars = Vec::new();
                for len in LENGTHS
                    .into_iter()
                    .filter(|len| at.is_none_or(|at| *len <= at))
                {
                    let works = [
                        scheme.library(direction, mode, len),
                        scheme.floor(direction, mode, len),
                    ];
                    let [library, floor] = in_turn(effort, works);
                    let times = library / floor;
                    print!("{:>18}", format!("{times:.2} ({library:.0})"));
                    if times > goal(len) {
                        missed.push(format!(
                            "{name}, {len} B: {times:.2} times the floor, {:.0} ns more; goal {:.2}",
                            library - floor,
                            goal(len)
                        ));
                    }
                    cases += 1;
                    far_too_slow |= times > FAR_TOO_SLOW * goal(len);
                    // Three lengths are enough for a picture.
                    if len != 8192 {
                        bars.push(Some((times, format!("{times:.2}"))));
                    }
                }
                println!();
                rows.push(figure::Row { name, bars });
            }
        }
    }
    println!("{cases} cases, {} miss the goal", missed.len());
    for line in &missed {
        println!("missed: {line}");
    }
    if std::env::args().any(|argument| argument == "--figures") {
        let figure = figure::Figure {
            title: "Sealing and opening: times the bare cipher and CRC calls",
            below: "Goals: at most 2 at 8 and 32 bytes, 1.15 at 1 KB. Quickest of many, measured in turn.",
            series: &["8 bytes", "32 bytes", "1 KB"],
            rows,
            lines: &[(1.0, "1"), (1.15, ""), (2.0, "2")],
            most: 3.5,
        };
        figure
            .write("benches/figures/floor.svg")
            .expect("benches/figures can be written to");
    }
    // Not in a test run, which measures nothing.
    if far_too_slow && !effort.is_smoke() {
        println!("failed: something takes more than twice its goal");
        std::process::exit(1);
    }
}
