//! What can be wrong with a purse, told apart by what the caller does about it.

use core::fmt;

use crate::RunError;
use crate::error::{Error, Outcome};
use crate::wire::{FileNo, Uid};

/// Why something with a purse failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PurseError<E> {
    /// Card or reader failed, and the purse is as it was.
    Run(RunError<E>),
    /// Card or reader failed after the first change was sent: it may have happened. Keep the intent,
    /// and settle it when the card is there again.
    Unsettled(RunError<E>),
    /// What is on the card cannot have come there by purse operations. Do not serve it; report it.
    Evidence(Evidence),
    /// It was not even tried.
    Refused(Refusal),
}

/// What is on the card and cannot be.
///
/// No tear and no lost answer leads to any of these (but for [`Evidence::Blank`], a purse whose
/// [`super::Purse::initialise`] has not come to its end).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Evidence {
    /// The header is all zero.
    #[error("the purse on this card has not been initialised")]
    Blank,
    /// A layout that this library does not know.
    #[error("the purse has layout version {version}, which is not known here")]
    Layout {
        /// What the header says.
        version: u8,
    },
    /// A file of the purse was there before the purse was made, and is not as it would be made: of
    /// another type or size, or with other rights.
    #[error("file {file} is there already and is none that a purse makes")]
    File {
        /// Which.
        file: FileNo,
    },
    /// The header was written for another card: the content is a copy.
    #[error("the purse on card {card} was made for card {stored}: it is a copy")]
    Foreign {
        /// The card's UID.
        card: Uid,
        /// The UID in the header.
        stored: Uid,
    },
    /// The value is not what the newest record says. Somebody has changed one without the other, or
    /// whoever sits on the link has committed half an operation.
    #[error("the card holds {value}, but its newest record says {recorded}")]
    Disagree {
        /// What GetValue says.
        value: i32,
        /// The balance in the newest record.
        recorded: i32,
    },
    /// A record that no purse operation writes.
    #[error("a record on the card is not one that a purse writes")]
    Record,
    /// The records do not follow one another.
    #[error("the records on the card do not follow one another")]
    Chain,
    /// The card has an older state than one that was seen: it was put back, or is a copy.
    #[error("the newest record has number {found}, but number {seen} has been seen on this card")]
    RolledBack {
        /// The number of the newest record on the card.
        found: u32,
        /// The number of a record that has been there.
        seen: u32,
    },
    /// The card has another past than was seen: a record that was there is another now.
    #[error("the records on the card are not the continuation of those seen before")]
    Rewritten,
}

/// Why something was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An operation without an amount.
    #[error("an amount of zero is no operation")]
    Zero,
    /// There is not enough in the purse.
    #[error("the purse holds {balance}, which is less than {amount}")]
    TooLittle {
        /// What is in it.
        balance: i32,
        /// What was to be taken out.
        amount: i32,
    },
    /// It does not go in.
    #[error("the purse holds {balance} and may hold {limit}: {amount} more does not go in")]
    TooMuch {
        /// What is in it.
        balance: i32,
        /// What was to be put in.
        amount: i32,
        /// The most that it may hold.
        limit: i32,
    },
    /// The sequence number is at its end.
    #[error("the purse has had all the operations that it can count; replace the card")]
    WornOut,
    /// The intent is another purse's.
    #[error("this intent belongs to another purse")]
    OtherPurse,
    /// The intent was not made from the state in which the purse is now.
    #[error("the purse has changed since this intent was made: settle it, and make a new one")]
    Stale,
    /// A purse that is to be initialised has been, and has had operations since.
    #[error("the purse is in use already")]
    InUse,
    /// Changes that are not the purse's wait for a commit in this session.
    #[error("other changes are pending in this session; commit or abort them first")]
    Pending,
    /// The session is not one with EV1 messaging.
    #[error("a purse needs a session with EV1 messaging (AuthenticateISO or AuthenticateAES)")]
    Messaging,
}

impl<E> PurseError<E> {
    /// Whether the operation may have happened.
    #[must_use]
    pub const fn is_unsettled(&self) -> bool {
        matches!(self, Self::Unsettled(_))
    }

    /// The first change of an operation failed: unless it was never sent, everything may have
    /// happened.
    pub(super) fn changing(error: RunError<E>) -> Self {
        match error.outcome() {
            Outcome::NotSent => Self::Run(error),
            Outcome::Refused | Outcome::Unknown => Self::Unsettled(error),
        }
    }
}

impl<E> From<RunError<E>> for PurseError<E> {
    fn from(error: RunError<E>) -> Self {
        Self::Run(error)
    }
}

impl<E> From<Error> for PurseError<E> {
    fn from(error: Error) -> Self {
        Self::Run(error.into())
    }
}

impl<E> From<Evidence> for PurseError<E> {
    fn from(evidence: Evidence) -> Self {
        Self::Evidence(evidence)
    }
}

impl<E> From<Refusal> for PurseError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: fmt::Display> fmt::Display for PurseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(error) => write!(f, "{error}; the purse has not been changed"),
            Self::Unsettled(error) => write!(
                f,
                "{error}; the purse may have been changed: keep the intent and settle it at the next tap"
            ),
            Self::Evidence(evidence) => evidence.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for PurseError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Run(error) | Self::Unsettled(error) => Some(error),
            Self::Evidence(evidence) => Some(evidence),
            Self::Refused(refusal) => Some(refusal),
        }
    }
}
