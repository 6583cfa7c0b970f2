//! MIFARE DESFire EV1 protocol library.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod wire;
