//! The card side: a complete MIFARE DESFire EV1 in software.
//!
//! For: examples, tests, and programs that want a card where there is none. It answers as a
//! DESFire EV1 of 2K, 4K or 8K does: all commands native, wrapped and ISO 7816-4, the five
//! file types, transactions, the native and the ISO authentications, D40 and EV1 secure
//! messaging, memory accounting, random ID. May know: [`crate::wire`] and the block ciphers.
//! May not: share any other code with the reader side, since two halves that agree because
//! they are the same code prove nothing.
//!
//! As a test instrument it can be cut off from power before and after every change of its
//! memory ([`Fault`]), stored, loaded and compared ([`Card::save`], [`State`]), and prepared
//! ([`Card::state_mut`]).
//!
//! It is written from public sources; where they are silent or disagree, `choices.rs` names
//! each choice with its reason. It is **no secure element**: its memory holds keys in clear,
//! its nonces repeat from run to run unless it is seeded, and nothing about it withstands
//! somebody who measures.
//!
//! | file | holds |
//! |---|---|
//! | `card.rs` | the card, [`Card::handle`], what commands ask of it |
//! | `chain.rs`, `dispatch.rs`, `reply.rs` | the way of a native command, `AF`, the order of checks |
//! | `auth.rs`, `session.rs`, `crypto.rs`, `key.rs`, `random.rs` | keys and secure messaging |
//! | `state.rs`, `file.rs`, `memory.rs`, `eeprom.rs`, `faults.rs`, `store.rs` | what survives without power |
//! | `applications.rs`, `keys.rs`, `config.rs`, `card_info.rs`, `files.rs`, `read.rs`, `write.rs`, `values.rs`, `records.rs`, `transaction.rs` | native commands |
//! | `iso.rs`, `iso_files.rs`, `iso_auth.rs` | ISO 7816-4 commands |

mod activation;
mod applications;
mod auth;
mod builder;
mod card;
mod card_info;
mod chain;
mod choices;
mod config;
mod crypto;
mod dispatch;
mod eeprom;
mod faults;
mod file;
mod files;
mod iso;
mod iso_auth;
mod iso_files;
mod key;
mod keys;
mod memory;
mod random;
mod read;
mod records;
mod reply;
mod session;
mod state;
#[cfg(test)]
mod state_tests;
mod store;
mod transaction;
mod values;
#[cfg(test)]
mod vector_tests;
mod write;

pub use activation::Activation;
pub use builder::CardBuilder;
pub use card::Card;
pub use faults::Fault;
pub use file::{File, FileContent, Records, Value};
pub use key::CardKey;
pub use memory::StorageSize;
pub use state::{Application, MAX_APPLICATIONS, MAX_FILES, State, StateError};
