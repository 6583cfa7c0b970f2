//! Reader side and software card together, for every cipher, messaging, communication mode and
//! framing: what is written is read, and the card holds exactly that.
//!
//! Both halves are ours, so that they agree is no proof of being right; `recordings` and
//! `card_recordings` have that. What these tests find is state that does not survive many commands
//! (the IV above all), and lengths that are cut or padded wrongly.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/rig.rs"]
mod rig;

use desfire_ev1::error::Misuse;
use desfire_ev1::picc::{Application, CardKey, File, FileContent, Records, Value};
use desfire_ev1::wire::{
    Aid, Amount, AuthScheme, CommMode, DfName, FileDetail, Framing, IsoFileId, KeyFamily, KeyInfo,
    KeyNo, KeySettings, KeyType, Status, ValueFlags,
};
use desfire_ev1::{Authenticated, Key, LinkFormat, Machine, Outcome, Session};
use proptest::prelude::*;
use proptest::sample::select;
use rig::{
    AID, MASTER_ONLY, MODES, SUITES, Seeded, Suite, Wire, card_key, command, file_no, key_no,
    rights, standard, u24,
};

/// What a file can hold on an 8K card beside an application with three keys: 7936 less 160 bytes.
const LARGEST: usize = 7776;
/// The same for a backup file, which costs twice its size in steps of 32.
const LARGEST_BACKUP: usize = 3872;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn suites() -> impl Strategy<Value = Suite> {
    select(&SUITES[..])
}

fn modes() -> impl Strategy<Value = CommMode> {
    select(&MODES[..])
}

/// Both framings, mostly as wide as they get. INS and seven bytes of header is the least that
/// WriteData fits into.
fn formats() -> impl Strategy<Value = LinkFormat> {
    let format = |framing| {
        move |max_command| LinkFormat {
            framing,
            max_command,
        }
    };
    prop_oneof![
        3 => Just(LinkFormat::NATIVE),
        3 => Just(LinkFormat::WRAPPED),
        1 => (8..80_usize).prop_map(format(Framing::Native)),
        1 => (13..80_usize).prop_map(format(Framing::Wrapped)),
    ]
}

/// Lengths of data: short ones, ones around the borders of frames and blocks, and any.
fn lengths(largest: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 1..=130_usize,
        3 => (1..=8_usize, select(&[48_usize, 54, 56, 59][..]), -24..=8_isize)
            .prop_map(|(frames, frame, off)| (frames * frame).saturating_add_signed(off).max(1)),
        2 => 1..=largest,
    ]
}

fn content(wire: &Wire, number: u8) -> &FileContent {
    let application = wire.card.state().application(AID).unwrap();
    application.file(file_no(number)).unwrap().content()
}

proptest! {
    #![proptest_config(config(3000))]

    /// One file of any size; a part of it is written, and parts are read, in one session.
    #[test]
    fn data_files_of_any_length(
        suite in suites(),
        mode in modes(),
        format in formats(),
        backup: bool,
        len in lengths(LARGEST),
        before in 0..70_usize,
        after in 0..70_usize,
        room in 0..70_usize,
        seed: u64,
    ) {
        let largest = if backup { LARGEST_BACKUP } else { LARGEST };
        let size = (before + len + after).min(largest);
        let before = before.min(size - 1);
        let len = len.min(size - before);
        let mut random = Seeded(seed);
        let mut model = random.bytes(size);
        let make = if backup { FileContent::Backup } else { FileContent::Standard };
        let file = File::new(file_no(7), mode, MASTER_ONLY, make(model.clone()));
        let number = file.number();
        let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
        let mut session = suite.open(&mut wire, 0, seed).unwrap();
        wire.format = format;

        let data = random.bytes(len);
        session.write_data(number, before as u32, &data).run(&mut wire).unwrap();
        if backup {
            let mut old = vec![0; size];
            let old = session.read_data_to_end(number, 0, &mut old).run(&mut wire).unwrap();
            prop_assert_eq!(old, &model[..], "a write to a backup file is pending");
            session.commit_transaction().run(&mut wire).unwrap();
        }
        model[before..before + len].copy_from_slice(&data);
        prop_assert_eq!(content(&wire, 7), &make(model.clone()));

        // What was written; all, in a buffer that may be longer; the end of it.
        let mut buffer = vec![0xEE; len + room];
        let range = before as u32..(before + len) as u32;
        let read = session.read_data(number, range, &mut buffer).run(&mut wire).unwrap();
        prop_assert_eq!(read, &data[..]);
        prop_assert!(buffer[len..].iter().all(|byte| *byte == 0xEE), "bytes behind the data");
        let mut buffer = vec![0xEE; size + room];
        let read = session.read_data_to_end(number, 0, &mut buffer).run(&mut wire).unwrap();
        prop_assert_eq!(read, &model[..]);
        // CRC, padding and MAC have lain there for a while.
        let left = buffer[size..].iter().find(|byte| !matches!(byte, 0x00 | 0xEE));
        prop_assert_eq!(left, None, "left behind the data");
        let mut buffer = vec![0xEE; size - before];
        let read = session
            .read_data_to_end(number, before as u32, &mut buffer)
            .run(&mut wire)
            .unwrap();
        prop_assert_eq!(read, &model[before..]);
        prop_assert!(!session.is_lost());
    }
}

/// Every length up to 200, so that every way in which data, CRC and padding can lie in blocks and
/// frames occurs, all in one session.
#[test]
fn every_short_length_in_one_session() {
    for suite in SUITES {
        for (mode, format) in [
            (CommMode::Plain, LinkFormat::NATIVE),
            (CommMode::Mac, LinkFormat::NATIVE),
            (CommMode::Enciphered, LinkFormat::NATIVE),
            (CommMode::Mac, LinkFormat::WRAPPED),
            (CommMode::Enciphered, LinkFormat::WRAPPED),
        ] {
            let mut random = Seeded(1);
            let file = standard(0, mode, vec![0; 200]);
            let number = file.number();
            let mut wire = Wire::new(suite.card([file]), format);
            let mut session = suite.open(&mut wire, 0, 2).unwrap();
            let mut model = vec![0; 200];
            for len in 1..=200 {
                let data = random.bytes(len);
                let offset = (200 - len) as u32;
                session
                    .write_data(number, offset, &data)
                    .run(&mut wire)
                    .unwrap();
                model[200 - len..].copy_from_slice(&data);
                assert_eq!(content(&wire, 0), &FileContent::Standard(model.clone()));
                let mut known = vec![0; len];
                let read = session
                    .read_data(number, offset..200, &mut known)
                    .run(&mut wire);
                assert_eq!(read.unwrap(), data, "{suite:?} {mode} {len}");
                let mut all = vec![0; len];
                let read = session
                    .read_data_to_end(number, offset, &mut all)
                    .run(&mut wire);
                assert_eq!(read.unwrap(), data, "{suite:?} {mode} {len}");
            }
        }
    }
}

/// Frames from the narrowest to wider than there are. Where the command cannot go out it is refused
/// before anything is sent, and the session is usable.
#[test]
fn frames_of_every_width() {
    let data = Seeded(3).bytes(150);
    for suite in SUITES {
        for mode in MODES {
            let file = standard(0, mode, vec![0; 150]);
            let number = file.number();
            let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 4).unwrap();
            session.get_file_settings(number).run(&mut wire).unwrap();
            for (framing, overhead) in [(Framing::Native, 1), (Framing::Wrapped, 6)] {
                for max_command in 0..70 {
                    wire.format = LinkFormat {
                        framing,
                        max_command,
                    };
                    let sent = wire.log.len();
                    let written = session.write_data(number, 0, &data).run(&mut wire);
                    if max_command < overhead + 7 {
                        let error = written.unwrap_err();
                        let expected = Misuse::TransportTooNarrow {
                            needed: 7,
                            available: max_command.saturating_sub(overhead),
                        };
                        assert_eq!(error.kind(), Some(&expected.into()));
                        assert_eq!(error.outcome(), Outcome::NotSent);
                        assert_eq!(wire.log.len(), sent);
                    } else {
                        written.unwrap();
                        let capacity = max_command.min(60) - overhead;
                        let sealed = sealed_len(suite, mode, data.len());
                        assert_eq!(wire.log.len() - sent, (7 + sealed).div_ceil(capacity));
                        assert_eq!(joined(&wire, sent).len(), 7 + sealed);
                    }
                    assert!(!session.is_lost());
                }
            }
            assert_eq!(content(&wire, 0), &FileContent::Standard(data.clone()));
        }
    }
}

/// How long data are once they are protected, computed anew.
fn sealed_len(suite: Suite, mode: CommMode, len: usize) -> usize {
    match mode {
        CommMode::Plain => len,
        CommMode::Mac => len + suite.mac_len(),
        CommMode::Enciphered => (len + suite.crc_len()).next_multiple_of(suite.block_len()),
    }
}

/// The payloads of all commands from `from` on.
fn joined(wire: &Wire, from: usize) -> Vec<u8> {
    wire.log[from..]
        .iter()
        .flat_map(|(sent, _)| command(wire.format.framing, sent).1)
        .collect()
}

#[test]
fn nothing_is_neither_written_nor_read() {
    for suite in SUITES {
        for mode in MODES {
            let file = standard(0, mode, vec![0; 32]);
            let number = file.number();
            let mut wire = Wire::new(suite.card([file]), LinkFormat::WRAPPED);
            let mut session = suite.open(&mut wire, 0, 5).unwrap();
            let sent = wire.log.len();
            let mut buffer = [0xEE; 4];
            let errors = [
                session.write_data(number, 3, &[]).run(&mut wire),
                session.write_record(number, 3, &[]).run(&mut wire),
                session
                    .read_data(number, 3..3, &mut buffer)
                    .run(&mut wire)
                    .map(drop),
                session
                    .read_records(number, 0, 0, 8, &mut buffer)
                    .run(&mut wire)
                    .map(drop),
            ];
            for error in errors.map(Result::unwrap_err) {
                assert!(matches!(
                    error.kind(),
                    Some(desfire_ev1::error::ErrorKind::Misuse(_))
                ));
                assert_eq!(error.outcome(), Outcome::NotSent);
            }
            assert_eq!(wire.log.len(), sent, "something was sent");
            // And the session goes on as if nothing had been.
            session
                .write_data(number, 3, &[1])
                .run(&mut wire)
                .expect("the session is usable");
            assert_eq!(buffer, [0xEE; 4], "an unsent read has touched the buffer");
        }
    }
}

/// The lists at their longest: 28 applications with names, 32 files with ISO FIDs.
#[test]
fn the_longest_lists() {
    for suite in SUITES {
        for format in [LinkFormat::NATIVE, LinkFormat::WRAPPED] {
            let info = KeyInfo::new(suite.family(), 1).unwrap().with_iso_file_ids();
            let mut card = desfire_ev1::picc::Card::new(rig::UID);
            card.state_mut().set_picc_key(suite.card_key(0));
            for number in 1..=28_u8 {
                let aid = Aid::new(u32::from(number)).unwrap();
                let name = DfName::new(&vec![number; usize::from(number % 17).max(1)]).unwrap();
                let mut application = Application::new(aid, KeySettings::DEFAULT, info)
                    .with_key(KeyNo::MASTER, suite.card_key(0))
                    .with_iso_names(IsoFileId(0x1000 + u16::from(number)), Some(name));
                if number == 28 {
                    for file in 0..32 {
                        let id = IsoFileId(0x2000 + u16::from(file));
                        let file = standard(file, CommMode::Plain, vec![0; 1]);
                        application = application.with_file(file.with_iso_file_id(id));
                    }
                }
                card.state_mut().put_application(application).unwrap();
            }
            let mut wire = Wire::new(card, format);
            for authenticated in [false, true] {
                let mut session = Session::new()
                    .select_application(Aid::PICC)
                    .run(&mut wire)
                    .unwrap();
                let mut buffer = [0; 28 * 21];
                let (aids, names) = if authenticated {
                    let mut session = suite.authenticate(session, &mut wire, 0, 1).unwrap();
                    let aids = session.get_application_ids().run(&mut wire).unwrap();
                    let names = session.get_df_names(&mut buffer).run(&mut wire).unwrap();
                    assert!(!session.is_lost());
                    (aids, names)
                } else {
                    let aids = session.get_application_ids().run(&mut wire).unwrap();
                    (
                        aids,
                        session.get_df_names(&mut buffer).run(&mut wire).unwrap(),
                    )
                };
                let numbers: Vec<u32> = aids.iter().map(|aid| aid.number()).collect();
                assert_eq!(numbers, (1..=28).collect::<Vec<_>>());
                for (number, name) in (1..=28_u8).zip(names) {
                    assert_eq!(name.aid.number(), u32::from(number));
                    assert_eq!(name.file_id, IsoFileId(0x1000 + u16::from(number)));
                    let len = usize::from(number % 17).max(1);
                    assert_eq!(name.df_name.unwrap().as_bytes(), vec![number; len]);
                }
                let aid = Aid::new(28).unwrap();
                let session = Session::new()
                    .select_application(aid)
                    .run(&mut wire)
                    .unwrap();
                let mut session = suite.authenticate(session, &mut wire, 0, 1).unwrap();
                let files = session.get_file_ids().run(&mut wire).unwrap();
                assert_eq!(
                    files.iter().map(|file| file.number()).collect::<Vec<_>>(),
                    (0..32).collect::<Vec<_>>()
                );
                let ids = session.get_iso_file_ids().run(&mut wire).unwrap();
                assert_eq!(
                    ids.iter().map(|id| id.0).collect::<Vec<_>>(),
                    (0x2000..0x2020).collect::<Vec<_>>()
                );
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Many commands in one session, against a model of the card.

/// Files of the model card: one of each type for each mode.
const STANDARD: u8 = 0;
const BACKUP: u8 = 3;
const VALUE: u8 = 6;
const LINEAR: u8 = 9;
const CYCLIC: u8 = 12;
const DATA_LEN: usize = 180;
const RECORD_LEN: usize = 43;
const MAX_RECORDS: usize = 5;

#[derive(Clone, Debug)]
enum Op {
    Write {
        file: u8,
        offset: usize,
        len: usize,
    },
    Read {
        file: u8,
        offset: usize,
        len: usize,
    },
    ReadToEnd {
        file: u8,
        offset: usize,
    },
    Credit {
        file: u8,
        amount: i32,
    },
    Debit {
        file: u8,
        amount: i32,
    },
    LimitedCredit {
        file: u8,
        share: i32,
    },
    GetValue {
        file: u8,
    },
    WriteRecord {
        file: u8,
        offset: usize,
        len: usize,
    },
    ReadRecords {
        file: u8,
        first: usize,
        count: usize,
    },
    ReadAllRecords {
        file: u8,
        first: usize,
    },
    Clear {
        file: u8,
    },
    Commit,
    Abort,
    Settings {
        file: u8,
    },
    Ask(u8),
    ChangeKey {
        seed: u64,
    },
    Reauthenticate {
        seed: u64,
    },
}

fn ops() -> impl Strategy<Value = Op> {
    let data = || (0..6_u8, 0..DATA_LEN, 1..=DATA_LEN);
    let value = || VALUE..VALUE + 3;
    let record = || LINEAR..LINEAR + 6;
    prop_oneof![
        4 => data().prop_map(|(file, offset, len)| Op::Write { file, offset, len }),
        4 => data().prop_map(|(file, offset, len)| Op::Read { file, offset, len }),
        3 => (0..6_u8, 0..DATA_LEN).prop_map(|(file, offset)| Op::ReadToEnd { file, offset }),
        2 => (value(), 0..1000_i32).prop_map(|(file, amount)| Op::Credit { file, amount }),
        2 => (value(), 0..1000_i32).prop_map(|(file, amount)| Op::Debit { file, amount }),
        2 => (value(), 0..=100_i32)
            .prop_map(|(file, share)| Op::LimitedCredit { file, share }),
        2 => value().prop_map(|file| Op::GetValue { file }),
        4 => (record(), 0..RECORD_LEN, 1..=RECORD_LEN)
            .prop_map(|(file, offset, len)| Op::WriteRecord { file, offset, len }),
        3 => (record(), 0..MAX_RECORDS, 1..=MAX_RECORDS)
            .prop_map(|(file, first, count)| Op::ReadRecords { file, first, count }),
        2 => (record(), 0..MAX_RECORDS)
            .prop_map(|(file, first)| Op::ReadAllRecords { file, first }),
        1 => record().prop_map(|file| Op::Clear { file }),
        6 => Just(Op::Commit),
        1 => Just(Op::Abort),
        1 => (0..15_u8).prop_map(|file| Op::Settings { file }),
        3 => (0..6_u8).prop_map(Op::Ask),
        1 => any::<u64>().prop_map(|seed| Op::ChangeKey { seed }),
        1 => any::<u64>().prop_map(|seed| Op::Reauthenticate { seed }),
    ]
}

/// What is pending on a file.
#[derive(Clone, Debug)]
enum Pending {
    Data(Vec<u8>),
    Value {
        value: i32,
        debited: Option<i32>,
        restored: Option<i32>,
    },
    Record(Vec<u8>),
    Clear,
}

/// The card as it should be. Rules: chapter 8 of the reference.
struct Model {
    files: Vec<FileContent>,
    pending: Vec<Option<Pending>>,
    key_1: CardKey,
}

impl Model {
    fn data(&self, file: u8) -> &Vec<u8> {
        match &self.files[usize::from(file)] {
            FileContent::Standard(data) | FileContent::Backup(data) => data,
            other => panic!("no data file: {other:?}"),
        }
    }

    fn records(&self, file: u8) -> &Records {
        match &self.files[usize::from(file)] {
            FileContent::Linear(records) | FileContent::Cyclic(records) => records,
            other => panic!("no record file: {other:?}"),
        }
    }

    fn value(&self, file: u8) -> &Value {
        match &self.files[usize::from(file)] {
            FileContent::Value(value) => value,
            other => panic!("no value file: {other:?}"),
        }
    }

    fn is_pending(&self) -> bool {
        self.pending.iter().any(Option::is_some)
    }

    fn abort(&mut self) {
        self.pending.fill(None);
    }

    fn commit(&mut self) {
        for (file, pending) in self.files.iter_mut().zip(&mut self.pending) {
            let Some(pending) = pending.take() else {
                continue;
            };
            let rebuilt = |records: &Records, data| {
                Records::new(records.record_size(), records.max_records(), data)
            };
            match (file, pending) {
                (FileContent::Backup(data), Pending::Data(new)) => *data = new,
                (
                    FileContent::Value(value),
                    Pending::Value {
                        value: new,
                        debited,
                        restored,
                    },
                ) => {
                    value.value = new;
                    // What may be given back is what this transaction has debited; the card's
                    // tests say more.
                    value.limited_credit = match (debited, restored) {
                        (Some(debited), _) => debited,
                        (None, Some(restored)) => value.limited_credit - restored,
                        (None, None) => 0,
                    };
                }
                (FileContent::Linear(records) | FileContent::Cyclic(records), Pending::Clear) => {
                    *records = rebuilt(records, Vec::new())
                }
                (FileContent::Linear(records), Pending::Record(new)) => {
                    *records = rebuilt(records, [records.bytes(), &new].concat());
                }
                (FileContent::Cyclic(records), Pending::Record(new)) => {
                    // The spare record is the one that was pending.
                    let mut all = [records.bytes(), &new].concat();
                    let most = (MAX_RECORDS - 1) * RECORD_LEN;
                    all.drain(..all.len().saturating_sub(most));
                    *records = rebuilt(records, all);
                }
                (file, pending) => panic!("{pending:?} on {file:?}"),
            }
        }
    }
}

/// A card with one file of each type and mode. `words` are their rights.
fn model_card(suite: Suite, words: &[u16; 15]) -> (Wire, Model) {
    let records = || Records::new(u24(RECORD_LEN), u24(MAX_RECORDS), Vec::new());
    let content = |number| match number {
        BACKUP..VALUE => FileContent::Backup(vec![0; DATA_LEN]),
        VALUE..LINEAR => FileContent::Value(Value {
            lower: -1_000_000,
            upper: 1_000_000,
            value: 500,
            limited_credit: 0,
            flags: ValueFlags::LIMITED_CREDIT,
        }),
        LINEAR..CYCLIC => FileContent::Linear(records()),
        CYCLIC.. => FileContent::Cyclic(records()),
        _ => FileContent::Standard(vec![0; DATA_LEN]),
    };
    let files: Vec<FileContent> = (0..15).map(content).collect();
    let card = suite.card((STANDARD..15).map(|number| {
        let mode = MODES[usize::from(number % 3)];
        let word = rights(words[usize::from(number)]);
        File::new(file_no(number), mode, word, content(number))
    }));
    let model = Model {
        pending: vec![None; files.len()],
        files,
        key_1: suite.card_key(1),
    };
    (Wire::new(card, LinkFormat::NATIVE), model)
}

struct Run {
    suite: Suite,
    wire: Wire,
    model: Model,
    random: Seeded,
    key_1: Key,
}

impl Run {
    /// Carries out one operation that the card will not refuse, or leaves it out.
    fn carry_out(
        &mut self,
        mut session: Session<Authenticated>,
        op: &Op,
    ) -> Session<Authenticated> {
        let Self {
            suite,
            wire,
            model,
            random,
            key_1,
        } = self;
        match *op {
            Op::Write { file, offset, len } => {
                let data = random.bytes(len.min(DATA_LEN - offset));
                session
                    .write_data(file_no(file), offset as u32, &data)
                    .run(wire)
                    .unwrap();
                let index = usize::from(file);
                let mut image = match &model.pending[index] {
                    Some(Pending::Data(image)) => image.clone(),
                    _ => model.data(file).clone(),
                };
                image[offset..offset + data.len()].copy_from_slice(&data);
                if file >= BACKUP {
                    model.pending[index] = Some(Pending::Data(image));
                } else {
                    model.files[index] = FileContent::Standard(image);
                }
            }
            Op::Read { file, offset, len } => {
                let end = DATA_LEN.min(offset + len);
                let mut buffer = [0xEE; DATA_LEN];
                let data = session
                    .read_data(file_no(file), offset as u32..end as u32, &mut buffer)
                    .run(wire)
                    .unwrap();
                assert_eq!(data, &model.data(file)[offset..end]);
            }
            Op::ReadToEnd { file, offset } => {
                let mut buffer = [0xEE; DATA_LEN];
                let data = session
                    .read_data_to_end(file_no(file), offset as u32, &mut buffer)
                    .run(wire)
                    .unwrap();
                assert_eq!(data, &model.data(file)[offset..]);
            }
            Op::Credit { file, amount } | Op::Debit { file, amount } => {
                let value = model.value(file).clone();
                let pending = &mut model.pending[usize::from(file)];
                let (mut new, mut debited, restored) = match pending {
                    Some(Pending::Value {
                        value,
                        debited,
                        restored,
                    }) => (*value, *debited, *restored),
                    _ => (value.value, None, None),
                };
                let wired = Amount::new(amount).unwrap();
                if matches!(op, Op::Credit { .. }) {
                    session.credit(file_no(file), wired).run(wire).unwrap();
                    new += amount;
                } else {
                    session.debit(file_no(file), wired).run(wire).unwrap();
                    new -= amount;
                    debited = Some(debited.unwrap_or(0) + amount);
                }
                *pending = Some(Pending::Value {
                    value: new,
                    debited,
                    restored,
                });
            }
            Op::LimitedCredit { file, share } => {
                let value = model.value(file).clone();
                let pending = &mut model.pending[usize::from(file)];
                let (new, debited, restored) = match pending {
                    Some(Pending::Value {
                        value,
                        debited,
                        restored,
                    }) => (*value, *debited, *restored),
                    _ => (value.value, None, None),
                };
                let left = value.limited_credit - restored.unwrap_or(0);
                let amount = left * share / 100;
                session
                    .limited_credit(file_no(file), Amount::new(amount).unwrap())
                    .run(wire)
                    .unwrap();
                *pending = Some(Pending::Value {
                    value: new + amount,
                    debited,
                    restored: Some(restored.unwrap_or(0) + amount),
                });
            }
            Op::GetValue { file } => {
                let value = session.get_value(file_no(file)).run(wire).unwrap();
                assert_eq!(value, model.value(file).value);
            }
            Op::WriteRecord { file, offset, len } => {
                let full = file < CYCLIC && model.records(file).count() as usize == MAX_RECORDS;
                let pending = &mut model.pending[usize::from(file)];
                if full || matches!(pending, Some(Pending::Clear)) {
                    return session;
                }
                let data = random.bytes(len.min(RECORD_LEN - offset));
                session
                    .write_record(file_no(file), offset as u32, &data)
                    .run(wire)
                    .unwrap();
                let mut record = match pending {
                    Some(Pending::Record(record)) => record.clone(),
                    _ => vec![0; RECORD_LEN],
                };
                record[offset..offset + data.len()].copy_from_slice(&data);
                *pending = Some(Pending::Record(record));
            }
            Op::ReadRecords { file, first, .. } | Op::ReadAllRecords { file, first } => {
                let records = model.records(file);
                let there = records.count() as usize;
                let cleared = matches!(model.pending[usize::from(file)], Some(Pending::Clear));
                if cleared || first >= there {
                    return session;
                }
                let end = (there - first) * RECORD_LEN;
                let mut buffer = [0xEE; MAX_RECORDS * RECORD_LEN];
                let (start, read) = if let Op::ReadRecords { count, .. } = *op {
                    let count = count.min(there - first);
                    let machine = session.read_records(
                        file_no(file),
                        first as u32,
                        count as u32,
                        RECORD_LEN as u32,
                        &mut buffer,
                    );
                    (end - count * RECORD_LEN, machine.run(wire).unwrap())
                } else {
                    let machine =
                        session.read_all_records(file_no(file), first as u32, &mut buffer);
                    (0, machine.run(wire).unwrap())
                };
                assert_eq!(read, &records.bytes()[start..end]);
            }
            Op::Clear { file } => {
                session.clear_record_file(file_no(file)).run(wire).unwrap();
                model.pending[usize::from(file)] = Some(Pending::Clear);
            }
            Op::Commit | Op::Abort if !model.is_pending() => {}
            Op::Commit => {
                session.commit_transaction().run(wire).unwrap();
                model.commit();
            }
            Op::Abort => {
                session.abort_transaction().run(wire).unwrap();
                model.abort();
            }
            Op::Settings { file } => {
                let settings = session.get_file_settings(file_no(file)).run(wire).unwrap();
                let records = |detail| match detail {
                    FileDetail::LinearRecord {
                        current_records, ..
                    }
                    | FileDetail::CyclicRecord {
                        current_records, ..
                    } => Some(current_records),
                    _ => None,
                };
                if let Some(current) = records(settings.detail) {
                    assert_eq!(current.get(), model.records(file).count());
                }
            }
            Op::Ask(0) => {
                let version = session.get_version().run(wire).unwrap();
                assert_eq!(version.uid, rig::UID);
            }
            Op::Ask(1) => assert_eq!(session.get_card_uid().run(wire).unwrap(), rig::UID),
            Op::Ask(2) => assert_eq!(session.get_file_ids().run(wire).unwrap().len(), 15),
            Op::Ask(3) => {
                let (settings, info) = session.get_key_settings().run(wire).unwrap();
                assert_eq!((settings, info.keys()), (KeySettings::DEFAULT, 3));
            }
            Op::Ask(4) => {
                let version = session.get_key_version(key_no(1)).run(wire).unwrap();
                assert_eq!(version, model.key_1.version());
            }
            Op::Ask(_) => {
                let free = session.free_mem().run(wire).unwrap();
                assert_eq!(free, wire.card.state().free_memory());
            }
            Op::ChangeKey { seed } => {
                let (new, on_card) = random_key(suite.key_type, seed);
                session
                    .change_key(key_no(1), key_1, &new)
                    .run(wire)
                    .unwrap();
                *key_1 = new;
                model.key_1 = on_card;
            }
            Op::Reauthenticate { seed } => {
                // Does not abort the transaction.
                return suite.authenticate(session, wire, 0, seed).unwrap();
            }
        }
        session
    }

    fn check(&self) {
        let application = self.wire.card.state().application(AID).unwrap();
        for (file, model) in application.files().iter().zip(&self.model.files) {
            assert_eq!(file.content(), model, "file {}", file.number());
        }
        assert_eq!(application.keys()[1], self.model.key_1);
        assert_eq!(self.wire.card.state().check(), Ok(()));
    }
}

/// A key of a type, and as the card should store it.
fn random_key(key_type: KeyType, seed: u64) -> (Key, CardKey) {
    let mut random = Seeded(seed);
    let version = random.bytes(1)[0];
    let bytes = random.bytes(match key_type {
        KeyType::Des => 8,
        KeyType::TwoKey3Des | KeyType::Aes => 16,
        KeyType::ThreeKey3Des => 24,
    });
    let mut key = Key::from_slice(key_type, &bytes).unwrap();
    if key_type == KeyType::Aes {
        key = key.with_version(version);
    }
    (key, card_key(key_type, &bytes, version))
}

/// Rights under which key 0 may do everything, in the file's mode or, where only the free right
/// grants it, in plain.
fn rights_words() -> impl Strategy<Value = [u16; 15]> {
    let right = || select(&[0x0_u16, 0x1, 0xE, 0xF][..]);
    let word = (right(), right(), select(&[0x0_u16, 0x0, 0xE][..]))
        .prop_map(|(read, write, read_write)| read << 12 | write << 8 | read_write << 4);
    proptest::collection::vec(word, 15).prop_map(|words| words.try_into().unwrap())
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn many_commands_in_one_session(
        suite in suites(),
        format in formats(),
        words in rights_words(),
        ops in proptest::collection::vec(ops(), 1..60),
        seed: u64,
    ) {
        let (mut wire, model) = model_card(suite, &words);
        let mut session = suite.open(&mut wire, 0, seed).unwrap();
        // ChangeKey and the handshake do not chain: they need room for 33 and 32 bytes.
        wire.format = LinkFormat {
            max_command: format.max_command.max(40),
            ..format
        };
        let mut run = Run {
            suite,
            wire,
            model,
            random: Seeded(seed),
            key_1: suite.key(1),
        };
        for op in &ops {
            session = run.carry_out(session, op);
            prop_assert!(!session.is_lost(), "lost after {:?}", op);
        }
        run.check();
        if run.model.is_pending() {
            session.commit_transaction().run(&mut run.wire).unwrap();
            run.model.commit();
        }
        run.check();
        // The key that was changed last is the key.
        Session::new().select_application(AID).run(&mut run.wire).unwrap()
            .authenticate(suite.scheme, key_no(1), &run.key_1, &mut Seeded(seed))
            .run(&mut run.wire)
            .unwrap();
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// The key in use, and the PICC master key from any type to any type and back.
    #[test]
    fn keys_in_use(suite in suites(), seeds: [u64; 4], types in [key_types(), key_types(), key_types()]) {
        let mut wire = Wire::new(suite.card([]), LinkFormat::WRAPPED);
        let session = suite.open(&mut wire, 0, seeds[0]).unwrap();
        let (new, on_card) = random_key(suite.key_type, seeds[0]);
        let session = session.change_key_in_use(&new).run(&mut wire).unwrap();
        prop_assert_eq!(session.selected(), Some(AID));
        let keys = wire.card.state().application(AID).unwrap().keys();
        prop_assert_eq!(&keys[0], &on_card);
        prop_assert_eq!(&keys[1], &suite.card_key(1));
        session
            .authenticate(suite.scheme, KeyNo::MASTER, &new, &mut Seeded(seeds[1]))
            .run(&mut wire)
            .unwrap();

        let mut session = Session::new().select_application(Aid::PICC).run(&mut wire).unwrap();
        let mut key = Key::zero(KeyFamily::Des);
        for (key_type, seed) in types.into_iter().zip(&seeds[1..]) {
            let (new, on_card) = random_key(key_type, *seed);
            session = session
                .authenticate(scheme_of(&key, suite), KeyNo::MASTER, &key, &mut Seeded(*seed))
                .run(&mut wire)
                .unwrap()
                .change_picc_master_key_and_type(&new)
                .run(&mut wire)
                .unwrap();
            prop_assert_eq!(wire.card.state().picc_key(), &on_card);
            key = new;
        }
    }

    /// Applications and files are made by the library, filled, and deleted.
    #[test]
    fn files_made_by_the_library(suite in suites(), mode in modes(), format in formats(), seed: u64) {
        let mut wire = Wire::new(desfire_ev1::picc::Card::new(rig::UID), LinkFormat::NATIVE);
        let aid = Aid::new(0x0A_0B0C).unwrap();
        let key = Key::zero(suite.family());
        let mut session = Session::new()
            .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut Seeded(seed))
            .run(&mut wire)
            .unwrap();
        let info = KeyInfo::new(suite.family(), 2).unwrap();
        session.create_application(aid, KeySettings::DEFAULT, info, None).run(&mut wire).unwrap();
        // A key of zeros is single DES.
        let scheme = scheme_of(&key, suite);
        let mut session = session
            .select_application(aid)
            .run(&mut wire)
            .unwrap()
            .authenticate(scheme, KeyNo::MASTER, &key, &mut Seeded(seed))
            .run(&mut wire)
            .unwrap();
        wire.format = LinkFormat { max_command: format.max_command.max(24), ..format };
        let limits = -5..=i32::MAX;
        let (size, records) = (u24(100), u24(3));
        session.create_std_data_file(file_no(0), None, mode, MASTER_ONLY, size).run(&mut wire).unwrap();
        session.create_backup_data_file(file_no(1), None, mode, MASTER_ONLY, size).run(&mut wire).unwrap();
        session
            .create_value_file(file_no(2), mode, MASTER_ONLY, limits, 7, ValueFlags::empty())
            .run(&mut wire)
            .unwrap();
        session
            .create_linear_record_file(file_no(3), None, mode, MASTER_ONLY, size, records)
            .run(&mut wire)
            .unwrap();
        session
            .create_cyclic_record_file(file_no(4), None, mode, MASTER_ONLY, size, records)
            .run(&mut wire)
            .unwrap();
        let data = Seeded(seed).bytes(100);
        session.write_data(file_no(0), 0, &data).run(&mut wire).unwrap();
        session.write_data(file_no(1), 0, &data).run(&mut wire).unwrap();
        session.credit(file_no(2), Amount::new(5).unwrap()).run(&mut wire).unwrap();
        session.write_record(file_no(3), 0, &data).run(&mut wire).unwrap();
        session.write_record(file_no(4), 0, &data).run(&mut wire).unwrap();
        session.commit_transaction().run(&mut wire).unwrap();
        let application = wire.card.state().application(aid).unwrap();
        prop_assert_eq!(application.info(), info);
        let holds = application.files().iter().map(File::content).cloned().collect::<Vec<_>>();
        let one = || Records::new(size, records, data.clone());
        prop_assert_eq!(&holds[0], &FileContent::Standard(data.clone()));
        prop_assert_eq!(&holds[1], &FileContent::Backup(data.clone()));
        prop_assert!(matches!(&holds[2], FileContent::Value(value) if value.value == 12));
        prop_assert_eq!(&holds[3], &FileContent::Linear(one()));
        prop_assert_eq!(&holds[4], &FileContent::Cyclic(one()));
        for file in 0..5 {
            session.delete_file(file_no(file)).run(&mut wire).unwrap();
        }
        prop_assert!(session.get_file_ids().run(&mut wire).unwrap().is_empty());
        // Without a file there is nothing to read, and the session is over.
        let error = session.get_value(file_no(2)).run(&mut wire).unwrap_err();
        prop_assert_eq!(error.protocol().and_then(|error| error.status()), Some(Status::FileNotFound));
        rig::assert_lost(&mut session);
    }
}

fn key_types() -> impl Strategy<Value = KeyType> {
    select(
        &[
            KeyType::Des,
            KeyType::TwoKey3Des,
            KeyType::ThreeKey3Des,
            KeyType::Aes,
        ][..],
    )
}

/// The scheme for a key: legacy where the suite has it and the key can.
fn scheme_of(key: &Key, suite: Suite) -> AuthScheme {
    match key.key_type() {
        KeyType::Aes => AuthScheme::Aes,
        KeyType::Des | KeyType::TwoKey3Des if !suite.is_ev1() => AuthScheme::Legacy,
        _ => AuthScheme::Iso,
    }
}
