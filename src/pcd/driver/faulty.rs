//! A transport on which things go wrong: for testing what a program makes of it.

use super::{AsyncTransport, Link, Transport};
use crate::pcd::exchange::LinkFormat;

/// Room for one command.
const MAX_COMMAND: usize = 64;

/// What passes by. Exchanges are counted from 1.
#[derive(Debug)]
pub enum Passing<'a> {
    /// A command on its way to the card; its bytes can be changed.
    Command {
        /// Which exchange.
        exchange: usize,
        /// The command.
        bytes: &'a mut [u8],
    },
    /// An answer on its way back; its bytes can be changed, and `len` can be made less.
    Reply {
        /// Which exchange.
        exchange: usize,
        /// The answer, and room behind it.
        bytes: &'a mut [u8],
        /// How long the answer is.
        len: &'a mut usize,
    },
}

/// Wraps a transport and shows everything that passes to a function, which can flip bits, cut
/// answers short or to nothing, take the card away in between, or wait as long as a slow card.
///
/// (Power cuts and lost answers of the software card itself are `picc::Card::arrange_fault`.)
///
/// ```
/// use desfire_ev1::{Faulty, Machine, Passing, Session, VirtualReader};
///
/// // The second answer of GetVersion is cut to its status word.
/// let mut reader = Faulty::new(VirtualReader::default(), |passing| {
///     if let Passing::Reply { exchange: 2, bytes, len } = passing {
///         bytes.copy_within(*len - 2..*len, 0);
///         *len = 2;
///     }
/// });
/// let mut session = Session::new();
/// let error = session.get_version().run(&mut reader).unwrap_err();
/// assert!(error.to_string().contains("an additional frame without data"));
/// assert!(session.is_lost());
/// ```
#[derive(Debug)]
pub struct Faulty<T, F> {
    transport: T,
    fault: F,
    exchange: usize,
}

impl<T, F: FnMut(Passing<'_>)> Faulty<T, F> {
    /// Shows `fault` everything that passes.
    pub const fn new(transport: T, fault: F) -> Self {
        Self {
            transport,
            fault,
            exchange: 0,
        }
    }

    /// The transport inside.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The command as it goes on.
    fn command(&mut self, command: &[u8]) -> ([u8; MAX_COMMAND], usize) {
        self.exchange = self.exchange.saturating_add(1);
        let mut changed = [0; MAX_COMMAND];
        let len = command.len().min(MAX_COMMAND);
        for (to, from) in changed.iter_mut().zip(command) {
            *to = *from;
        }
        (self.fault)(Passing::Command {
            exchange: self.exchange,
            bytes: changed.get_mut(..len).unwrap_or_default(),
        });
        (changed, len)
    }

    /// The answer's length as it goes on.
    fn reply(&mut self, bytes: &mut [u8], len: usize) -> usize {
        let mut changed = len;
        (self.fault)(Passing::Reply {
            exchange: self.exchange,
            bytes,
            len: &mut changed,
        });
        changed.min(bytes.len())
    }
}

impl<T: Link, F> Link for Faulty<T, F> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.transport.format()
    }
}

impl<T: Transport, F: FnMut(Passing<'_>)> Transport for Faulty<T, F> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let (changed, len) = self.command(command);
        let command = changed.get(..len).unwrap_or_default();
        let len = self.transport.exchange(command, reply)?;
        Ok(self.reply(reply, len))
    }
}

impl<T: AsyncTransport, F: FnMut(Passing<'_>)> AsyncTransport for Faulty<T, F> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let (changed, len) = self.command(command);
        let command = changed.get(..len).unwrap_or_default();
        let len = self.transport.exchange(command, reply).await?;
        Ok(self.reply(reply, len))
    }
}
