//! The reader without the library: what start-up code, radio and generator take by themselves.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use footprint::{Hardware, radio, show};
use rand_core::TryRng as _;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut nonce = [0; 16];
    let Ok(()) = Hardware.try_fill_bytes(&mut nonce);
    let mut reply = [0; 258];
    loop {
        show(radio(&nonce, &mut reply) as u32);
    }
}
