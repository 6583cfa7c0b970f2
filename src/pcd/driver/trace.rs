//! A transport that shows what goes through it.

use super::{AsyncTransport, Link, Transport};
use crate::pcd::exchange::LinkFormat;

/// Wraps a transport and calls a function with every command and the answer to it.
///
/// What it shows is what is on the air: ciphertext where something is enciphered, but the data of
/// plain and MACed files as they are.
///
/// ```
/// use desfire_ev1::{Machine, Session, Traced, VirtualReader};
///
/// let mut exchanges = 0;
/// let mut reader = Traced::new(VirtualReader::default(), |command: &[u8], reply: &[u8]| {
///     exchanges += 1;
///     println!("> {command:02X?}\n< {reply:02X?}");
/// });
/// Session::new().get_version().run(&mut reader)?;
/// drop(reader);
/// assert_eq!(exchanges, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Traced<T, F> {
    transport: T,
    show: F,
}

impl<T, F: FnMut(&[u8], &[u8])> Traced<T, F> {
    /// Shows what goes through `transport` with `show(command, reply)`. An exchange that fails is
    /// not shown.
    pub const fn new(transport: T, show: F) -> Self {
        Self { transport, show }
    }

    /// The transport inside.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.transport
    }
}

impl<T: Link, F> Link for Traced<T, F> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.transport.format()
    }
}

impl<T: Transport, F: FnMut(&[u8], &[u8])> Transport for Traced<T, F> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let len = self.transport.exchange(command, reply)?;
        (self.show)(command, reply.get(..len).unwrap_or_default());
        Ok(len)
    }
}

impl<T: AsyncTransport, F: FnMut(&[u8], &[u8])> AsyncTransport for Traced<T, F> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let len = self.transport.exchange(command, reply).await?;
        (self.show)(command, reply.get(..len).unwrap_or_default());
        Ok(len)
    }
}
