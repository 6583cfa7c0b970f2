//! MIFARE DESFire EV1 protocol library.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod wire;

#[cfg(feature = "picc")]
extern crate alloc;

#[cfg(feature = "picc")]
pub mod picc;
