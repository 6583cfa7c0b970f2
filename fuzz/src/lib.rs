//! What the fuzz targets do, one module each; the targets themselves are two lines.
//!
//! | target | who is hostile | judged by |
//! |---|---|---|
//! | [`hostile_card`] | the card, which may know the session's keys | a third implementation of secure messaging (`tests/support/puppet.rs`) |
//! | [`procedures`], a part of it | the link, or what is in a purse's files | what the card has |
//! | [`hostile_reader`] | the reader, which may know the session's keys | the card's state, what must stay secret, the library's messaging |
//! | [`operations`] | nobody, but the field fails | the model of library and card (`tests/support/model/`) |
//! | [`split`] | terminal, key holder, card or storage | what the card really did, and the documented form of the messages |
//! | [`layout`] | whoever wrote the text | issuing and verifying on the software card |
//! | [`key_file`] | whoever wrote the file | what is said of it |
//! | [`wire`] | whoever sent the bytes | encoding what was decoded |
//! | [`card_state`] | whoever stored the bytes | saving what was loaded |
//!
//! Every module has `run(data)`, which panics where something is wrong, and takes any bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a fuzz target speaks by panicking"
)]

pub mod calls;
pub mod card_state;
pub mod hostile_card;
pub mod hostile_reader;
pub mod input;
pub mod key_file;
pub mod layout;
pub mod operations;
pub mod procedures;
pub mod seeds;
pub mod split;
pub mod wire;

#[path = "../../tests/support/model/mod.rs"]
#[allow(dead_code, reason = "shared with tests/model.rs")]
mod model;
#[path = "../../tests/support/puppet.rs"]
mod puppet;
#[path = "../../tests/support/radio.rs"]
mod radio;
#[path = "../../tests/support/rig.rs"]
mod rig;
