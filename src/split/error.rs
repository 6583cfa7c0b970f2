//! The errors of both ends: of messages, of the key holder, of the terminal.
//!
//! For: telling apart what happened, without saying more than the other side knows anyway. No
//! error holds a key, a nonce, a MAC or what a card has said.

use crate::error::{Error, Misuse};
use crate::split::Mode;
use crate::wire::{Aid, KeyNo, KeyType, WireError};

/// A message between terminal and key holder that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The format is of another version.
    #[error(
        "the message has format {found}, this program speaks format {expected}; update the older side"
    )]
    Version {
        /// What this program speaks.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// A message of another kind.
    #[error("a message of kind {found} where kind {expected} belongs")]
    Kind {
        /// The kind that belongs here.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// It does not parse, or not into its one canonical form.
    #[error("the message is malformed: {0}")]
    Malformed(#[from] WireError),
    /// It has been changed on the way, or was made with another transport key.
    #[error("the message was changed on the way, or made with another transport key")]
    Altered,
    /// It belongs to another challenge.
    #[error("the message belongs to another challenge")]
    MixedUp,
    /// It belongs to another place in the conversation.
    #[error("message {found} where message {expected} belongs")]
    Sequence {
        /// The number that is next.
        expected: u16,
        /// What came.
        found: u16,
    },
}

/// What a key holder does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The message is not taken.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The key holder does not know the terminal, or the transport key is none of this terminal's.
    #[error("unknown terminal, or none of its transport keys")]
    UnknownTerminal,
    /// The terminal may not have this mode with this key.
    #[error(
        "the policy does not grant {mode} with key {key_no} of application {aid} to this terminal"
    )]
    NotGranted {
        /// What it asked for.
        mode: Mode,
        /// Where.
        aid: Aid,
        /// With which key.
        key_no: KeyNo,
    },
    /// The challenge has been answered before.
    #[error("this challenge is a repetition; start a new tap")]
    Replayed,
    /// The freshness value is none that the key holder has issued, or is used up.
    #[error("the freshness value is unknown or has expired; fetch a new one")]
    NotFresh,
    /// Under DUKPT the freshness must be the transaction counter of the KSN.
    #[error("the freshness is not the DUKPT counter")]
    CounterMismatch,
    /// The bounded memory for terminals, nonces or waiting handshakes is full.
    #[error("the key holder's memory is full")]
    Full,
    /// The key cannot be used in this mode.
    #[error("{mode} does not go with {key_type} keys in this scheme")]
    Unsuitable {
        /// The mode.
        mode: Mode,
        /// The key's type.
        key_type: KeyType,
    },
    /// The challenge asked for another mode.
    #[error("the challenge was for {asked}")]
    WrongMode {
        /// The mode that it asked for.
        asked: Mode,
    },
    /// The key that was found is of another type than the challenge says.
    #[error("the key is of type {0}, which is not what the challenge says")]
    KeyType(KeyType),
    /// The card has not proved that it knows the key: nothing is released.
    #[error("the card has not proved that it knows the key")]
    NotProved,
    /// The handshake or dialogue waited too long, or has come to its end.
    #[error("too late: this tap has expired or is over")]
    Expired,
    /// The generator of random numbers failed.
    #[error("the random generator failed")]
    Randomness,
    /// A command cannot be put into the script.
    #[error("not for a script: {0}")]
    Script(Misuse),
    /// The script leaves changes that no commit makes valid.
    #[error("the script leaves changes pending; end it with a commit")]
    Uncommitted,
    /// The buffer is too small.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// What was kept by the key holder itself cannot be read back.
    #[error("the stored state was changed, or stored under another key")]
    Stored,
    /// The receipt does not have the replies that are to be read.
    #[error("the receipt does not prove all that comes before these replies")]
    NoReplies,
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Full => Self::BufferTooSmall,
            error => Self::Message(error.into()),
        }
    }
}

/// Why a key holder gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HolderError<E> {
    /// It does not want to, or must not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What keeps the key has failed.
    #[error("the key store failed: {0}")]
    Key(E),
}

/// What goes wrong at a terminal, apart from the link to the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TerminalError {
    /// The key holder's message is not taken.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The challenge was made for another mode.
    #[error("the challenge was for {asked}")]
    WrongMode {
        /// The mode that it asked for.
        asked: Mode,
    },
    /// The card or its reply: see there.
    #[error(transparent)]
    Card(#[from] Error),
    /// The session key does not come out: this is not the card that the key holder has answered, or
    /// the card does not know the key.
    #[error("the card has not proved that it knows the key; there is no session")]
    NotTheCard,
    /// The dialogue is over, or it is the card's turn, or nobody has asked.
    #[error("this is not the turn for it in the dialogue with the key holder")]
    OutOfTurn,
    /// The buffer is too small.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// All keys of the initial DUKPT key are used up.
    #[error("the DUKPT keys are used up; the terminal needs a new initial key")]
    KeysUsedUp,
}

impl From<WireError> for TerminalError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Full => Self::BufferTooSmall,
            error => Self::Message(error.into()),
        }
    }
}
