//! The smallest reader that is of use: selects an application, authenticates with an AES key, reads a
//! number out of a MACed file. Wrapped framing.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use desfire_ev1::wire::{Aid, CommMode, FileNo, KeyNo};
use desfire_ev1::{Key, Link, LinkFormat, Machine as _, RunError, Session, Transport};
use footprint::{Hardware, radio, show};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

struct Radio;
struct NoCard;

impl Link for Radio {
    type Error = NoCard;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Radio {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, NoCard> {
        match radio(command, reply) {
            0 => Err(NoCard),
            len => Ok(len),
        }
    }
}

const AID: Aid = Aid::from_bytes([0x16, 0xDE, 0x00]);

fn number(key: &Key, file: FileNo) -> Result<u32, RunError<NoCard>> {
    let session = Session::new().select_application(AID).run(&mut Radio)?;
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, key, &mut Hardware)
        .run(&mut Radio)?;
    let mut number = [0; 4];
    session
        .read_data(file, 0..4, &mut number)
        .comm_mode(CommMode::Mac)
        .run(&mut Radio)?;
    Ok(u32::from_le_bytes(number))
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let key = Key::aes([0x42; 16]);
    let Ok(file) = FileNo::new(1) else { loop {} };
    loop {
        show(number(&key, file).unwrap_or(0));
    }
}
