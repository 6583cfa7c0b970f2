//! The keys between a terminal and the key holder. They protect messages; no card knows them.

use core::fmt;

use zeroize::Zeroizing;

use super::dukpt::Ksn;

/// The AES-128 key that terminal and key holder share for one message or for many. Wiped when
/// dropped; does not print itself.
#[derive(Clone)]
pub struct TransportKey(Zeroizing<[u8; 16]>);

impl TransportKey {
    /// A key agreed upon beforehand. It has to be random; give every terminal its own.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self(Zeroizing::new(key))
    }

    pub(super) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKey(..)")
    }
}

/// Which transport key protects a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKeyId {
    /// The terminal's own key, of this version.
    Preshared(u8),
    /// The key of one transaction.
    Dukpt(Ksn),
}
