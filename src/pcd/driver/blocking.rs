//! The blocking transport and its loop.

use super::{Link, MAX_REPLY, RunError};
use crate::error::{Error, Malformed};
use crate::pcd::exchange::{Machine, Step};

/// A reader with one card on it, for blocking callers.
///
/// What an implementer has to keep to:
///
/// - one call is one command and its answer, in the framing of [`Link::format`];
/// - `reply` has room for 258 bytes; an answer that does not fit is an error, never cut;
/// - an error status from the card (`91AE`, `6700`) is an answer and no error;
/// - a card that does not answer, is gone, or has been reset is an error;
/// - nothing is ever sent a second time, and a lost card is never silently connected anew.
///
/// ```
/// use desfire_ev1::{Link, LinkFormat, Machine, Session, Transport};
///
/// /// A card that knows FreeMem and nothing else.
/// struct Toy;
///
/// impl Link for Toy {
///     type Error = std::io::Error;
///     fn format(&self) -> LinkFormat {
///         LinkFormat::WRAPPED
///     }
/// }
///
/// impl Transport for Toy {
///     fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
///         let answer: &[u8] = match command {
///             [0x90, 0x6E, 0, 0, 0] => &[0x00, 0x1F, 0x00, 0x91, 0x00],
///             _ => &[0x91, 0x1C],
///         };
///         reply[..answer.len()].copy_from_slice(answer);
///         Ok(answer.len())
///     }
/// }
///
/// assert_eq!(Session::new().free_mem().run(&mut Toy)?, 7936);
/// let error = Session::new().get_version().run(&mut Toy).unwrap_err();
/// assert!(error.to_string().contains("ILLEGAL_COMMAND_CODE"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Transport: Link {
    /// Sends `command` and puts the card's answer into `reply`; returns its length.
    ///
    /// # Errors
    /// The card may or may not have got the command.
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error>;
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        (**self).exchange(command, reply)
    }
}

#[cfg(feature = "alloc")]
impl<T: Transport + ?Sized> Transport for alloc::boxed::Box<T> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        (**self).exchange(command, reply)
    }
}

/// Inlined, the machines and reply buffers of all commands would lie side by side in the caller's frame.
#[inline(never)]
pub(in crate::pcd) fn run<M: Machine, T: Transport + ?Sized>(
    mut machine: M,
    transport: &mut T,
) -> Result<M::Output, RunError<T::Error>> {
    let command = machine.command();
    // Not wiped: it holds what has come over the air as it is.
    let mut reply = [0; MAX_REPLY];
    let mut outgoing = machine.start(transport.format())?;
    loop {
        let answered = transport.exchange(outgoing, &mut reply);
        let len = match answered {
            Ok(len) => len,
            Err(error) => {
                return Err(RunError::Transport {
                    command,
                    outcome: machine.outcome_if_unanswered(),
                    error,
                });
            }
        };
        // A transport that claims more than there was room for has lost something.
        let received = reply
            .get(..len)
            .ok_or_else(|| Error::unknown(command, Malformed::TooLong))?;
        match machine.step(received) {
            Ok(Step::Transmit(next)) => outgoing = next,
            // Not by `?`, which would move a whole session once more.
            Ok(Step::Done(output)) => return Ok(output),
            Err(error) => return Err(error.into()),
        }
    }
}
