//! How deep the stack gets: a recorded session with a real card is played again on a painted stack, and
//! then the paint is looked at. The recording is part 17 of RFDoorLock's (`tests/vectors`): an AES
//! handshake, a file created, written, read with MACs, and deleted. Every command is compared with the
//! recorded one.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr;

use cortex_m as _;
use cortex_m_semihosting::{debug, hprintln};
use desfire_ev1::wire::{AccessRights, Aid, AuthScheme, CommMode, FileNo, KeyNo, U24};
use desfire_ev1::{Key, Link, LinkFormat, Machine as _, Session, Transport};

const PAINTED: usize = 64 * 1024;
const PAINT: u8 = 0xA5;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{info}");
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}

/// Commands and replies, as hexadecimal digits.
const RECORDED: [[&str; 2]; 11] = [
    ["aa01", "afb351cb2465d4f33ac627fd6e87a168f2"],
    [
        "af044b6cac343a0865895149649ca8dde1f5ac4ec67bd208900af02f049e05f0b0",
        "00a2ee144b1012fbeb7b2f11132d95a454",
    ],
    ["cd05001100500000", "00a75316ad1596b953"],
    ["6f", "00052d5ff67ffec9d2d3"],
    ["f505", "00000011005000002aac7517024e09dc"],
    [
        "3d05000000340000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233",
        "00765c9daa50ecb62f",
    ],
    [
        "3d053400001c00003435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
        "003e0aed986b8b0f37",
    ],
    [
        "bd05000000300000",
        "00000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f4c65f1f842262bac",
    ],
    [
        "bd05300000200000",
        "00303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4ff02205cf913c03c9",
    ],
    ["df05", "001bef0d32b6d1d7f9"],
    ["6f", "00fc194ea93e3ef8e7"],
];

fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    }
}

fn bytes(text: &'static str) -> impl Iterator<Item = u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
}

/// Plays the card.
struct Recording(usize);

impl Link for Recording {
    type Error = ();

    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for Recording {
    #[inline(never)]
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ()> {
        let [expected, answer] = RECORDED.get(self.0).ok_or(())?;
        self.0 += 1;
        if !bytes(expected).eq(command.iter().copied()) {
            return Err(());
        }
        let mut len = 0;
        for (to, from) in reply.iter_mut().zip(bytes(answer)) {
            *to = from;
            len += 1;
        }
        Ok(len)
    }
}

#[inline(never)]
fn tap() -> Option<usize> {
    let mut card = Recording(0);
    let key = [
        0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x58, 0x60, 0x68, 0x70, 0x78, 0x80,
        0x88,
    ];
    let nonce = [
        0x40, 0xe7, 0xd2, 0x71, 0x74, 0xcb, 0xa6, 0x75, 0xe8, 0xef, 0xba, 0xb9, 0x9c, 0x53, 0x0e,
        0x3d,
    ];
    let key = Key::aes(key);
    let file = FileNo::new(5).ok()?;
    let written: [u8; 80] = core::array::from_fn(|index| index as u8);
    let mut read = [0; 48];
    let mut session = Session::at_level(Aid::from_bytes([1, 0, 0]))
        .authenticate_with_fixed_nonce_for_testing_only(
            AuthScheme::Aes,
            KeyNo::new(1).ok()?,
            &key,
            nonce,
        )
        .run(&mut card)
        .ok()?;
    let rights = AccessRights::from_bytes([0x11, 0x00]);
    session
        .create_std_data_file(file, None, CommMode::Plain, rights, U24::new(80).ok()?)
        .run(&mut card)
        .ok()?;
    session.get_file_ids().run(&mut card).ok()?;
    session.get_file_settings(file).run(&mut card).ok()?;
    session
        .write_data(file, 0, &written[..52])
        .run(&mut card)
        .ok()?;
    session
        .write_data(file, 52, &written[52..])
        .run(&mut card)
        .ok()?;
    session
        .read_data(file, 0..48, &mut read)
        .run(&mut card)
        .ok()?;
    assert!(read == written[..48]);
    session
        .read_data(file, 48..80, &mut read[..32])
        .run(&mut card)
        .ok()?;
    assert!(read[..32] == written[48..]);
    session.delete_file(file).run(&mut card).ok()?;
    session.get_file_ids().run(&mut card).ok()?;
    Some(card.0)
}

#[inline(never)]
fn paint(floor: usize, top: usize) {
    for address in floor..top {
        // SAFETY: this is stack that is not in use yet.
        unsafe { ptr::write_volatile(address as *mut u8, PAINT) }
    }
}

#[inline(never)]
fn used(floor: usize, top: usize) -> usize {
    // SAFETY: painted before.
    let painted = |address: &usize| unsafe { ptr::read_volatile(*address as *const u8) } == PAINT;
    top - (floor..top)
        .find(|address| !painted(address))
        .unwrap_or(top)
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let marker = 0_u32;
    let top = ptr::from_ref(black_box(&marker)) as usize;
    let floor = top - PAINTED;
    // Room for the frames of the painter itself.
    paint(floor, top - 256);
    let exchanges = tap();
    let used = used(floor, top);
    match exchanges {
        Some(exchanges) if exchanges == RECORDED.len() && used < PAINTED => {
            hprintln!("stack: {used} bytes at most, {exchanges} exchanges as recorded");
            debug::exit(debug::EXIT_SUCCESS);
        }
        other => {
            hprintln!("failed: {other:?}, {used} bytes of stack");
            debug::exit(debug::EXIT_FAILURE);
        }
    }
    loop {}
}
