//! How deep the stack gets: two sessions are played on a painted stack, and then the paint is looked at.
//! Every command is compared with the expected one.
//!
//! - A recording of a real card, part 17 of RFDoorLock's (`tests/vectors`), in native frames: an AES
//!   handshake, a file created, written, read with MACs, and deleted.
//! - A purchase, as the software card answers it, wrapped: selection, AES handshake, enciphered value, debit
//!   and record, commit, and the record read again.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr;

use cortex_m as _;
use cortex_m_semihosting::{debug, hprintln};
use desfire_ev1::wire::{AccessRights, Aid, Amount, AuthScheme, CommMode, FileNo, KeyNo, U24};
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

/// A purchase.
const PURCHASE: [[&str; 2]; 8] = [
    ["905a00000316de0000", "9100"],
    ["90aa0000010000", "4f605cdd70282a99ff41c905b770b4b591af"],
    [
        "90af0000201f81552bdf917c0fff9105276927a114a2b42544f0d22520fcbc9146251d09c000",
        "a92a3136ea8021b9b3309d2b6af9018b9100",
    ],
    ["906c0000010200", "8a568924cba9bedacd4d6a9f6fe95b8e9100"],
    [
        "90dc00001102126e4ce672f5c9c4678a5da7d1d3122b00",
        "983c4944fb8844499100",
    ],
    [
        "903b000027040000001000004bc76c643960a6905f9f6ead264644dbde26c32864466012062cc727e152e44200",
        "7845c6f281c13ab69100",
    ],
    ["90c7000000", "fbf63629081cc1db9100"],
    [
        "90bb0000070400000001000000",
        "dd61962200701a4783ae038f751541142679717ae2581b079ec34ba3938e33769100",
    ],
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
struct Recording {
    exchanges: &'static [[&'static str; 2]],
    at: usize,
    format: LinkFormat,
}

impl Link for Recording {
    type Error = ();

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Recording {
    #[inline(never)]
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ()> {
        let [expected, answer] = self.exchanges.get(self.at).ok_or(())?;
        self.at += 1;
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
fn recorded() -> Option<usize> {
    let mut card = Recording {
        exchanges: &RECORDED,
        at: 0,
        format: LinkFormat::NATIVE,
    };
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
    Some(card.at)
}

#[inline(never)]
fn purchase() -> Option<usize> {
    let mut card = Recording {
        exchanges: &PURCHASE,
        at: 0,
        format: LinkFormat::WRAPPED,
    };
    let enciphered = CommMode::Enciphered;
    let (value, log) = (FileNo::new(2).ok()?, FileNo::new(4).ok()?);
    let record = b"one ride, zone A";
    let session = Session::new()
        .select_application(Aid::from_bytes([0x16, 0xDE, 0x00]))
        .run(&mut card)
        .ok()?;
    let key = Key::aes([0; 16]);
    let mut session = session
        .authenticate_with_fixed_nonce_for_testing_only(
            AuthScheme::Aes,
            KeyNo::MASTER,
            &key,
            *b"a nonce of tests",
        )
        .run(&mut card)
        .ok()?;
    let balance = session.get_value(value).comm_mode(enciphered);
    assert!(balance.run(&mut card).ok()? == 1000);
    let debit = session.debit(value, Amount::new(250).ok()?);
    debit.comm_mode(enciphered).run(&mut card).ok()?;
    let write = session.write_record(log, 0, record);
    write.comm_mode(enciphered).run(&mut card).ok()?;
    session.commit_transaction().run(&mut card).ok()?;
    let mut buffer = [0; 16];
    let read = session.read_records(log, 0, 1, 16, &mut buffer);
    let read = read.comm_mode(enciphered).run(&mut card).ok()?;
    assert!(read.as_ref() == record);
    Some(card.at)
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
    let recorded = recorded();
    let after_recorded = used(floor, top);
    let purchase = purchase();
    let after_both = used(floor, top);
    let played = recorded == Some(RECORDED.len()) && purchase == Some(PURCHASE.len());
    if played && after_both < PAINTED {
        hprintln!(
            "stack: {after_both} bytes at most, {after_recorded} of them in the recorded session"
        );
        debug::exit(debug::EXIT_SUCCESS);
    } else {
        hprintln!("failed: {recorded:?}, {purchase:?}, {after_both} bytes of stack");
        debug::exit(debug::EXIT_FAILURE);
    }
    loop {}
}
