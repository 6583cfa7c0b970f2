//! A reading and a writing cursor over byte slices.
//!
//! Both check before they move and never index, so no input makes them panic. Multi-byte
//! integers are least significant byte first, as everywhere inside native DESFire frames.

use super::WireError;

/// Takes values off the front of a slice.
///
/// ```
/// use desfire_ev1::wire::Reader;
///
/// let mut reader = Reader::new(&[0x16, 0xDE, 0x00, 0x0F]);
/// assert_eq!(reader.u24()?, 0x00_DE16);
/// assert_eq!(reader.u8()?, 0x0F);
/// reader.finish()?;
/// # Ok::<(), desfire_ev1::wire::WireError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of bytes not taken yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left; nothing is taken then.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(WireError::Truncated {
                needed: count,
                available: self.rest.len(),
            })?;
        self.rest = tail;
        Ok(head)
    }

    /// Takes `N` bytes as an array.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left; nothing is taken then.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated {
                needed: N,
                available: self.rest.len(),
            })?;
        self.rest = tail;
        Ok(*head)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if nothing is left.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Takes two bytes, least significant first.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes three bytes, least significant first.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left.
    pub fn u24(&mut self) -> Result<u32, WireError> {
        self.array()
            .map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// Takes four bytes, least significant first, as a signed number.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if fewer are left.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_le_bytes)
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`WireError::Trailing`] otherwise.
    pub fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(WireError::Trailing { count }),
        }
    }
}

/// Puts values at the front of a slice, one after the other.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    written: usize,
}

impl<'a> Writer<'a> {
    /// Starts at the first byte of `buffer`.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, written: 0 }
    }

    /// The number of bytes put so far.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Puts `bytes`.
    ///
    /// # Errors
    /// [`WireError::Full`] if they do not fit; nothing is put then.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let free = self
            .buffer
            .get_mut(self.written..)
            .and_then(|free| free.get_mut(..bytes.len()))
            .ok_or(WireError::Full)?;
        free.copy_from_slice(bytes);
        self.written = self.written.saturating_add(bytes.len());
        Ok(())
    }

    /// Puts one byte.
    ///
    /// # Errors
    /// [`WireError::Full`] if it does not fit.
    pub fn u8(&mut self, value: u8) -> Result<(), WireError> {
        self.put(&[value])
    }

    /// Puts two bytes, least significant first.
    ///
    /// # Errors
    /// [`WireError::Full`] if they do not fit.
    pub fn u16(&mut self, value: u16) -> Result<(), WireError> {
        self.put(&value.to_le_bytes())
    }

    /// Puts four bytes, least significant first.
    ///
    /// # Errors
    /// [`WireError::Full`] if they do not fit.
    pub fn i32(&mut self, value: i32) -> Result<(), WireError> {
        self.put(&value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_little_endian_and_checked() {
        let bytes = [1, 2, 3, 4, 5, 6, 0xFF, 0xFF, 0xFF, 0xFF, 7];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.remaining(), 11);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0302));
        assert_eq!(reader.u24(), Ok(0x06_0504));
        assert_eq!(reader.i32(), Ok(-1));
        assert_eq!(
            reader.u16(),
            Err(WireError::Truncated {
                needed: 2,
                available: 1
            })
        );
        assert_eq!(reader.remaining(), 1);
        assert_eq!(
            reader.clone().finish(),
            Err(WireError::Trailing { count: 1 })
        );
        assert_eq!(reader.take(1), Ok(&[7][..]));
        assert_eq!(reader.rest(), &[] as &[u8]);
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_write_that_does_not_fit_writes_nothing() {
        let mut buffer = [0; 4];
        let mut writer = Writer::new(&mut buffer);
        assert_eq!(writer.u16(0x1122), Ok(()));
        assert_eq!(writer.put(&[1, 2, 3]), Err(WireError::Full));
        assert_eq!(writer.i32(5), Err(WireError::Full));
        assert_eq!(writer.u8(9), Ok(()));
        assert_eq!(writer.written(), 3);
        assert_eq!(buffer, [0x22, 0x11, 9, 0]);
    }
}
