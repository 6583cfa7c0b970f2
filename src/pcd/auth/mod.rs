//! Authentication, in two halves that may be far apart.
//!
//! | half | file | has | has not |
//! |---|---|---|---|
//! | terminal | [`terminal`] | the card | the key |
//! | key holder | [`holder`] | the key | the card, any I/O |
//!
//! [`apart`] is the terminal's half as machines, for the feature `split`. [`local`] joins the two in
//! one process: the split path is the only path. [`iso7816`] is the same by
//! ISO 7816-4 commands, in one piece.
//!
//! | step | who | legacy `0A` | ISO `1A`, AES `AA` |
//! |---|---|---|---|
//! | 1 | card sends | E(RndB) | E(RndB) |
//! | 2 | holder answers | D(RndA) and D(RndB' ⊕ first block) | E(RndA ‖ RndB') |
//! | 3 | card proves | E(RndA') | E(RndA') |
//!
//! RndX' is RndX rotated left by one byte. Under `0A` every step starts from a zero IV and the
//! card only enciphers; under `1A` and `AA` one CBC chain runs through the three steps. Source:
//! libfreefare `mifare_desfire.c`; confirmed by recordings of all four key types and of `0A` with
//! DES. With an all-zero DES key E and D are the same, so a swapped direction shows with other
//! keys only.

#[cfg(feature = "split")]
mod apart;
mod holder;
mod iso7816;
mod local;
mod terminal;

#[cfg(feature = "split")]
pub(crate) use apart::{Opened, Opening, Proved, Proving};
pub(crate) use holder::Answer;
#[cfg(feature = "split")]
pub(crate) use holder::KeyHalf;
pub(in crate::pcd) use holder::answer;
pub use holder::{Messaging, SessionKey};
pub use iso7816::AuthenticateIso7816;
pub use local::Authenticate;
pub(in crate::pcd) use terminal::{HandshakeStep, TerminalHandshake};
