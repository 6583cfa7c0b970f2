//! A model of a card and of the library, and sequences that run against both.
//!
//! | file | |
//! |---|---|
//! | `card.rs` | what a card holds and answers |
//! | `reader.rs` | what the library knows and refuses |
//! | `ops.rs`, `keys.rs` | what a sequence is made of |
//! | `draw.rs` | draws cards and operations |
//! | `world.rs` | runs one operation on library, card and model, and compares |
//! | `compare.rs` | a card's state against the model |

pub(crate) mod card;
pub(crate) mod compare;
pub(crate) mod draw;
pub(crate) mod keys;
pub(crate) mod ops;
pub(crate) mod reader;
pub(crate) mod world;

/// Batch number, and week and year of production, of every card here.
pub(crate) const PRODUCTION: ([u8; 5], u8, u8) = ([0xBA, 0x20, 0x41, 0x11, 0x50], 0x49, 0x13);
