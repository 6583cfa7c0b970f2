//! The drivers: machines on one side, transports on the other, and the only code that waits.
//!
//! For: one loop for blocking callers and one for async ones. May know: that there are machines
//! and transports. May not know: what either says.

mod asynchronous;
mod blocking;
mod faulty;
mod ready;
mod trace;

use core::fmt;

use crate::error::{Error, ErrorKind, Outcome};
use crate::pcd::exchange::LinkFormat;
use crate::wire::{Instruction, Status, StatusWord};

pub use asynchronous::AsyncTransport;
pub(in crate::pcd) use asynchronous::run_async;
pub use blocking::Transport;
pub(in crate::pcd) use blocking::run;
pub use faulty::{Faulty, Passing};
pub use ready::Procedure;
#[cfg(feature = "provision")]
pub(crate) use ready::{Ready, finish};
pub use trace::Traced;

/// Room for a reply: a short APDU, which is more than a card of this generation sends.
const MAX_REPLY: usize = 258;

/// What both kinds of transport say of themselves.
pub trait Link {
    /// How the transport fails.
    type Error;

    /// How it wants its bytes. Asked once per command.
    fn format(&self) -> LinkFormat;
}

impl<T: Link + ?Sized> Link for &mut T {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        (**self).format()
    }
}

#[cfg(feature = "alloc")]
impl<T: Link + ?Sized> Link for alloc::boxed::Box<T> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        (**self).format()
    }
}

/// Why a machine did not come to its end over a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError<E> {
    /// Card, bytes or caller: see [`Error`].
    Protocol(Error),
    /// The transport failed. If there was a session, it is lost.
    Transport {
        /// What was running.
        command: Instruction,
        /// What has become of it: unknown, as the card may have got it, unless only
        /// GetFileSettings was out.
        outcome: Outcome,
        /// What the transport says.
        error: E,
    },
}

impl<E> RunError<E> {
    /// What became of the command.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Protocol(error) => error.outcome,
            Self::Transport { outcome, .. } => *outcome,
        }
    }

    /// Whether the session cannot be used any more.
    #[must_use]
    pub const fn session_lost(&self) -> bool {
        match self {
            Self::Protocol(error) => error.session_lost,
            Self::Transport { .. } => true,
        }
    }

    /// The core's error, if it is one.
    #[must_use]
    pub const fn protocol(&self) -> Option<&Error> {
        match self {
            Self::Protocol(error) => Some(error),
            Self::Transport { .. } => None,
        }
    }

    /// The native status with which the card refused, if it did.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::Protocol(error) => error.status(),
            Self::Transport { .. } => None,
        }
    }

    /// The status word of an answer that is not the native one: see [`ErrorKind::RefusedIso`].
    #[must_use]
    pub const fn status_word(&self) -> Option<StatusWord> {
        match self {
            Self::Protocol(error) => error.status_word(),
            Self::Transport { .. } => None,
        }
    }

    /// The core's reason, if it is one.
    #[must_use]
    pub const fn kind(&self) -> Option<&ErrorKind> {
        match self {
            Self::Protocol(error) => Some(&error.kind),
            Self::Transport { .. } => None,
        }
    }
}

impl<E> From<Error> for RunError<E> {
    fn from(error: Error) -> Self {
        Self::Protocol(error)
    }
}

impl<E: fmt::Display> fmt::Display for RunError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => error.fmt(f),
            Self::Transport {
                command,
                outcome,
                error,
            } => {
                write!(f, "{command}: {error} ({outcome}; the session is lost)")
            }
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for RunError<E> {
    /// What is behind what the text says already.
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Protocol(error) => error.source(),
            Self::Transport { error, .. } => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Misuse;
    use crate::wire::CommandCode;
    use core::error::Error as _;

    /// A transport's error with something behind it.
    #[derive(Debug)]
    struct Wrapped;

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl core::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
            Some(&fmt::Error)
        }
    }

    #[test]
    fn what_an_error_tells() {
        let refused =
            |kind| RunError::<Wrapped>::from(Error::after_sending(CommandCode::Debit, kind));
        let status = refused(ErrorKind::Refused(Status::BoundaryError));
        assert_eq!(status.status(), Some(Status::BoundaryError));
        assert_eq!(status.status_word(), None);
        assert_eq!(status.outcome(), Outcome::Refused);
        assert_eq!(
            status.kind(),
            Some(&ErrorKind::Refused(Status::BoundaryError))
        );
        assert_eq!(status.protocol().unwrap().command, CommandCode::Debit);
        let iso = refused(ErrorKind::RefusedIso(StatusWord(0x6A82)));
        assert_eq!(iso.status_word(), Some(StatusWord(0x6A82)));
        assert_eq!(iso.status(), None);

        for lost in [false, true] {
            let error = Error::not_sent(CommandCode::Debit, Misuse::OutOfTurn).session_gone(lost);
            assert_eq!(RunError::<Wrapped>::from(error).session_lost(), lost);
        }

        let transport = RunError::Transport {
            command: CommandCode::Debit.into(),
            outcome: Outcome::Unknown,
            error: Wrapped,
        };
        assert!(transport.session_lost());
        assert_eq!(transport.outcome(), Outcome::Unknown);
        assert_eq!(
            (
                transport.status(),
                transport.status_word(),
                transport.kind()
            ),
            (None, None, None)
        );
        assert!(transport.protocol().is_none());
        // The text has the transport's own words; what is behind them comes next.
        assert!(transport.source().unwrap().is::<fmt::Error>());
        assert!(status.source().is_none());
    }
}
