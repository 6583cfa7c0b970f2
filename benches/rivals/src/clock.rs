//! The quickest time of each step, over many sessions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

    pub fn nanos(&self, step: &str) -> Option<f64> {
        Some(self.0.get(step)?.as_secs_f64() * 1e9)
    }
}
