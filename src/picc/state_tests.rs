//! Every invariant of the card's state, broken one at a time.

use std::vec;
use std::vec::Vec;

use super::card::Card;
use super::file::{File, FileContent, Records, Value};
use super::key::CardKey;
use super::state::{Application, State, StateError};
use crate::wire::{
    AccessRights, Aid, CommByte, CommMode, DfName, FileNo, IsoFileId, KeyFamily, KeyInfo,
    KeySettings, U24, Uid, ValueFlags,
};

/// A state with everything that can be wrong in it: two applications, five files.
fn whole() -> State {
    let rights = AccessRights::from_bytes([0xEE, 0xEE]);
    let file = |number, content| {
        let number = FileNo::new(number).unwrap();
        File::new(number, CommMode::Plain, rights, content)
    };
    let value = Value {
        lower: -5,
        upper: 5,
        value: 0,
        limited_credit: 0,
        flags: ValueFlags::all(),
    };
    let value = Value {
        flags: ValueFlags::LIMITED_CREDIT | ValueFlags::FREE_GET_VALUE,
        ..value
    };
    let records = |count: usize| Records::new(u24(4), u24(3), vec![7; 4 * count]);
    let info = KeyInfo::new(KeyFamily::Aes, 2).unwrap().with_iso_file_ids();
    let first = Application::new(Aid::new(1).unwrap(), KeySettings::DEFAULT, info)
        .with_iso_names(IsoFileId(0xE110), Some(DfName::new(b"one").unwrap()))
        .with_file(file(0, FileContent::Standard(vec![1; 40])).with_iso_file_id(IsoFileId(1)))
        .with_file(file(1, FileContent::Backup(vec![1; 40])).with_iso_file_id(IsoFileId(2)))
        .with_file(file(2, FileContent::Value(value)))
        .with_file(file(3, FileContent::Linear(records(3))))
        .with_file(file(4, FileContent::Cyclic(records(2))));
    let second = Application::new(
        Aid::new(2).unwrap(),
        KeySettings::DEFAULT,
        KeyInfo::new(KeyFamily::Des, 1).unwrap(),
    )
    .with_iso_names(IsoFileId(0xE111), Some(DfName::new(b"two").unwrap()));
    let mut card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6]));
    card.state_mut().put_application(first).unwrap();
    card.state_mut().put_application(second).unwrap();
    card.state().clone()
}

fn u24(number: u32) -> U24 {
    U24::new(number).unwrap()
}

fn value(state: &mut State) -> &mut Value {
    match &mut state.applications[0].files[2].content {
        FileContent::Value(value) => value,
        _ => panic!("file 2 is a value file"),
    }
}

fn records(state: &mut State, file: usize, size: u32, max: u32, bytes: usize) {
    let records = Records::new(u24(size), u24(max), vec![0; bytes]);
    let content = &mut state.applications[0].files[file].content;
    *content = match content {
        FileContent::Linear(_) => FileContent::Linear(records),
        FileContent::Cyclic(_) => FileContent::Cyclic(records),
        _ => panic!("file {file} is a record file"),
    };
}

type Break = (&'static str, fn(&mut State));

const STATE: &[Break] = &[
    ("storage byte of another size", |state| {
        state.version.hardware.storage = 0x18;
    }),
    ("storage byte of another size", |state| {
        state.version.software.storage = 0x18;
    }),
    ("PICC master key of unknown type", |state| {
        state.picc_key = CardKey::of(KeyFamily::Unknown, &[], 0);
    }),
    ("ATS whose length byte is wrong", |state| {
        state.configuration.ats = vec![3, 0];
    }),
    ("ATS whose length byte is wrong", |state| {
        state.configuration.ats = vec![];
    }),
    ("ATS whose length byte is wrong", |state| {
        state.configuration.ats = vec![21; 21];
    }),
    ("more than 28 applications", |state| {
        let info = KeyInfo::new(KeyFamily::Des, 0).unwrap();
        let app = |number| Application::new(Aid::new(number).unwrap(), KeySettings::DEFAULT, info);
        state.applications = (1..=29).map(app).collect();
    }),
    ("two applications of one AID", |state| {
        state.applications[1].aid = state.applications[0].aid;
    }),
    ("two applications of one ISO FID", |state| {
        state.applications[1].iso_file_id = state.applications[0].iso_file_id;
    }),
    ("two applications of one DF name", |state| {
        state.applications[1].df_name = state.applications[0].df_name;
    }),
    ("more memory in use than there is", |state| state.used -= 32),
    ("more memory in use than there is", |state| {
        state.used = 7936 + 32
    }),
    (
        "memory in use that is no sum of what things cost",
        |state| {
            state.used += 1;
        },
    ),
];

const APPLICATION: &[Break] = &[
    ("application with AID 000000", |state| {
        state.applications[0].aid = Aid::PICC;
    }),
    ("number or type of keys", |state| {
        state.applications[0].info = KeyInfo::from_byte(0x8F);
    }),
    ("number or type of keys", |state| {
        state.applications[0].info = KeyInfo::from_byte(0xC2);
    }),
    ("number or type of keys", |state| {
        state.applications[0].info = KeyInfo::from_byte(0x92);
    }),
    ("number of keys differs from the key settings", |state| {
        state.applications[0].keys.pop();
    }),
    ("key of another type than the application's", |state| {
        state.applications[0].keys[1] = CardKey::des([0; 16]);
    }),
    ("application with a reserved ISO FID", |state| {
        state.applications[0].iso_file_id = Some(IsoFileId::MF);
    }),
    ("DF name without ISO FID", |state| {
        state.applications[0].iso_file_id = None;
    }),
    ("application with the DF name of the PICC", |state| {
        let name = DfName::new(&[0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x00]);
        state.applications[0].df_name = Some(name.unwrap());
    }),
    ("two files of one number", |state| {
        let files = &mut state.applications[0].files;
        files[1].number = files[0].number;
    }),
    ("two files of one ISO FID", |state| {
        let files = &mut state.applications[0].files;
        files[1].iso_file_id = files[0].iso_file_id;
    }),
    ("file with an ISO FID that it cannot have", |state| {
        state.applications[0].files[0].iso_file_id = Some(IsoFileId(0));
    }),
    ("file with an ISO FID that it cannot have", |state| {
        state.applications[0].files[2].iso_file_id = Some(IsoFileId(9));
    }),
    ("file with an ISO FID that it cannot have", |state| {
        state.applications[0].info = KeyInfo::from_byte(0x82);
    }),
];

const FILE: &[Break] = &[
    ("communication byte of a file", |state| {
        state.applications[0].files[0].comm = CommByte(4);
    }),
    ("size of a data file", |state| {
        state.applications[0].files[0].content = FileContent::Standard(vec![]);
    }),
    ("size of a data file", |state| {
        state.applications[0].files[1].content = FileContent::Backup(vec![]);
    }),
    ("limits of a value file", |state| value(state).value = 6),
    ("limits of a value file", |state| value(state).value = -6),
    ("limits of a value file", |state| value(state).upper = -1),
    ("limits of a value file", |state| value(state).lower = 1),
    ("limits of a value file", |state| {
        value(state).limited_credit = -1
    }),
    ("limits of a value file", |state| {
        value(state).flags = ValueFlags::from_bits_retain(4);
    }),
    ("records of a linear record file", |state| {
        records(state, 3, 0, 3, 0)
    }),
    ("records of a linear record file", |state| {
        records(state, 3, 4, 0, 0)
    }),
    ("records of a linear record file", |state| {
        records(state, 3, 4, 3, 5)
    }),
    ("records of a linear record file", |state| {
        records(state, 3, 4, 3, 16)
    }),
    ("records of a cyclic record file", |state| {
        records(state, 4, 4, 1, 0)
    }),
    ("records of a cyclic record file", |state| {
        records(state, 4, 4, 3, 12)
    }),
    ("records of a cyclic record file", |state| {
        records(state, 4, 0, 3, 0)
    }),
];

#[test]
fn every_invariant() {
    assert_eq!(whole().check(), Ok(()));
    let mut messages = Vec::new();
    for (message, break_it) in [STATE, APPLICATION, FILE].concat() {
        let mut state = whole();
        break_it(&mut state);
        assert_eq!(state.check(), Err(StateError::Impossible(message)));
        messages.push(message);
    }
    messages.dedup();
    let places = [include_str!("state.rs"), include_str!("file.rs")].concat();
    assert_eq!(
        messages.len(),
        places.matches("ensure(").count() - 1,
        "checks and cases"
    );
}

#[test]
fn an_application_is_put_or_replaced() {
    let mut state = whole();
    let (used, order) = (state.used, [1, 2]);
    let numbers = |state: &State| -> Vec<u32> {
        state
            .applications()
            .iter()
            .map(|app| app.aid().number())
            .collect()
    };
    assert_eq!(numbers(&state), order);
    // The same again changes nothing; a smaller one gives memory back.
    state
        .put_application(state.applications[0].clone())
        .unwrap();
    assert_eq!((state.used, numbers(&state)), (used, order.to_vec()));
    let mut smaller = state.applications[0].clone();
    smaller.files.clear();
    state.put_application(smaller).unwrap();
    assert_eq!(numbers(&state), order);
    // 64 + 128 of the data files, 64 of the value, twice 32 + 64 of the records.
    assert_eq!(state.used, used - (64 + 128 + 64 + 2 * 96));

    // One that cannot be is refused, and nothing happens.
    let before = state.clone();
    let mut wrong = state.applications[0].clone();
    wrong.df_name = state.applications[1].df_name;
    assert!(state.put_application(wrong).is_err());
    let mut large = state.applications[0].clone();
    large.files = whole().applications[0].files.clone();
    large.files[0].content = FileContent::Standard(vec![0; 8000]);
    assert!(state.put_application(large).is_err());
    assert_eq!(state, before);
}
