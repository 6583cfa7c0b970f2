//! Rows: ISO 7816-4 commands. In both framings they are the same APDUs.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

use core::convert::Infallible;

use desfire_ev1::command::iso::{BinaryPlace, IsoTarget, RecordRange, ShortFileId};
use desfire_ev1::picc::FileContent;
use desfire_ev1::wire::{DfName, IsoFileId, IsoInstruction as I, KeyType};
use desfire_ev1::{Key, Link as _, Machine as _, Step, Transport as _};
use rand_core::{TryCryptoRng, TryRng};

use crate::bench::{
    APP, Auth, BACKUP, Bench, CYCLIC, Done, LINEAR, LOCKED, Live, MISSING, Mode, NDEF, OTHERS,
    PICC_KEY, Place, RECORD, STANDARD, UID, content, key_no, key_of,
};
use crate::rows::{
    EV1_ONLY, Exchange, Guard, ISO_PLAIN, ISO_WRITE, MAKES_IT, Row, array, case, file_data,
};
use crate::rows_picc::prove;

pub fn rows() -> Vec<Row> {
    vec![
        select(),
        read_binary(),
        update_binary(),
        read_record(),
        append_record(),
        get_challenge(),
        external_authenticate(),
        internal_authenticate(),
    ]
}

/// The same bytes in both framings.
const fn apdu(command: &'static str, reply: &'static str) -> Exchange {
    [command, reply, command, reply]
}

fn select_by(b: &mut Bench, target: IsoTarget) -> Done {
    let session = consume!(b, |s| s.iso_select(target))?;
    b.live = Live::Free(session);
    Ok(())
}

fn select() -> Row {
    fn by_name(b: &mut Bench, name: &[u8]) -> Done {
        select_by(b, IsoTarget::Name(DfName::new(name).unwrap()))
    }
    Row::new(I::Select, |b| by_name(b, NDEF))
        .at(Place::In(LOCKED, 1))
        .reply(Guard::Bare)
        .after(|b| {
            let Live::Free(session) = &b.live else {
                panic!("the session should have ended");
            };
            assert_eq!(session.selected(), None);
            assert_eq!(call!(b, |s| s.get_file_ids()).unwrap().len(), 22);
        })
        .golden(
            "none; chapters 1.2 and 4",
            0,
            &[&[apdu("00 a4 04 0c 07 d2760000850101", "9000")]],
            |b| by_name(b, NDEF),
            &[
                ["6a82", "6a82", "6A82"],
                ["00 9000", "00 9000", "malformed"],
            ],
        )
        .golden(
            "none; chapter 4: by FID, 3F00, an EF",
            0,
            &[&[
                apdu("00 a4 00 0c 02 3f00", "9000"),
                apdu("00 a4 03 0c", "9000"),
                apdu("00 a4 01 0c 02 e110", "9000"),
                apdu("00 a4 02 0c 02 e103", "9000"),
            ]],
            |b| {
                select_by(b, IsoTarget::FileId(IsoFileId(0x3F00)))?;
                select_by(b, IsoTarget::MasterFile)?;
                select_by(b, IsoTarget::Application(IsoFileId(0xE110)))?;
                call!(b, |s| s.iso_select_file(IsoFileId(0xE103)))
            },
            &[["6985", "6985", "6985"], ["90", "90", "malformed"]],
        )
        .case(case(
            "the card in every way, and an application",
            "ok",
            |b| {
                select_by(b, IsoTarget::MasterFile)?;
                assert_eq!(call!(b, |s| s.get_application_ids())?.len(), 3);
                select_by(b, IsoTarget::Application(IsoFileId(0xE110)))?;
                assert_eq!(call!(b, |s| s.get_file_ids())?.len(), 22);
                by_name(b, b"\xD2\x76\x00\x00\x85\x01\x00")?;
                assert_eq!(call!(b, |s| s.get_application_ids())?.len(), 3);
                select_by(b, IsoTarget::FileId(IsoFileId(0xE110)))?;
                assert_eq!(call!(b, |s| s.get_file_ids())?.len(), 22);
                Ok(())
            },
        ))
        .case(
            case("a file; the session goes on", "ok", |b| {
                call!(b, |s| s.iso_select_file(IsoFileId(0xEF01)))?;
                if b.auth != Auth::None {
                    assert_eq!(authenticated!(b, |s| s.get_card_uid())?, UID);
                }
                Ok(())
            })
            .at(Place::In(APP, 1)),
        )
        .case(case("no such application", "6A82", |b| {
            by_name(b, b"nobody")
        }))
        .case(
            case("no such file", "6A82", |b| {
                call!(b, |s| s.iso_select_file(IsoFileId(0xEF7F)))
            })
            .at(Place::In(APP, 1)),
        )
        .case(
            case("a file at PICC level", "unsent", |b| {
                call!(b, |s| s.iso_select_file(IsoFileId(0xEF01)))
            })
            .at(Place::Picc),
        )
}

fn short(number: u8) -> ShortFileId {
    ShortFileId::new(number).unwrap()
}

fn at(number: u8, offset: u8) -> BinaryPlace {
    BinaryPlace::Short {
        file: short(number),
        offset,
    }
}

/// ISO reads: plain and free files.
fn reads(auth: Auth, mode: Mode) -> Result<(), &'static str> {
    file_data(auth, mode)?;
    match mode {
        Mode::Mac | Mode::Enciphered => Err(ISO_PLAIN),
        _ => Ok(()),
    }
}

/// ISO writes: not in an EV1 session.
fn writes(auth: Auth, mode: Mode) -> Result<(), &'static str> {
    if auth.is_ev1() {
        return Err(ISO_WRITE);
    }
    reads(auth, mode)
}

fn read(b: &mut Bench, number: u8, offset: u8, len: usize) -> Done {
    let mut buffer = vec![0; len];
    let data = call!(b, |s| s.iso_read_binary(at(number, offset), &mut buffer))?;
    let from = usize::from(offset);
    assert_eq!(data, &content(number, 100)[from..from + data.len()]);
    assert_eq!(data.len(), len);
    Ok(())
}

fn read_binary() -> Row {
    Row::new(I::ReadBinary, |b| read(b, b.number(STANDARD), 9, 40))
        .modes(Mode::FILE)
        .applies(reads)
        .sizes(0, |_| 40)
        .list()
        .golden(
            "none; chapter 4",
            1,
            &[&[
                apdu("00 b0 83 09 05", "0102030405 9000"),
                apdu("00 b0 01 02 03", "0a0b0c 9000"),
            ]],
            |b| {
                let mut buffer = [0; 5];
                let data = call!(b, |s| s.iso_read_binary(at(3, 9), &mut buffer))?;
                assert_eq!(data, [1, 2, 3, 4, 5]);
                let place = BinaryPlace::Selected { offset: 0x0102 };
                let data = call!(b, |s| s.iso_read_binary(place, &mut buffer[..3]))?;
                assert_eq!(data, [10, 11, 12]);
                Ok(())
            },
            &[
                ["0a0b0c0d 9000", "0a0b0c0d 9000", "malformed"],
                ["6982", "6982", "6982"],
                ["9100", "9100", "malformed"],
            ],
        )
        .golden(
            "ISO authentication, computed: CMAC over the data",
            1,
            &[
                &HANDSHAKE,
                &[apdu("00 b0 01 02 03", "0a0b0c 5b9cc19ecb719056 9000")],
            ],
            |b| {
                handshake(b)?;
                let mut buffer = [0; 3];
                let place = BinaryPlace::Selected { offset: 0x0102 };
                let data = call!(b, |s| s.iso_read_binary(place, &mut buffer))?;
                assert_eq!(data, [10, 11, 12]);
                Ok(())
            },
            &[
                ["0a0b0c 9000", "0a0b0c 9000", "authenticity"],
                [
                    "0a0b0d 5b9cc19ecb719056 9000",
                    "0a0b0d 5b9cc19ecb719056 9000",
                    "authenticity",
                ],
            ],
        )
        .case(case("the selected file", "ok", |b| {
            let number = b.number(STANDARD);
            let id = IsoFileId(0xEF00 + u16::from(number));
            call!(b, |s| s.iso_select_file(id))?;
            let place = BinaryPlace::Selected { offset: 99 };
            let mut buffer = [0; 1];
            let data = call!(b, |s| s.iso_read_binary(place, &mut buffer))?;
            assert_eq!(data, &content(number, 100)[99..]);
            Ok(())
        }))
        .case(case("as much as a reply holds", "ok", |b| {
            let number = b.number(STANDARD);
            let mut buffer = [0; 200];
            let data = call!(b, |s| s.iso_read_binary(at(number, 0), &mut buffer))?;
            let most = if b.auth.is_ev1() { 51 } else { 59 };
            assert_eq!(data, &content(number, 100)[..most]);
            Ok(())
        }))
        .case(case("no such file", "6A82", |b| read(b, MISSING, 0, 1)))
        .case(case("another key's file", "6982", |b| {
            read(b, OTHERS, 0, 1)
        }))
        .case(case("a MACed file", "6982", |b| read(b, STANDARD + 1, 0, 1)).under(Auth::SOME))
        .case(
            case("an enciphered file", "6982", |b| {
                read(b, STANDARD + 2, 0, 1)
            })
            .under(Auth::SOME),
        )
        .case(case("a record file", "6985", |b| read(b, LINEAR, 0, 1)))
        .case(case("behind the end", "6A86", |b| {
            read(b, b.number(STANDARD), 100, 1)
        }))
        .case(case("more than there is", "6C0A", |b| {
            read(b, b.number(STANDARD), 90, 11)
        }))
        .case(case("nothing to read", "unsent", |b| {
            read(b, b.number(STANDARD), 0, 0)
        }))
        .case(case("an offset above 32767", "unsent", |b| {
            let place = BinaryPlace::Selected { offset: 0x8000 };
            attempt!(b, |s| s.iso_read_binary(place, &mut [0; 1]))
        }))
        .case(case("at PICC level", "unsent", |b| read(b, STANDARD, 0, 1)).at(Place::Picc))
}

fn update(b: &mut Bench, number: u8, offset: u8, data: &[u8]) -> Done {
    call!(b, |s| s.iso_update_binary(at(number, offset), data))
}

fn data_of(b: &Bench, number: u8) -> &[u8] {
    match b.stored(number) {
        FileContent::Standard(data) | FileContent::Backup(data) => data,
        _ => panic!("not a data file"),
    }
}

fn update_binary() -> Row {
    Row::new(I::UpdateBinary, |b| {
        update(b, b.number(STANDARD), 9, &[0xC5; 40])
    })
    .modes(Mode::FILE)
    .applies(writes)
    .after(|b| {
        let mut expected = content(b.number(STANDARD), 100);
        expected[9..49].fill(0xC5);
        assert_eq!(data_of(b, b.number(STANDARD)), expected);
    })
    .golden(
        "none; chapter 4",
        1,
        &[&[apdu("00 d6 83 09 02 aabb", "9000")]],
        |b| update(b, 3, 9, &[0xAA, 0xBB]),
        &[
            ["6982", "6982", "6982"],
            ["00 9000", "00 9000", "malformed"],
        ],
    )
    .case(case(
        "a backup file, pending until commit; 55 bytes",
        "ok",
        |b| {
            let number = b.number(BACKUP);
            update(b, number, 45, &[0xC5; 55])?;
            assert_eq!(data_of(b, number), content(number, 100));
            b.commit();
            assert_eq!(data_of(b, number)[45..], [0xC5; 55]);
            Ok(())
        },
    ))
    .case(case("no such file", "6A82", |b| {
        update(b, MISSING, 0, &[1])
    }))
    .case(case("another key's file", "6982", |b| {
        update(b, OTHERS, 0, &[1])
    }))
    .case(
        case("an enciphered file", "6982", |b| {
            update(b, STANDARD + 2, 0, &[1])
        })
        .under(Auth::D40),
    )
    .case(case("beyond the end", "6700", |b| {
        update(b, b.number(STANDARD), 99, &[1, 2])
    }))
    .case(case("a record file", "6985", |b| {
        update(b, LINEAR, 0, &[1])
    }))
    .case(
        case("in an EV1 session", "unsent", |b| {
            update(b, STANDARD, 0, &[1])
        })
        .under(Auth::EV1),
    )
    .case(case("56 bytes", "unsent", |b| {
        update(b, b.number(STANDARD), 0, &[1; 56])
    }))
    .case(case("nothing to write", "unsent", |b| {
        update(b, b.number(STANDARD), 0, &[])
    }))
    .case(case("at PICC level", "unsent", |b| update(b, STANDARD, 0, &[1])).at(Place::Picc))
}

fn read_record() -> Row {
    fn read(b: &mut Bench, number: u8, range: RecordRange) -> Done {
        let mut buffer = [0; 59];
        attempt!(b, |s| s.iso_read_record(
            Some(short(number)),
            range,
            &mut buffer
        ))
    }
    // In which order an EV1 counts is not known; here it is the software card's.
    Row::new(I::ReadRecord, |b| {
        let number = b.number(LINEAR);
        let mut buffer = [0; RECORD];
        let range = RecordRange::One(2);
        let record = call!(b, |s| s.iso_read_record(
            Some(short(number)),
            range,
            &mut buffer
        ))?;
        assert_eq!(
            record,
            &content(number, 2 * RECORD)[RECORD..][..record.len()]
        );
        Ok(())
    })
    .modes(Mode::FILE)
    .applies(reads)
    .sizes(0, |_| RECORD)
    .list()
    .golden(
        "none; chapter 4",
        1,
        &[&[
            apdu("00 b2 02 05 00", "03 9000"),
            apdu("00 b2 01 1c 00", "0102 9000"),
        ]],
        |b| {
            let mut buffer = [0; 2];
            let machine = call!(b, |s| s.iso_read_record(
                None,
                RecordRange::From(2),
                &mut buffer
            ))?;
            assert_eq!(machine, [3]);
            let file = Some(short(3));
            let machine = call!(b, |s| s.iso_read_record(
                file,
                RecordRange::One(1),
                &mut buffer
            ))?;
            assert_eq!(machine, [1, 2]);
            Ok(())
        },
        &[
            ["010203 9000", "010203 9000", "malformed"],
            ["6a83", "6a83", "6A83"],
        ],
    )
    .case(case("all of a cyclic file", "ok", |b| {
        let number = b.number(CYCLIC);
        let mut buffer = [0; 59];
        let range = RecordRange::From(1);
        let all = call!(b, |s| s.iso_read_record(
            Some(short(number)),
            range,
            &mut buffer
        ))?;
        let newest_first: Vec<u8> = content(number, 3 * RECORD)
            .chunks(RECORD)
            .rev()
            .flatten()
            .copied()
            .collect();
        assert_eq!(all, newest_first);
        Ok(())
    }))
    .case(case("no such record", "6A83", |b| {
        read(b, b.number(LINEAR), RecordRange::One(3))
    }))
    .case(case("no such file", "6A82", |b| {
        read(b, MISSING, RecordRange::One(1))
    }))
    .case(
        case("an enciphered file", "6982", |b| {
            read(b, LINEAR + 2, RecordRange::One(1))
        })
        .under(Auth::SOME),
    )
    .case(case("a data file", "6985", |b| {
        read(b, STANDARD, RecordRange::One(1))
    }))
    .case(case("record 0", "unsent", |b| {
        read(b, b.number(LINEAR), RecordRange::One(0))
    }))
    .case(
        case("at PICC level", "unsent", |b| {
            read(b, LINEAR, RecordRange::One(1))
        })
        .at(Place::Picc),
    )
}

fn append_record() -> Row {
    const DATA: [u8; RECORD] = [0xC5; RECORD];
    fn append(b: &mut Bench, number: u8, record: &[u8]) -> Done {
        call!(b, |s| s.iso_append_record(Some(short(number)), record))
    }
    fn records(b: &Bench, number: u8) -> &[u8] {
        match b.stored(number) {
            FileContent::Linear(records) | FileContent::Cyclic(records) => records.bytes(),
            _ => panic!("not a record file"),
        }
    }
    Row::new(I::AppendRecord, |b| append(b, b.number(LINEAR), &DATA))
        .modes(Mode::FILE)
        .applies(writes)
        .after(|b| {
            let number = b.number(LINEAR);
            let before = content(number, 2 * RECORD);
            assert_eq!(records(b, number), before);
            b.commit();
            assert_eq!(records(b, number), [&before[..], &DATA].concat());
        })
        .golden(
            "none; chapter 4",
            1,
            &[&[apdu("00 e2 00 18 02 0102", "9000")]],
            |b| append(b, 3, &[1, 2]),
            &[
                ["6700", "6700", "6700"],
                ["00 9000", "00 9000", "malformed"],
            ],
        )
        .case(
            case("a full file", "6A84", |b| {
                for _ in 0..3 {
                    append(b, b.number(LINEAR), &DATA)?;
                    b.commit();
                }
                append(b, b.number(LINEAR), &DATA)
            })
            .changing(),
        )
        .case(case("not a whole record", "6700", |b| {
            append(b, b.number(LINEAR), &DATA[1..])
        }))
        .case(case("no such file", "6A82", |b| append(b, MISSING, &DATA)))
        .case(case("a MACed file", "6982", |b| append(b, LINEAR + 1, &DATA)).under(Auth::D40))
        .case(case("a data file", "6985", |b| append(b, STANDARD, &DATA)))
        .case(case("in an EV1 session", "unsent", |b| append(b, LINEAR, &DATA)).under(Auth::EV1))
        .case(case("56 bytes", "unsent", |b| {
            append(b, b.number(LINEAR), &[1; 56])
        }))
        .case(case("nothing to write", "unsent", |b| {
            append(b, b.number(LINEAR), &[])
        }))
        .case(case("at PICC level", "unsent", |b| append(b, LINEAR, &DATA)).at(Place::Picc))
}

/// Counts up from zero.
struct Counter(u8);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("bytes are asked for")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

/// With AES key 00112233445566778899AABBCCDDEEFF, RPCD1 000102…, RPCD2 101112…, RPICC1 C0C1C2…,
/// RPICC2 E0E1E2…. Computed with another implementation of AES by the rules of chapter 4.1, since no
/// recording is known. Session key 00010203E0E1E2E30C0D0E0FECEDEEEF.
const HANDSHAKE: [Exchange; 3] = [
    apdu("00 84 00 00 10", "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf 9000"),
    apdu(
        "00 82 09 83 20 279fb74a7572135e8f9b8ef6d1eee0032fd7a73c1f8d99091086144c6b170223",
        "9000",
    ),
    apdu(
        "00 88 09 83 10 101112131415161718191a1b1c1d1e1f 20",
        "29a3981c7aa8eab2b18addcb2d5741a16c32250a8fffcc6100700876fccf3d95 9000",
    ),
];

/// Plays [`HANDSHAKE`].
fn handshake(b: &mut Bench) -> Done {
    let key = Key::aes(array("00112233445566778899aabbccddeeff"));
    iso_authenticate(b, 3, &key)
}

fn iso_authenticate(b: &mut Bench, number: u8, key: &Key) -> Done {
    let session = consume!(b, |s| s.authenticate_iso7816(
        key_no(number),
        key,
        &mut Counter(0)
    ))?;
    b.live = Live::Authenticated(session);
    Ok(())
}

/// A row of one of the three: the whole handshake is run for each.
fn authentication(instruction: I, rejected: &[[&'static str; 3]]) -> Row {
    let mut row = Row::new(instruction, |b| {
        iso_authenticate(b, 1, &b.key(1))?;
        prove(b)
    })
    .applies(|auth, _| match auth {
        Auth::None => Err(MAKES_IT),
        Auth::D40Des | Auth::D40Two => Err(EV1_ONLY),
        _ => Ok(()),
    })
    .golden(
        "computed; then GetKeyVersion with its CMAC",
        1,
        &[
            &HANDSHAKE,
            &[[
                "64 01",
                "00 42 cdd51fe177bad8eb",
                "90 64 00 00 01 01 00",
                "42 cdd51fe177bad8eb 91 00",
            ]],
        ],
        |b| {
            handshake(b)?;
            assert_eq!(call!(b, |s| s.get_key_version(key_no(1)))?, 0x42);
            Ok(())
        },
        rejected,
    )
    .case(
        case("PICC master key", "ok", |b| {
            iso_authenticate(b, 0, &b.key(PICC_KEY))?;
            assert_eq!(authenticated!(b, |s| s.get_card_uid())?, UID);
            Ok(())
        })
        .at(Place::Picc),
    );
    row.handshake = true;
    row
}

fn get_challenge() -> Row {
    authentication(
        I::GetChallenge,
        &[
            [
                "c0c1c2c3c4c5c6c7 9000",
                "c0c1c2c3c4c5c6c7 9000",
                "malformed",
            ],
            ["6d00", "6d00", "6D00"],
        ],
    )
    .sizes(0, |auth| auth.key_type().nonce_len())
    .reply(Guard::Challenge)
    .case(case("after an unfinished chain", "6985", |b| {
        b.break_chain();
        iso_authenticate(b, 1, &b.key(1))
    }))
    .case(case("a transport too narrow for step 2", "unsent", |b| {
        b.line.narrow(20);
        iso_authenticate(b, 1, &b.key(1))
    }))
}

fn external_authenticate() -> Row {
    authentication(
        I::ExternalAuthenticate,
        &[
            ["00 9000", "00 9000", "malformed"],
            ["6700", "6700", "6700"],
        ],
    )
    .reply(Guard::Bare)
    .case(case("wrong key", "6982", |b| {
        iso_authenticate(b, 1, &b.key(3))
    }))
    .case(
        case("key 1 of the card itself", "unsent", |b| {
            iso_authenticate(b, 1, &b.key(PICC_KEY))
        })
        .at(Place::Picc),
    )
    .case(case("no such key", "6A86", |b| {
        iso_authenticate(b, 13, &b.key(1))
    }))
    .case(case("a key of another type", "6A86", |b| {
        let other = match b.auth.key_type() {
            KeyType::Aes => KeyType::ThreeKey3Des,
            _ => KeyType::Aes,
        };
        iso_authenticate(b, 1, &key_of(other, 1))
    }))
}

fn internal_authenticate() -> Row {
    authentication(
        I::InternalAuthenticate,
        &[
            [
                "29a3981c7aa8eab2b18addcb2d5741a16c32250a8fffcc6100700876fccf3d94 9000",
                "29a3981c7aa8eab2b18addcb2d5741a16c32250a8fffcc6100700876fccf3d94 9000",
                "authenticity",
            ],
            ["6985", "6985", "6985"],
        ],
    )
    .sizes(0, |auth| 2 * auth.key_type().nonce_len())
    .reply(Guard::Proof)
    .case(case("something in between", "6985", |b| {
        let key = b.key(1);
        let Live::Free(session) = b.take() else {
            panic!("authenticated before");
        };
        let mut machine = session.authenticate_iso7816(key_no(1), &key, &mut Counter(0));
        let mut command = machine.start(b.line.format())?.to_vec();
        loop {
            if command[1] == I::InternalAuthenticate.to_byte() {
                b.break_chain();
            }
            let mut reply = [0; 64];
            let len = b.line.exchange(&command, &mut reply).unwrap();
            match machine.step(&reply[..len])? {
                Step::Transmit(next) => command = next.to_vec(),
                Step::Done(_) => return Ok(()),
            }
        }
    }))
}
