//! Rows: what is in files.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::picc::{FileContent, Value};
use desfire_ev1::wire::{Amount, CommMode, CommandCode as C, ValueFlags};

use crate::bench::{
    APP, Auth, BACKUP, Bench, CYCLIC, Done, LINEAR, LOCKED, MISSING, Mode, NOBODYS, OTHERS, Place,
    RECORD, STANDARD, VALUE, content, file_no, grant,
};
use crate::rows::{Guard, Row, always, case, file_data};

pub fn rows() -> Vec<Row> {
    vec![
        read_data(),
        write_data(),
        get_value(),
        credit(),
        debit(),
        limited_credit(),
        write_record(),
        read_records(),
        clear_record_file(),
    ]
}

const PLAIN: CommMode = CommMode::Plain;

/// A row whose protection goes by the file.
fn row(code: C, run: fn(&mut Bench) -> Done) -> Row {
    Row::new(code, run).modes(Mode::FILE).applies(file_data)
}

/// A mode that is not the file's, and a length of data whose form in it is longer than in the right
/// one: the card then sees at once that it is wrong. (Of a form that is shorter it waits for the rest.)
fn wrong_mode(b: &Bench) -> (CommMode, usize) {
    match b.mode {
        Mode::Fixed | Mode::Plain | Mode::Mac => (CommMode::Enciphered, 7),
        Mode::Free => (CommMode::Mac, 7),
        Mode::Enciphered if b.auth.is_d40() => (CommMode::Mac, 14),
        Mode::Enciphered => (CommMode::Mac, 12),
    }
}

fn read_data() -> Row {
    row(C::ReadData, |b| {
        let number = b.number(STANDARD);
        let mut buffer = [0xEE; 70];
        let data = call!(b, |s| s.read_data(file_no(number), 9..73, &mut buffer))?;
        assert_eq!(data, &content(number, 100)[9..73]);
        Ok(())
    })
    .sizes(7, |_| 64)
    .reply(Guard::File)
    .granted_by(&["R", "RW"], "unsent")
    .golden(
        "none; chapter 3.23",
        1,
        &[&[
            [
                "bd 02 010000 050000",
                "af 010203",
                "90 bd 00 00 07 02 010000 050000 00",
                "010203 91 af",
            ],
            ["af", "00 0405", "90 af 00 00 00", "0405 91 00"],
        ]],
        |b| {
            let mut buffer = [0; 5];
            let machine = call!(b, |s| s
                .read_data(file_no(2), 1..6, &mut buffer)
                .comm_mode(PLAIN))?;
            assert_eq!(machine, [1, 2, 3, 4, 5]);
            Ok(())
        },
        &[
            ["00 04", "04 91 00", "malformed"],
            ["00 040506", "040506 91 00", "malformed"],
            ["be", "91 be", "BE"],
        ],
    )
    .golden(
        "none; chapter 3.23: to the end",
        1,
        &[&[[
            "bd 1f 300000 000000",
            "00 0102",
            "90 bd 00 00 07 1f 300000 000000 00",
            "0102 91 00",
        ]]],
        |b| {
            let mut buffer = [0; 5];
            let file = file_no(31);
            let data = call!(b, |s| s
                .read_data_to_end(file, 0x30, &mut buffer)
                .comm_mode(PLAIN))?;
            assert_eq!(data, [1, 2]);
            Ok(())
        },
        &[["f0", "91 f0", "F0"]],
    )
    .case(case("to the end, of standard and backup file", "ok", |b| {
        for number in [b.number(STANDARD), b.number(BACKUP)] {
            let mut buffer = [0; 128];
            for from in [0, 1, 50, 84, 99] {
                let data = call!(b, |s| s.read_data_to_end(
                    file_no(number),
                    from,
                    &mut buffer
                ))?;
                assert_eq!(data, &content(number, 100)[from as usize..]);
            }
        }
        Ok(())
    }))
    .case(case("beyond the end", "BE", |b| {
        let file = b.file(STANDARD);
        attempt!(b, |s| s.read_data(file, 90..101, &mut [0; 11]))
    }))
    .case(case("a value file", "9D", |b| {
        let file = b.file(VALUE);
        attempt!(b, |s| s.read_data(file, 0..1, &mut [0; 1]))
    }))
    .case(case("nobody's file, told to try", "9D", |b| {
        let file = file_no(NOBODYS);
        attempt!(b, |s| s.read_data(file, 0..1, &mut [0; 1]).comm_mode(PLAIN))
    }))
    .case(case("another key's file, told to try", "AE", |b| {
        let file = file_no(OTHERS);
        attempt!(b, |s| s.read_data(file, 0..1, &mut [0; 1]).comm_mode(PLAIN))
    }))
    .case(case("no such file", "F0", |b| {
        let file = file_no(MISSING);
        attempt!(b, |s| s.read_data(file, 0..1, &mut [0; 1]).comm_mode(PLAIN))
    }))
    .case(case("no such file to ask about", "asking F0", |b| {
        attempt!(b, |s| s.read_data(file_no(MISSING), 0..1, &mut [0; 1]))
    }))
    .case(
        case("asking is not allowed", "asking AE", |b| {
            attempt!(b, |s| s.read_data(file_no(1), 0..1, &mut [0; 1]))
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(case("nobody's file", "unsent", |b| {
        let file = file_no(NOBODYS);
        attempt!(b, |s| s.read_data(file, 0..1, &mut [0; 1]))
    }))
    .case(case("nothing to read", "unsent", |b| {
        let file = b.file(STANDARD);
        attempt!(b, |s| s.read_data(file, 3..3, &mut [0; 1]))
    }))
    .case(case("a small buffer", "unsent", |b| {
        let file = b.file(STANDARD);
        attempt!(b, |s| s.read_data(file, 0..9, &mut [0; 8]))
    }))
    .case(
        case("at PICC level", "unsent", |b| {
            let file = file_no(STANDARD);
            attempt!(b, |s| s.read_data(file, 0..1, &mut [0; 1]))
        })
        .at(Place::Picc),
    )
}

fn write_data() -> Row {
    const DATA: &[u8] = &[0xC5; 70];
    fn written(b: &Bench, number: u8, size: usize) {
        let mut expected = content(number, size);
        expected[11..81].copy_from_slice(DATA);
        match b.stored(number) {
            FileContent::Standard(data) | FileContent::Backup(data) => assert_eq!(*data, expected),
            _ => panic!("not a data file"),
        }
    }
    row(C::WriteData, |b| {
        let file = b.file(STANDARD);
        call!(b, |s| s.write_data(file, 11, DATA))
    })
    .sizes(7, |_| 0)
    .request(|_| 70, Guard::File)
    .after(|b| written(b, b.number(STANDARD), 100))
    .granted_by(&["W", "RW"], "unsent")
    .golden(
        "none; chapter 3.24",
        1,
        &[&[[
            "3d 02 010000 050000 0102030405",
            "00",
            "90 3d 00 00 0c 02 010000 050000 0102030405 00",
            "91 00",
        ]]],
        |b| {
            call!(b, |s| s
                .write_data(file_no(2), 1, &[1, 2, 3, 4, 5])
                .comm_mode(PLAIN))
        },
        &[
            ["be", "91 be", "BE"],
            ["00 00", "00 91 00", "malformed"],
            ["af", "91 af", "malformed"],
        ],
    )
    .case(case("a backup file, pending until commit", "ok", |b| {
        let number = b.number(BACKUP);
        call!(b, |s| s.write_data(file_no(number), 11, DATA))?;
        assert_eq!(*b.stored(number), FileContent::Backup(content(number, 100)));
        b.commit();
        written(b, number, 100);
        Ok(())
    }))
    .case(case("every length", "ok", |b| {
        let number = b.number(STANDARD);
        for len in 1..=100 {
            let mut expected = vec![len as u8; len];
            call!(b, |s| s.write_data(file_no(number), 0, &expected))?;
            expected.extend(&content(number, 100)[len..]);
            assert_eq!(*b.stored(number), FileContent::Standard(expected));
        }
        Ok(())
    }))
    .case(case("beyond the end", "BE", |b| {
        let file = b.file(STANDARD);
        call!(b, |s| s.write_data(file, 31, DATA))
    }))
    .case(case("a record file", "9D", |b| {
        let file = b.file(LINEAR);
        call!(b, |s| s.write_data(file, 0, &[1]))
    }))
    .case(
        case("told the wrong mode", "7E", |b| {
            let file = b.file(STANDARD);
            let (mode, len) = wrong_mode(b);
            let data = vec![1; len];
            call!(b, |s| s.write_data(file, 0, &data).comm_mode(mode))
        })
        .under(Auth::SOME),
    )
    .case(case("another key's file, told to try", "AE", |b| {
        call!(b, |s| s
            .write_data(file_no(OTHERS), 0, &[1])
            .comm_mode(PLAIN))
    }))
    .case(case("no such file to ask about", "asking F0", |b| {
        call!(b, |s| s.write_data(file_no(MISSING), 0, &[1]))
    }))
    .case(
        case("asking is not allowed", "asking AE", |b| {
            call!(b, |s| s.write_data(file_no(1), 0, &[1]))
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(case("another key's file", "unsent", |b| {
        call!(b, |s| s.write_data(file_no(OTHERS), 0, &[1]))
    }))
    .case(case("nothing to write", "unsent", |b| {
        let file = b.file(STANDARD);
        call!(b, |s| s.write_data(file, 0, &[]))
    }))
    .case(
        case("MACed without a key", "unsent", |b| {
            let file = b.file(STANDARD);
            call!(b, |s| s.write_data(file, 0, &[1]).comm_mode(CommMode::Mac))
        })
        .under(&[Auth::None]),
    )
    .case(
        case("at PICC level", "unsent", |b| {
            call!(b, |s| s.write_data(file_no(STANDARD), 0, &[1]))
        })
        .at(Place::Picc),
    )
}

fn value(b: &Bench, number: u8) -> &Value {
    match b.stored(number) {
        FileContent::Value(value) => value,
        _ => panic!("not a value file"),
    }
}

fn amount(value: i32) -> Amount {
    Amount::new(value).unwrap()
}

fn get_value() -> Row {
    row(C::GetValue, |b| {
        let file = b.file(VALUE);
        assert_eq!(call!(b, |s| s.get_value(file))?, 500);
        Ok(())
    })
    .sizes(1, |_| 4)
    .reply(Guard::File)
    .granted_by(&["R", "W", "RW"], "unsent")
    .golden(
        "none; chapter 3.25",
        1,
        &[&[[
            "6c 04",
            "00 18fcffff",
            "90 6c 00 00 01 04 00",
            "18fcffff 91 00",
        ]]],
        |b| {
            assert_eq!(
                call!(b, |s| s.get_value(file_no(4)).comm_mode(PLAIN))?,
                -1000
            );
            Ok(())
        },
        &[
            ["00 18fcff", "18fcff 91 00", "malformed"],
            ["00 18fcffff00", "18fcffff00 91 00", "malformed"],
            ["ae", "91 ae", "AE"],
        ],
    )
    .case(
        case("the file's flag, and no right at all", "ok", |b| {
            let file = b.file(VALUE);
            assert_eq!(call!(b, |s| s.get_value(file))?, 500);
            assert_eq!(
                b.line.joined(0x6C).unwrap().1.len(),
                if b.auth.is_ev1() { 12 } else { 4 },
                "it travels in plain"
            );
            Ok(())
        })
        .with(|card| grant(card, [0xFF, 0xFF], ValueFlags::FREE_GET_VALUE)),
    )
    .case(case("a data file", "9D", |b| {
        let file = b.file(STANDARD);
        attempt!(b, |s| s.get_value(file))
    }))
    .case(case("no such file, told to try", "F0", |b| {
        attempt!(b, |s| s.get_value(file_no(MISSING)).comm_mode(PLAIN))
    }))
    .case(case("no such file to ask about", "asking F0", |b| {
        attempt!(b, |s| s.get_value(file_no(MISSING)))
    }))
    .case(
        case("asking is not allowed", "asking AE", |b| {
            attempt!(b, |s| s.get_value(file_no(1)))
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(case("nobody's file", "unsent", |b| {
        attempt!(b, |s| s.get_value(file_no(NOBODYS)))
    }))
    .case(
        case("at PICC level", "unsent", |b| {
            attempt!(b, |s| s.get_value(file_no(VALUE)))
        })
        .at(Place::Picc),
    )
}

/// The three commands that change a value.
macro_rules! changing {
    ($code:ident, $method:ident, $golden:expr, $amount:expr, $balance:expr, $too_much:expr, $rights:expr) => {
        row(C::$code, |b| {
            let file = b.file(VALUE);
            call!(b, |s| s.$method(file, amount($amount)))
        })
        .sizes(1, |_| 0)
        .request(|_| 4, Guard::File)
        .after(|b| {
            // Pending until commit, and not to be seen before.
            let number = b.number(VALUE);
            assert_eq!(value(b, number).value, 500);
            assert_eq!(call!(b, |s| s.get_value(file_no(number))).unwrap(), 500);
            b.commit();
            assert_eq!(value(b, number).value, $balance);
        })
        .granted_by($rights, "unsent")
        .golden(
            "none; chapter 3.25: 100",
            1,
            &[&$golden],
            |b| call!(b, |s| s.$method(file_no(4), amount(100)).comm_mode(PLAIN)),
            &[["be", "91 be", "BE"], ["00 64", "64 91 00", "malformed"]],
        )
        .case(case("more than there may be", "BE", |b| {
            let file = b.file(VALUE);
            call!(b, |s| s.$method(file, amount($too_much)))
        }))
        .case(case("a data file", "9D", |b| {
            let file = b.file(STANDARD);
            call!(b, |s| s.$method(file, amount(1)))
        }))
        .case(
            case("told the wrong mode", "7E", |b| {
                let file = b.file(VALUE);
                let mode = match b.mode {
                    Mode::Mac | Mode::Enciphered => PLAIN,
                    Mode::Free => CommMode::Mac,
                    _ => CommMode::Enciphered,
                };
                call!(b, |s| s.$method(file, amount(1)).comm_mode(mode))
            })
            .under(Auth::SOME),
        )
        .case(
            case("a mode of the same length", "1E", |b| {
                // In D40 four bytes become eight, MACed and enciphered: the MACed file is told an
                // enciphered amount, and the enciphered one a MACed amount.
                let (file, mode) = match b.mode {
                    Mode::Mac => (VALUE + 1, CommMode::Enciphered),
                    _ => (VALUE + 2, CommMode::Mac),
                };
                call!(b, |s| s.$method(file_no(file), amount(1)).comm_mode(mode))
            })
            .under(Auth::D40),
        )
        .case(case("no such file to ask about", "asking F0", |b| {
            call!(b, |s| s.$method(file_no(MISSING), amount(1)))
        }))
        .case(
            case("asking is not allowed", "asking AE", |b| {
                call!(b, |s| s.$method(file_no(1), amount(1)))
            })
            .at(Place::In(LOCKED, 1)),
        )
        .case(case("nobody's file", "unsent", |b| {
            call!(b, |s| s.$method(file_no(NOBODYS), amount(1)))
        }))
        .case(
            case("enciphered without a key", "unsent", |b| {
                let mode = CommMode::Enciphered;
                call!(b, |s| s.$method(file_no(VALUE), amount(1)).comm_mode(mode))
            })
            .under(&[Auth::None]),
        )
        .case(
            case("at PICC level", "unsent", |b| {
                call!(b, |s| s.$method(file_no(VALUE), amount(1)))
            })
            .at(Place::Picc),
        )
    };
}

fn credit() -> Row {
    const GOLDEN: [crate::rows::Exchange; 1] = [[
        "0c 04 64000000",
        "00",
        "90 0c 00 00 05 04 64000000 00",
        "91 00",
    ]];
    changing!(Credit, credit, GOLDEN, 77, 577, 501, &["RW"])
}

fn debit() -> Row {
    const GOLDEN: [crate::rows::Exchange; 1] = [[
        "dc 04 64000000",
        "00",
        "90 dc 00 00 05 04 64000000 00",
        "91 00",
    ]];
    changing!(Debit, debit, GOLDEN, 77, 423, 601, &["R", "W", "RW"])
}

fn limited_credit() -> Row {
    const GOLDEN: [crate::rows::Exchange; 1] = [[
        "1c 04 64000000",
        "00",
        "90 1c 00 00 05 04 64000000 00",
        "91 00",
    ]];
    changing!(
        LimitedCredit,
        limited_credit,
        GOLDEN,
        60,
        560,
        61,
        &["W", "RW"]
    )
    .case(
        case("where it is not enabled", "9D", |b| {
            let file = b.file(VALUE);
            call!(b, |s| s.limited_credit(file, amount(1)))
        })
        .under(Auth::SOME)
        .with(|card| grant(card, [0x10, 0x11], ValueFlags::empty())),
    )
}

fn write_record() -> Row {
    const DATA: &[u8] = &[0xC5; 7];
    row(C::WriteRecord, |b| {
        let file = b.file(LINEAR);
        call!(b, |s| s.write_record(file, 2, DATA))
    })
    .sizes(7, |_| 0)
    .request(|_| 7, Guard::File)
    .after(|b| {
        let number = b.number(LINEAR);
        assert_eq!(records(b, number), content(number, 2 * RECORD));
        b.commit();
        let new = [&[0, 0], DATA, &[0]].concat();
        assert_eq!(
            records(b, number),
            [content(number, 2 * RECORD), new].concat()
        );
    })
    .granted_by(&["W", "RW"], "unsent")
    .golden(
        "none; chapter 3.26",
        1,
        &[&[[
            "3b 02 010000 050000 0102030405",
            "00",
            "90 3b 00 00 0c 02 010000 050000 0102030405 00",
            "91 00",
        ]]],
        |b| {
            call!(b, |s| s
                .write_record(file_no(2), 1, &[1, 2, 3, 4, 5])
                .comm_mode(PLAIN))
        },
        &[["be", "91 be", "BE"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("a cyclic file, four times", "ok", |b| {
        let number = b.number(CYCLIC);
        let mut expected = content(number, 3 * RECORD);
        for fill in 1..=4 {
            call!(b, |s| s.write_record(file_no(number), 0, &[fill; RECORD]))?;
            b.commit();
            expected.extend([fill; RECORD]);
        }
        // Made for five, it keeps four.
        assert_eq!(records(b, number), expected[3 * RECORD..]);
        Ok(())
    }))
    .case(case("beyond the record", "BE", |b| {
        let file = b.file(LINEAR);
        call!(b, |s| s.write_record(file, 4, DATA))
    }))
    .case(case("a data file", "9D", |b| {
        let file = b.file(STANDARD);
        call!(b, |s| s.write_record(file, 0, DATA))
    }))
    .case(
        case("told the wrong mode", "7E", |b| {
            let file = b.file(LINEAR);
            let (mode, len) = wrong_mode(b);
            let data = vec![1; len];
            call!(b, |s| s.write_record(file, 0, &data).comm_mode(mode))
        })
        .under(Auth::SOME),
    )
    .case(case("nothing to write", "unsent", |b| {
        let file = b.file(LINEAR);
        call!(b, |s| s.write_record(file, 0, &[]))
    }))
    .case(case("no such file to ask about", "asking F0", |b| {
        call!(b, |s| s.write_record(file_no(MISSING), 0, DATA))
    }))
    .case(
        case("asking is not allowed", "asking AE", |b| {
            call!(b, |s| s.write_record(file_no(1), 0, DATA))
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(case("nobody's file", "unsent", |b| {
        call!(b, |s| s.write_record(file_no(NOBODYS), 0, DATA))
    }))
    .case(
        case("at PICC level", "unsent", |b| {
            call!(b, |s| s.write_record(file_no(LINEAR), 0, DATA))
        })
        .at(Place::Picc),
    )
}

fn records(b: &Bench, number: u8) -> Vec<u8> {
    match b.stored(number) {
        FileContent::Linear(records) | FileContent::Cyclic(records) => records.bytes().to_vec(),
        _ => panic!("not a record file"),
    }
}

fn read_records() -> Row {
    row(C::ReadRecords, |b| {
        // Two of three, without the newest; the older one first.
        let number = b.number(CYCLIC);
        let mut buffer = [0; 2 * RECORD];
        let records = call!(b, |s| s.read_records(
            file_no(number),
            1,
            2,
            RECORD as u32,
            &mut buffer
        ))?;
        assert_eq!(records, &content(number, 2 * RECORD));
        Ok(())
    })
    .sizes(7, |_| 2 * RECORD)
    .reply(Guard::File)
    .granted_by(&["R", "RW"], "unsent")
    .golden(
        "none; chapter 3.26",
        1,
        &[&[
            [
                "bb 02 010000 020000",
                "af 010203",
                "90 bb 00 00 07 02 010000 020000 00",
                "010203 91 af",
            ],
            ["af", "00 04", "90 af 00 00 00", "04 91 00"],
        ]],
        |b| {
            let mut buffer = [0; 4];
            let file = file_no(2);
            let records = call!(b, |s| s
                .read_records(file, 1, 2, 2, &mut buffer)
                .comm_mode(PLAIN))?;
            assert_eq!(records, [1, 2, 3, 4]);
            Ok(())
        },
        &[
            ["00 0405", "0405 91 00", "malformed"],
            ["00", "91 00", "malformed"],
            ["be", "91 be", "BE"],
        ],
    )
    .case(case("all, of linear and cyclic file", "ok", |b| {
        for (number, count) in [(b.number(LINEAR), 2), (b.number(CYCLIC), 3)] {
            let mut buffer = [0; 64];
            let all = call!(b, |s| s.read_all_records(file_no(number), 0, &mut buffer))?;
            assert_eq!(all, &content(number, count * RECORD));
            let newest = call!(b, |s| s.read_records(
                file_no(number),
                0,
                1,
                RECORD as u32,
                &mut buffer
            ))?;
            assert_eq!(
                newest,
                &content(number, count * RECORD)[(count - 1) * RECORD..]
            );
        }
        Ok(())
    }))
    .case(case("more than there are", "BE", |b| {
        let file = b.file(CYCLIC);
        attempt!(b, |s| s.read_records(
            file,
            2,
            2,
            RECORD as u32,
            &mut [0; 64]
        ))
    }))
    .case(case("a data file", "9D", |b| {
        let file = b.file(STANDARD);
        attempt!(b, |s| s.read_all_records(file, 0, &mut [0; 64]))
    }))
    .case(case("no such file to ask about", "asking F0", |b| {
        attempt!(b, |s| s.read_all_records(file_no(MISSING), 0, &mut [0; 64]))
    }))
    .case(
        case("asking is not allowed", "asking AE", |b| {
            attempt!(b, |s| s.read_all_records(file_no(1), 0, &mut [0; 64]))
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(case("nobody's file", "unsent", |b| {
        attempt!(b, |s| s.read_all_records(file_no(NOBODYS), 0, &mut [0; 64]))
    }))
    .case(case("a small buffer", "unsent", |b| {
        let file = b.file(CYCLIC);
        attempt!(b, |s| s.read_records(
            file,
            0,
            2,
            RECORD as u32,
            &mut [0; 19]
        ))
    }))
    .case(
        case("at PICC level", "unsent", |b| {
            let file = file_no(CYCLIC);
            attempt!(b, |s| s.read_all_records(file, 0, &mut [0; 64]))
        })
        .at(Place::Picc),
    )
}

fn clear_record_file() -> Row {
    // No file data travel: the same in every mode of the file.
    row(C::ClearRecordFile, |b| {
        let file = b.file(CYCLIC);
        call!(b, |s| s.clear_record_file(file))
    })
    .applies(always)
    .sizes(1, |_| 0)
    .after(|b| {
        let number = b.number(CYCLIC);
        assert_eq!(records(b, number).len(), 3 * RECORD);
        b.commit();
        assert!(records(b, number).is_empty());
    })
    .granted_by(&["RW"], "9D")
    .golden(
        "none; chapter 3.26",
        1,
        &[&[["eb 04", "00", "90 eb 00 00 01 04 00", "91 00"]]],
        |b| call!(b, |s| s.clear_record_file(file_no(4))),
        &[["9d", "91 9d", "9D"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("a value file", "9D", |b| {
        let file = b.file(VALUE);
        call!(b, |s| s.clear_record_file(file))
    }))
    .case(case("no such file", "F0", |b| {
        call!(b, |s| s.clear_record_file(file_no(MISSING)))
    }))
    .case(
        case("under a key that may not", "AE", |b| {
            let file = file_no(CYCLIC);
            call!(b, |s| s.clear_record_file(file))
        })
        .at(Place::In(APP, 3))
        .under(Auth::SOME),
    )
    .case(
        case("at PICC level", "unsent", |b| {
            call!(b, |s| s.clear_record_file(file_no(CYCLIC)))
        })
        .at(Place::Picc),
    )
}
