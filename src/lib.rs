//! MIFARE DESFire EV1 protocol library.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod error;
mod pcd;
pub mod wire;

pub use error::{Error, Outcome};
pub use pcd::{
    AsyncTransport, Authenticate, Authenticated, Exchange, Key, KeyError, Link, LinkFormat,
    Machine, Messaging, RunError, Session, SessionKey, Step, Traced, Transport, Unauthenticated,
    command,
};
