//! CBC that somebody else does: the calls that a computation makes of a key, one after the other.
//!
//! For: everything that needs a key which may be in an HSM. A computation is written once, as
//! [`CbcWork`]; who has the key does the calls, at once, blocking or later.

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CbcDirection {
    /// CBC encryption.
    Encrypt,
    /// CBC decryption.
    Decrypt,
}

/// One call: CBC over `data` in place.
pub struct CbcTask<'w> {
    /// Which way.
    pub direction: CbcDirection,
    /// One block.
    pub iv: &'w [u8],
    /// Whole blocks, at most 48 bytes.
    pub data: &'w mut [u8],
}

/// A computation that asks for CBC under one key and for nothing else.
///
/// Do what [`CbcWork::task`] says and call [`CbcWork::done`], until there is no more task.
pub trait CbcWork {
    /// What is to be done next; the same until [`CbcWork::done`].
    fn task(&mut self) -> Option<CbcTask<'_>>;

    /// It has been done, in place.
    fn done(&mut self);
}
