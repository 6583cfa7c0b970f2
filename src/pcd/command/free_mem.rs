//! FreeMem (`6E`): how many bytes are free.
//!
//! | request | reply |
//! |---|---|
//! | – | bytes 3, least significant first |
//!
//! No authentication, any level; not on cards before EV1. Source: libfreefare
//! `mifare_desfire_free_mem`.

use super::Command;
use crate::error::ErrorKind;
use crate::pcd::exchange::Exchange;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, Reader, WireError, Writer};

/// FreeMem (`6E`): see [`Session::free_mem`].
#[derive(Debug, Default)]
pub struct FreeMem {
    reply: [u8; 3],
}

impl Command for FreeMem {
    type Output = u32;
    const CODE: CommandCode = CommandCode::FreeMem;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<u32, ErrorKind> {
        let mut reader = Reader::new(self.reply.get(..len).unwrap_or_default());
        let free = reader.u24()?;
        reader.finish()?;
        Ok(free)
    }
}

impl<S> Session<S> {
    /// The number of free bytes, in blocks of 32. An empty EV1 has 2304 (2K), 4864 (4K) or 7936
    /// (8K).
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader};
    ///
    /// let mut reader = VirtualReader::default();
    /// assert_eq!(Session::new().free_mem().run(&mut reader)?, 7936);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_mem(&mut self) -> Exchange<&mut Self, FreeMem> {
        Exchange::new(self, Ok(FreeMem::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, wrapped};
    use crate::error::{ErrorKind, Malformed};
    use crate::pcd::session::Session;

    #[test]
    fn literal_bytes() {
        let script = [("6e", "00 001f00")];
        assert_eq!(native(Session::new().free_mem(), &script), Ok(7936));
        assert_eq!(wrapped(Session::new().free_mem(), &script), Ok(7936));
    }

    #[test]
    fn wrong_lengths() {
        let short = native(Session::new().free_mem(), &[("6e", "00 001f")]).unwrap_err();
        assert!(matches!(
            short.kind,
            ErrorKind::Malformed(Malformed::Wire(_))
        ));
        let long = native(Session::new().free_mem(), &[("6e", "00 001f0000")]).unwrap_err();
        assert_eq!(long.kind, ErrorKind::Malformed(Malformed::TooLong));
    }
}
