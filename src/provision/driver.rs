//! One way of working for both drivers.
//!
//! Everything here is written once, as `async` over an [`AsyncTransport`]. A blocking transport is
//! one whose answers are always there: its future never waits, so that polling it is running it,
//! without any executor.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

use crate::{AsyncTransport, Link, LinkFormat, Transport};

/// A blocking transport as an async one that never waits.
pub(super) struct Ready<'t, T: ?Sized>(pub(super) &'t mut T);

impl<T: Link + ?Sized> Link for Ready<'_, T> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.0.format()
    }
}

impl<T: Transport + ?Sized> AsyncTransport for Ready<'_, T> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, T::Error> {
        self.0.exchange(command, reply)
    }
}

/// Runs a future that waits for nothing but a [`Ready`] transport, and so never waits.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // Once: everything that it awaits is there.
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Counts what goes over a transport.
pub(super) struct Counted<'t, T: ?Sized> {
    transport: &'t mut T,
    pub(super) exchanges: u32,
}

impl<'t, T: ?Sized> Counted<'t, T> {
    pub(super) const fn new(transport: &'t mut T) -> Self {
        Self {
            transport,
            exchanges: 0,
        }
    }
}

impl<T: Link + ?Sized> Link for Counted<'_, T> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.transport.format()
    }
}

impl<T: AsyncTransport + ?Sized> AsyncTransport for Counted<'_, T> {
    fn exchange(
        &mut self,
        command: &[u8],
        reply: &mut [u8],
    ) -> impl Future<Output = Result<usize, T::Error>> {
        self.exchanges = self.exchanges.saturating_add(1);
        self.transport.exchange(command, reply)
    }
}
