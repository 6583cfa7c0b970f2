//! An amusement arcade whose money is on cards.
//!
//! | module | what it is |
//! |---|---|
//! | [`cards`] | keys of the house, and putting a purse on a card |
//! | [`terminal`] | a cashier's desk or a machine: block list, settlement, operation, journal |
//! | [`field`] | the air between terminal and card, where things go wrong |
//! | [`office`] | the back office: what the terminals report, in SQLite; what cannot be; who is blocked |
//! | [`fraud`] | what some people do to their cards |
//! | [`day`] | a busy day, with people, tears, and fraud |
//! | [`report`] | what came of it: the money, the frauds, and how a person gets to see it |
//!
//! Amounts are cents. Times are seconds since 1970-01-01 00:00 UTC.

pub mod cards;
pub mod day;
pub mod field;
pub mod fraud;
pub mod office;
pub mod report;
pub mod terminal;
