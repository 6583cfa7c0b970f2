//! Issuing batches of cards: what the program `issue` is made of.
//!
//! | module | for |
//! |---|---|
//! | [`keys`] | keys from a password-protected file or from the environment |
//! | [`batch`] | one card after the other, each to its end, half-done ones again |
//! | [`cards`] | a box of software cards, some of which are pulled away |
//! | [`report`] | what was done, for programs |
//!
//! All that is done to a card is `desfire_ev1::provision`.

pub mod batch;
pub mod cards;
pub mod keys;
pub mod report;
