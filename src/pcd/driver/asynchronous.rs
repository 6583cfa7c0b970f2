//! The async transport and its loop. No runtime: any executor will do.

use super::{Link, MAX_REPLY, RunError};
use crate::error::{Error, Malformed};
use crate::pcd::exchange::{Machine, Step};

/// A reader with one card on it, for async callers. The contract is that of
/// [`crate::Transport`].
///
/// The future is not asked to be `Send`, so that single-threaded executors can implement this
/// too; over a transport whose future is `Send`, the future of
/// [`Machine::run_async`] is `Send` and can be spawned.
pub trait AsyncTransport: Link {
    /// Sends `command` and puts the card's answer into `reply`; returns its length.
    ///
    /// # Errors
    /// The card may or may not have got the command.
    fn exchange(
        &mut self,
        command: &[u8],
        reply: &mut [u8],
    ) -> impl Future<Output = Result<usize, Self::Error>>;
}

impl<T: AsyncTransport + ?Sized> AsyncTransport for &mut T {
    fn exchange(
        &mut self,
        command: &[u8],
        reply: &mut [u8],
    ) -> impl Future<Output = Result<usize, Self::Error>> {
        (**self).exchange(command, reply)
    }
}

#[cfg(feature = "alloc")]
impl<T: AsyncTransport + ?Sized> AsyncTransport for alloc::boxed::Box<T> {
    fn exchange(
        &mut self,
        command: &[u8],
        reply: &mut [u8],
    ) -> impl Future<Output = Result<usize, Self::Error>> {
        (**self).exchange(command, reply)
    }
}

pub(in crate::pcd) async fn run_async<M: Machine, T: AsyncTransport + ?Sized>(
    mut machine: M,
    transport: &mut T,
) -> Result<M::Output, RunError<T::Error>> {
    let command = machine.command();
    // Not wiped: it holds what has come over the air as it is.
    let mut reply = [0; MAX_REPLY];
    let mut outgoing = machine.start(transport.format())?;
    loop {
        let answered = transport.exchange(outgoing, &mut reply).await;
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
