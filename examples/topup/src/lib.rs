//! Tops up DESFire EV1 cards over the air: a server, and a phone that nobody trusts.
//!
//! Card and server talk in DESFire EV1 secure messaging, end to end; the phone carries bytes and
//! knows no key. The README tells what is promised and how it is kept.

pub mod args;
pub mod card;
pub mod conversation;
pub mod desk;
pub mod events;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod link;
pub mod message;
pub mod metrics;
#[cfg(feature = "pcsc")]
pub mod pcsc;
pub mod phone;
pub mod server;
pub mod service;
pub mod show;
pub mod wires;
