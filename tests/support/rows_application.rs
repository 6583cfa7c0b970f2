//! Rows: files as a whole, and transactions.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::picc::{FileContent, Records, Value};
use desfire_ev1::wire::{
    AccessRights, Amount, CommMode, CommandCode as C, FileDetail, FileNo, IsoFileId, U24,
    ValueFlags,
};

use crate::bench::{
    APP, Auth, BACKUP, Bench, Done, LINEAR, LOCKED, MISSING, Mode, NOBODYS, OTHERS, Place,
    STANDARD, VALUE, file_no, u24,
};
use crate::rows::{Exchange, Guard, NO_KEY, PART_17, Row, case, part_17};

pub fn rows() -> Vec<Row> {
    vec![
        get_file_ids(),
        get_iso_file_ids(),
        get_file_settings(),
        change_file_settings(),
        create_std_data_file(),
        create_backup_data_file(),
        create_value_file(),
        create_linear_record_file(),
        create_cyclic_record_file(),
        delete_file(),
        commit_transaction(),
        abort_transaction(),
    ]
}

/// CreateStdDataFile at the beginning of RFDoorLock's part 17, recorded.
const CREATE_5: [Exchange; 1] = [[
    "cd 05 00 1100 500000",
    "00 a75316ad1596b953",
    "90 cd 00 00 07 05 00 1100 500000 00",
    "a75316ad1596b953 91 00",
]];

fn create_5(b: &mut Bench) -> Done {
    part_17(b)?;
    let rights = AccessRights::from_bytes([0x11, 0x00]);
    call!(b, |s| s.create_std_data_file(
        file_no(5),
        None,
        CommMode::Plain,
        rights,
        u24(80)
    ))
}

fn get_file_ids() -> Row {
    Row::new(C::GetFileIds, |b| {
        let files = call!(b, |s| s.get_file_ids())?;
        let mut numbers: Vec<u8> = files.iter().map(|file| file.number()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=22).collect::<Vec<_>>());
        Ok(())
    })
    .sizes(0, |_| 22)
    .list()
    .golden(
        "none; chapter 3.17",
        1,
        &[&[["6f", "00 05 1f", "90 6f 00 00 00", "05 1f 91 00"]]],
        |b| {
            let files = call!(b, |s| s.get_file_ids())?;
            assert_eq!(&files[..], [file_no(5), file_no(31)]);
            Ok(())
        },
        &[
            ["00 05 20", "05 20 91 00", "malformed"],
            ["9d", "91 9d", "9D"],
        ],
    )
    .golden(
        "AA; an EV1 8K (RFDoorLock, part 17)",
        1,
        &[
            &PART_17,
            &CREATE_5,
            &[[
                "6f",
                "00 05 2d5ff67ffec9d2d3",
                "90 6f 00 00 00",
                "05 2d5ff67ffec9d2d3 91 00",
            ]],
        ],
        |b| {
            create_5(b)?;
            assert_eq!(&call!(b, |s| s.get_file_ids())?[..], [file_no(5)]);
            Ok(())
        },
        &[[
            "00 04 2d5ff67ffec9d2d3",
            "04 2d5ff67ffec9d2d3 91 00",
            "authenticity",
        ]],
    )
    .case(
        case("listing is not free", "AE", |b| {
            attempt!(b, |s| s.get_file_ids())
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(
        case("at PICC level", "unsent", |b| {
            attempt!(b, |s| s.get_file_ids())
        })
        .at(Place::Picc),
    )
}

fn get_iso_file_ids() -> Row {
    Row::new(C::GetIsoFileIds, |b| {
        let ids = call!(b, |s| s.get_iso_file_ids())?;
        let mut ids: Vec<u16> = ids.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        // No value file has one.
        let expected = (0xEF01..=0xEF14).filter(|id| !(0xEF09..=0xEF0C).contains(id));
        assert_eq!(ids, expected.collect::<Vec<_>>());
        Ok(())
    })
    .sizes(0, |_| 32)
    .list()
    .golden(
        "none; chapter 3.18",
        1,
        &[&[["61", "00 03e1 04e1", "90 61 00 00 00", "03e1 04e1 91 00"]]],
        |b| {
            let ids = call!(b, |s| s.get_iso_file_ids())?;
            assert_eq!(&ids[..], [IsoFileId(0xE103), IsoFileId(0xE104)]);
            Ok(())
        },
        &[
            ["00 03e104", "03e104 91 00", "malformed"],
            ["f0", "91 f0", "F0"],
        ],
    )
    .case(
        case("nothing to list", "F0", |b| {
            attempt!(b, |s| s.get_iso_file_ids())
        })
        .at(Place::In(LOCKED, 0))
        .under(Auth::SOME),
    )
    .case(
        case("listing is not free", "AE", |b| {
            attempt!(b, |s| s.get_iso_file_ids())
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(
        case("at PICC level", "unsent", |b| {
            attempt!(b, |s| s.get_iso_file_ids())
        })
        .at(Place::Picc),
    )
}

fn get_file_settings() -> Row {
    fn settings(b: &mut Bench, file: FileNo) -> Done {
        attempt!(b, |s| s.get_file_settings(file))
    }
    Row::new(C::GetFileSettings, |b| {
        let file = file_no(VALUE + 1);
        let settings = call!(b, |s| s.get_file_settings(file))?;
        assert_eq!(settings, b.application(APP).file(file).unwrap().settings());
        assert_eq!(settings.comm.mode(), CommMode::Mac);
        assert!(matches!(
            settings.detail,
            FileDetail::Value {
                lower: -100,
                upper: 1000,
                limited_credit: 60,
                ..
            }
        ));
        Ok(())
    })
    .sizes(1, |_| 17)
    .golden(
        "none; chapter 3.20: a linear record file",
        1,
        &[&[[
            "f5 04",
            "00 03 01 3012 0a0000 050000 020000",
            "90 f5 00 00 01 04 00",
            "03 01 3012 0a0000 050000 020000 91 00",
        ]]],
        |b| {
            let settings = call!(b, |s| s.get_file_settings(file_no(4)))?;
            assert_eq!(
                settings.detail,
                FileDetail::LinearRecord {
                    record_size: u24(10),
                    max_records: u24(5),
                    current_records: u24(2),
                }
            );
            Ok(())
        },
        &[
            [
                "00 03 01 3012 0a0000 050000 0200",
                "03 01 3012 0a0000 050000 0200 91 00",
                "malformed",
            ],
            ["f0", "91 f0", "F0"],
        ],
    )
    .case(case("every type", "ok", |b| {
        for file in b.application(APP).files().to_vec() {
            let number = file.number();
            let settings = call!(b, |s| s.get_file_settings(number))?;
            assert_eq!(settings, file.settings());
        }
        Ok(())
    }))
    .case(case("no such file", "F0", |b| {
        settings(b, file_no(MISSING))
    }))
    .case(case("listing is not free", "AE", |b| settings(b, file_no(1))).at(Place::In(LOCKED, 1)))
    .case(case("at PICC level", "unsent", |b| settings(b, file_no(1))).at(Place::Picc))
}

fn change_file_settings() -> Row {
    const RIGHTS: AccessRights = AccessRights::from_bytes([0x30, 0x12]);
    fn change(b: &mut Bench, file: FileNo) -> Done {
        call!(b, |s| s.change_file_settings(file, CommMode::Mac, RIGHTS))
    }
    Row::new(C::ChangeFileSettings, |b| change(b, b.file(BACKUP)))
        .at(Place::In(APP, 0))
        .modes(Mode::FILE)
        .applies(|auth, mode| match (auth, mode) {
            (Auth::None, Mode::Mac | Mode::Enciphered) => Err(NO_KEY),
            _ => Ok(()),
        })
        .sizes(1, |_| 0)
        .request(|_| 3, Guard::Change)
        .after(|b| {
            let file = b.application(APP).file(b.file(BACKUP)).unwrap();
            assert_eq!(file.settings().rights.to_bytes(), [0x30, 0x12]);
            assert_eq!(file.settings().comm.mode(), CommMode::Mac);
            // What the session knew of the file is forgotten: it asks again, and key 0 may change
            // the settings once more, or under nobody it sees that it may not.
            let again = change(b, b.file(BACKUP));
            assert_eq!(again.is_ok(), b.auth != Auth::None);
        })
        .granted_by(&["C"], "unsent")
        .golden(
            "none; chapter 3.21: the right is free",
            1,
            &[&[
                [
                    "f5 05",
                    "00 00 03 0e00 010000",
                    "90 f5 00 00 01 05 00",
                    "00 03 0e00 010000 91 00",
                ],
                [
                    "5f 05 01 3012",
                    "00",
                    "90 5f 00 00 04 05 01 3012 00",
                    "91 00",
                ],
            ]],
            |b| change(b, file_no(5)),
            &[["9d", "91 9d", "9D"], ["00 00", "00 91 00", "malformed"]],
        )
        .case(case("a frozen file, told to try", "9D", |b| {
            call!(b, |s| s
                .change_file_settings(file_no(NOBODYS), CommMode::Mac, RIGHTS)
                .free())
        }))
        .case(case("another key's file, told to try", "AE", |b| {
            call!(b, |s| s
                .change_file_settings(file_no(OTHERS), CommMode::Mac, RIGHTS)
                .free())
        }))
        .case(case("no such file", "F0", |b| {
            call!(b, |s| s
                .change_file_settings(file_no(MISSING), CommMode::Mac, RIGHTS)
                .free())
        }))
        .case(case("no such file to ask about", "asking F0", |b| {
            change(b, file_no(MISSING))
        }))
        .case(
            case("asking is not allowed", "asking AE", |b| {
                change(b, file_no(1))
            })
            .at(Place::In(LOCKED, 1)),
        )
        .case(case("a frozen file", "unsent", |b| {
            change(b, file_no(NOBODYS))
        }))
        .case(case("another key's file", "unsent", |b| {
            change(b, file_no(OTHERS))
        }))
        .case(
            case("enciphered without a key", "unsent", |b| {
                call!(b, |s| s
                    .change_file_settings(file_no(STANDARD), CommMode::Mac, RIGHTS)
                    .under_key())
            })
            .under(&[Auth::None]),
        )
        .case(
            case("at PICC level", "unsent", |b| {
                call!(b, |s| s.change_file_settings(
                    file_no(STANDARD),
                    CommMode::Mac,
                    RIGHTS
                ))
            })
            .at(Place::Picc),
        )
}

const NEW: u8 = 30;
const FLAGS: ValueFlags = ValueFlags::LIMITED_CREDIT.union(ValueFlags::FREE_GET_VALUE);
const FID: IsoFileId = IsoFileId(0xBEEF);
const RIGHTS: AccessRights = AccessRights::from_bytes([0x30, 0x12]);

fn created(b: &Bench, comm: CommMode, iso: Option<IsoFileId>, content: &FileContent) {
    let file = b.application(APP).file(file_no(NEW)).unwrap();
    assert_eq!(file.content(), content);
    assert_eq!(file.iso_file_id(), iso);
    assert_eq!(file.settings().rights.to_bytes(), [0x30, 0x12]);
    assert_eq!(file.settings().comm.mode(), comm);
}

/// The refusals that all commands that create a file have in common.
macro_rules! creating {
    ($row:expr, $create:expr) => {
        $row.case(case("number exists", "DE", |b| $create(b, STANDARD)))
            .case(case("creating is not free", "AE", |b| $create(b, NEW)).at(Place::In(LOCKED, 1)))
            .case(case("at PICC level", "unsent", |b| $create(b, NEW)).at(Place::Picc))
    };
}

fn create_std_data_file() -> Row {
    fn create(b: &mut Bench, number: u8) -> Done {
        let (file, mode) = (file_no(number), CommMode::Enciphered);
        call!(b, |s| s.create_std_data_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(33)
        ))
    }
    let row = Row::new(C::CreateStdDataFile, |b| {
        let (file, mode) = (file_no(NEW), CommMode::Mac);
        call!(b, |s| s.create_std_data_file(
            file,
            Some(FID),
            mode,
            RIGHTS,
            u24(50)
        ))
    })
    .sizes(9, |_| 0)
    .after(|b| {
        created(
            b,
            CommMode::Mac,
            Some(FID),
            &FileContent::Standard(vec![0; 50]),
        )
    })
    .golden(
        "none; chapter 3.19",
        1,
        &[&[[
            "cd 05 00 1100 500000",
            "00",
            "90 cd 00 00 07 05 00 1100 500000 00",
            "91 00",
        ]]],
        |b| {
            let rights = AccessRights::from_bytes([0x11, 0x00]);
            call!(b, |s| s.create_std_data_file(
                file_no(5),
                None,
                CommMode::Plain,
                rights,
                u24(80)
            ))
        },
        &[["de", "91 de", "DE"], ["00 00", "00 91 00", "malformed"]],
    )
    .golden(
        "none; chapter 3.19: with FID",
        1,
        &[&[[
            "cd 01 03e1 00 eeee 0f0000",
            "00",
            "90 cd 00 00 09 01 03e1 00 eeee 0f0000 00",
            "91 00",
        ]]],
        |b| {
            let rights = AccessRights::from_bytes([0xEE, 0xEE]);
            let id = Some(IsoFileId(0xE103));
            call!(b, |s| s.create_std_data_file(
                file_no(1),
                id,
                CommMode::Plain,
                rights,
                u24(15)
            ))
        },
        &[["7e", "91 7e", "7E"]],
    )
    .golden(
        "AA; an EV1 8K (RFDoorLock, part 17)",
        1,
        &[&PART_17, &CREATE_5],
        create_5,
        &[
            ["00", "91 00", "authenticity"],
            ["00 a75316ad1596b9", "a75316ad1596b9 91 00", "authenticity"],
        ],
    )
    .case(case("without FID", "ok", |b| {
        create(b, NEW)?;
        created(
            b,
            CommMode::Enciphered,
            None,
            &FileContent::Standard(vec![0; 33]),
        );
        Ok(())
    }))
    .case(case("no memory", "0E", |b| {
        let (file, mode) = (file_no(NEW), CommMode::Plain);
        call!(b, |s| s.create_std_data_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(U24::MAX)
        ))
    }))
    .case(
        case("a FID where files have none", "9E", |b| {
            let (file, mode) = (file_no(NEW), CommMode::Plain);
            call!(b, |s| s.create_std_data_file(
                file,
                Some(FID),
                mode,
                RIGHTS,
                u24(1)
            ))
        })
        .at(Place::In(LOCKED, 0))
        .under(Auth::SOME),
    );
    creating!(row, create)
}

fn create_backup_data_file() -> Row {
    fn create(b: &mut Bench, number: u8) -> Done {
        let (file, mode) = (file_no(number), CommMode::Enciphered);
        call!(b, |s| s.create_backup_data_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(33)
        ))
    }
    let row = Row::new(C::CreateBackupDataFile, |b| {
        let (file, mode) = (file_no(NEW), CommMode::Mac);
        call!(b, |s| s.create_backup_data_file(
            file,
            Some(FID),
            mode,
            RIGHTS,
            u24(50)
        ))
    })
    .sizes(9, |_| 0)
    .after(|b| {
        created(
            b,
            CommMode::Mac,
            Some(FID),
            &FileContent::Backup(vec![0; 50]),
        )
    })
    .golden(
        "none; chapter 3.19",
        1,
        &[&[[
            "cb 05 03 3012 210000",
            "00",
            "90 cb 00 00 07 05 03 3012 210000 00",
            "91 00",
        ]]],
        |b| create(b, 5),
        &[["0e", "91 0e", "0E"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("no memory", "0E", |b| {
        let (file, mode) = (file_no(NEW), CommMode::Plain);
        call!(b, |s| s.create_backup_data_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(3000)
        ))
    }));
    creating!(row, create)
}

fn create_value_file() -> Row {
    fn create(b: &mut Bench, number: u8) -> Done {
        let (file, mode, flags) = (file_no(number), CommMode::Enciphered, FLAGS);
        call!(b, |s| s.create_value_file(
            file,
            mode,
            RIGHTS,
            -1000..=2_147_483_647,
            250,
            flags
        ))
    }
    let row = Row::new(C::CreateValueFile, |b| create(b, NEW))
        .sizes(17, |_| 0)
        .after(|b| {
            created(
                b,
                CommMode::Enciphered,
                None,
                &FileContent::Value(Value {
                    lower: -1000,
                    upper: i32::MAX,
                    value: 250,
                    limited_credit: 0,
                    flags: FLAGS,
                }),
            );
        })
        .golden(
            "none; chapter 3.19",
            1,
            &[&[[
                "cc 06 01 3012 18fcffff 00100000 fa000000 03",
                "00",
                "90 cc 00 00 11 06 01 3012 18fcffff 00100000 fa000000 03 00",
                "91 00",
            ]]],
            |b| {
                let (file, mode) = (file_no(6), CommMode::Mac);
                let flags = FLAGS;
                call!(b, |s| s.create_value_file(
                    file,
                    mode,
                    RIGHTS,
                    -1000..=4096,
                    250,
                    flags
                ))
            },
            &[["9e", "91 9e", "9E"], ["00 00", "00 91 00", "malformed"]],
        )
        .case(case("a value outside its limits", "unsent", |b| {
            let (file, mode, flags) = (file_no(NEW), CommMode::Plain, ValueFlags::empty());
            call!(b, |s| s.create_value_file(
                file,
                mode,
                RIGHTS,
                0..=10,
                11,
                flags
            ))
        }));
    creating!(row, create)
}

fn create_linear_record_file() -> Row {
    fn create(b: &mut Bench, number: u8) -> Done {
        let (file, mode) = (file_no(number), CommMode::Enciphered);
        call!(b, |s| s.create_linear_record_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(16),
            u24(6)
        ))
    }
    let row = Row::new(C::CreateLinearRecordFile, |b| {
        let (file, mode) = (file_no(NEW), CommMode::Mac);
        call!(b, |s| s.create_linear_record_file(
            file,
            Some(FID),
            mode,
            RIGHTS,
            u24(16),
            u24(6)
        ))
    })
    .sizes(12, |_| 0)
    .after(|b| {
        let records = Records::new(u24(16), u24(6), Vec::new());
        created(b, CommMode::Mac, Some(FID), &FileContent::Linear(records));
    })
    .golden(
        "none; chapter 3.19",
        1,
        &[&[[
            "c1 07 03 3012 100000 060000",
            "00",
            "90 c1 00 00 0a 07 03 3012 100000 060000 00",
            "91 00",
        ]]],
        |b| create(b, 7),
        &[["9d", "91 9d", "9D"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("no memory", "0E", |b| {
        let (file, mode) = (file_no(NEW), CommMode::Plain);
        call!(b, |s| s.create_linear_record_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(999),
            u24(99)
        ))
    }))
    .case(case("records without bytes", "unsent", |b| {
        let (file, mode) = (file_no(NEW), CommMode::Plain);
        call!(b, |s| s.create_linear_record_file(
            file,
            None,
            mode,
            RIGHTS,
            U24::ZERO,
            u24(2)
        ))
    }));
    creating!(row, create)
}

fn create_cyclic_record_file() -> Row {
    fn create(b: &mut Bench, number: u8) -> Done {
        let (file, mode) = (file_no(number), CommMode::Enciphered);
        call!(b, |s| s.create_cyclic_record_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(16),
            u24(6)
        ))
    }
    let row = Row::new(C::CreateCyclicRecordFile, |b| {
        let (file, mode) = (file_no(NEW), CommMode::Mac);
        call!(b, |s| s.create_cyclic_record_file(
            file,
            Some(FID),
            mode,
            RIGHTS,
            u24(16),
            u24(6)
        ))
    })
    .sizes(12, |_| 0)
    .after(|b| {
        let records = Records::new(u24(16), u24(6), Vec::new());
        created(b, CommMode::Mac, Some(FID), &FileContent::Cyclic(records));
    })
    .golden(
        "none; chapter 3.19: with FID",
        1,
        &[&[[
            "c0 07 05e1 01 3012 100000 060000",
            "00",
            "90 c0 00 00 0c 07 05e1 01 3012 100000 060000 00",
            "91 00",
        ]]],
        |b| {
            let (file, id, mode) = (file_no(7), Some(IsoFileId(0xE105)), CommMode::Mac);
            call!(b, |s| s.create_cyclic_record_file(
                file,
                id,
                mode,
                RIGHTS,
                u24(16),
                u24(6)
            ))
        },
        &[["de", "91 de", "DE"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("no memory", "0E", |b| {
        let (file, mode) = (file_no(NEW), CommMode::Plain);
        call!(b, |s| s.create_cyclic_record_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(999),
            u24(99)
        ))
    }))
    .case(case("one record only", "unsent", |b| {
        let (file, mode) = (file_no(NEW), CommMode::Plain);
        call!(b, |s| s.create_cyclic_record_file(
            file,
            None,
            mode,
            RIGHTS,
            u24(16),
            u24(1)
        ))
    }));
    creating!(row, create)
}

fn delete_file() -> Row {
    Row::new(C::DeleteFile, |b| {
        call!(b, |s| s.delete_file(file_no(LINEAR)))
    })
    .sizes(1, |_| 0)
    .after(|b| assert!(b.application(APP).file(file_no(LINEAR)).is_none()))
    .golden(
        "none; chapter 3.22",
        1,
        &[&[["df 05", "00", "90 df 00 00 01 05 00", "91 00"]]],
        |b| call!(b, |s| s.delete_file(file_no(5))),
        &[["f0", "91 f0", "F0"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("no such file", "F0", |b| {
        call!(b, |s| s.delete_file(file_no(MISSING)))
    }))
    .case(
        case("deleting is not free", "AE", |b| {
            call!(b, |s| s.delete_file(file_no(1)))
        })
        .at(Place::In(LOCKED, 1)),
    )
    .case(
        case("at PICC level", "unsent", |b| {
            call!(b, |s| s.delete_file(file_no(1)))
        })
        .at(Place::Picc),
    )
}

/// Takes 7 from the enciphered value file.
fn debit(b: &mut Bench) {
    let seven = Amount::new(7).unwrap();
    call!(b, |s| s.debit(file_no(VALUE + 2), seven)).unwrap();
}

fn balance(b: &Bench) -> i32 {
    match b.stored(VALUE + 2) {
        FileContent::Value(value) => value.value,
        _ => panic!("not a value file"),
    }
}

fn commit_transaction() -> Row {
    Row::new(C::CommitTransaction, |b| {
        call!(b, |s| s.commit_transaction())
    })
    .before(|b| {
        debit(b);
        assert_eq!(balance(b), 500);
    })
    .after(|b| {
        assert_eq!(balance(b), 493);
        // There is nothing left to commit.
        let error = call!(b, |s| s.commit_transaction()).unwrap_err();
        assert_eq!(error.status().map(|status| status.to_byte()), Some(0x0C));
    })
    .golden(
        "none; chapter 3.27",
        1,
        &[&[["c7", "00", "90 c7 00 00 00", "91 00"]]],
        |b| call!(b, |s| s.commit_transaction()),
        &[["0c", "91 0c", "0C"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("nothing pending", "0C", |b| {
        call!(b, |s| s.commit_transaction())
    }))
    .case(
        case("at PICC level", "unsent", |b| {
            call!(b, |s| s.commit_transaction())
        })
        .at(Place::Picc),
    )
}

fn abort_transaction() -> Row {
    Row::new(C::AbortTransaction, |b| call!(b, |s| s.abort_transaction()))
        .before(debit)
        .after(|b| {
            let error = call!(b, |s| s.commit_transaction()).unwrap_err();
            assert_eq!(error.status().map(|status| status.to_byte()), Some(0x0C));
            assert_eq!(balance(b), 500);
        })
        .golden(
            "none; chapter 3.27",
            1,
            &[&[["a7", "00", "90 a7 00 00 00", "91 00"]]],
            |b| call!(b, |s| s.abort_transaction()),
            &[["0c", "91 0c", "0C"], ["00 00", "00 91 00", "malformed"]],
        )
        .case(case("nothing pending", "0C", |b| {
            call!(b, |s| s.abort_transaction())
        }))
        .case(
            case("at PICC level", "unsent", |b| {
                call!(b, |s| s.abort_transaction())
            })
            .at(Place::Picc),
        )
}
