//! Somebody sits between reader and card and changes what the card answers.
//!
//! Whole exchanges are recorded once on the software card and then played back to the library with
//! one thing changed. In an EV1 session every change of a reply must be refused, nothing of it may
//! reach the caller's buffer, and the session must be lost.
//!
//! What D40 messaging does **not** protect, and is therefore not tested here:
//!
//! - everything but the data of MACed and enciphered reads: GetVersion, GetFileSettings, key
//!   settings, lists, the confirmation of every write and of CommitTransaction are bare bytes;
//! - order and freshness: every operation starts from a zero IV, so the answer to an earlier read
//!   of the same length is as good as the true one;
//! - zeros behind the data of a MACed read to the end (the MAC is over zero-padded data), which is
//!   one more reason to state the length;
//! - more than 32 bits (MAC) or 16 bits (CRC16) of anything.
//!
//! What EV1 messaging does not protect is at the end: bare replies of the commands that end a
//! session, the borders of frames, and enciphered replies against somebody who knows their
//! plaintext.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/puppet.rs"]
mod puppet;
#[path = "support/rig.rs"]
mod rig;

use desfire_ev1::command::IsoName;
use desfire_ev1::command::iso::{BinaryPlace, RecordRange, ShortFileId};
use desfire_ev1::error::{Authenticity, ErrorKind, Malformed, Misuse};
use desfire_ev1::picc::Card;
use desfire_ev1::wire::{
    Aid, Amount, CommMode, DfName, Framing, IsoFileId, KeyInfo, KeyNo, KeySettings, KeyType, Status,
};
use desfire_ev1::{
    Authenticated, Error, Link, LinkFormat, Machine, Outcome, RunError, Session, Step, Transport,
};
use proptest::prelude::*;
use proptest::sample::select;
use rig::{
    AID, D40, EV1, MASTER_ONLY, MODES, SUITES, Script, Seeded, Silent, Suite, Wire, assert_lost,
    cyclic, file_no, framed, key_no, rights, standard, u24, unframed, value,
};

const DATA_LEN: usize = 130;
const RECORD_LEN: usize = 21;
const BUFFER_LEN: usize = 160;

/// What is done while somebody tampers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// ReadData with a length.
    Read(CommMode),
    /// The same where the file's settings are asked for first.
    ReadAsking(CommMode),
    ReadToEnd(CommMode),
    ReadRecords(CommMode),
    ReadAllRecords(CommMode),
    GetValue(CommMode),
    Write(CommMode),
    WriteRecord(CommMode),
    Credit(CommMode),
    GetCardUid,
    GetVersion,
    GetKeySettings,
    GetKeyVersion,
    GetFileSettings,
    GetFileIds,
    FreeMem,
    ChangeKey,
    ChangeKeySettings,
    ChangeFileSettings,
    CreateFile,
    DeleteFile,
    Debit,
    LimitedCredit,
    ClearRecordFile,
    Commit,
    Abort,
    // At PICC level.
    GetDfNames,
    SetDefaultKey,
    SetAts,
    GetApplicationIds,
    CreateApplication,
    DeleteApplication,
    Format,
}

use Op::{
    Abort, ChangeFileSettings, ChangeKey, ChangeKeySettings, ClearRecordFile, Commit,
    CreateApplication, CreateFile, Credit, Debit, DeleteApplication, DeleteFile, Format, FreeMem,
    GetApplicationIds, GetCardUid, GetDfNames, GetFileIds, GetFileSettings, GetKeySettings,
    GetKeyVersion, GetValue, GetVersion, LimitedCredit, Read, ReadAllRecords, ReadAsking,
    ReadRecords, ReadToEnd, SetAts, SetDefaultKey, Write, WriteRecord,
};

const IN_MODES: [fn(CommMode) -> Op; 9] = [
    Read,
    ReadAsking,
    ReadToEnd,
    ReadRecords,
    ReadAllRecords,
    GetValue,
    Write,
    WriteRecord,
    Credit,
];

const WITHOUT_MODE: [Op; 24] = [
    GetCardUid,
    GetVersion,
    GetKeySettings,
    GetKeyVersion,
    GetFileSettings,
    GetFileIds,
    FreeMem,
    ChangeKey,
    ChangeKeySettings,
    ChangeFileSettings,
    CreateFile,
    DeleteFile,
    Debit,
    LimitedCredit,
    ClearRecordFile,
    Commit,
    Abort,
    GetDfNames,
    SetDefaultKey,
    SetAts,
    GetApplicationIds,
    CreateApplication,
    DeleteApplication,
    Format,
];

fn all_ops() -> Vec<Op> {
    let in_modes = MODES.map(|mode| IN_MODES.map(|op| op(mode)));
    [in_modes.as_flattened(), &WITHOUT_MODE].concat()
}

/// What D40 protects: the data of MACed and enciphered reads.
fn protected_in_d40() -> Vec<Op> {
    let mut ops = vec![GetCardUid];
    for mode in [CommMode::Mac, CommMode::Enciphered] {
        ops.extend([
            Read(mode),
            ReadToEnd(mode),
            ReadRecords(mode),
            ReadAllRecords(mode),
            GetValue(mode),
        ]);
    }
    ops
}

/// Every cipher with all that it protects.
fn protected() -> Vec<(Suite, Op)> {
    let with = |suites: &[Suite], ops: Vec<Op>| -> Vec<(Suite, Op)> {
        let pair =
            |suite: &Suite| -> Vec<(Suite, Op)> { ops.iter().map(|op| (*suite, *op)).collect() };
        suites.iter().flat_map(pair).collect()
    };
    [with(&EV1, all_ops()), with(&D40, protected_in_d40())].concat()
}

impl Op {
    fn is_at_picc_level(self) -> bool {
        matches!(
            self,
            GetApplicationIds
                | CreateApplication
                | DeleteApplication
                | Format
                | GetDfNames
                | SetDefaultKey
                | SetAts
        )
    }

    /// Whether the length of the answer is the card's to choose.
    fn is_open_ended(self) -> bool {
        matches!(self, ReadToEnd(_) | ReadAllRecords(_) | GetDfNames)
    }

    /// How much of the caller's buffer the command may use.
    fn window(self) -> usize {
        match self {
            Read(_) | ReadAsking(_) => DATA_LEN,
            ReadRecords(_) => 2 * RECORD_LEN,
            ReadToEnd(_) | ReadAllRecords(_) | GetDfNames => BUFFER_LEN,
            _ => 0,
        }
    }

    fn run<T: Transport + ?Sized>(
        self,
        session: &mut Session<Authenticated>,
        transport: &mut T,
        buffer: &mut [u8],
    ) -> Result<(), RunError<T::Error>> {
        let file = |first: u8, mode: CommMode| {
            let index = MODES.iter().position(|each| *each == mode).unwrap();
            file_no(first + index as u8)
        };
        let len = DATA_LEN as u32;
        match self {
            Read(mode) => session
                .read_data(file(0, mode), 0..len, buffer)
                .comm_mode(mode)
                .run(transport)
                .map(drop),
            ReadAsking(mode) => session
                .read_data(file(0, mode), 0..len, buffer)
                .run(transport)
                .map(drop),
            ReadToEnd(mode) => session
                .read_data_to_end(file(0, mode), 0, buffer)
                .comm_mode(mode)
                .run(transport)
                .map(drop),
            ReadRecords(mode) => session
                .read_records(file(6, mode), 0, 2, RECORD_LEN as u32, buffer)
                .comm_mode(mode)
                .run(transport)
                .map(drop),
            ReadAllRecords(mode) => session
                .read_all_records(file(6, mode), 0, buffer)
                .comm_mode(mode)
                .run(transport)
                .map(drop),
            GetValue(mode) => session
                .get_value(file(3, mode))
                .comm_mode(mode)
                .run(transport)
                .map(drop),
            Write(mode) => session
                .write_data(file(0, mode), 0, &[0x5A; DATA_LEN])
                .comm_mode(mode)
                .run(transport),
            WriteRecord(mode) => session
                .write_record(file(6, mode), 0, &[0x5A; RECORD_LEN])
                .comm_mode(mode)
                .run(transport),
            Credit(mode) => session
                .credit(file(3, mode), Amount::new(77).unwrap())
                .comm_mode(mode)
                .run(transport),
            GetCardUid => session.get_card_uid().run(transport).map(drop),
            GetVersion => session.get_version().run(transport).map(drop),
            GetKeySettings => session.get_key_settings().run(transport).map(drop),
            GetKeyVersion => session
                .get_key_version(KeyNo::MASTER)
                .run(transport)
                .map(drop),
            GetFileSettings => session
                .get_file_settings(file_no(3))
                .run(transport)
                .map(drop),
            GetFileIds => session.get_file_ids().run(transport).map(drop),
            FreeMem => session.free_mem().run(transport).map(drop),
            ChangeKey => {
                let suite = suite_of(session);
                let (old, new) = (suite.key(1), suite.key(2));
                session.change_key(key_no(1), &old, &new).run(transport)
            }
            ChangeKeySettings => session
                .change_key_settings(KeySettings::DEFAULT)
                .run(transport),
            ChangeFileSettings => session
                .change_file_settings(file_no(0), CommMode::Mac, rights(0x1110))
                .under_key()
                .run(transport),
            CreateFile => session
                .create_std_data_file(file_no(20), None, CommMode::Mac, MASTER_ONLY, u24(10))
                .run(transport),
            DeleteFile => session.delete_file(file_no(2)).run(transport),
            Debit => session
                .debit(file_no(5), Amount::new(77).unwrap())
                .comm_mode(CommMode::Enciphered)
                .run(transport),
            LimitedCredit => session
                .limited_credit(file_no(4), Amount::new(0).unwrap())
                .comm_mode(CommMode::Mac)
                .run(transport),
            ClearRecordFile => session.clear_record_file(file_no(6)).run(transport),
            GetDfNames => session.get_df_names(buffer).run(transport).map(drop),
            SetDefaultKey => {
                let key = suite_of(session).key(1);
                session.set_default_key(&key).run(transport)
            }
            SetAts => session
                .set_ats(&[0x06, 0x75, 0x77, 0x81, 0x02, 0x80])
                .run(transport),
            Commit => session.commit_transaction().run(transport),
            Abort => session.abort_transaction().run(transport),
            GetApplicationIds => session.get_application_ids().run(transport).map(drop),
            CreateApplication => {
                let info = KeyInfo::new(desfire_ev1::wire::KeyFamily::Aes, 1).unwrap();
                let aid = Aid::new(0x77).unwrap();
                session
                    .create_application(aid, KeySettings::DEFAULT, info, None)
                    .run(transport)
            }
            DeleteApplication => session.delete_application(AID).run(transport),
            Format => session.format_picc().run(transport),
        }
    }
}

thread_local! {
    /// The suite of the session that is open, for ChangeKey, which needs keys of its type.
    static OPEN: core::cell::Cell<Suite> = const { core::cell::Cell::new(EV1[0]) };

    /// What D40's CRC16 has let through. One change in 65 536 does, and some ten thousand are tried.
    static SLIPPED: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

fn suite_of(_: &Session<Authenticated>) -> Suite {
    OPEN.get()
}

fn card(suite: Suite) -> Card {
    let mut random = Seeded(11);
    let mut files = Vec::new();
    for (number, mode) in (0..).zip(MODES) {
        files.push(standard(number, mode, random.bytes(DATA_LEN)));
        files.push(value(3 + number, mode, 12_345));
        let records = random.bytes(3 * RECORD_LEN);
        files.push(cyclic(6 + number, mode, RECORD_LEN, 5, records));
    }
    let mut card = suite.card(files);
    // The same key at PICC level, of whatever type.
    card.state_mut().set_picc_key(suite.card_key(0));
    card
}

/// Opens a session and does what has to come before the operation. The IV has moved already, and
/// a change is pending.
fn prepare<T: Transport + ?Sized>(
    suite: Suite,
    op: Op,
    transport: &mut T,
    seed: u64,
) -> Result<Session<Authenticated>, RunError<T::Error>> {
    OPEN.set(suite);
    let mut session = if op.is_at_picc_level() {
        let picc = Session::new()
            .select_application(Aid::PICC)
            .run(transport)?;
        suite.authenticate(picc, transport, 0, seed)?
    } else {
        suite.open(transport, 0, seed)?
    };
    session.get_key_version(KeyNo::MASTER).run(transport)?;
    if matches!(op, Commit | Abort) {
        Credit(CommMode::Mac).run(&mut session, transport, &mut [])?;
    }
    Ok(session)
}

/// An operation with all that the card has answered.
#[derive(Clone)]
struct Recorded {
    suite: Suite,
    framing: Framing,
    op: Op,
    seed: u64,
    /// Replies up to the operation.
    before: Vec<Vec<u8>>,
    /// Replies of the operation.
    replies: Vec<Vec<u8>>,
}

fn record(suite: Suite, framing: Framing, op: Op) -> Recorded {
    record_in(suite, framing, op, 42)
}

fn record_in(suite: Suite, framing: Framing, op: Op, seed: u64) -> Recorded {
    let format = LinkFormat {
        framing,
        max_command: 60,
    };
    let mut wire = Wire::new(card(suite), format);
    let mut session = prepare(suite, op, &mut wire, seed).unwrap();
    let before: Vec<_> = wire.log.drain(..).map(|(_, reply)| reply).collect();
    let mut buffer = [0xEE; BUFFER_LEN];
    op.run(&mut session, &mut wire, &mut buffer)
        .unwrap_or_else(|error| panic!("{suite:?} {op:?}: {error}"));
    Recorded {
        suite,
        framing,
        op,
        seed,
        before,
        replies: wire.log.into_iter().map(|(_, reply)| reply).collect(),
    }
}

/// What became of the operation: if only its question for the file's settings was out, nothing.
fn after<E>(error: &RunError<E>, otherwise: Outcome) -> Outcome {
    match error.protocol() {
        Some(error) if error.while_asking => Outcome::NotSent,
        _ => otherwise,
    }
}

impl Recorded {
    fn format(&self) -> LinkFormat {
        LinkFormat {
            framing: self.framing,
            max_command: 60,
        }
    }

    /// Plays the operation with other replies.
    fn play(&self, replies: &[Vec<u8>]) -> (Result<(), RunError<Silent>>, [u8; BUFFER_LEN]) {
        let mut script = Script::new(self.format(), self.before.iter().chain(replies).cloned());
        let mut session = prepare(self.suite, self.op, &mut script, self.seed).unwrap();
        let mut buffer = [0xEE; BUFFER_LEN];
        let result = self.op.run(&mut session, &mut script, &mut buffer);
        if result.is_err() {
            assert_lost(&mut session);
        } else {
            assert!(!session.is_lost());
        }
        (result, buffer)
    }

    /// Plays the operation with other replies, which must be refused; says why they were. Nothing
    /// if they slipped through D40's 16 bits by chance.
    #[track_caller]
    fn refused(
        &self,
        replies: &[Vec<u8>],
        what: impl core::fmt::Display,
    ) -> Option<RunError<Silent>> {
        let (result, buffer) = self.play(replies);
        let Err(error) = result else {
            if self.has_16_bits() {
                let slipped = SLIPPED.get() + 1;
                SLIPPED.set(slipped);
                assert!(slipped <= 4, "more than chance: {what}");
                return None;
            }
            panic!(
                "{:?} {:?} {:?}: accepted with {what}\n{replies:02X?}\nwhere the card said\n{:02X?}",
                self.suite, self.framing, self.op, self.replies
            );
        };
        let (window, rest) = buffer.split_at(self.op.window());
        assert!(
            window.iter().all(|byte| *byte == 0),
            "{:?} {:?}, {what}: left in the buffer {window:02X?}",
            self.suite,
            self.op
        );
        assert!(rest.iter().all(|byte| *byte == 0xEE), "outside the window");
        Some(error)
    }

    fn has_16_bits(&self) -> bool {
        !self.suite.is_ev1()
            && matches!(
                self.op,
                GetCardUid
                    | Read(CommMode::Enciphered)
                    | ReadToEnd(CommMode::Enciphered)
                    | ReadRecords(CommMode::Enciphered)
                    | ReadAllRecords(CommMode::Enciphered)
                    | GetValue(CommMode::Enciphered)
            )
    }

    /// Not only refused, but for the bytes: neither the caller nor the card is blamed.
    #[track_caller]
    fn not_believed(
        &self,
        replies: &[Vec<u8>],
        what: impl core::fmt::Display,
    ) -> Option<ErrorKind> {
        let error = self.refused(replies, &what)?;
        let Some(Error { kind, outcome, .. }) = error.protocol() else {
            panic!("{:?} {:?}, {what}: {error}", self.suite, self.op);
        };
        let fair = match kind {
            ErrorKind::Authenticity(_) | ErrorKind::Malformed(_) => true,
            ErrorKind::RefusedIso(_) => self.framing == Framing::Wrapped,
            // Nobody can tell a longer answer from a short buffer, or where one ends whose mark is gone.
            ErrorKind::Misuse(Misuse::AnswerTooLong | Misuse::LengthNeeded) => {
                self.op.is_open_ended()
            }
            _ => false,
        };
        let checked = matches!(kind, ErrorKind::RefusedIso(sw) if sw.is_checking_error());
        let expected = after(
            &error,
            if checked {
                Outcome::Refused
            } else {
                Outcome::Unknown
            },
        );
        assert_eq!(*outcome, expected);
        assert!(
            fair,
            "{:?} {:?}, {what}: the wrong one is blamed: {kind}",
            self.suite, self.op
        );
        Some(*kind)
    }

    /// The replies with the payload of one changed.
    fn with_payload(&self, frame: usize, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Vec<u8>> {
        let mut replies = self.replies.clone();
        let (status, mut payload) = unframed(self.framing, &replies[frame]);
        change(&mut payload);
        replies[frame] = framed(self.framing, status, &payload);
        replies
    }
}

/// Which bytes of a reply are its status.
fn status_bytes(framing: Framing, reply: &[u8]) -> core::ops::Range<usize> {
    match framing {
        Framing::Native => 0..1,
        Framing::Wrapped => reply.len() - 2..reply.len(),
    }
}

const FRAMINGS: [Framing; 2] = [Framing::Native, Framing::Wrapped];

// ---------------------------------------------------------------------------------------------
// Bits

#[test]
fn the_recordings_are_accepted_as_they_are() {
    for suite in SUITES {
        for op in all_ops() {
            for framing in FRAMINGS {
                let recorded = record(suite, framing, op);
                recorded.play(&recorded.replies).0.unwrap();
            }
        }
    }
}

/// Every bit of every frame. A bit of the payload must show as a wrong MAC or CRC, a bit of the
/// status as a refusal or as no frame at all.
#[test]
fn every_single_bit() {
    let mut flips = 0;
    for (suite, op) in protected() {
        for framing in FRAMINGS {
            let recorded = record(suite, framing, op);
            for frame in 0..recorded.replies.len() {
                let status = status_bytes(framing, &recorded.replies[frame]);
                for bit in 0..recorded.replies[frame].len() * 8 {
                    let mut replies = recorded.replies.clone();
                    replies[frame][bit / 8] ^= 1 << (bit % 8);
                    let what = format!("bit {bit} of frame {frame} flipped");
                    flips += 1;
                    if !status.contains(&(bit / 8)) {
                        let kind = recorded.not_believed(&replies, &what);
                        assert!(
                            matches!(
                                kind,
                                // The last: what is left when the mark of the padding is gone.
                                None | Some(
                                    ErrorKind::Authenticity(_)
                                        | ErrorKind::Misuse(Misuse::LengthNeeded)
                                )
                            ),
                            "{suite:?} {op:?} {what}: {kind:?}"
                        );
                        continue;
                    }
                    let run_error = recorded.refused(&replies, &what).unwrap();
                    let error = run_error.protocol().unwrap();
                    let continued = frame > 0 && matches!(op, Write(_));
                    let expected = match error.kind {
                        ErrorKind::Refused(_) if !continued => Outcome::Refused,
                        ErrorKind::RefusedIso(sw) if sw.is_checking_error() && !continued => {
                            Outcome::Refused
                        }
                        _ => Outcome::Unknown,
                    };
                    assert!(
                        matches!(
                            error.kind,
                            ErrorKind::Refused(_)
                                | ErrorKind::RefusedIso(_)
                                | ErrorKind::Malformed(_)
                        ) && error.outcome == after(&run_error, expected),
                        "{suite:?} {op:?} {what}: {error}"
                    );
                }
            }
        }
    }
    println!("{flips} single bits");
}

/// Every bit of every command, on its way to a card that is there. In an EV1 session a command that
/// was altered is never a success, whatever the card has made of it; and where the library says that
/// the card did not do it, it has not.
#[test]
fn every_single_bit_of_every_command() {
    /// Flips a bit of one command.
    struct Flipper {
        wire: Wire,
        /// Which of the commands to come, and its bit.
        target: Option<(usize, usize)>,
    }

    impl Link for Flipper {
        type Error = Silent;

        fn format(&self) -> LinkFormat {
            self.wire.format
        }
    }

    impl Transport for Flipper {
        fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
            let mut command = command.to_vec();
            match &mut self.target {
                Some((0, bit)) => {
                    command[*bit / 8] ^= 1 << (*bit % 8);
                    self.target = None;
                }
                Some((count, _)) => *count -= 1,
                None => {}
            }
            let answer = self.wire.card.handle(&command);
            rig::put(&answer, reply)
        }
    }

    let mut outcomes = [0; 2];
    for suite in EV1 {
        for op in all_ops() {
            let mut wire = Wire::new(card(suite), LinkFormat::NATIVE);
            let mut session = prepare(suite, op, &mut wire, 42).unwrap();
            wire.log.clear();
            let mut buffer = [0; BUFFER_LEN];
            op.run(&mut session, &mut wire, &mut buffer).unwrap();
            let sent: Vec<_> = wire.log.into_iter().map(|(sent, _)| sent).collect();
            for (frame, sent) in sent.iter().enumerate() {
                for bit in 0..sent.len() * 8 {
                    let mut flipper = Flipper {
                        wire: Wire::new(card(suite), LinkFormat::NATIVE),
                        target: None,
                    };
                    let mut session = prepare(suite, op, &mut flipper, 42).unwrap();
                    let before = flipper.wire.card.state().clone();
                    flipper.target = Some((frame, bit));
                    let error = op
                        .run(&mut session, &mut flipper, &mut buffer)
                        .expect_err("an altered command was a success");
                    assert_lost(&mut session);
                    outcomes[usize::from(error.outcome() == Outcome::Unknown)] += 1;
                    if error.outcome() != Outcome::Unknown {
                        let after = flipper.wire.card.state();
                        assert_eq!(after, &before, "{op:?}, bit {bit} of {frame}: {error}");
                    }
                }
            }
        }
    }
    let [refused, unknown] = outcomes;
    assert!(refused > 1000 && unknown > 1000, "{outcomes:?}");
}

/// Whole bytes, so that no check looks at a part only.
#[test]
fn every_byte_by_another() {
    let mut random = Seeded(8);
    for (suite, op) in protected() {
        let recorded = record(suite, Framing::Native, op);
        for frame in 0..recorded.replies.len() {
            for index in 0..recorded.replies[frame].len() - 1 {
                let with = random.next() as u8 | 1;
                let replies = recorded.with_payload(frame, |payload| payload[index] ^= with);
                recorded.not_believed(&replies, format!("byte {index} of frame {frame} changed"));
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Lengths

/// Every frame cut to every length, with its status and without.
#[test]
fn every_truncation() {
    for (suite, op) in protected() {
        for framing in FRAMINGS {
            let recorded = record(suite, framing, op);
            for frame in 0..recorded.replies.len() {
                let (_, payload) = unframed(framing, &recorded.replies[frame]);
                for len in 0..payload.len() {
                    let replies = recorded.with_payload(frame, |payload| payload.truncate(len));
                    recorded.not_believed(&replies, format!("frame {frame} cut to {len} bytes"));
                    let replies = recorded.with_payload(frame, |payload| {
                        payload.drain(..payload.len() - len);
                    });
                    recorded.not_believed(&replies, format!("last {len} bytes of frame {frame}"));
                }
                // The bytes as they come from the link, status and all.
                for len in 0..recorded.replies[frame].len() {
                    let mut replies = recorded.replies.clone();
                    replies[frame].truncate(len);
                    recorded.refused(&replies, format!("{len} raw bytes of frame {frame}"));
                }
                // The reply is over after this frame.
                if frame + 1 < recorded.replies.len() && !matches!(op, ReadAsking(_) | Write(_)) {
                    let mut replies = recorded.replies[..=frame].to_vec();
                    replies[frame] = framed(framing, 0x00, &payload);
                    recorded.not_believed(&replies, format!("frame {frame} as the last"));
                }
            }
        }
    }
}

/// Up to 20 bytes more, in front, behind, and in the middle.
#[test]
fn every_extension() {
    for (suite, op) in protected() {
        for framing in FRAMINGS {
            let recorded = record(suite, framing, op);
            for frame in 0..recorded.replies.len() {
                let (_, payload) = unframed(framing, &recorded.replies[frame]);
                for extra in 1..=20 {
                    let mut marked = vec![0; extra];
                    marked[0] = 0x80;
                    let again: Vec<u8> =
                        payload.iter().rev().copied().cycle().take(extra).collect();
                    let fillers = [vec![0; extra], vec![0xFF; extra], marked, again];
                    for filler in fillers.iter().filter(|filler| !filler.is_empty()) {
                        // Zeros in front of the MAC, which D40 does not see.
                        let zeros = filler.iter().all(|byte| *byte == 0);
                        if zeros
                            && !suite.is_ev1()
                            && matches!(
                                op,
                                ReadToEnd(CommMode::Mac) | ReadAllRecords(CommMode::Mac)
                            )
                        {
                            continue;
                        }
                        for at in [0, payload.len() / 2, payload.len()] {
                            let replies = recorded.with_payload(frame, |payload| {
                                payload.splice(at..at, filler.iter().copied());
                            });
                            recorded.not_believed(
                                &replies,
                                format!("{extra} bytes {filler:02X?} put in at {at} of {frame}"),
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Data frames without end: whatever the operation, it gives up after no more than its answer and
/// a little.
#[test]
fn a_card_that_never_comes_to_an_end() {
    /// Answers the session's opening from a list and then always the same.
    struct Endless {
        opening: Script,
        reply: Vec<u8>,
        count: usize,
    }

    impl Link for Endless {
        type Error = Silent;

        fn format(&self) -> LinkFormat {
            self.opening.format
        }
    }

    impl Transport for Endless {
        fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
            if self.opening.sent.len() < self.opening.replies.len() {
                return self.opening.exchange(command, reply);
            }
            self.count += 1;
            assert!(self.count < 1000, "no end to it");
            rig::put(&self.reply, reply)
        }
    }

    for suite in SUITES {
        for op in all_ops() {
            for framing in FRAMINGS {
                let recorded = record(suite, framing, op);
                for len in [0, 1, 7, 8, 16, 48, 59, 200] {
                    let mut endless = Endless {
                        opening: Script::new(recorded.format(), recorded.before.clone()),
                        reply: framed(framing, 0xAF, &vec![0x55; len]),
                        count: 0,
                    };
                    let mut session = prepare(suite, op, &mut endless, recorded.seed).unwrap();
                    let mut buffer = [0xEE; BUFFER_LEN];
                    let error = op.run(&mut session, &mut endless, &mut buffer).unwrap_err();
                    assert_eq!(error.outcome(), after(&error, Outcome::Unknown));
                    assert_lost(&mut session);
                    let most = match (op, len) {
                        // The command itself may take this many frames.
                        (Write(_), 0) => 4,
                        (_, 0) => 1,
                        (Write(_), _) => 1,
                        // An answer, 32 bytes for what protects it, and the frame too many.
                        (_, len) => (84.max(op.window()) + 32) / len + 1,
                    };
                    assert!(
                        endless.count <= most,
                        "{suite:?} {op:?}: {} frames of {len} bytes",
                        endless.count
                    );
                    assert!(buffer[..op.window()].iter().all(|byte| *byte == 0));
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Order

/// Frames of one reply left out, doubled and exchanged, with the statuses as they come and with
/// statuses put right.
#[test]
fn frames_of_a_chain_in_disorder() {
    let mut chains = 0;
    for (suite, op) in protected() {
        for framing in FRAMINGS {
            let recorded = record(suite, framing, op);
            let frames = recorded.replies.len();
            // The first frames of a long write carry nothing that could be in disorder, and the
            // first of an asking read is a reply of its own.
            if frames < 2 || matches!(op, Write(_) | ReadAsking(_)) {
                continue;
            }
            chains += 1;
            let try_both = |replies: Vec<Vec<u8>>, what: String| {
                // What comes after the end is never asked for.
                if !replies.starts_with(&recorded.replies) {
                    recorded.refused(&replies, &what);
                }
                let mut fixed = replies;
                let last = fixed.len() - 1;
                for (index, reply) in fixed.iter_mut().enumerate() {
                    let (_, payload) = unframed(framing, reply);
                    *reply = framed(framing, if index == last { 0x00 } else { 0xAF }, &payload);
                }
                if fixed != recorded.replies {
                    recorded.refused(&fixed, format!("{what}, statuses put right"));
                }
            };
            for frame in 0..frames {
                let mut replies = recorded.replies.clone();
                replies.remove(frame);
                try_both(replies, format!("frame {frame} left out"));
                let mut replies = recorded.replies.clone();
                replies.insert(frame, replies[frame].clone());
                try_both(replies, format!("frame {frame} doubled"));
                for other in 0..frame {
                    let mut replies = recorded.replies.clone();
                    replies.swap(frame, other);
                    try_both(replies, format!("frames {frame} and {other} exchanged"));
                    let mut replies = recorded.replies.clone();
                    replies[frame] = replies[other].clone();
                    try_both(replies, format!("frame {other} in the place of {frame}"));
                }
            }
        }
    }
    assert!(chains > 20, "only {chains} replies of several frames");
}

/// In an EV1 session a reply fits its own command at its own place in its own session.
#[test]
fn replies_of_other_commands_times_and_sessions() {
    // No two in a row alter anything; the second round repeats the first.
    let round: Vec<Op> = MODES
        .iter()
        .flat_map(|mode| {
            [
                Read(*mode),
                ReadToEnd(*mode),
                GetValue(*mode),
                ReadRecords(*mode),
            ]
        })
        .chain([
            GetVersion,
            GetKeySettings,
            GetKeyVersion,
            GetCardUid,
            GetFileIds,
            Credit(CommMode::Mac),
            Credit(CommMode::Enciphered),
            Write(CommMode::Plain),
            Commit,
            Credit(CommMode::Plain),
            FreeMem,
        ])
        .collect();
    let ops = [&round[..], &round[..]].concat();
    for suite in EV1 {
        // The replies to each operation, in two sessions.
        let sessions = [1, 2].map(|seed| {
            let mut wire = Wire::new(card(suite), LinkFormat::NATIVE);
            let mut session = prepare(suite, FreeMem, &mut wire, seed).unwrap();
            let take = |wire: &mut Wire| -> Vec<Vec<u8>> {
                wire.log.drain(..).map(|(_, reply)| reply).collect()
            };
            let opening = take(&mut wire);
            let mut buffer = [0; BUFFER_LEN];
            let replies: Vec<_> = ops
                .iter()
                .map(|op| {
                    op.run(&mut session, &mut wire, &mut buffer).unwrap();
                    take(&mut wire)
                })
                .collect();
            (opening, replies)
        });
        let [(opening, honest), (_, other)] = &sessions;
        for (index, op) in ops.iter().enumerate() {
            let before: Vec<Vec<u8>> = opening
                .iter()
                .chain(honest[..index].iter().flatten())
                .cloned()
                .collect();
            let played = |replies: &[Vec<u8>]| {
                let all = before.iter().chain(replies).cloned();
                let mut script = Script::new(LinkFormat::NATIVE, all);
                let mut session = prepare(suite, FreeMem, &mut script, 1).unwrap();
                let mut buffer = [0; BUFFER_LEN];
                for op in &ops[..index] {
                    op.run(&mut session, &mut script, &mut buffer).unwrap();
                }
                buffer.fill(0xEE);
                let result = op.run(&mut session, &mut script, &mut buffer);
                if result.is_err() {
                    assert_lost(&mut session);
                    assert!(buffer[..op.window()].iter().all(|byte| *byte == 0));
                }
                result
            };
            played(&honest[index]).unwrap();
            for (at, replies) in honest.iter().enumerate() {
                if at != index {
                    let result = played(replies);
                    assert!(
                        result.is_err(),
                        "{suite:?}: {op:?} took the reply of number {at}"
                    );
                }
            }
            for (at, replies) in other.iter().enumerate() {
                let result = played(replies);
                assert!(
                    result.is_err(),
                    "{suite:?}: {op:?} took reply {at} of another session"
                );
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Statuses

/// Every status but success at every place, alone and with bytes behind it.
#[test]
fn every_error_status() {
    for suite in SUITES {
        for op in all_ops() {
            let recorded = record(suite, Framing::Wrapped, op);
            for frame in 0..recorded.replies.len() {
                let (_, payload) = unframed(recorded.framing, &recorded.replies[frame]);
                for status in (0..=0xFF).filter(|status| !matches!(status, 0x00 | 0xAF)) {
                    for payload in [&[][..], &payload] {
                        let mut replies = recorded.replies[..=frame].to_vec();
                        replies[frame] = framed(recorded.framing, status, payload);
                        let error = recorded.refused(&replies, format!("status {status:02X}"));
                        let run_error = error.unwrap();
                        let error = run_error.protocol().unwrap();
                        let status = Status::from_byte(status);
                        assert_eq!(error.kind, ErrorKind::Refused(status));
                        assert_eq!(error.status(), Some(status));
                        // The earlier frames of a write to a standard file may have been written.
                        let expected = if frame > 0 && matches!(op, Write(_)) {
                            Outcome::Unknown
                        } else {
                            Outcome::Refused
                        };
                        assert_eq!(error.outcome, after(&run_error, expected));
                    }
                }
            }
        }
    }
}

/// Success before the command is out, and data in the middle of it.
#[test]
fn a_card_that_answers_before_it_has_heard_all() {
    for suite in SUITES {
        for mode in MODES {
            for framing in FRAMINGS {
                let recorded = record(suite, framing, Write(mode));
                let last = recorded.replies.len() - 1;
                assert!(last >= 2, "a write of several frames");
                for frame in 0..last {
                    for (reply, kind) in [
                        (
                            framed(framing, 0x00, &[]),
                            ErrorKind::Malformed(Malformed::FinishedTooEarly),
                        ),
                        (
                            recorded.replies[last].clone(),
                            ErrorKind::Malformed(Malformed::FinishedTooEarly),
                        ),
                        (
                            framed(framing, 0xAF, &[0x11]),
                            ErrorKind::Malformed(Malformed::DataTooEarly),
                        ),
                    ] {
                        let mut replies = recorded.replies[..=frame].to_vec();
                        replies[frame] = reply;
                        let found = recorded.not_believed(&replies, "an early answer");
                        assert_eq!(found, Some(kind));
                    }
                }
                // The card wants more when there is no more.
                let mut replies = recorded.replies.clone();
                replies[last] = framed(framing, 0xAF, &[]);
                let found = recorded.not_believed(&replies, "AF at the end");
                assert_eq!(found, Some(ErrorKind::Malformed(Malformed::EmptyFrame)));
            }
        }
    }
}

/// Status words outside 91xx come from readers and from cards that are none of ours.
#[test]
fn status_words_of_others() {
    for suite in SUITES {
        for op in [Read(CommMode::Enciphered), GetVersion, Commit] {
            let recorded = record(suite, Framing::Wrapped, op);
            for sw in [0x9000_u16, 0x6300, 0x6700, 0x6982, 0x6D00, 0x6F00, 0x0091] {
                let (_, payload) = unframed(Framing::Wrapped, &recorded.replies[0]);
                let mut replies = recorded.replies.clone();
                replies[0] = [&payload[..], &sw.to_be_bytes()].concat();
                let kind = recorded
                    .not_believed(&replies, format!("status word {sw:04X}"))
                    .unwrap();
                assert!(kind.to_string().contains(&format!("{sw:04X}")), "{kind}");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Handshakes

/// A handshake with its two replies.
fn handshake(suite: Suite, framing: Framing) -> (LinkFormat, Vec<Vec<u8>>) {
    let format = LinkFormat {
        framing,
        max_command: 60,
    };
    let mut wire = Wire::new(card(suite), format);
    suite.open(&mut wire, 0, 9).unwrap();
    let replies = wire.log.into_iter().map(|(_, reply)| reply).collect();
    (format, replies)
}

#[track_caller]
fn handshake_fails(suite: Suite, format: LinkFormat, replies: Vec<Vec<u8>>, most: usize) -> Error {
    let mut script = Script::new(format, replies);
    let error = suite
        .open(&mut script, 0, 9)
        .expect_err("there must be no session");
    assert!(script.sent.len() <= most, "went on after the end");
    *error.protocol().expect("an error of the library's own")
}

/// Every bit, every truncation and every extension of the challenge and the proof.
#[test]
fn tampered_handshakes() {
    for suite in SUITES {
        for framing in FRAMINGS {
            let (format, honest) = handshake(suite, framing);
            // A bit of the challenge: the token is another, and the proof does not fit. Under D40
            // the proof depends on RndA alone; there it is the card that sees the wrong token and
            // gives no proof at all.
            for frame in [1, 2] {
                let status = status_bytes(framing, &honest[frame]);
                for bit in 0..honest[frame].len() * 8 {
                    if frame == 1 && !suite.is_ev1() && !status.contains(&(bit / 8)) {
                        continue;
                    }
                    let mut replies = honest.clone();
                    replies[frame][bit / 8] ^= 1 << (bit % 8);
                    let error = handshake_fails(suite, format, replies, 3);
                    if !status.contains(&(bit / 8)) {
                        assert_eq!(error.kind, Authenticity::ProofWrong.into());
                        assert_eq!(error.outcome, Outcome::Unknown);
                    }
                }
                let (status, payload) = unframed(framing, &honest[frame]);
                for len in (0..=40).filter(|len| *len != payload.len()) {
                    let mut other = payload.clone();
                    other.resize(len, 0);
                    let mut replies = honest.clone();
                    replies[frame] = framed(framing, status, &other);
                    handshake_fails(suite, format, replies, 3);
                }
            }
        }
    }
}

/// The proof of an earlier handshake, of a key of the same name, the reader's own bytes.
#[test]
fn proofs_from_elsewhere() {
    for suite in SUITES {
        let (format, honest) = handshake(suite, Framing::Native);
        let mut wire = Wire::new(card(suite), format);
        suite.open(&mut wire, 0, 10).unwrap();
        let another = wire.log[2].1.clone();
        let challenge = unframed(Framing::Native, &honest[1]).1;
        let token = wire.log[2].0[1..].to_vec();
        let nonce_len = challenge.len();
        for proof in [
            another,
            framed(Framing::Native, 0x00, &challenge),
            framed(Framing::Native, 0x00, &token[..nonce_len]),
            framed(Framing::Native, 0x00, &token[nonce_len..]),
            framed(Framing::Native, 0x00, &vec![0; nonce_len]),
            framed(Framing::Native, 0x00, &[]),
        ] {
            let replies = vec![honest[0].clone(), honest[1].clone(), proof];
            handshake_fails(suite, format, replies, 3);
        }
        // No proof at all, or more of the handshake.
        for reply in [
            framed(
                Framing::Native,
                0xAF,
                &unframed(Framing::Native, &honest[2]).1,
            ),
            honest[1].clone(),
        ] {
            let replies = vec![
                honest[0].clone(),
                honest[1].clone(),
                reply,
                honest[2].clone(),
            ];
            let error = handshake_fails(suite, format, replies, 3);
            assert_eq!(error.kind, Malformed::Handshake.into());
        }
        // Success at once.
        let (_, proof) = unframed(Framing::Native, &honest[2]);
        let replies = vec![honest[0].clone(), framed(Framing::Native, 0x00, &proof)];
        let error = handshake_fails(suite, format, replies, 2);
        assert_eq!(error.kind, Malformed::Handshake.into());
    }
}

// ---------------------------------------------------------------------------------------------
// ISO 7816-4 commands

/// READ BINARY and READ RECORD in an EV1 session carry a CMAC: every bit, cut and extension shows.
#[test]
fn iso_reads() {
    type IsoRead = fn(&mut Session<Authenticated>, &mut Script, &mut [u8]) -> Option<Error>;
    fn error<T>(result: Result<T, RunError<Silent>>) -> Option<Error> {
        result.err().map(|error| *error.protocol().unwrap())
    }
    let reads: [IsoRead; 2] = [
        |session, script, buffer| {
            let file = ShortFileId::new(1).unwrap();
            let place = BinaryPlace::Short { file, offset: 3 };
            error(session.iso_read_binary(place, buffer).run(script))
        },
        |session, script, buffer| {
            let file = ShortFileId::new(2).unwrap();
            let read = session.iso_read_record(Some(file), RecordRange::One(1), buffer);
            error(read.run(script))
        },
    ];
    for suite in EV1 {
        for (read, len) in reads.into_iter().zip([40, RECORD_LEN]) {
            let mut card = suite.card([
                standard(1, CommMode::Plain, Seeded(1).bytes(64)),
                cyclic(
                    2,
                    CommMode::Plain,
                    RECORD_LEN,
                    3,
                    Seeded(2).bytes(RECORD_LEN),
                ),
            ]);
            // The card's own answers, whatever the library makes of them.
            let mut wire = Wire::new(card.clone(), LinkFormat::WRAPPED);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            session.free_mem().run(&mut wire).unwrap();
            let opening: Vec<_> = wire.log.iter().map(|(_, reply)| reply.clone()).collect();
            for (sent, _) in &wire.log {
                card.handle(sent);
            }
            let play = |reply: &[u8]| {
                let replies = opening.iter().cloned().chain([reply.to_vec()]);
                let mut script = Script::new(LinkFormat::WRAPPED, replies);
                let mut session = suite.open(&mut script, 0, 1).unwrap();
                session.free_mem().run(&mut script).unwrap();
                let mut buffer = vec![0xEE; len];
                let error = read(&mut session, &mut script, &mut buffer);
                if error.is_some() {
                    assert!(buffer.iter().all(|byte| *byte == 0));
                    assert_lost(&mut session);
                }
                (error, script.sent.pop().unwrap())
            };
            let (_, sent) = play(&[0x6A, 0x82]);
            let honest = card.handle(&sent);
            assert_eq!(honest.len(), len + 8 + 2, "data, CMAC, 9000");
            assert_eq!(play(&honest).0, None);
            for bit in 0..honest.len() * 8 {
                let mut reply = honest.clone();
                reply[bit / 8] ^= 1 << (bit % 8);
                let kind = play(&reply).0.expect("accepted").kind;
                if bit / 8 < len + 8 {
                    assert_eq!(kind, Authenticity::MacWrong.into());
                } else {
                    assert!(!matches!(kind, ErrorKind::Misuse(_)), "{kind}");
                }
            }
            for cut in 0..honest.len() {
                assert!(play(&honest[..cut]).0.is_some());
                let shorter = [&honest[..cut.min(len + 7)], &[0x90, 0x00]].concat();
                assert!(play(&shorter).0.is_some());
            }
            for extra in 1..=20 {
                let mut longer = honest.clone();
                longer.splice(len..len, vec![0; extra]);
                assert!(play(&longer).0.is_some());
            }
        }
    }
}

/// Every bit of the last answer of the handshake by ISO commands, its cuts and extensions.
#[test]
fn tampered_iso_handshakes() {
    for suite in EV1 {
        let mut wire = Wire::new(card(suite), LinkFormat::WRAPPED);
        let key = suite.key(0);
        let opened = |transport: &mut dyn Transport<Error = Silent>| {
            let selected = Session::new().select_application(AID).run(transport)?;
            let mut rng = Seeded(3);
            let handshake = selected.authenticate_iso7816(KeyNo::MASTER, &key, &mut rng);
            handshake.run(transport)
        };
        opened(&mut wire).unwrap();
        let honest: Vec<_> = wire.log.iter().map(|(_, reply)| reply.clone()).collect();
        let nonce_len = suite.key_type.nonce_len();
        assert_eq!(honest[3].len(), 2 * nonce_len + 2);
        let fails = |replies: Vec<Vec<u8>>| {
            let mut script = Script::new(LinkFormat::WRAPPED, replies);
            let error = opened(&mut script).expect_err("there must be no session");
            *error.protocol().unwrap()
        };
        for bit in 0..honest[3].len() * 8 {
            // Bits of the first half change RPICC2 alone as far as they do not reach the second:
            // then the session key is wrong, which the first MAC shows.
            let reaches = bit / 8 + suite.block_len() >= nonce_len;
            if !reaches {
                continue;
            }
            let mut replies = honest.clone();
            replies[3][bit / 8] ^= 1 << (bit % 8);
            let error = fails(replies);
            if bit / 8 < 2 * nonce_len {
                assert_eq!(error.kind, Authenticity::ProofWrong.into());
            }
        }
        for (frame, len) in (1..4).flat_map(|frame| (0..40).map(move |len| (frame, len))) {
            let data = &honest[frame][..honest[frame].len() - 2];
            if data.len() != len {
                let mut other = data.to_vec();
                other.resize(len, 0);
                other.extend([0x90, 0x00]);
                let mut replies = honest.clone();
                replies[frame] = other;
                fails(replies);
            }
        }
    }
}

/// **A limit of the protocol:** the card's last answer proves nothing under DES, 2K3DES and AES. The
/// token holds a block that the card has chosen, enciphered; with it anybody can make an answer that
/// deciphers to RPCD2. What he cannot make is the session key, and so the first MAC. A program must
/// not take the end of this handshake for a proof, as it may with the native ones.
#[test]
fn the_proof_of_an_iso_handshake_can_be_forged_and_the_first_mac_cannot() {
    for suite in EV1 {
        let (key, nonce_len, block_len) =
            (suite.key(0), suite.key_type.nonce_len(), suite.block_len());
        let ok = |data: &[u8]| [data, &[0x90, 0x00]].concat();
        let mut machine =
            rig::at_application().authenticate_iso7816(KeyNo::MASTER, &key, &mut Seeded(5));
        machine.start(LinkFormat::WRAPPED).unwrap();
        // Nobody in this test but the library knows the key.
        let challenge = vec![0x11; nonce_len];
        let Ok(Step::Transmit(external)) = machine.step(&ok(&challenge)) else {
            panic!("no token");
        };
        let token = external[5..5 + 2 * nonce_len].to_vec();
        let Ok(Step::Transmit(internal)) = machine.step(&ok(&[])) else {
            panic!("no INTERNAL AUTHENTICATE");
        };
        let rnd_pcd_2 = internal[5..5 + nonce_len].to_vec();
        // The last block of the token is E(challenge XOR the block before).
        let last = token.len() - block_len;
        let mut forged = vec![0; 2 * nonce_len];
        forged[last..].copy_from_slice(&token[last..]);
        for i in 0..block_len {
            forged[last - block_len + i] = challenge[nonce_len - block_len + i]
                ^ token[last - block_len + i]
                ^ rnd_pcd_2[nonce_len - block_len + i];
        }
        match machine.step(&ok(&forged)) {
            // Two blocks would have to fit.
            Err(error) => {
                assert_eq!(suite.key_type, KeyType::ThreeKey3Des, "{error}");
                assert_eq!(error.kind, Authenticity::ProofWrong.into());
            }
            Ok(Step::Done(mut session)) => {
                let mut script = Script::new(LinkFormat::WRAPPED, [vec![0; 13]]);
                script.replies[0].extend([0x91, 0x00]);
                session.get_key_settings().run(&mut script).unwrap_err();
                assert_lost(&mut session);
            }
            Ok(Step::Transmit(_)) => panic!("a fourth command"),
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Transports that lie

/// Says that it has received another number of bytes than it has.
struct Liar {
    script: Script,
    /// From this command on.
    from: usize,
    claim: fn(usize, usize) -> usize,
}

impl Link for Liar {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.script.format
    }
}

impl Transport for Liar {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        let len = self.script.exchange(command, reply)?;
        if self.script.sent.len() > self.from {
            return Ok((self.claim)(len, reply.len()));
        }
        Ok(len)
    }
}

#[test]
fn transports_that_lie_about_lengths() {
    let claims: [fn(usize, usize) -> usize; 8] = [
        |_, _| usize::MAX,
        |_, _| usize::MAX / 2 + 1,
        |_, room| room + 1,
        |_, room| room,
        |len, _| len + 1,
        |len, _| len + 17,
        |len, _| len - 1,
        |_, _| 0,
    ];
    for suite in EV1 {
        for op in all_ops() {
            for framing in FRAMINGS {
                let recorded = record(suite, framing, op);
                for (number, claim) in claims.into_iter().enumerate() {
                    let replies = recorded.before.iter().chain(&recorded.replies).cloned();
                    let mut liar = Liar {
                        script: Script::new(recorded.format(), replies),
                        from: recorded.before.len(),
                        claim,
                    };
                    let mut session = prepare(suite, op, &mut liar, recorded.seed).unwrap();
                    let mut buffer = [0xEE; BUFFER_LEN];
                    let error = op
                        .run(&mut session, &mut liar, &mut buffer)
                        .expect_err("a lie was believed");
                    assert_lost(&mut session);
                    assert!(buffer[..op.window()].iter().all(|byte| *byte == 0));
                    // A claim beyond the buffer is the transport's doing, at whatever time.
                    if number < 3 {
                        let kind = error.kind().unwrap();
                        assert_eq!(kind, &ErrorKind::Malformed(Malformed::TooLong));
                    }
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Garbage

/// Replies that look more or less like replies.
fn garbage(framing: Framing) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let payload = prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..70),
        1 => Just(Vec::new()),
        1 => (0..70_usize).prop_map(|len| vec![0; len]),
        1 => proptest::collection::vec(any::<u8>(), 8),
    ];
    let status = prop_oneof![
        4 => Just(0x00_u8),
        4 => Just(0xAF),
        1 => any::<u8>(),
    ];
    let frame =
        (status, payload).prop_map(move |(status, payload)| framed(framing, status, &payload));
    let reply = prop_oneof![
        9 => frame,
        1 => proptest::collection::vec(any::<u8>(), 0..258),
    ];
    proptest::collection::vec(reply, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes, in whatever state: no panic; and in an EV1 session no success.
    #[test]
    fn garbage_is_not_believed(
        suite in select(&SUITES[..]),
        op in select(all_ops()),
        state in 0..4_u8,
        (framing, replies) in select(&FRAMINGS[..])
            .prop_flat_map(|framing| (Just(framing), garbage(framing))),
    ) {
        let format = LinkFormat { framing, max_command: 60 };
        let mut wire = Wire::new(card(suite), format);
        let mut session = prepare(suite, op, &mut wire, 3).unwrap();
        if state == 1 {
            // Somewhere on the way, with the files known.
            for file in 0..9 {
                if !op.is_at_picc_level() {
                    session.get_file_settings(file_no(file)).run(&mut wire).unwrap();
                }
            }
        }
        let lost = state == 2;
        if lost {
            let mut silent = Script::new(format, []);
            session.free_mem().run(&mut silent).unwrap_err();
        }
        let mut script = Script::new(format, replies);
        let mut buffer = [0xEE; BUFFER_LEN];
        let result = op.run(&mut session, &mut script, &mut buffer);
        if lost {
            prop_assert_eq!(result.as_ref().unwrap_err().outcome(), Outcome::NotSent);
            prop_assert!(script.sent.is_empty());
            prop_assert!(buffer.iter().all(|byte| *byte == 0xEE));
        } else if suite.is_ev1() {
            prop_assert!(result.is_err());
        }
        if let Err(error) = result {
            // D40 does not protect file settings, and by wrong ones a file may be out of reach.
            let asked = !suite.is_ev1() && matches!(op, ReadAsking(_));
            // While the settings are asked for, whatever goes wrong, the command is not sent.
            let unanswered = error.protocol().is_none_or(|error| error.while_asking);
            if !lost && !unanswered && error.outcome() == Outcome::NotSent {
                prop_assert!(asked && !session.is_lost(), "{}", error);
                return Ok(());
            }
            assert_lost(&mut session);
            prop_assert!(lost || buffer[..op.window()].iter().all(|byte| *byte == 0));
            let text = format!("{error} {error:?}");
            prop_assert!(!text.is_empty());
        }
    }

    /// The same without authentication, where nothing can be authentic: no panic, no endless chain.
    #[test]
    fn garbage_without_authentication(
        which in 0..12_u8,
        (framing, replies) in select(&FRAMINGS[..])
            .prop_flat_map(|framing| (Just(framing), garbage(framing))),
    ) {
        let mut script = Script::new(LinkFormat { framing, max_command: 60 }, replies);
        let script = &mut script;
        let mut buffer = [0; 64];
        let mut session = rig::at_application();
        let file = file_no(3);
        match which {
            0 => drop(session.get_version().run(script)),
            1 => drop(session.get_file_settings(file).run(script)),
            2 => drop(session.get_file_ids().run(script)),
            3 => drop(session.get_iso_file_ids().run(script)),
            4 => drop(session.read_data(file, 0..64, &mut buffer).run(script)),
            5 => drop(session.read_data_to_end(file, 0, &mut buffer).run(script)),
            6 => drop(session.read_all_records(file, 0, &mut buffer).run(script)),
            7 => drop(session.write_data(file, 0, &[7; 130]).run(script)),
            8 => drop(session.get_value(file).run(script)),
            9 => drop(Session::new().get_application_ids().run(script)),
            10 => drop(session.select_application(AID).run(script)),
            _ => {
                for suite in SUITES {
                    // A right proof by chance is as good as impossible.
                    prop_assert!(suite.authenticate(rig::at_application(), script, 0, 1).is_err());
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// What is not protected, and known not to be

/// Where the card cuts its replies is its own business: any cut of the same bytes is accepted.
#[test]
fn the_borders_of_frames_are_free() {
    for suite in SUITES {
        for op in all_ops() {
            let recorded = record(suite, Framing::Native, op);
            // In GetDFNames they mean something, see below.
            if matches!(op, Write(_) | ReadAsking(_) | GetDfNames) {
                continue;
            }
            let joined: Vec<u8> = recorded
                .replies
                .iter()
                .flat_map(|reply| unframed(Framing::Native, reply).1)
                .collect();
            if joined.is_empty() {
                continue;
            }
            for chunk in [1, 2, 3, 7, 8, 15, 16, 17, 48, 59, 200] {
                let frames: Vec<_> = puppet::cut(&joined, chunk)
                    .into_iter()
                    .map(|(status, payload)| framed(Framing::Native, status, &payload))
                    .collect();
                recorded.play(&frames).0.unwrap();
                // With the status in a frame of its own.
                let mut late = frames;
                let last = late.len() - 1;
                late[last][0] = 0xAF;
                late.push(vec![0x00]);
                recorded.play(&late).0.unwrap();
            }
        }
    }
}

/// SelectApplication and the change of the key in use are answered outside secure messaging: a
/// bare `00` is all there can be, and nothing else is taken.
#[test]
fn replies_that_nothing_protects_are_bare() {
    for suite in SUITES {
        for payload in [vec![], vec![0], vec![0; 8], Seeded(1).bytes(8)] {
            let (format, mut replies) = handshake(suite, Framing::Native);
            replies.push(framed(Framing::Native, 0x00, &payload));
            let select = {
                let mut script = Script::new(format, replies.clone());
                let session = suite.open(&mut script, 0, 9).unwrap();
                session.select_application(AID).run(&mut script).map(drop)
            };
            let change = {
                let mut script = Script::new(format, replies);
                let session = suite.open(&mut script, 0, 9).unwrap();
                session
                    .change_key_in_use(&suite.key(1))
                    .run(&mut script)
                    .map(drop)
            };
            for result in [select, change] {
                if payload.is_empty() {
                    result.unwrap();
                } else {
                    let error = result.unwrap_err();
                    assert!(matches!(error.kind(), Some(ErrorKind::Malformed(_))));
                    assert_eq!(error.outcome(), Outcome::Unknown);
                }
            }
        }
    }
}

/// An exact fit: data and CRC fill their blocks, and a read to the end has a block of padding behind
/// them. No recording shows whether real cards send it, so the library takes either. Whoever cuts it
/// off changes no data, and the two sides part at the next exchange.
#[test]
fn the_padding_block_of_an_exact_fit_may_be_missing() {
    for suite in SUITES {
        let len = 128 - suite.crc_len();
        let file = standard(0, CommMode::Enciphered, Seeded(5).bytes(len));
        let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
        let mut session = suite.open(&mut wire, 0, 6).unwrap();
        let opening = wire.log.len();
        let mut honest = [0; 128];
        let machine = session.read_data_to_end(file_no(0), 0, &mut honest);
        let honest = machine
            .comm_mode(CommMode::Enciphered)
            .run(&mut wire)
            .unwrap()
            .to_vec();
        session.free_mem().run(&mut wire).unwrap();
        let replies: Vec<_> = wire.log.into_iter().map(|(_, reply)| reply).collect();
        let (opening, rest) = replies.split_at(opening);
        let (reading, after) = rest.split_at(rest.len() - 1);
        let joined: Vec<u8> = reading
            .iter()
            .flat_map(|reply| unframed(Framing::Native, reply).1)
            .collect();
        assert_eq!(joined.len(), 128 + suite.block_len());
        let cut = puppet::cut(&joined[..128], 48)
            .into_iter()
            .map(|(status, payload)| framed(Framing::Native, status, &payload));
        let replies = opening.iter().cloned().chain(cut).chain(after.to_vec());
        let mut script = Script::new(LinkFormat::NATIVE, replies);
        let mut session = suite.open(&mut script, 0, 6).unwrap();
        let mut buffer = [0; 128];
        let machine = session.read_data_to_end(file_no(0), 0, &mut buffer);
        let data = machine
            .comm_mode(CommMode::Enciphered)
            .run(&mut script)
            .unwrap();
        assert_eq!(data, honest);
        let next = session.free_mem().run(&mut script);
        assert_eq!(next.is_err(), suite.is_ev1());
    }
}

/// **A limit of the protocol, not of this library:** a CRC inside ciphertext is no MAC. CBC shows
/// whoever knows the plaintext of a reply what every one of its blocks deciphers to, and CRC32 is
/// linear. So he can put blocks in the places of others such that the CRC still fits, and as the last
/// block stays, so does the IV, and nobody ever notices. The library cannot help it; programs that
/// need to be sure of what they read use MACed files.
///
/// This test does it. It is here so that nobody promises more than there is.
#[test]
fn an_enciphered_read_can_be_spliced_by_who_knows_its_plaintext() {
    /// Fetches the whole reply itself and gives the reader another.
    struct Splicer {
        wire: Wire,
        plaintext: Vec<u8>,
        block_len: usize,
        frames: std::collections::VecDeque<Vec<u8>>,
    }

    impl Splicer {
        fn spliced(&self, reply: &[u8]) -> Vec<u8> {
            let len = self.block_len;
            let blocks: Vec<&[u8]> = reply.chunks(len).collect();
            // D(C) of every block but the first, whose IV is not known.
            let deciphered: Vec<Vec<u8>> = (1..blocks.len())
                .map(|i| {
                    let plain = &self.plaintext[i * len..(i + 1) * len];
                    plain
                        .iter()
                        .zip(blocks[i - 1])
                        .map(|(a, b)| a ^ b)
                        .collect()
                })
                .collect();
            let crc = |delta: &[u8]| {
                let crc = |data: &[u8]| u32::from_le_bytes(puppet::crc32(data));
                crc(&[delta, &[0]].concat()) ^ crc(&vec![0; delta.len() + 1])
            };
            let data_len = reply.len() - len;
            // Every second block may be replaced by block 1. What that does to the CRC:
            let mut basis: Vec<(u32, u128)> = Vec::new();
            for (bit, at) in (3..blocks.len() - 3).step_by(2).enumerate() {
                let mut delta = vec![0; data_len];
                for i in 0..len {
                    delta[at * len + i] = deciphered[at - 1][i] ^ deciphered[0][i];
                    delta[(at + 1) * len + i] = blocks[at][i] ^ blocks[1][i];
                }
                let (mut effect, mut set) = (crc(&delta), 1_u128 << bit);
                for (other, with) in &basis {
                    if effect & (1 << other.ilog2()) != 0 {
                        effect ^= other;
                        set ^= with;
                    }
                }
                if effect != 0 {
                    basis.push((effect, set));
                    continue;
                }
                // These replacements together leave the CRC as it is.
                let mut spliced: Vec<Vec<u8>> = blocks.iter().map(|block| block.to_vec()).collect();
                for (bit, at) in (3..blocks.len() - 3).step_by(2).enumerate() {
                    if set & (1 << bit) != 0 {
                        spliced[at] = blocks[1].to_vec();
                    }
                }
                return spliced.concat();
            }
            panic!("33 effects on 32 bits depend on each other");
        }
    }

    impl Link for Splicer {
        type Error = Silent;

        fn format(&self) -> LinkFormat {
            self.wire.format
        }
    }

    impl Transport for Splicer {
        fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
            if command[0] == 0xBD {
                let mut all = Vec::new();
                let mut answer = self.wire.card.handle(command);
                while answer[0] == 0xAF {
                    all.extend_from_slice(&answer[1..]);
                    answer = self.wire.card.handle(&[0xAF]);
                }
                all.extend_from_slice(&answer[1..]);
                self.frames = puppet::cut(&self.spliced(&all), 56)
                    .into_iter()
                    .map(|(status, payload)| framed(Framing::Native, status, &payload))
                    .collect();
            }
            match self.frames.pop_front() {
                Some(frame) => rig::put(&frame, reply),
                None => self.wire.exchange(command, reply),
            }
        }
    }

    for suite in EV1 {
        let block_len = suite.block_len();
        // Data that end with a block, so that CRC and padding have the last one to themselves.
        let data = Seeded(21).bytes(76 * block_len);
        let crc = puppet::crc32(&[&data[..], &[0]].concat());
        let mut plaintext = [&data[..], &crc].concat();
        plaintext.resize(77 * block_len, 0);
        let file = standard(0, CommMode::Enciphered, data.clone());
        let mut splicer = Splicer {
            wire: Wire::new(suite.card([file]), LinkFormat::NATIVE),
            plaintext,
            block_len,
            frames: std::collections::VecDeque::new(),
        };
        let mut session = suite.open(&mut splicer, 0, 6).unwrap();
        let mut buffer = vec![0; data.len()];
        let read = session
            .read_data(file_no(0), 0..data.len() as u32, &mut buffer)
            .run(&mut splicer)
            .expect("the CRC is right");
        assert_ne!(read, data);
        session
            .free_mem()
            .run(&mut splicer)
            .expect("nobody has noticed");
    }
}

/// A MAC over nothing is no MAC: under D40 it is four zero bytes, whatever the key. No card answers a
/// read with nothing.
#[test]
fn an_empty_answer_that_anybody_can_make() {
    for suite in D40 {
        for op in [ReadToEnd(CommMode::Mac), ReadAllRecords(CommMode::Mac)] {
            for framing in FRAMINGS {
                let recorded = record(suite, framing, op);
                let reply = framed(framing, 0x00, &[0; 4]);
                let kind = recorded.not_believed(&[reply], "the MAC of nothing");
                assert_eq!(kind, Some(Authenticity::MacWrong.into()));
            }
        }
    }
}

/// **A limit of the protocol:** in GetDFNames the border of a frame is the end of a name, and no MAC
/// covers borders. Whoever moves one makes two applications of one, under a right MAC.
#[test]
fn the_borders_of_df_names_can_be_moved() {
    let suite = EV1[3];
    let mut empty = suite.card([]);
    empty.state_mut().set_picc_key(suite.card_key(0));
    let mut wire = Wire::new(empty, LinkFormat::NATIVE);
    let mut session = suite.authenticate(Session::new(), &mut wire, 0, 1).unwrap();
    let keys = KeyInfo::new(desfire_ev1::wire::KeyFamily::Aes, 1).unwrap();
    let name = IsoName {
        file_id: IsoFileId(0x1234),
        df_name: Some(DfName::new(b"ABCDEFGHIJ").unwrap()),
    };
    let aid = Aid::new(0x99).unwrap();
    session
        .create_application(aid, KeySettings::DEFAULT, keys, Some(name))
        .run(&mut wire)
        .unwrap();
    let opening = wire.log.len();
    let mut buffer = [0; 64];
    let honest: Vec<_> = session
        .get_df_names(&mut buffer)
        .run(&mut wire)
        .unwrap()
        .collect();
    assert_eq!(honest.len(), 1);
    let mut replies: Vec<_> = wire.log.into_iter().map(|(_, reply)| reply).collect();
    let (_, payload) = unframed(Framing::Native, &replies[opening]);
    replies.truncate(opening);
    replies.push(framed(Framing::Native, 0xAF, &payload[..10]));
    replies.push(framed(Framing::Native, 0x00, &payload[10..]));
    let mut script = Script::new(LinkFormat::NATIVE, replies);
    let mut session = suite
        .authenticate(Session::new(), &mut script, 0, 1)
        .unwrap();
    session
        .create_application(aid, KeySettings::DEFAULT, keys, Some(name))
        .run(&mut script)
        .unwrap();
    let moved: Vec<_> = session
        .get_df_names(&mut buffer)
        .run(&mut script)
        .unwrap()
        .collect();
    assert_eq!(moved.len(), 2);
    assert_eq!(moved[0].df_name, Some(DfName::new(b"ABCDE").unwrap()));
    assert_eq!(moved[1].aid, Aid::from_bytes(*b"FGH"));
}
