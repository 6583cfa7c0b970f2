//! The quickest time of each step, over many sessions, without what it takes to look at the clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const NOTHING: &str = "nothing";

#[derive(Default)]
pub struct Clock(BTreeMap<&'static str, Duration>);

impl Clock {
    pub fn time<T>(&mut self, step: &'static str, run: impl FnOnce() -> T) -> T {
        let from = Instant::now();
        let result = run();
        let took = from.elapsed();
        let best = self.0.entry(step).or_insert(took);
        *best = took.min(*best);
        result
    }

    /// Finds out what the clock itself takes.
    pub fn time_nothing(&mut self) {
        self.time(NOTHING, || {});
    }

    pub fn nanos(&self, step: &str) -> Option<f64> {
        let nothing = self.0.get(NOTHING).copied().unwrap_or_default();
        Some(self.0.get(step)?.saturating_sub(nothing).as_secs_f64() * 1e9)
    }
}
