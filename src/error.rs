//! The errors of the core.
//!
//! For: telling five things apart — bytes that do not parse, a card that refuses, bytes that are
//! not authentic, a caller's mistake, and no randomness — and saying of each what became of the
//! command. May know: wire types. May not know a transport: reader failures are the driver's
//! ([`crate::RunError`]).
//!
//! No error holds a key, a nonce, a MAC, or file data. Of what the card says they hold what the problem
//! is: status bytes and words, lengths, and the value of a field that does not parse
//! ([`WireError::Value`], [`WireError::StatusWord`]), such as a file number in a list.
//!
//! The text of an error is whole: it says the causes too, so there is no `source()` that would say them
//! again.

use crate::wire::{FileNo, Instruction, KeyNo, KeyType, Status, StatusWord, WireError};

/// What became of a command that ended in an error.
///
/// For a command that changes nothing on the card the difference between the three is of no
/// further use. For one that does, [`Outcome::Unknown`] has to be settled by the caller, by
/// looking at the card again: the library never sends such a command a second time by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Outcome {
    /// The command never left: it has not happened. What a session's method takes by value is gone
    /// all the same; [`Error::session_lost`] tells.
    #[error("it was not sent")]
    NotSent,
    /// The card answered with an error status: it did not do it.
    ///
    /// (A refusal of a write in several frames to a file that may be a standard file is
    /// [`Outcome::Unknown`]: the earlier frames may have been written.)
    ///
    /// Error statuses carry no MAC. Where somebody may sit between reader and card, treat
    /// this as [`Outcome::Unknown`].
    #[error("the card did not do it")]
    Refused,
    /// The command left and no authentic answer came back: it may have happened.
    #[error("unknown whether the card did it")]
    Unknown,
}

/// A command or handshake that failed: which one, what became of it, and why.
///
/// In an authenticated session everything that went wrong after sending has ended the session: card
/// and reader no longer agree on the state of secure messaging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{command}{}: {kind} ({outcome}{})",
    if *.while_asking { ", while asking for the file's settings" } else { "" },
    if *.session_lost { "; the session is lost" } else { "" }
)]
pub struct Error {
    /// The command that failed.
    pub command: Instruction,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it was GetFileSettings that failed, which the command had sent ahead to learn its
    /// communication mode.
    pub while_asking: bool,
    /// Whether the session cannot be used any more: select again, and authenticate.
    pub session_lost: bool,
    /// Why.
    pub kind: ErrorKind,
}

impl Error {
    pub(crate) fn not_sent(command: impl Into<Instruction>, kind: impl Into<ErrorKind>) -> Self {
        let kind = kind.into();
        Self {
            command: command.into(),
            outcome: Outcome::NotSent,
            while_asking: false,
            session_lost: kind == ErrorKind::Misuse(Misuse::SessionLost),
            kind,
        }
    }

    /// The session went with the command.
    pub(crate) const fn session_gone(mut self, gone: bool) -> Self {
        self.session_lost |= gone;
        self
    }

    pub(crate) fn unknown(command: impl Into<Instruction>, kind: impl Into<ErrorKind>) -> Self {
        Self {
            command: command.into(),
            outcome: Outcome::Unknown,
            while_asking: false,
            session_lost: true,
            kind: kind.into(),
        }
    }

    /// A machine that was started twice, or stepped before its start or after its end: what has become
    /// of what it had sent was said before, and is not known here.
    pub(crate) fn out_of_turn(command: impl Into<Instruction>, sent: bool) -> Self {
        let mut error = Self::not_sent(command, Misuse::OutOfTurn);
        if sent {
            error.outcome = Outcome::Unknown;
        }
        error
    }

    /// A refusal was refused; whatever else went wrong after sending leaves the outcome unknown.
    pub(crate) fn after_sending(command: impl Into<Instruction>, kind: ErrorKind) -> Self {
        Self {
            command: command.into(),
            outcome: match kind {
                ErrorKind::Refused(_) => Outcome::Refused,
                ErrorKind::RefusedIso(sw) if sw.is_checking_error() => Outcome::Refused,
                _ => Outcome::Unknown,
            },
            while_asking: false,
            session_lost: true,
            kind,
        }
    }

    /// The status word of an answer that is not the native one: see [`ErrorKind::RefusedIso`].
    #[must_use]
    pub const fn status_word(&self) -> Option<StatusWord> {
        match self.kind {
            ErrorKind::RefusedIso(word) => Some(word),
            _ => None,
        }
    }

    /// The status with which the card refused, if it did.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self.kind {
            ErrorKind::Refused(status) => Some(status),
            _ => None,
        }
    }
}

/// Why a command or handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The card's bytes have not the form they must have.
    #[error("the reply is malformed: {0}")]
    Malformed(Malformed),
    /// The card says no.
    #[error("the card refused with {0}: {cause}", cause = .0.cause())]
    Refused(Status),
    /// A status word instead of success: the card's answer to an ISO 7816-4 command or to an APDU
    /// that it does not take for a wrapped command, or the reader's own.
    #[error("the answer is {0}: {cause}", cause = .0.cause())]
    RefusedIso(StatusWord),
    /// The card's bytes have the right form but are not proved to be the card's.
    #[error("the reply is not authentic: {0}")]
    Authenticity(Authenticity),
    /// The caller asked for something that cannot be.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The caller's random generator failed.
    #[error("the random generator failed")]
    Randomness,
}

/// How a reply is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A frame, or what it carries, does not parse.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The reply is longer than the command's answer can be.
    #[error("it is longer than the answer can be")]
    TooLong,
    /// The reply holds another number of bytes than was asked for.
    #[error("{received} bytes came where {expected} were asked for")]
    Length {
        /// What the command asked for.
        expected: usize,
        /// What came.
        received: usize,
    },
    /// The reply is longer than the records that were asked for, or holds no whole number of them: the
    /// caller is wrong about the size of a record, or the card.
    #[error("its length does not fit the records that were asked for; is the record size right?")]
    RecordSize,
    /// A frame says that more will follow, but is empty; a card could go on so for ever.
    #[error("an additional frame without data")]
    EmptyFrame,
    /// The card sent data while the command was still on its way.
    #[error("data in the middle of a command")]
    DataTooEarly,
    /// The card said that it was done before the whole command was sent.
    #[error("the card finished before the command did")]
    FinishedTooEarly,
    /// The card wants more although the handshake is at its end, or the other way round.
    #[error("the handshake does not continue as it must")]
    Handshake,
}

/// How a reply fails to be authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Authenticity {
    /// There is no room for the MAC that must be there.
    #[error("the MAC is missing or cut short")]
    MacMissing,
    /// The MAC is wrong.
    #[error("the MAC is wrong")]
    MacWrong,
    /// An enciphered reply is empty or no whole number of cipher blocks.
    #[error("the ciphertext is not a whole number of blocks, or too short")]
    CiphertextLength,
    /// CRC or padding of an enciphered reply is wrong.
    #[error("CRC or padding is wrong after deciphering")]
    CrcWrong,
    /// The card has not proved that it knows the key.
    #[error("the card has not proved that it knows the key")]
    ProofWrong,
}

/// What the caller did that cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The session has lost step with the card.
    #[error(
        "the session is lost because an earlier exchange failed or was dropped; select the application again and authenticate"
    )]
    SessionLost,
    /// The command needs an authenticated session.
    #[error("this needs an authenticated session")]
    NotAuthenticated,
    /// A machine was stepped before its start, started twice, or used after its end.
    #[error("the exchange has not been started, was started twice, or is over")]
    OutOfTurn,
    /// A buffer is too small.
    #[error("the buffer holds {available} bytes and {needed} are needed")]
    BufferTooSmall {
        /// Bytes needed, as far as known.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The reply does not fit into the buffer of a read without a stated length.
    #[error("the answer is longer than the buffer")]
    AnswerTooLong,
    /// The reply to an enciphered read without a stated length fits more than one length.
    #[error(
        "the answer does not tell where the data end; state the length, or let the session know the file's settings"
    )]
    LengthNeeded,
    /// The records of the file have another size than was stated.
    #[error("the records have {actual} bytes, not {stated}")]
    RecordSize {
        /// What the caller stated.
        stated: u32,
        /// What the file's settings say.
        actual: u32,
    },
    /// A parameter cannot be put on the wire.
    #[error(transparent)]
    Parameter(#[from] WireError),
    /// WriteData and WriteRecord need at least one byte.
    #[error("there is nothing to write")]
    NothingToWrite,
    /// No frame of the transport's size holds the command.
    #[error("the transport allows {available} bytes of parameters and the command needs {needed}")]
    TransportTooNarrow {
        /// Parameter bytes that must go into one frame.
        needed: usize,
        /// Parameter bytes that there is room for.
        available: usize,
    },
    /// No right of the file allows this to the key in use.
    #[error("file {0} does not allow this to the key in use")]
    AccessDenied(FileNo),
    /// The key does not fit the authentication.
    #[error("{0} keys do not go with this authentication")]
    KeyType(KeyType),
    /// The new key does not have the type of the keys of this level.
    #[error(
        "a key of another type than {0}; only the PICC master key can change its type, by a call of its own"
    )]
    KeyFamily(KeyType),
    /// ChangeKey for another key was asked to change the key in use, or the other way round.
    #[error(
        "key {0} is the key in use: changing it ends the session, and that is a call of its own"
    )]
    KeyInUse(KeyNo),
    /// The command belongs to the PICC level.
    #[error("this works at PICC level only; select AID 000000")]
    NotAtPiccLevel,
    /// The command belongs to an application.
    #[error("this works inside an application only; select one")]
    NotInApplication,
    /// Nothing is pending that could be committed or aborted.
    #[error("nothing has been changed in this transaction")]
    NothingPending,
    /// The card has refused something after a change, and so has dropped the changes.
    #[error(
        "the card has dropped the changes of this transaction because it refused a command; select the application again and start over"
    )]
    TransactionBroken,
    /// No source tells how an EV1 session protects the reply to this ISO command.
    #[error(
        "no source tells how the card proves this ISO command in an EV1 session; use the native command"
    )]
    IsoWriteInSession,
    /// A name or list cannot be sent in this form.
    #[error("{0}")]
    Invalid(&'static str),
}

impl From<Malformed> for ErrorKind {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Authenticity> for ErrorKind {
    fn from(authenticity: Authenticity) -> Self {
        Self::Authenticity(authenticity)
    }
}

impl From<WireError> for ErrorKind {
    fn from(error: WireError) -> Self {
        Self::Malformed(Malformed::Wire(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::error::Error as _;
    use std::string::ToString as _;

    /// Whoever prints an error and then its sources prints no cause twice.
    #[test]
    fn causes_are_said_once() {
        let kinds = [
            ErrorKind::from(WireError::Full),
            Malformed::TooLong.into(),
            Authenticity::MacWrong.into(),
            Misuse::Parameter(WireError::Full).into(),
            ErrorKind::Refused(Status::NoChanges),
        ];
        for kind in kinds {
            let error = Error::after_sending(crate::wire::CommandCode::FreeMem, kind);
            assert!(error.to_string().contains(&kind.to_string()));
            assert!(error.source().is_none() && kind.source().is_none());
            let run = crate::RunError::<core::fmt::Error>::Protocol(error);
            assert!(run.source().is_none());
        }
        let run = crate::RunError::Transport {
            command: crate::wire::CommandCode::FreeMem.into(),
            outcome: Outcome::Unknown,
            error: core::fmt::Error,
        };
        assert!(run.to_string().contains(&core::fmt::Error.to_string()));
        assert!(run.source().is_none());
    }
}
