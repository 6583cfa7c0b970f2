//! Procedures: several machines in a row, written once.
//!
//! For: writing what takes more than one command as one async function, and running it over a
//! blocking transport too, without an executor and without a heap. May know: transports. May not
//! know: what a procedure does.
//!
//! A future that waits for nothing but its transport is never pending when the transport is
//! always ready; so polling it is running it.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::{AsyncTransport, Link, Transport};
use crate::pcd::exchange::LinkFormat;

/// Several machines in a row: to [`crate::Machine`] what a sentence is to a word.
///
/// Nothing happens before it is run. Dropped in the middle it loses the session, as every command
/// does.
///
/// Implementers write [`Procedure::run_async`], which must wait for nothing but the transport;
/// [`Procedure::run`] follows.
pub trait Procedure: Sized {
    /// What it is for.
    type Output;
    /// Why it fails over a transport that fails with `E`.
    type Error<E>;

    /// Runs it to its end over an async transport.
    ///
    /// Over a transport whose futures are `Send` this future is `Send`, too.
    ///
    /// # Errors
    /// What the procedure finds wrong, or the transport.
    fn run_async<T>(
        self,
        transport: &mut T,
    ) -> impl Future<Output = Result<Self::Output, Self::Error<T::Error>>>
    where
        T: AsyncTransport + ?Sized;

    /// Runs it to its end over a blocking transport.
    ///
    /// # Errors
    /// What the procedure finds wrong, or the transport.
    fn run<T>(self, transport: &mut T) -> Result<Self::Output, Self::Error<T::Error>>
    where
        T: Transport + ?Sized,
    {
        finish(self.run_async(&mut Ready(transport)))
    }
}

/// A blocking transport as an async one: its future is ready when it is first polled.
#[derive(Debug)]
pub(crate) struct Ready<'t, T: ?Sized>(pub(crate) &'t mut T);

impl<T: Link + ?Sized> Link for Ready<'_, T> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.0.format()
    }
}

impl<T: Transport + ?Sized> AsyncTransport for Ready<'_, T> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.exchange(command, reply)
    }
}

/// The result of a future that waits for nothing but a [`Ready`] transport: the first poll brings
/// it. One that waits for something else is polled until that has happened.
pub(crate) fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::{Procedure, finish};
    use crate::pcd::exchange::{LinkFormat, Machine};
    use crate::pcd::session::Session;
    use crate::{AsyncTransport, Link, RunError, Transport};

    /// A card that knows FreeMem and SelectApplication.
    struct Toy {
        asked: usize,
    }

    impl Link for Toy {
        type Error = &'static str;

        fn format(&self) -> LinkFormat {
            LinkFormat::NATIVE
        }
    }

    impl Transport for Toy {
        fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
            self.asked += 1;
            let answer: &[u8] = match (command, self.asked) {
                ([0x6E], 1 | 2) => &[0x00, 0x00, 0x1F, 0x00],
                _ => return Err("gone"),
            };
            reply[..answer.len()].copy_from_slice(answer);
            Ok(answer.len())
        }
    }

    struct Twice<'s>(&'s mut Session<crate::Unauthenticated>);

    impl Procedure for Twice<'_> {
        type Output = u32;
        type Error<E> = RunError<E>;

        async fn run_async<T>(self, transport: &mut T) -> Result<u32, RunError<T::Error>>
        where
            T: AsyncTransport + ?Sized,
        {
            let first = self.0.free_mem().run_async(transport).await?;
            let second = self.0.free_mem().run_async(transport).await?;
            Ok(first + second)
        }
    }

    #[test]
    fn a_procedure_runs_over_a_blocking_transport() {
        let mut toy = Toy { asked: 0 };
        let mut session = Session::new();
        assert_eq!(Twice(&mut session).run(&mut toy), Ok(2 * 7936));
        assert_eq!(toy.asked, 2);
        let error = Twice(&mut session).run(&mut toy).unwrap_err();
        assert!(matches!(error, RunError::Transport { error: "gone", .. }));
        assert!(session.is_lost());
    }

    #[test]
    fn what_waits_for_something_else_is_polled_until_it_has_happened() {
        let mut polls = 0;
        let waiting = core::future::poll_fn(|_| {
            polls += 1;
            if polls < 3 {
                core::task::Poll::Pending
            } else {
                core::task::Poll::Ready(polls)
            }
        });
        assert_eq!(finish(waiting), 3);
    }
}
