//! The authentication service: takes challenges over HTTP and answers them under keys that it cannot
//! see.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/taps` | challenge | card-locked answer, token, script, or the first frame for the card; `Location` names the tap |
//! | `POST /v1/taps/ID/proof` | proof | release |
//! | `POST /v1/taps/ID/receipt` | receipt | the verdict, as text; may be sent again |
//! | `POST /v1/taps/ID/frame` | reply of the card | the next frame; the last has the header `Voucher-Verdict` |
//! | `GET /health` | | `ok`, or 503 and why |
//! | `GET /metrics` | | OpenMetrics |
//!
//! Errors are text, with a word for programs in the header `Voucher-Error`. What a refused caller
//! learns is what it has sent; keys, nonces and what the key holder says go into no answer.
//!
//! # Order of checks
//!
//! Size, form, terminal, MAC, stop, repetition, UID and purpose, room, what is granted, freshness, rate
//! limit, key. Nothing is counted against a terminal or a card before the MAC is right, nothing for a
//! challenge that is refused anyway, and nothing twice against a terminal for one counter; a freshness value
//! is used up by nothing but a challenge that is granted. A later message of a tap that has not the
//! terminal's MAC, or not this tap's, changes nothing and learns nothing: the right one can still come.

mod audit;
mod config;
mod dialogue;
mod limits;
mod metrics;
mod problem;
mod taps;
mod web;

pub use audit::Audit;
pub use config::{Config, Till};
pub use web::{MAX_BODY, Running, start};
