//! The card leaves the field at the worst moment: every operation that changes it, torn at every
//! point there is.
//!
//! Each operation is first run undisturbed: that gives the state before, the state after, the
//! number of EEPROM effects and the number of frames. Then it is run again and again on the same
//! card, each time with one thing going wrong:
//!
//! | disturbance | where | the card afterwards |
//! |---|---|---|
//! | power is cut before an effect | every effect | as it was after the effect before |
//! | power is cut after an effect | every effect | as this effect leaves it |
//! | a reply is lost | every frame | before or after, by what the frame did |
//! | a frame is lost on its way to the card | every frame | before |
//! | the card is taken away | before every frame | before |
//!
//! Afterwards the card is activated anew (after a lost frame also: kept in the field, and the
//! application selected from the lost session). Then must hold:
//!
//! - the card is in the state before or in the state after, never between. The one exception is a
//!   write of several frames to a standard data file, of which any number of whole frames may be
//!   there, from the first on (reference 8.1); the legal states are those that a write of so many
//!   bytes leaves;
//! - the state passes [`State::check`] and survives storage;
//! - what the library reported is [`Outcome::Unknown`], or [`Outcome::NotSent`] as long as it was
//!   only asking for the file's settings; the session is lost and sends nothing more;
//! - success is only ever reported with the state after, which then also survives the next loss of
//!   power;
//! - what was pending is gone: the next commit is refused by the card with `0C`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/radio.rs"]
mod radio;

use desfire_ev1::command::IsoName;
use desfire_ev1::error::{ErrorKind, Misuse};
use desfire_ev1::picc::{
    Application, Card, CardKey, Fault, File, FileContent, Records, State, Value,
};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, Amount, AuthScheme, CommMode, CommandCode, DfName, FileNo,
    IsoFileId, KeyFlags, KeyInfo, KeyNo, KeySettings, KeyType, Status, U24, Uid, ValueFlags,
};
use desfire_ev1::{Authenticated, Key, LinkFormat, Machine, Outcome, RunError, Session};
use radio::{Mute, Radio, Trouble};

const AID: Aid = Aid::from_bytes([0x54, 0xA1, 0x0E]);
const OTHER: Aid = Aid::from_bytes([0x55, 0xA1, 0x0E]);
const NEW: Aid = Aid::from_bytes([0x56, 0xA1, 0x0E]);

const SINGLE: u8 = 0;
const CHAINED: u8 = 1;
const BACKUP: u8 = 2;
const VALUE: u8 = 3;
const LINEAR: u8 = 4;
const CYCLIC: u8 = 5;
const FRESH: u8 = 6;

/// One kind of session, one mode of the files, one framing.
#[derive(Clone, Copy, Debug)]
struct Variant {
    scheme: AuthScheme,
    key_type: KeyType,
    mode: CommMode,
    format: LinkFormat,
    /// Whether the session knows the files' settings; if not, it asks for them first.
    knows_files: bool,
}

fn variants() -> Vec<Variant> {
    let sessions = [
        (AuthScheme::Legacy, KeyType::Des),
        (AuthScheme::Legacy, KeyType::TwoKey3Des),
        (AuthScheme::Iso, KeyType::Des),
        (AuthScheme::Iso, KeyType::TwoKey3Des),
        (AuthScheme::Iso, KeyType::ThreeKey3Des),
        (AuthScheme::Aes, KeyType::Aes),
    ];
    let ways = [
        (CommMode::Plain, LinkFormat::NATIVE, false),
        (CommMode::Mac, LinkFormat::WRAPPED, true),
        (CommMode::Enciphered, LinkFormat::NATIVE, true),
        (CommMode::Enciphered, LinkFormat::WRAPPED, false),
    ];
    sessions
        .iter()
        .flat_map(|(scheme, key_type)| {
            ways.iter().map(|(mode, format, knows_files)| Variant {
                scheme: *scheme,
                key_type: *key_type,
                mode: *mode,
                format: *format,
                knows_files: *knows_files,
            })
        })
        .collect()
}

/// A key for both sides; `which` tells keys of one type apart.
fn key(key_type: KeyType, which: u8) -> (Key, CardKey) {
    let bytes: [u8; 24] =
        core::array::from_fn(|i| (i as u8).wrapping_mul(0x1D) ^ which.wrapping_mul(0x3B) ^ 0x5A);
    let sixteen: [u8; 16] = *bytes.first_chunk().unwrap();
    let eight: [u8; 8] = *bytes.first_chunk().unwrap();
    match key_type {
        KeyType::Des => {
            let doubled = core::array::from_fn(|i| eight[i % 8]);
            (Key::des(eight), CardKey::des(doubled))
        }
        KeyType::TwoKey3Des => (Key::two_key_3des(sixteen).unwrap(), CardKey::des(sixteen)),
        KeyType::ThreeKey3Des => (Key::three_key_3des(bytes), CardKey::three_key_3des(bytes)),
        KeyType::Aes => (
            Key::aes(sixteen).with_version(which),
            CardKey::aes(sixteen, which),
        ),
    }
}

fn file_no(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

fn u24(number: u32) -> U24 {
    U24::new(number).unwrap()
}

fn amount(number: i32) -> Amount {
    Amount::new(number).unwrap()
}

fn rights() -> AccessRights {
    let master = Access::Key(KeyNo::MASTER);
    AccessRights {
        read: master,
        write: master,
        read_write: master,
        change: master,
    }
}

fn value_flags() -> ValueFlags {
    ValueFlags::LIMITED_CREDIT | ValueFlags::FREE_GET_VALUE
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7) ^ 0xA5).collect()
}

/// The card on which everything is run.
fn card(variant: &Variant) -> Card {
    let records = |max, there: &[u8]| Records::new(u24(16), u24(max), there.to_vec());
    let contents = [
        FileContent::Standard(vec![0x11; 32]),
        FileContent::Standard(vec![0x22; 200]),
        FileContent::Backup(vec![0x33; 150]),
        FileContent::Value(Value {
            lower: -100,
            upper: 10_000,
            value: 1000,
            limited_credit: 500,
            flags: ValueFlags::LIMITED_CREDIT,
        }),
        FileContent::Linear(records(4, &[0x44; 16])),
        FileContent::Cyclic(records(3, &[0x55; 32])),
    ];
    let info = KeyInfo::new(variant.key_type.family(), 3).unwrap();
    let application = |aid| {
        (0..3).fold(
            Application::new(aid, KeySettings::DEFAULT, info),
            |application, number| {
                let key = key(variant.key_type, number).1;
                application.with_key(KeyNo::new(number).unwrap(), key)
            },
        )
    };
    let full = (0..).zip(contents).fold(
        application(AID).with_iso_names(IsoFileId(0xDF01), None),
        |application, (number, content)| {
            application.with_file(File::new(file_no(number), variant.mode, rights(), content))
        },
    );
    let mut card = Card::new(Uid([0x04, 0x7E, 0xA2, 0x11, 0x22, 0x33, 0x44]));
    let state = card.state_mut();
    state.set_picc_key(key(variant.key_type, 0).1);
    state.put_application(full).unwrap();
    state.put_application(application(OTHER)).unwrap();
    card
}

#[derive(Clone, Copy, Debug)]
enum Create {
    Standard,
    Backup,
    Value,
    Linear,
    Cyclic,
}

/// One command.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write { file: u8, offset: u32, len: usize },
    Record { file: u8, offset: u32, len: usize },
    Clear(u8),
    Credit(i32),
    Debit(i32),
    LimitedCredit(i32),
    Commit,
    Create(Create),
    DeleteFile(u8),
    ChangeFileSettings(u8),
    ChangeKeySettings,
    ChangeOtherKey,
    ChangeKeyInUse,
    ChangePiccKey(KeyType),
    CreateApplication { named: bool },
    DeleteApplication,
    FormatPicc,
}

#[derive(Clone, Debug)]
struct Operation {
    name: String,
    level: Aid,
    steps: Vec<Step>,
}

fn operations(variant: &Variant) -> Vec<Operation> {
    use Step::{
        ChangeFileSettings, ChangeKeyInUse, ChangeKeySettings, ChangeOtherKey, ChangePiccKey,
        Clear, Commit, Create as New, CreateApplication, Credit, Debit, DeleteApplication,
        DeleteFile, FormatPicc, LimitedCredit, Record, Write,
    };
    let write = |file, offset, len| Write { file, offset, len };
    let record = |file, offset, len| Record { file, offset, len };
    let transaction = vec![
        write(BACKUP, 0, 20),
        Debit(300),
        record(LINEAR, 0, 16),
        record(CYCLIC, 4, 8),
        write(BACKUP, 30, 120),
        Credit(20),
        Debit(7),
        record(CYCLIC, 0, 2),
        record(LINEAR, 15, 1),
        Commit,
    ];
    let application = [
        ("transaction over four files", transaction),
        (
            "write of one frame, standard file",
            vec![write(SINGLE, 3, 20)],
        ),
        (
            "chained write, standard file",
            vec![write(CHAINED, 10, 180)],
        ),
        (
            "chained write, backup file",
            vec![write(BACKUP, 0, 150), Commit],
        ),
        ("Credit", vec![Credit(5), Commit]),
        ("Debit", vec![Debit(1100), Commit]),
        ("LimitedCredit", vec![LimitedCredit(499), Commit]),
        (
            "Debit and LimitedCredit",
            vec![Debit(1), LimitedCredit(500), Debit(2), Commit],
        ),
        ("ClearRecordFile, linear", vec![Clear(LINEAR), Commit]),
        ("ClearRecordFile, cyclic", vec![Clear(CYCLIC), Commit]),
        (
            "a record is dropped by ClearRecordFile",
            vec![record(CYCLIC, 0, 16), Clear(CYCLIC), Commit],
        ),
        ("CreateStdDataFile", vec![New(Create::Standard)]),
        ("CreateBackupDataFile", vec![New(Create::Backup)]),
        ("CreateValueFile", vec![New(Create::Value)]),
        ("CreateLinearRecordFile", vec![New(Create::Linear)]),
        ("CreateCyclicRecordFile", vec![New(Create::Cyclic)]),
        ("DeleteFile", vec![DeleteFile(BACKUP)]),
        (
            "DeleteFile with a pending change",
            vec![write(BACKUP, 0, 4), DeleteFile(BACKUP)],
        ),
        ("ChangeFileSettings", vec![ChangeFileSettings(LINEAR)]),
        ("ChangeKeySettings", vec![ChangeKeySettings]),
        ("ChangeKey, other key", vec![ChangeOtherKey]),
        ("ChangeKey, own key", vec![ChangeKeyInUse]),
    ];
    let mut picc = vec![
        ("ChangeKey, PICC".to_owned(), vec![ChangeKeyInUse]),
        (
            "ChangeKeySettings, PICC".to_owned(),
            vec![ChangeKeySettings],
        ),
        (
            "CreateApplication".to_owned(),
            vec![CreateApplication { named: false }],
        ),
        (
            "CreateApplication with names".to_owned(),
            vec![CreateApplication { named: true }],
        ),
        ("DeleteApplication".to_owned(), vec![DeleteApplication]),
        ("FormatPICC".to_owned(), vec![FormatPicc]),
    ];
    for to in [
        KeyType::Des,
        KeyType::TwoKey3Des,
        KeyType::ThreeKey3Des,
        KeyType::Aes,
    ] {
        if to != variant.key_type {
            let name = format!("ChangeKey, PICC, {} to {to}", variant.key_type);
            picc.push((name, vec![ChangePiccKey(to)]));
        }
    }
    let at = |level| move |(name, steps)| Operation { name, level, steps };
    application
        .into_iter()
        .map(|(name, steps)| (name.to_owned(), steps))
        .map(at(AID))
        .chain(picc.into_iter().map(at(Aid::PICC)))
        .collect()
}

/// How a run ended for the reader.
struct End {
    /// Steps that reported success.
    done: usize,
    failure: Option<Failure>,
}

struct Failure {
    error: RunError<Mute>,
    /// The session, unless the command has taken it.
    session: Option<Session<Authenticated>>,
}

/// Selects the level and authenticates its master key.
fn open(radio: &mut Radio, variant: &Variant, level: Aid) -> Session<Authenticated> {
    let session = Session::new().select_application(level).run(radio).unwrap();
    let mut session = session
        .authenticate_with_fixed_nonce_for_testing_only(
            variant.scheme,
            KeyNo::MASTER,
            &key(variant.key_type, 0).0,
            *b"RndA of a tear..",
        )
        .run(radio)
        .unwrap();
    if variant.knows_files
        && let Some(application) = radio.card.state().application(level)
    {
        for file in application.files() {
            session.assume_file_settings(file.number(), &file.settings());
        }
    }
    session
}

/// Runs the steps up to the first that fails.
fn run(
    mut session: Session<Authenticated>,
    radio: &mut Radio,
    variant: &Variant,
    steps: &[Step],
) -> End {
    for (done, step) in steps.iter().enumerate() {
        match by_value(*step, variant) {
            // These take the session, so they come last.
            Some((new, true)) => {
                let end = session.change_picc_master_key_and_type(&new).run(radio);
                return consumed(done, end.map(drop));
            }
            Some((new, false)) => {
                let end = session.change_key_in_use(&new).run(radio);
                return consumed(done, end.map(drop));
            }
            None => {}
        }
        if let Err(error) = perform(&mut session, radio, variant, *step) {
            let session = Some(session);
            let failure = Some(Failure { error, session });
            return End { done, failure };
        }
    }
    let done = steps.len();
    End {
        done,
        failure: None,
    }
}

fn consumed(done: usize, end: Result<(), RunError<Mute>>) -> End {
    match end {
        Ok(()) => End {
            done: done + 1,
            failure: None,
        },
        Err(error) => {
            let session = None;
            let failure = Some(Failure { error, session });
            End { done, failure }
        }
    }
}

/// The new key of a command that takes the session, and whether its type may be another.
fn by_value(step: Step, variant: &Variant) -> Option<(Key, bool)> {
    match step {
        Step::ChangeKeyInUse => Some((key(variant.key_type, 9).0, false)),
        Step::ChangePiccKey(to) => Some((key(to, 9).0, true)),
        _ => None,
    }
}

fn perform(
    session: &mut Session<Authenticated>,
    radio: &mut Radio,
    variant: &Variant,
    step: Step,
) -> Result<(), RunError<Mute>> {
    let fresh = file_no(FRESH);
    match step {
        Step::Write { file, offset, len } => session
            .write_data(file_no(file), offset, &data(len))
            .run(radio),
        Step::Record { file, offset, len } => session
            .write_record(file_no(file), offset, &data(len))
            .run(radio),
        Step::Clear(file) => session.clear_record_file(file_no(file)).run(radio),
        Step::Credit(by) => session.credit(file_no(VALUE), amount(by)).run(radio),
        Step::Debit(by) => session.debit(file_no(VALUE), amount(by)).run(radio),
        Step::LimitedCredit(by) => session
            .limited_credit(file_no(VALUE), amount(by))
            .run(radio),
        Step::Commit => session.commit_transaction().run(radio),
        Step::Create(what) => {
            let mode = variant.mode;
            match what {
                Create::Standard => session
                    .create_std_data_file(fresh, None, mode, rights(), u24(40))
                    .run(radio),
                Create::Backup => session
                    .create_backup_data_file(fresh, None, mode, rights(), u24(40))
                    .run(radio),
                Create::Value => session
                    .create_value_file(fresh, mode, rights(), -5..=5, 3, value_flags())
                    .run(radio),
                Create::Linear => session
                    .create_linear_record_file(fresh, None, mode, rights(), u24(8), u24(3))
                    .run(radio),
                Create::Cyclic => session
                    .create_cyclic_record_file(fresh, None, mode, rights(), u24(8), u24(3))
                    .run(radio),
            }
        }
        Step::DeleteFile(file) => session.delete_file(file_no(file)).run(radio),
        Step::ChangeFileSettings(file) => {
            let rights = AccessRights {
                read: Access::Free,
                ..rights()
            };
            let mode = if variant.mode == CommMode::Plain {
                CommMode::Mac
            } else {
                CommMode::Plain
            };
            session
                .change_file_settings(file_no(file), mode, rights)
                .run(radio)
        }
        Step::ChangeKeySettings => {
            let mut settings = KeySettings::DEFAULT;
            settings.flags.remove(KeyFlags::FREE_LISTING);
            session.change_key_settings(settings).run(radio)
        }
        Step::ChangeOtherKey => {
            let (old, new) = (key(variant.key_type, 2).0, key(variant.key_type, 9).0);
            session
                .change_key(KeyNo::new(2).unwrap(), &old, &new)
                .run(radio)
        }
        Step::CreateApplication { named } => {
            let name = IsoName {
                file_id: IsoFileId(0xDF02),
                df_name: Some(DfName::new(b"tearing").unwrap()),
            };
            let info = KeyInfo::new(variant.key_type.family(), 14).unwrap();
            session
                .create_application(NEW, KeySettings::DEFAULT, info, named.then_some(name))
                .run(radio)
        }
        Step::DeleteApplication => session.delete_application(AID).run(radio),
        Step::FormatPicc => session.format_picc().run(radio),
        Step::ChangeKeyInUse | Step::ChangePiccKey(_) => panic!("{step:?} takes the session"),
    }
}

/// An operation run undisturbed.
struct Course {
    before: State,
    after: State,
    /// Between the two, where that is legal: see the top of this file.
    partial: Vec<State>,
    effects: u64,
    frames: usize,
}

/// An opened session on a fresh card.
fn prepared(variant: &Variant, operation: &Operation) -> (Radio, Session<Authenticated>) {
    let mut radio = Radio::new(card(variant), variant.format);
    let session = open(&mut radio, variant, operation.level);
    radio.listen();
    (radio, session)
}

fn course(variant: &Variant, operation: &Operation) -> Course {
    let (mut radio, session) = prepared(variant, operation);
    let before = radio.card.state().clone();
    let (effects, commands) = (radio.card.effects(), radio.card.commands());
    let end = run(session, &mut radio, variant, &operation.steps);
    assert!(
        end.failure.is_none() && end.done == operation.steps.len(),
        "{}: it fails even undisturbed",
        operation.name
    );
    let frames = radio.frames().len();
    assert_eq!(radio.card.commands() - commands, frames as u64);
    let effects = radio.card.effects() - effects;
    // A success is one: the next loss of power takes nothing of it back.
    radio.card.field_off();
    radio.card.activate();
    let after = radio.card.state().clone();
    Course {
        before,
        after,
        partial: partial(variant, operation),
        effects,
        frames,
    }
}

/// The states that a torn chained write to a standard file may leave: as many whole frames as
/// there were, from the first on.
fn partial(variant: &Variant, operation: &Operation) -> Vec<State> {
    let [
        Step::Write {
            file: CHAINED,
            offset,
            len,
        },
    ] = operation.steps[..]
    else {
        return Vec::new();
    };
    let frame = variant
        .format
        .framing
        .payload_capacity(variant.format.max_command);
    // The header takes seven bytes of the first.
    (0..)
        .map(|more| frame - 7 + more * frame)
        .take_while(|end| *end < len)
        .map(|end| {
            let (mut radio, mut session) = prepared(variant, operation);
            session
                .write_data(file_no(CHAINED), offset, &data(len)[..end])
                .run(&mut radio)
                .unwrap();
            radio.card.state().clone()
        })
        .collect()
}

/// What goes wrong, counted from the start of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tear {
    CutBefore(u64),
    CutAfter(u64),
    LoseReply(usize),
    LoseCommand(usize),
    RemoveBefore(usize),
}

/// How the caller goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reentry {
    /// The card is put back, and a new session begins.
    Activate,
    /// The card has stayed; the lost session selects.
    Select,
}

/// What the card was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Before,
    /// So many frames of a chained write.
    Partial(usize),
    After,
}

impl Course {
    fn find(&self, state: &State) -> Option<Found> {
        if *state == self.before {
            return Some(Found::Before);
        }
        if *state == self.after {
            return Some(Found::After);
        }
        let frames = self.partial.iter().position(|partial| partial == state)?;
        Some(Found::Partial(frames + 1))
    }
}

#[derive(Default, Debug)]
struct Tally {
    operations: usize,
    points: usize,
    runs: usize,
    before: usize,
    partial: usize,
    after: usize,
    success: usize,
    unknown: usize,
    /// Unknown although only GetFileSettings was out.
    asking: usize,
    not_sent: usize,
    refused: usize,
}

impl Tally {
    fn count(&mut self, found: Found) {
        self.runs += 1;
        match found {
            Found::Before => self.before += 1,
            Found::Partial(_) => self.partial += 1,
            Found::After => self.after += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.points += other.points;
        self.runs += other.runs;
        self.before += other.before;
        self.partial += other.partial;
        self.after += other.after;
        self.success += other.success;
        self.unknown += other.unknown;
        self.asking += other.asking;
        self.not_sent += other.not_sent;
        self.refused += other.refused;
    }
}

/// The whole of one torn run.
fn torn(
    variant: &Variant,
    operation: &Operation,
    course: &Course,
    tear: Tear,
    reentry: Reentry,
    tally: &mut Tally,
) -> Found {
    let (mut radio, session) = prepared(variant, operation);
    let (effects, commands) = (radio.card.effects(), radio.card.commands());
    match tear {
        Tear::CutBefore(effect) => radio.card.arrange_fault(Fault::CutBefore(effects + effect)),
        Tear::CutAfter(effect) => radio.card.arrange_fault(Fault::CutAfter(effects + effect)),
        Tear::LoseReply(frame) => radio
            .card
            .arrange_fault(Fault::LoseReply(commands + frame as u64)),
        Tear::LoseCommand(frame) => radio.arrange(Trouble::LoseCommand(frame)),
        Tear::RemoveBefore(frame) => radio.arrange(Trouble::RemoveBefore(frame)),
    }
    let end = run(session, &mut radio, variant, &operation.steps);

    // The caller was told that it is unknown, about the command that was out.
    let Failure { error, session } = end
        .failure
        .unwrap_or_else(|| panic!("success was reported although {tear:?} struck"));
    assert!(end.done < operation.steps.len());
    assert!(matches!(error, RunError::Transport { .. }), "{error}");
    let last = *radio.frames().last().expect("something went out");
    assert_eq!(last.status, None, "the last frame was not answered");
    let asking = last.command == CommandCode::GetFileSettings.to_byte();
    if asking {
        // Only the file's settings were asked for: the command itself was not sent.
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        tally.asking += 1;
    } else {
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        tally.unknown += 1;
    }

    // The session is lost and stays silent.
    let after_loss = radio.card.commands();
    let frames = radio.frames().len();
    if let Some(mut session) = session {
        assert!(session.is_lost());
        let error = session.commit_transaction().run(&mut radio).unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotSent);
        assert_eq!(error.kind(), Some(&Misuse::SessionLost.into()));
        assert_eq!(radio.frames().len(), frames);
        assert_eq!(radio.card.commands(), after_loss);
        tally.not_sent += 1;
        if reentry == Reentry::Select {
            reselect(session, &mut radio, operation.level);
        }
    } else if reentry == Reentry::Select {
        // A command that took the session leaves the caller with what the card is known to be.
        let session = Session::at_level(operation.level);
        reselect(session, &mut radio, operation.level);
    }
    if reentry == Reentry::Activate {
        radio.card.activate();
    }

    let state = radio.card.state();
    let found = course.find(state).unwrap_or_else(|| {
        panic!(
            "{}, {tear:?}, {variant:?}: the card is in a state between: {state:?}",
            operation.name
        )
    });
    state.check().unwrap();
    assert_eq!(
        Card::load_state(&radio.card.save()).as_ref(),
        Ok(radio.card.state())
    );
    if asking {
        assert_eq!(found, Found::Before, "the command itself was not sent");
    }
    tally.count(found);
    settle(variant, operation, radio, tally);
    found
}

/// The way back that [`Session::select_application`] describes: after an unfinished chain the card
/// answers `CA` once.
fn reselect<S>(session: Session<S>, radio: &mut Radio, level: Aid) {
    let error = match session.select_application(level).run(radio) {
        Ok(_) => return,
        Err(error) => error,
    };
    assert_eq!(error.outcome(), Outcome::Refused);
    assert_eq!(
        error.kind(),
        Some(&ErrorKind::Refused(Status::CommandAborted))
    );
    Session::new().select_application(level).run(radio).unwrap();
}

/// Whatever was pending is gone: the card says so when it is asked to commit, and the library
/// says what the card said.
fn settle(variant: &Variant, operation: &Operation, mut radio: Radio, tally: &mut Tally) {
    let level = operation.level;
    // After a change of the master key or a deletion there is no way to tell here.
    let master = match radio.card.state().application(level) {
        Some(application) => &application.keys()[0],
        None => return,
    };
    if *master != key(variant.key_type, 0).1 {
        return;
    }
    let state = radio.card.state().clone();
    let mut session = open(&mut radio, variant, level);
    radio.listen();
    let error = session.commit_transaction().run(&mut radio).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Refused);
    assert_eq!(error.kind(), Some(&ErrorKind::Refused(Status::NoChanges)));
    assert_eq!(
        radio.frames()[0].status,
        Some(Status::NoChanges.to_byte()),
        "it is what the card answered"
    );
    assert!(session.is_lost());
    assert_eq!(*radio.card.state(), state);
    tally.refused += 1;
}

fn tear_operation(variant: &Variant, operation: &Operation, tally: &mut Tally) {
    let course = course(variant, operation);
    let what = || format!("{} ({variant:?})", operation.name);
    assert!(
        course.effects > 0 && course.frames > 0,
        "no point to tear at"
    );
    assert_ne!(course.before, course.after, "{}", what());
    tally.operations += 1;
    tally.success += 1;
    tally.points += 2 * course.effects as usize + 3 * course.frames;
    tally.count(Found::After);

    let mut attempt = |tear, reentry| torn(variant, operation, &course, tear, reentry, tally);

    // Effect by effect the card goes from the state before to the state after, and an effect has
    // happened or not.
    let mut found = Found::Before;
    for effect in 1..=course.effects {
        let before = attempt(Tear::CutBefore(effect), Reentry::Activate);
        assert_eq!(before, found, "before effect {effect}, {}", what());
        found = attempt(Tear::CutAfter(effect), Reentry::Activate);
        assert!(found >= before, "after effect {effect}, {}", what());
    }
    assert_eq!(found, Found::After, "all effects, {}", what());

    // A lost reply leaves what the frame has done, whichever way the caller comes back.
    let mut so_far = Found::Before;
    for frame in 1..=course.frames {
        let found = attempt(Tear::LoseReply(frame), Reentry::Activate);
        assert!(found >= so_far, "frame {frame}, {}", what());
        so_far = found;
        let found = attempt(Tear::LoseReply(frame), Reentry::Select);
        assert_eq!(found, so_far, "frame {frame}, {}", what());
    }
    assert_eq!(so_far, Found::After, "all frames, {}", what());

    // What the card has not got, it has not done.
    for frame in 1..=course.frames {
        for (tear, reentry) in [
            (Tear::RemoveBefore(frame), Reentry::Activate),
            (Tear::LoseCommand(frame), Reentry::Activate),
            (Tear::LoseCommand(frame), Reentry::Select),
        ] {
            let found = attempt(tear, reentry);
            assert_ne!(found, Found::After, "{tear:?}, {}", what());
        }
    }
}

#[test]
fn every_operation_torn_at_every_point() {
    let variants = variants();
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = variants
            .chunks(variants.len().div_ceil(2))
            .map(|share| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    for variant in share {
                        for operation in operations(variant) {
                            tear_operation(variant, &operation, &mut tally);
                        }
                    }
                    tally
                })
            })
            .collect();
        for worker in workers {
            total.add(&worker.join().unwrap());
        }
    });
    let kinds = operations(&variants[0]).len();
    assert_eq!(total.operations, kinds * variants.len());
    assert_eq!(total.runs, total.before + total.partial + total.after);
    // The exception is seen at work, or this test would not look at it.
    assert!(total.partial > 0);
    println!(
        "tearing: {} operations ({kinds} in {} variants), {} points, {} runs: \
         {} before, {} after, {} whole frames of a chained write; \
         outcomes: {} success, {} unknown, {} not sent because only the settings were out, \
         {} not sent on the lost session, {} refused",
        total.operations,
        variants.len(),
        total.points,
        total.runs,
        total.before,
        total.after,
        total.partial,
        total.success,
        total.unknown,
        total.asking,
        total.not_sent,
        total.refused,
    );
}
