//! Authentication whose key is elsewhere: in an HSM, a SAM, on a server.
//!
//! For: terminals that have the card and no card key, and key holders that have the key and no card.
//! May know: the reader side and the wire. May not know: how messages travel, what an HSM is. No
//! heap on the terminal's side, and none on the key holder's either: buffers are the caller's.

mod answer;
mod authenticate;
mod builder;
mod challenge;
mod dukpt;
mod error;
mod foretell;
mod holder;
mod kdf;
mod key;
mod message;
mod player;
mod policy;
mod record;
mod relay;
mod script;
mod storage;
mod terminal;
mod transport_key;

pub use crate::pcd::doors::Foreseen;
pub use answer::{CardLockedMessage, ProofMessage, ReleaseMessage, TokenMessage};
pub use authenticate::{AuthenticateError, authenticate, authenticate_async};
pub use builder::{Finished, ScriptBuilder};
pub use challenge::{Challenge, Freshness, Intent, Mode, TerminalId};
pub use dukpt::{BaseKey, Dukpt, InitialKey, Ksn};
pub use error::{HolderError, MessageError, Refusal, TerminalError};
pub use foretell::{Foretold, foretell};
pub use holder::{Accepted, Answered, Pending, PendingMessage};
pub use key::{
    AsyncCbcKey, AsyncKeyStore, CbcDirection, CbcKey, CbcTask, CbcWork, Diversification,
    Diversified, Found, KeyRequest, KeyStore, SoftEntry, SoftKey, SoftKeyError, SoftKeys, work,
    work_async,
};
pub use message::{FORMAT, Message};
pub use player::{Effect, Ending, Player, Stop};
pub use policy::{Counters, Modes, Nonces, Policy, PolicyFn, ReplayGuard};
pub use record::{Judgement, Record, Replay, ReplayError, Verdict};
pub use relay::{
    AsyncCarrier, Carrier, Carries, Relay, RelayCommand, RelayReply, RemoteCard, RemoteError,
};
pub use storage::StorageKey;
pub use terminal::{ChallengeMessage, Prove, Proven, Tap, Unlock, Waiting};
pub use transport_key::{TransportKey, TransportKeyId};
