//! The parsers of `wire`.
//!
//! Oracle: what parses is encoded as the same bytes again, where there is one way to write it; and
//! what was encoded parses as the same value.

use desfire_ev1::wire::apdu::{CommandApdu, ResponseApdu};
use desfire_ev1::wire::{
    AccessRights, Aid, Amount, CommByte, CommandCode, CommandFrame, DfName, FileNo, FileSettings,
    Framing, IsoFileId, KeyFamily, KeyInfo, KeyNo, KeySettings, ReplyFrame, Status, U24, Version,
    apdu,
};

const FRAMINGS: [Framing; 2] = [Framing::Native, Framing::Wrapped];

/// A parser by the first byte, and what it parses.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 8 {
        0 | 1 => commands(FRAMINGS[usize::from(kind % 2)], bytes),
        2 | 3 => replies(FRAMINGS[usize::from(kind % 2)], bytes),
        4 => command_apdu(bytes),
        5 => file_settings(bytes),
        6 => version(bytes),
        _ => small(bytes),
    }
}

/// Encodes into every room, of which only those that are large enough may do.
fn encoded<E>(encode: impl Fn(&mut [u8]) -> Result<usize, E>) -> Vec<u8> {
    let mut room = vec![0xEE; 300];
    let Ok(len) = encode(&mut room) else {
        panic!("what was parsed cannot be encoded")
    };
    assert!(room[len..].iter().all(|byte| *byte == 0xEE));
    if let Some(short) = len.checked_sub(1) {
        assert!(encode(&mut vec![0; short]).is_err());
    }
    room.truncate(len);
    room
}

fn commands(framing: Framing, bytes: &[u8]) {
    let Ok(frame) = CommandFrame::parse(framing, bytes) else {
        return;
    };
    if bytes.len() < 300 {
        assert_eq!(encoded(|out| frame.encode(framing, out)), bytes);
    }
    assert_eq!(CommandCode::from_byte(frame.code.to_byte()), frame.code);
    assert!(framing != Framing::Wrapped || apdu::is_wrapped(bytes));
}

fn replies(framing: Framing, bytes: &[u8]) {
    if let Ok(frame) = ReplyFrame::parse(framing, bytes) {
        if bytes.len() < 300 {
            assert_eq!(encoded(|out| frame.encode(framing, out)), bytes);
        }
        assert_eq!(Status::from_byte(frame.status.to_byte()), frame.status);
        assert!(!frame.status.to_string().is_empty());
    }
    if let Ok(response) = ResponseApdu::parse(bytes) {
        if bytes.len() < 300 {
            assert_eq!(encoded(|out| response.encode(out)), bytes);
        }
        assert!(!response.sw.to_string().is_empty() && !response.sw.cause().is_empty());
    }
}

fn command_apdu(bytes: &[u8]) {
    let Ok(parsed) = CommandApdu::parse(bytes) else {
        return;
    };
    assert_eq!(encoded(|out| parsed.encode(out)), bytes);
}

fn file_settings(bytes: &[u8]) {
    let Ok(settings) = FileSettings::decode(bytes) else {
        return;
    };
    let again = encoded(|out| settings.encode(out));
    assert_eq!(again, bytes);
    assert_eq!(FileSettings::decode(&again), Ok(settings));
}

fn version(bytes: &[u8]) {
    let Ok(version) = Version::decode(bytes) else {
        return;
    };
    let (hardware, software, production) = version.to_frames();
    assert_eq!([&hardware[..], &software, &production].concat(), bytes);
}

/// The values of a few bytes, all of them out of the same bytes.
fn small(bytes: &[u8]) {
    if let Some(three) = bytes.first_chunk::<3>() {
        assert_eq!(Aid::from_bytes(*three).to_bytes(), *three);
        assert_eq!(U24::from_bytes(*three).to_bytes(), *three);
        let number = U24::from_bytes(*three).get();
        assert_eq!(U24::new(number), Ok(U24::from_bytes(*three)));
    }
    if let Some(two) = bytes.first_chunk::<2>() {
        assert_eq!(AccessRights::from_bytes(*two).to_bytes(), *two);
        let id = IsoFileId(u16::from_be_bytes(*two));
        assert_eq!(id.to_iso(), *two);
        assert_eq!(id.to_native(), [two[1], two[0]]);
    }
    if let Some(four) = bytes.first_chunk::<4>() {
        let value = i32::from_le_bytes(*four);
        match Amount::new(value) {
            Ok(amount) => assert_eq!(amount.to_bytes(), *four),
            Err(_) => assert!(value < 0),
        }
    }
    if let Some(byte) = bytes.first() {
        assert_eq!(KeySettings::from_byte(*byte).to_byte(), *byte);
        assert_eq!(KeyInfo::from_byte(*byte).to_byte(), *byte);
        let _ = (KeyFamily::from_bits(*byte), CommByte(*byte).mode());
        assert_eq!(FileNo::new(*byte).is_ok(), *byte < 32);
        assert_eq!(KeyNo::new(*byte).is_ok(), *byte < 14);
    }
    if let Ok(name) = DfName::new(bytes) {
        assert_eq!(name.as_bytes(), bytes);
    } else {
        assert!(bytes.is_empty() || bytes.len() > 16);
    }
}
