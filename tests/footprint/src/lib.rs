//! What the programs of this package have in common: a radio and a random number generator at made-up
//! addresses. Nothing answers there; the accesses are volatile, so that nothing around them is
//! optimised away.
#![no_std]

use core::convert::Infallible;
use core::ptr;

use rand_core::{TryCryptoRng, TryRng};

const DATA: *mut u8 = 0x4000_0000 as *mut u8;
const LENGTH: *mut u32 = 0x4000_1000 as *mut u32;
const RANDOM: *const u32 = 0x4000_2000 as *const u32;
const OUTPUT: *mut u32 = 0x4000_3000 as *mut u32;

/// Sends a command; takes the answer.
pub fn radio(command: &[u8], reply: &mut [u8]) -> usize {
    // SAFETY: on the made-up board there are registers at these addresses.
    unsafe {
        for byte in command {
            DATA.write_volatile(*byte);
        }
        LENGTH.write_volatile(command.len() as u32);
        let len = LENGTH.read_volatile() as usize;
        for byte in reply.iter_mut().take(len) {
            *byte = DATA.read_volatile();
        }
        len
    }
}

/// Shows a number.
pub fn show(number: u32) {
    // SAFETY: as above.
    unsafe { OUTPUT.write_volatile(number) }
}

/// The random number generator.
pub struct Hardware;

impl TryRng for Hardware {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // SAFETY: as above.
        Ok(unsafe { ptr::read_volatile(RANDOM) })
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.try_next_u32()?) << 32 | u64::from(self.try_next_u32()?))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.try_next_u32()?.to_le_bytes()[0];
        }
        Ok(())
    }
}

impl TryCryptoRng for Hardware {}
