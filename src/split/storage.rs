//! The key holder's own key, for what it stores or hands out to get back.

use core::fmt;

use aes_kw::{KeyInit as _, KwpAes128};
use zeroize::Zeroizing;

use super::error::Refusal;

/// AES key wrap with padding (RFC 5649) under a key that never leaves the key holder. Wiped when
/// dropped; does not print itself.
pub struct StorageKey(Zeroizing<[u8; 16]>);

impl StorageKey {
    /// From its 16 bytes, which have to be random.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// How long `plain` bytes become: whole blocks of 8, and 8 more.
    #[must_use]
    pub const fn sealed_len(plain: usize) -> usize {
        plain.next_multiple_of(8).saturating_add(8)
    }

    pub(super) fn seal(&self, plain: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        let kwp = KwpAes128::new(&(*self.0).into());
        kwp.wrap_key(plain, out)
            .map(<[u8]>::len)
            .map_err(|_| Refusal::BufferTooSmall)
    }

    pub(super) fn unseal(&self, sealed: &[u8], out: &mut [u8]) -> Result<usize, Refusal> {
        if out.len() < sealed.len() {
            return Err(Refusal::BufferTooSmall);
        }
        let kwp = KwpAes128::new(&(*self.0).into());
        kwp.unwrap_key(sealed, out)
            .map(<[u8]>::len)
            .map_err(|_| Refusal::Stored)
    }
}

impl fmt::Debug for StorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageKey(..)")
    }
}
