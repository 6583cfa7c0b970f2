//! A door reader without an operating system.
//!
//! It brings its own panic handler and no allocator: if anything below pulled in `std`, there
//! would be two panic handlers, and if anything pulled in `alloc`, there would be no allocator.
//! Neither would build. So building this is the test.
#![no_std]

use core::panic::PanicInfo;

use desfire_ev1::wire::{Aid, FileNo, KeyNo};
use desfire_ev1::{Key, Link, LinkFormat, Machine, RunError, Session, Transport};
use rand_core::{TryCryptoRng, TryRng};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

unsafe extern "C" {
    fn rf_exchange(command: *const u8, len: usize, reply: *mut u8, room: usize) -> isize;
    fn hardware_random() -> u32;
}

struct Rf;

struct NoCard;

impl Link for Rf {
    type Error = NoCard;

    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for Rf {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, NoCard> {
        // SAFETY: the pointers are to these slices, for as long as the call lasts.
        let len = unsafe {
            rf_exchange(
                command.as_ptr(),
                command.len(),
                reply.as_mut_ptr(),
                reply.len(),
            )
        };
        usize::try_from(len).map_err(|_| NoCard)
    }
}

struct Hardware;

impl TryRng for Hardware {
    type Error = NoEntropy;

    fn try_next_u32(&mut self) -> Result<u32, NoEntropy> {
        // SAFETY: takes and gives plain numbers.
        match unsafe { hardware_random() } {
            0 => Err(NoEntropy),
            word => Ok(word),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, NoEntropy> {
        Ok(u64::from(self.try_next_u32()?) << 32 | u64::from(self.try_next_u32()?))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        for byte in out {
            *byte = self.try_next_u32()?.to_le_bytes()[0];
        }
        Ok(())
    }
}

impl TryCryptoRng for Hardware {}

#[derive(Debug)]
struct NoEntropy;

impl core::fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no entropy")
    }
}

impl core::error::Error for NoEntropy {}

/// Reads the badge number of the card in the field.
fn badge() -> Result<[u8; 8], RunError<NoCard>> {
    let key = Key::aes([0x42; 16]);
    let aid = Aid::from_bytes([0x16, 0xDE, 0x00]);
    let session = Session::new().select_application(aid).run(&mut Rf)?;
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, &key, &mut Hardware)
        .run(&mut Rf)?;
    let mut badge = [0; 8];
    let Ok(file) = FileNo::new(1) else {
        return Ok(badge);
    };
    session.read_data(file, 0..8, &mut badge).run(&mut Rf)?;
    Ok(badge)
}

/// Returns 1 and fills `number` if the card is ours.
///
/// # Safety
/// `number` points to eight writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn door_badge(number: *mut [u8; 8]) -> i32 {
    match badge() {
        Ok(badge) => {
            // SAFETY: the caller's promise.
            unsafe { number.write(badge) };
            1
        }
        Err(_) => 0,
    }
}
