//! A short byte string held in place, for fields of bounded length.

use core::fmt;
use core::ops::Deref;

use super::WireError;

/// Up to `N` bytes (`N` at most 255), without a heap.
///
/// ```
/// use desfire_ev1::wire::InlineBytes;
///
/// let name = InlineBytes::<16>::new(b"purse")?;
/// assert_eq!(&name[..], b"purse");
/// assert!(InlineBytes::<4>::new(b"purse").is_err());
/// # Ok::<(), desfire_ev1::wire::WireError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InlineBytes<const N: usize> {
    // Bytes past `len` are always zero, so that the derived comparisons are right.
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> InlineBytes<N> {
    /// No bytes.
    pub const EMPTY: Self = {
        assert!(N <= 255);
        Self {
            bytes: [0; N],
            len: 0,
        }
    };

    /// Copies `bytes`.
    ///
    /// # Errors
    /// [`WireError::Full`] if there are more than `N`.
    pub fn new(bytes: &[u8]) -> Result<Self, WireError> {
        let mut inline = Self::EMPTY;
        inline
            .bytes
            .get_mut(..bytes.len())
            .ok_or(WireError::Full)?
            .copy_from_slice(bytes);
        inline.len = u8::try_from(bytes.len()).map_err(|_| WireError::Full)?;
        Ok(inline)
    }
}

impl<const N: usize> Deref for InlineBytes<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl<const N: usize> fmt::Debug for InlineBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.iter() {
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}
