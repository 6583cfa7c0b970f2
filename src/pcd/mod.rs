//! The reader side: keys, handshakes, secure messaging, commands, sessions, drivers.
//!
//! | room | for | knows |
//! |---|---|---|
//! | `bytes` | copying and wiping | |
//! | `key` | card keys | |
//! | `crypto` | ciphers in CBC, chained CMAC, CRCs | keys |
//! | `diversify` | AN10922 | crypto |
//! | `auth` | handshakes in two halves | crypto |
//! | `channel` | secure messaging | crypto |
//! | `protection` | which protection applies | settings and rights |
//! | [`command`] | one file per command | protection |
//! | `round` | one request and its reply in frames | channel, frames |
//! | `exchange`, `iso_exchange` | one command as a machine | round, channel |
//! | `session` | what is known of the card | exchange |
//! | `transaction` | changes that belong together | session |
//! | `driver` | I/O, and procedures of several machines | machines |
//! | `pcsc` | PC/SC readers | driver |
//!
//! What is not re-exported is visible in here only: the software card cannot borrow it.

mod auth;
mod bytes;
mod channel;
pub mod command;
mod crypto;
mod diversify;
mod driver;
mod exchange;
#[cfg(feature = "internals")]
pub mod internals;
mod iso_exchange;
mod key;
#[cfg(feature = "pcsc")]
pub mod pcsc;
mod protection;
mod round;
mod session;
mod transaction;

pub use auth::{Authenticate, AuthenticateIso7816, Messaging, SessionKey};
pub use driver::{AsyncTransport, Faulty, Link, Passing, Procedure, RunError, Traced, Transport};
#[cfg(feature = "provision")]
pub(crate) use driver::{Ready, finish};
pub use exchange::{Exchange, LinkFormat, Machine, Step};
pub use iso_exchange::IsoExchange;
pub use key::{Key, KeyError};
/// What `split` needs of the reader side beyond what everybody may have.
#[cfg(feature = "split")]
pub(crate) mod doors {
    pub(crate) use super::auth::{Answer, KeyHalf, Opened, Opening, Proved, Proving};
    pub(crate) use super::crypto::cipher::Cipher as KeyCipher;
    pub use super::crypto::work::{CbcDirection, CbcTask, CbcWork};
    pub use super::diversify::Diversification;
    pub use super::exchange::{Facts, Foreseen};
}
pub use session::{Authenticated, Session, Unauthenticated};
pub use transaction::Transaction;
