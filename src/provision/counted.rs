//! Counting what goes over a transport.

use crate::{AsyncTransport, Link, LinkFormat};

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
