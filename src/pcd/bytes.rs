//! Copying and wiping a few bytes.
//!
//! For: what is done in every command, again and again. `Zeroizing` wipes by one volatile store for each
//! byte, which the processor can neither join nor pass on to a wider load; that took more time than the
//! ciphers did. Here the compiler writes as wide as it can and is kept from leaving it out.

use core::ops::{Deref, DerefMut};

use zeroize::{Zeroize as _, optimization_barrier};

/// As many bytes as there are and there is room for.
#[inline]
pub(in crate::pcd) fn copy(from: &[u8], to: &mut [u8]) {
    let len = from.len().min(to.len());
    // Often there is nothing to copy.
    if len == 0 {
        return;
    }
    if let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) {
        to.copy_from_slice(from);
    }
}

/// Zeros, which the compiler has to write even if nobody reads them again.
#[inline]
pub(in crate::pcd) fn wipe(bytes: &mut [u8]) {
    // Many a `memset` writes nothing to nowhere by a masked store, which takes longer than all the rest.
    if bytes.is_empty() {
        return;
    }
    bytes.fill(0);
    keep_zeros(bytes);
}

/// Sees to it that the zeros which have just been written are written.
///
/// Where `zeroize`'s barrier is made of assembly it is certain to do so. Elsewhere it only hopes, and the
/// bytes are written once more, one by one.
#[inline]
pub(in crate::pcd) fn keep_zeros(bytes: &mut [u8]) {
    let certain = cfg!(any(
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "loongarch64",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "s390x",
        target_arch = "x86",
        target_arch = "x86_64",
    ));
    if certain {
        optimization_barrier(bytes);
    } else {
        bytes.zeroize();
    }
}

/// Secret bytes, wiped when they are dropped.
#[derive(Clone)]
pub struct Wiped<const N: usize>([u8; N]);

impl<const N: usize> Wiped<N> {
    pub(in crate::pcd) const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> Default for Wiped<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Deref for Wiped<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Wiped<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Wiped<N> {
    #[inline]
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_copied_as_there_is_and_fits() {
        for (from, expected) in [
            (&[][..], [9, 9, 9]),
            (&[1, 2], [1, 2, 9]),
            (&[1, 2, 3], [1, 2, 3]),
            (&[1, 2, 3, 4], [1, 2, 3]),
        ] {
            let mut to = [9; 3];
            copy(from, &mut to);
            assert_eq!(to, expected);
        }
        copy(&[1], &mut []);
    }

    #[test]
    fn all_is_wiped() {
        let mut bytes = [7; 33];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 33]);
        wipe(&mut []);
    }
}
