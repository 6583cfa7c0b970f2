//! How often a terminal and a card may come.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::StatusCode;
use desfire_ev1::split::TerminalId;
use desfire_ev1::wire::Uid;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::config::Config;
use super::problem::Problem;

/// After so many questions, what is as good as new is forgotten.
const TIDY_EVERY: u32 = 1024;

pub(super) struct Limits {
    terminals: DefaultKeyedRateLimiter<TerminalId>,
    cards: DefaultKeyedRateLimiter<Uid>,
    asked: AtomicU32,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            terminals: RateLimiter::keyed(Quota::per_second(config.per_terminal)),
            cards: RateLimiter::keyed(Quota::per_second(config.per_card)),
            asked: AtomicU32::new(0),
        }
    }

    /// Asked with names from messages whose MAC is right.
    pub(super) fn terminal(&self, terminal: &TerminalId) -> Result<(), Problem> {
        let asked = self.terminals.check_key(terminal);
        asked.map_err(|_| too_often("terminal"))
    }

    /// Likewise. The UID is only what the terminal says; but a wrong one finds a wrong key, with which there
    /// is nothing to gain.
    pub(super) fn card(&self, uid: Uid) -> Result<(), Problem> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.terminals.retain_recent();
            self.cards.retain_recent();
        }
        self.cards.check_key(&uid).map_err(|_| too_often("card"))
    }
}

fn too_often(who: &str) -> Problem {
    let text = format!("too many taps of this {who}; try again in a second");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", text)
}
