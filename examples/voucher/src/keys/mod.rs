//! Where the card keys are: one door, behind which there is a PKCS#11 token or this process.
//!
//! May know: keys, and CBC under them. May not know: terminals, messages, sockets. What a holder gives
//! out is the result of CBC that computes a handshake; no call of this module returns a key.

mod soft;
mod token;

pub use soft::SoftHolder;
pub use token::{TokenError, TokenHolder, TokenSpec};

use desfire_ev1::split::{CbcKey, KeyRequest};

/// Why there is no key, or no answer from one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFailure {
    /// The scheme has no such key.
    #[error("the scheme has no such key")]
    Unknown,
    /// All keys are diversified, and the terminal has not said which card it is.
    #[error("the card's UID is needed: its keys are its own")]
    NeedsUid,
    /// The holder does not work. The text is for the operator's log.
    #[error("the key holder does not work: {0}")]
    Down(String),
}

/// A card's key that can be used and not seen.
pub type HeldKey = Box<dyn CbcKey<Error = KeyFailure> + Send>;

/// A keeper of keys, as the service sees it. Calls may block.
pub trait Holder: Send + Sync + 'static {
    /// The key of one card.
    ///
    /// # Errors
    /// [`KeyFailure`].
    fn find(&self, wanted: &KeyRequest) -> Result<HeldKey, KeyFailure>;

    /// Whether it works: asked by the health page.
    ///
    /// # Errors
    /// [`KeyFailure::Down`].
    fn check(&self) -> Result<(), KeyFailure>;

    /// What it is, for people.
    fn name(&self) -> String;
}
