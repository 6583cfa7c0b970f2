//! Times things against each other on a machine that does other work too: in turn, in short batches, and
//! of each the quickest batch. Whatever disturbs a batch makes it slower, so the quickest is the one that
//! was disturbed least.

#![allow(dead_code, reason = "shared by two benches, each of which uses a part")]

use std::time::{Duration, Instant};

/// How long to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    /// What a batch should take.
    pub batch: Duration,
    /// Batches of each.
    pub rounds: usize,
}

impl Effort {
    /// Enough to see that everything works.
    pub const SMOKE: Self = Self {
        batch: Duration::from_micros(1),
        rounds: 1,
    };
    /// For a look: some seconds in all.
    pub const SHORT: Self = Self {
        batch: Duration::from_micros(20),
        rounds: 300,
    };
    /// For figures that are written down.
    pub const LONG: Self = Self {
        batch: Duration::from_micros(30),
        rounds: 5000,
    };

    /// Whether the figures say nothing.
    pub const fn is_smoke(self) -> bool {
        self.rounds == Self::SMOKE.rounds
    }

    /// `--long`, `--smoke`, or neither. Without `--bench`, which `cargo bench` adds, it is a test run.
    pub fn from_args() -> Self {
        let given = |name: &str| std::env::args().any(|argument| argument == name);
        if given("--smoke") || !given("--bench") {
            Self::SMOKE
        } else if given("--long") {
            Self::LONG
        } else {
            Self::SHORT
        }
    }
}

/// Something to be timed.
pub type Work<'a> = Box<dyn FnMut() + 'a>;

fn batch(work: &mut Work<'_>, times: u32) -> Duration {
    let from = Instant::now();
    for _ in 0..times {
        work();
    }
    from.elapsed()
}

/// How often a work fits into a batch.
fn times(work: &mut Work<'_>, effort: Effort) -> u32 {
    let mut times = 1;
    while times < 1 << 20 && batch(work, times) < effort.batch {
        times *= 2;
    }
    times
}

/// Nanoseconds that each takes once.
pub fn in_turn<const N: usize>(effort: Effort, mut works: [Work<'_>; N]) -> [f64; N] {
    let mut counts = [1; N];
    for (count, work) in counts.iter_mut().zip(&mut works) {
        *count = times(work, effort);
    }
    let mut best = [Duration::MAX; N];
    for _ in 0..effort.rounds {
        for ((best, count), work) in best.iter_mut().zip(counts).zip(&mut works) {
            *best = batch(work, count).min(*best);
        }
    }
    let mut nanos = [0.0; N];
    for ((nanos, best), count) in nanos.iter_mut().zip(best).zip(counts) {
        *nanos = best.as_secs_f64() * 1e9 / f64::from(count);
    }
    nanos
}
