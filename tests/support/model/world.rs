//! Runs operations through the library on the software card, and says where card or library and
//! the model part ways.

use desfire_ev1::command::{IsoName, RawMode};
use desfire_ev1::error::{ErrorKind, Misuse};
use desfire_ev1::picc;
use desfire_ev1::wire::{
    AccessRights, Aid, Amount, CommByte, CommMode, CommandCode, CommandFrame, DfName, FileNo,
    Instruction, IsoFileId, KeyInfo, KeyNo, KeySettings, ReplyFrame, Status, U24, ValueFlags,
};
use desfire_ev1::{
    Authenticated, Error, Link, LinkFormat, Machine, Outcome, RunError, Session, Transport,
    Unauthenticated,
};

use super::card::{Card, Kept, Refusal};
use super::compare;
use super::ops::{self, Change, Fault, NewFile, Odd, Op, Step};
use super::reader::{Plan, Reader, same_misuse, statuses};
use crate::radio::{MORE, Mute, Radio, Trouble};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    Refused,
    NotSent,
    /// The library could not take in the answer.
    Garbled,
    /// The card did not answer.
    Silent,
}

#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) operations: u64,
    pub(crate) frames: u64,
    pub(crate) faults: u64,
    /// By command code and ending.
    pub(crate) endings: Box<[[u64; 5]; 256]>,
    /// How often the card has refused with which status.
    pub(crate) statuses: Box<[u64; 256]>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            operations: 0,
            frames: 0,
            faults: 0,
            endings: Box::new([[0; 5]; 256]),
            statuses: Box::new([0; 256]),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.frames += other.frames;
        self.faults += other.faults;
        for (sums, counts) in self.endings.iter_mut().zip(other.endings.iter()) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        for (sum, count) in self.statuses.iter_mut().zip(other.statuses.iter()) {
            *sum += count;
        }
    }

    pub(crate) fn ended(&self, ending: Ending) -> u64 {
        self.endings.iter().map(|of| of[ending as usize]).sum()
    }
}

enum Live {
    Open(Session<Unauthenticated>),
    Keyed(Session<Authenticated>),
}

type Outcoming = Result<Vec<u8>, RunError<Mute>>;

/// What the model expects.
#[derive(Debug)]
enum Expected {
    NotSent(Misuse),
    Refused(CommandCode, Vec<Status>),
    Garbled,
    Done(Vec<u8>),
}

/// Library, card and model.
pub(crate) struct World {
    radio: Radio,
    live: Option<Live>,
    pub(crate) card: Card,
    pub(crate) reader: Reader,
    format: LinkFormat,
    nonces: u32,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(kept: Kept, format: LinkFormat) -> Result<Self, String> {
        let there = compare::software_card(&kept).map_err(|error| error.to_string())?;
        Ok(Self {
            radio: Radio::new(there, format),
            live: Some(Live::Open(Session::new())),
            card: Card::new(kept),
            reader: Reader::at(0),
            format,
            nonces: 0,
            tally: Tally::new(),
        })
    }

    /// One operation, and everything that must be true afterwards.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), String> {
        if !self.applies(&step.op) {
            return Ok(());
        }
        self.tally.operations += 1;
        match step.op {
            Op::Activate => self.activate()?,
            Op::FieldOff => {
                self.radio.card.field_off();
                self.card.power(false);
            }
            Op::DropGuard => {
                match self.live.as_mut().ok_or("no session")? {
                    Live::Open(session) => drop(session.transaction()),
                    Live::Keyed(session) => drop(session.transaction()),
                }
                self.reader.drops_guard();
            }
            _ => self.command(step)?,
        }
        self.compare()
    }

    /// Operations that this model can judge here; the others are passed over.
    fn applies(&self, op: &Op) -> bool {
        let in_application = self.reader.selected != 0;
        match op {
            Op::DeleteThisApplication => in_application,
            Op::Odd(odd) => match odd {
                Odd::WrongLevel(code) => {
                    ops::PICC_ONLY.iter().any(|(only, _)| only == code) == in_application
                }
                Odd::WrongLength(code, len) => {
                    let what = (*code, *len);
                    ops::WRONG_LENGTHS_ANY.contains(&what)
                        || ops::WRONG_LENGTHS_PICC.contains(&what) != in_application
                }
                Odd::UnknownCommand(_) | Odd::KeyNumber(_) => true,
                Odd::FileNumber(..) | Odd::EmptyWrite(..) | Odd::NegativeAmount(..) => {
                    in_application
                }
                Odd::CreateAidZero | Odd::DeleteAidZero => !in_application,
            },
            Op::WriteData { .. } | Op::WriteRecord { .. } => !self.is_complete_too_early(op),
            Op::ReadRecords {
                no,
                count,
                record_size,
                ..
            } => !self.card.ends_are_ambiguous(*no, *count, *record_size),
            _ => true,
        }
    }

    /// Whether a write in a wrong mode looks complete to the card where one of its frames ends.
    /// Then it takes in what it has, be it ciphertext: nobody can say beforehand what.
    fn is_complete_too_early(&self, op: &Op) -> bool {
        let Some((due, got)) = self.card.write_lens(op) else {
            return false;
        };
        let mut ends = self.frame_ends(got);
        ends.any(|end| end == due)
    }

    /// 9.4.
    fn activate(&mut self) -> Result<(), String> {
        let shown = self.radio.card.activate();
        self.card.power(true);
        self.reader = Reader::at(0);
        self.live = Some(Live::Open(Session::new()));
        let right = if self.card.kept.random_id {
            shown.uid.len() == 4 && shown.uid[0] == 0x08 && shown.atqa == [0x04, 0x03]
        } else {
            shown.uid[..] == self.card.kept.uid && shown.atqa == [0x44, 0x03]
        };
        if right && shown.sak == 0x20 && shown.ats == self.card.kept.ats {
            Ok(())
        } else {
            Err(format!("the card presents itself as {shown:?}"))
        }
    }

    fn command(&mut self, step: &Step) -> Result<(), String> {
        let op = &step.op;
        let by_value = op.takes_session()
            && (self.reader.key.is_some() || matches!(op, Op::Select(_) | Op::Authenticate { .. }));
        self.radio.listen();
        self.arrange(step.fault);
        let plan = self.reader.begins(op);
        let live = self.live.take().ok_or("no session")?;
        self.nonces += 1;
        let (live, outcome) = run(live, &mut self.radio, op, self.nonces);
        self.live = live;
        self.radio.card.clear_faults();
        self.tally.frames += self.radio.frames().len() as u64;

        let silent = matches!(outcome, Err(RunError::Transport { .. }));
        let unsent = match plan {
            Plan::NotSent(_) => true,
            Plan::Send => self.reader.denied(&self.card, op).is_some(),
            Plan::Ask(_) => false,
        };
        let ending = if silent && !unsent {
            let asked = self.radio.frames().last().is_some_and(|frame| {
                matches!(plan, Plan::Ask(_))
                    && frame.command == CommandCode::GetFileSettings.to_byte()
            });
            let right = if asked {
                Outcome::NotSent
            } else {
                Outcome::Unknown
            };
            if outcome.is_err_and(|error| error.outcome() != right) {
                return Err(format!("no answer, and yet the outcome is not {right:?}"));
            }
            self.interrupted(step, plan)?;
            Ending::Silent
        } else if !self.card.powered && !unsent {
            return Err(format!("a card without power led to {outcome:?}"));
        } else {
            self.judge(op, plan, &outcome)?
        };
        let code = op.code().map_or(0, CommandCode::to_byte);
        self.tally.endings[usize::from(code)][ending as usize] += 1;
        self.aftermath(op, by_value, ending)
    }

    fn arrange(&mut self, fault: Option<Fault>) {
        let effects = self.radio.card.effects();
        let card = &mut self.radio.card;
        match fault {
            Some(Fault::CutBefore(effect)) => {
                card.arrange_fault(picc::Fault::CutBefore(effects + effect));
            }
            Some(Fault::CutAfter(effect)) => {
                card.arrange_fault(picc::Fault::CutAfter(effects + effect));
            }
            Some(Fault::LoseReply(frame)) => self.radio.arrange(Trouble::LoseReply(frame)),
            Some(Fault::LoseCommand(frame)) => self.radio.arrange(Trouble::LoseCommand(frame)),
            Some(Fault::RemoveBefore(frame)) => self.radio.arrange(Trouble::RemoveBefore(frame)),
            None => {}
        }
    }

    /// The card's answer by the model, and what the library makes of it.
    fn expect(&mut self, op: &Op, plan: Plan) -> Result<Expected, String> {
        match plan {
            Plan::NotSent(misuse) => return Ok(Expected::NotSent(misuse)),
            Plan::Ask(no) => match self.card.perform(&Op::GetFileSettings(no)) {
                Ok(_) => self.reader.learns(no),
                Err(refusal) => {
                    let any = statuses(&refusal).to_vec();
                    return Ok(Expected::Refused(CommandCode::GetFileSettings, any));
                }
            },
            Plan::Send => {}
        }
        if let Some(misuse) = self.reader.denied(&self.card, op) {
            return Ok(Expected::NotSent(misuse));
        }
        let code = op.code().ok_or("not a command")?;
        self.reader.sends(&self.card, op);
        Ok(match self.card.perform(op) {
            Ok(reply) if self.reader.understands(op, &reply) => Expected::Done(reply.data),
            Ok(_) | Err(Refusal::Waits) => Expected::Garbled,
            Err(Refusal::Status(any)) => Expected::Refused(code, any),
        })
    }

    /// The card was there all the time: everything is known beforehand.
    fn judge(&mut self, op: &Op, plan: Plan, outcome: &Outcoming) -> Result<Ending, String> {
        let expected = self.expect(op, plan)?;
        let frames = self.radio.frames();
        let last = frames.last().and_then(|frame| frame.status);
        let wrong = || Err(format!("expected {expected:?}, came {outcome:?}"));
        let error = match outcome {
            Ok(_) => None,
            Err(error) => error.protocol(),
        };
        match (&expected, outcome, error) {
            (Expected::Done(data), Ok(came), _) => {
                if data != came || last != Some(Status::Ok.to_byte()) {
                    return wrong();
                }
                self.reader.succeeded(op);
                Ok(Ending::Done)
            }
            (Expected::NotSent(misuse), Err(_), Some(error)) => {
                let asked = usize::from(matches!(plan, Plan::Ask(_)));
                let ErrorKind::Misuse(came) = &error.kind else {
                    return wrong();
                };
                let owned = op.takes_session()
                    && (self.reader.key.is_some()
                        || matches!(op, Op::Select(_) | Op::Authenticate { .. }));
                if error.session_lost != (owned || *came == Misuse::SessionLost)
                    || error.outcome != Outcome::NotSent
                    || Some(error.command) != op.code().map(Instruction::Native)
                    || !same_misuse(misuse, came)
                    || frames.len() != asked
                {
                    return wrong();
                }
                Ok(Ending::NotSent)
            }
            (Expected::Refused(code, any), Err(_), Some(error)) => {
                let Some(status) = error.status() else {
                    return wrong();
                };
                let asking = matches!(plan, Plan::Ask(_)) && *code == CommandCode::GetFileSettings;
                let before = usize::from(matches!(plan, Plan::Ask(_)));
                let outcome = if asking {
                    Outcome::NotSent
                } else if frames.len() > before + 1 && self.reader.may_be_half_done(&self.card, op)
                {
                    Outcome::Unknown
                } else {
                    Outcome::Refused
                };
                if error.outcome != outcome
                    || error.while_asking != asking
                    || Some(error.command) != op.code().map(Instruction::Native)
                    || !any.contains(&status)
                    || last != Some(status.to_byte())
                {
                    return wrong();
                }
                self.tally.statuses[usize::from(status.to_byte())] += 1;
                self.reader.failed(true);
                if status == Status::NoChanges {
                    self.reader.hears_no_changes();
                }
                if !op.takes_session() && error.session_lost != self.reader.lost {
                    return wrong();
                }
                Ok(Ending::Refused)
            }
            (Expected::Garbled, Err(_), Some(error)) => {
                let possible = matches!(
                    error.kind,
                    ErrorKind::Malformed(_)
                        | ErrorKind::Authenticity(_)
                        | ErrorKind::Misuse(Misuse::AnswerTooLong)
                );
                if error.outcome != Outcome::Unknown || !possible || !error.session_lost {
                    return wrong();
                }
                self.card.chain = self.radio.in_chain();
                self.reader.failed(false);
                Ok(Ending::Garbled)
            }
            _ => wrong(),
        }
    }

    /// The card has not answered: it was not there, or a fault has struck. The model takes what
    /// may have become of the command, and goes on from what the card shows.
    fn interrupted(&mut self, step: &Step, plan: Plan) -> Result<(), String> {
        let op = &step.op;
        self.reader.failed(false);
        if !self.card.powered {
            return match self.radio.frames() {
                [only] if only.status.is_none() => Ok(()),
                frames => Err(format!("a card without power got {frames:?}")),
            };
        }
        let fault = step.fault.ok_or("the card does not answer")?;
        self.tally.faults += 1;
        let last = *self.radio.frames().last().ok_or("nothing was sent")?;
        let mut out = op;
        let asking;
        if let Plan::Ask(no) = plan {
            asking = Op::GetFileSettings(no);
            if last.command == CommandCode::GetFileSettings.to_byte() {
                out = &asking;
            } else if let Err(refusal) = self.card.perform(&asking) {
                return Err(format!("{op:?} went out after {refusal:?}"));
            }
        }
        match fault {
            Fault::LoseReply(_) => self.reply_lost(out, last.status),
            Fault::LoseCommand(_) => {
                let [.., before, last] = self.radio.frames() else {
                    return Ok(());
                };
                if before.command == last.command && before.status == Some(MORE) {
                    self.in_the_middle(out);
                }
                Ok(())
            }
            _ => self.power_lost(out, fault),
        }
    }

    fn reply_lost(&mut self, op: &Op, status: Option<u8>) -> Result<(), String> {
        let status = Status::from_byte(status.ok_or("nothing was said that could be lost")?);
        if status == Status::AdditionalFrame {
            self.in_the_middle(op);
            return Ok(());
        }
        let answer = self.card.perform(op);
        let right = match &answer {
            Ok(_) => status == Status::Ok,
            Err(refusal) => statuses(refusal).contains(&status),
        };
        if right {
            Ok(())
        } else {
            Err(format!(
                "expected {answer:?}, and the lost reply said {status}"
            ))
        }
    }

    /// The card waits for the next frame. It has not carried out the command, but for the end of
    /// a session.
    fn in_the_middle(&mut self, op: &Op) {
        if matches!(op, Op::Authenticate { .. }) {
            self.card.auth = None;
        }
        self.card.chain = true;
    }

    fn power_lost(&mut self, op: &Op, fault: Fault) -> Result<(), String> {
        let torn = match op {
            Op::WriteData { data, .. } => {
                let ends: Vec<usize> = self.frame_ends(data.len).collect();
                self.card.torn(op, &ends)
            }
            _ => Vec::new(),
        };
        let before = self.card.kept.clone();
        let mut after = self.card.clone();
        let answer = after.perform(op);
        if answer.is_err() && !matches!(fault, Fault::RemoveBefore(_)) {
            return Err(format!("a command with {answer:?} has had an effect"));
        }
        let mut legal = torn;
        match fault {
            Fault::CutBefore(1) => legal = vec![before],
            // One effect is all of it, unless it is one of several frames.
            Fault::CutAfter(1) if legal.is_empty() => legal = vec![after.kept],
            Fault::RemoveBefore(_) => legal.push(before),
            _ => legal.push(after.kept),
        }
        self.card.power(false);
        let there = self.radio.card.state();
        let found = legal
            .into_iter()
            .find(|legal| compare::difference(legal, there).is_none());
        self.card.kept = found.ok_or_else(|| format!("after {fault:?} the card is in between"))?;
        Ok(())
    }

    /// Where the frames but the last end in `len` bytes that follow the header of a write.
    fn frame_ends(&self, len: usize) -> impl Iterator<Item = usize> {
        let frame = self
            .format
            .framing
            .payload_capacity(self.format.max_command);
        (0..)
            .map(move |more| frame - 7 + more * frame)
            .take_while(move |end| *end < len)
    }

    /// A call that has taken the session and failed leaves none: the caller makes one for the
    /// level and, unless the card has said that nobody is authenticated, selects it again.
    fn aftermath(&mut self, op: &Op, by_value: bool, ending: Ending) -> Result<(), String> {
        if matches!(op, Op::Guarded { .. }) {
            self.reader.drops_guard();
        }
        let refused = ending == Ending::Refused;
        let failed = ending != Ending::Done;
        let mut select = false;
        if by_value && failed {
            let level = match op {
                Op::Select(_) if refused => self.card.selected,
                _ => self.reader.selected,
            };
            self.reader = Reader::at(level);
            self.live = Some(Live::Open(Session::at_level(self.reader.aid())));
            let known = refused && matches!(op, Op::Select(_) | Op::Authenticate { .. });
            select = !known;
        }
        if matches!(op, Op::DeleteThisApplication) && !refused && ending != Ending::NotSent {
            select = true;
        }
        if !select || !self.card.powered {
            return Ok(());
        }
        let level = self.reader.selected;
        let level = self.card.kept.app(level).map_or(0, |app| app.aid);
        // After a chain that was left unfinished the card answers `CA` once.
        for _ in 0..=u8::from(self.card.chain) {
            let op = Op::Select(level);
            self.command(&Step { op, fault: None })?;
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), String> {
        let state = self.radio.card.state();
        state.check().map_err(|error| error.to_string())?;
        if let Some(difference) = compare::difference(&self.card.kept, state) {
            return Err(difference);
        }
        let live = self.live.as_ref().ok_or("no session")?;
        let (lost, selected, key) = match live {
            Live::Open(session) => (session.is_lost(), session.selected(), None),
            Live::Keyed(session) => {
                let key = session.key_in_use().number();
                (session.is_lost(), session.selected(), Some(key))
            }
        };
        let reader = &self.reader;
        if (lost, selected, key)
            != (
                reader.lost,
                Some(reader.aid()),
                reader.key.map(|(no, _)| no),
            )
        {
            return Err(format!(
                "the session has lost {lost}, level {selected:?}, key {key:?}; the model {reader:?}"
            ));
        }
        // The model agrees with itself: what is not lost is right.
        let auth = self.card.auth.map(|auth| auth.key_no);
        let agrees = auth == key && self.card.selected == reader.selected && !self.card.chain;
        if self.card.powered && !lost && !agrees {
            return Err(format!(
                "the session is at {selected:?} with {key:?}, the card at {:06X} with {auth:?}, \
                 chain {}",
                self.card.selected, self.card.chain
            ));
        }
        Ok(())
    }
}

/// Runs `$call` with `$session` being the session of either kind.
macro_rules! either {
    ($live:expr, $session:ident => $call:expr) => {
        match $live {
            Live::Open($session) => $call,
            Live::Keyed($session) => $call,
        }
    };
}

/// One operation through the library. What it returns is brought into the bytes that the card
/// sends for it.
fn run(live: Live, radio: &mut Radio, op: &Op, nonce: u32) -> (Option<Live>, Outcoming) {
    let keyed = |end: Result<Session<Authenticated>, RunError<Mute>>| match end {
        Ok(session) => (Some(Live::Keyed(session)), Ok(Vec::new())),
        Err(error) => (None, Err(error)),
    };
    let open = |end: Result<Session<Unauthenticated>, RunError<Mute>>| match end {
        Ok(session) => (Some(Live::Open(session)), Ok(Vec::new())),
        Err(error) => (None, Err(error)),
    };
    match (op, live) {
        (Op::Select(number), live) => {
            let aid = aid(*number);
            open(either!(live, session => session.select_application(aid).run(radio)))
        }
        (
            Op::Authenticate {
                scheme,
                key_no,
                key,
            },
            live,
        ) => {
            let mut rnd_a = [0x5C; 16];
            rnd_a[..4].copy_from_slice(&nonce.to_le_bytes());
            rnd_a[12..].copy_from_slice(&nonce.to_be_bytes());
            let no = key_no_of(*key_no);
            let key = &key.key().for_reader;
            keyed(either!(live, session => session
                .authenticate_with_fixed_nonce_for_testing_only(*scheme, no, key, rnd_a)
                .run(radio)))
        }
        (Op::ChangeKeyInUse { new }, Live::Keyed(session)) => {
            open(session.change_key_in_use(&new.key().for_reader).run(radio))
        }
        (Op::ChangePiccKey { new }, Live::Keyed(session)) => open(
            session
                .change_picc_master_key_and_type(&new.key().for_reader)
                .run(radio),
        ),
        (op, mut live) => {
            let outcome = match &mut live {
                Live::Keyed(session) => match run_keyed(session, radio, op) {
                    Some(outcome) => outcome,
                    None => run_any(session, radio, op),
                },
                Live::Open(session) => match run_by_hand(session, radio, op) {
                    Some(outcome) => outcome,
                    None => run_any(session, radio, op),
                },
            };
            (Some(live), outcome)
        }
    }
}

fn aid(number: u32) -> Aid {
    Aid::new(number).expect("three bytes")
}

fn key_no_of(number: u8) -> KeyNo {
    KeyNo::new(number).expect("up to 13")
}

fn u24(number: u32) -> U24 {
    U24::new(number).expect("24 bits")
}

const PLAIN: RawMode = RawMode {
    request: CommMode::Plain,
    reply: CommMode::Plain,
    reply_len: None,
};

fn nothing(end: Result<(), RunError<Mute>>) -> Outcoming {
    end.map(|()| Vec::new())
}

fn raw<S>(
    session: &mut Session<S>,
    radio: &mut Radio,
    code: CommandCode,
    header: &[u8],
    data: &[u8],
    request: CommMode,
) -> Outcoming {
    let secret = [
        CommandCode::ChangeKey,
        CommandCode::ChangeKeySettings,
        CommandCode::SetConfiguration,
    ];
    if secret.contains(&code) {
        return past_the_library(session, radio, code, &[header, data].concat());
    }
    let mut buffer = [0; 28 * 21];
    let mode = RawMode { request, ..PLAIN };
    let end = session.raw(code, header, data, &mut buffer, mode);
    end.run(radio).map(<[u8]>::to_vec)
}

/// What the library does not send in clear, sent by somebody else; the card refuses it. The session
/// learns of it as it would if it had sent it.
fn past_the_library<S>(
    session: &mut Session<S>,
    radio: &mut Radio,
    code: CommandCode,
    payload: &[u8],
) -> Outcoming {
    if session.is_lost() {
        return Err(RunError::Protocol(Error {
            command: code.into(),
            outcome: Outcome::NotSent,
            while_asking: false,
            session_lost: true,
            kind: Misuse::SessionLost.into(),
        }));
    }
    let framing = Link::format(radio).framing;
    let (mut command, mut reply) = ([0; 80], [0; 258]);
    let len = CommandFrame { code, payload }.encode(framing, &mut command);
    let len = len.expect("a short command");
    match radio.exchange(&command[..len], &mut reply) {
        Ok(len) => {
            let answer = ReplyFrame::parse(framing, &reply[..len]).expect("a frame");
            assert!(answer.payload.is_empty(), "the card took a secret in clear");
            let mut machine = session.free_mem();
            machine
                .start(Link::format(radio))
                .expect("a usable session");
            machine.step(&reply[..len]).expect_err("a refusal");
            drop(machine);
            Err(RunError::Protocol(Error {
                command: code.into(),
                outcome: Outcome::Refused,
                while_asking: false,
                session_lost: false,
                kind: ErrorKind::Refused(answer.status),
            }))
        }
        Err(error) => {
            // A machine that is dropped in the middle loses the session.
            let mut machine = session.free_mem();
            machine
                .start(Link::format(radio))
                .expect("a usable session");
            drop(machine);
            Err(RunError::Transport {
                command: code.into(),
                outcome: Outcome::Unknown,
                error,
            })
        }
    }
}

/// Calls that only an authenticated session has.
fn run_keyed(
    session: &mut Session<Authenticated>,
    radio: &mut Radio,
    op: &Op,
) -> Option<Outcoming> {
    Some(match op {
        Op::GetCardUid => session.get_card_uid().run(radio).map(|uid| uid.0.to_vec()),
        Op::DeleteApplication(number) => {
            nothing(session.delete_application(aid(*number)).run(radio))
        }
        Op::FormatPicc => nothing(session.format_picc().run(radio)),
        Op::ChangeKeySettings { settings, freeze } => {
            let settings = KeySettings::from_byte(*settings);
            nothing(if *freeze {
                session.freeze_key_settings_for_ever(settings).run(radio)
            } else {
                session.change_key_settings(settings).run(radio)
            })
        }
        Op::DisableFormat => nothing(session.disable_format_for_ever().run(radio)),
        Op::EnableRandomId => nothing(session.enable_random_id_for_ever().run(radio)),
        Op::SetDefaultKey(set) => {
            let key = &super::keys::default_key(*set).key().for_reader;
            nothing(session.set_default_key(key).run(radio))
        }
        Op::SetAts(which) => nothing(session.set_ats(ops::ATS[*which]).run(radio)),
        Op::ChangeKey { key_no, old, new } => {
            let (old, new) = (&old.key().for_reader, &new.key().for_reader);
            let key_no = key_no_of(*key_no);
            nothing(session.change_key(key_no, old, new).run(radio))
        }
        _ => return None,
    })
}

/// The same commands without authentication: the library has no call for them, but somebody may
/// send them.
fn run_by_hand(
    session: &mut Session<Unauthenticated>,
    radio: &mut Radio,
    op: &Op,
) -> Option<Outcoming> {
    let code = op.code()?;
    let key_no;
    let number;
    let (header, data): (&[u8], &[u8]) = match op {
        Op::GetCardUid | Op::FormatPicc => (&[], &[]),
        Op::DeleteApplication(aid) => {
            number = aid.to_le_bytes();
            (&number[..3], &[])
        }
        Op::ChangeKeySettings { .. } => (&[], &[0x5A; 8]),
        Op::ChangeKey { key_no: no, .. } => {
            key_no = [*no];
            (&key_no, &[0x5A; 24])
        }
        Op::ChangeKeyInUse { .. } | Op::ChangePiccKey { .. } => (&[0], &[0x5A; 24]),
        Op::DisableFormat | Op::EnableRandomId => (&[0], &[0x5A; 8]),
        Op::SetDefaultKey(_) => (&[1], &[0x5A; 32]),
        Op::SetAts(_) => (&[2], &[0x5A; 16]),
        _ => return None,
    };
    Some(raw(session, radio, code, header, data, CommMode::Plain))
}

/// Runs a command on a file, in the mode that the caller states.
macro_rules! in_mode {
    ($exchange:expr, $stated:expr, $radio:expr) => {{
        let exchange = $exchange;
        match $stated {
            Some(mode) => exchange.comm_mode(mode).run($radio),
            None => exchange.run($radio),
        }
    }};
}

/// Calls that both kinds of session have.
fn run_any<S>(session: &mut Session<S>, radio: &mut Radio, op: &Op) -> Outcoming {
    let file = |no: u8| FileNo::new(no).expect("up to 31");
    match *op {
        Op::GetVersion => session.get_version().run(radio).map(|version| {
            let (hardware, software, production) = version.to_frames();
            [&hardware[..], &software, &production].concat()
        }),
        Op::FreeMem => session
            .free_mem()
            .run(radio)
            .map(|free| u24(free).to_bytes().to_vec()),
        Op::GetKeySettings => session
            .get_key_settings()
            .run(radio)
            .map(|(settings, info)| vec![settings.to_byte(), info.to_byte()]),
        Op::GetKeyVersion(no) => session
            .get_key_version(key_no_of(no))
            .run(radio)
            .map(|version| vec![version]),
        Op::GetApplicationIds => session
            .get_application_ids()
            .run(radio)
            .map(|aids| aids.iter().flat_map(|aid| aid.to_bytes()).collect()),
        Op::GetDfNames => {
            let mut buffer = [0; 28 * 21];
            session.get_df_names(&mut buffer).run(radio).map(|names| {
                let mut bytes = Vec::new();
                for named in names {
                    bytes.extend(named.aid.to_bytes());
                    bytes.extend(named.file_id.to_native());
                    bytes.extend(named.df_name.iter().flat_map(DfName::as_bytes));
                }
                bytes
            })
        }
        Op::GetFileIds => session.get_file_ids().run(radio).map(|files| {
            let mut numbers: Vec<u8> = files.iter().map(|file| file.number()).collect();
            numbers.sort_unstable();
            numbers
        }),
        Op::GetIsoFileIds => session
            .get_iso_file_ids()
            .run(radio)
            .map(|ids| ids.iter().flat_map(|id| id.to_native()).collect()),
        Op::GetFileSettings(no) => session.get_file_settings(file(no)).run(radio).map(|got| {
            let mut bytes = vec![0; 36];
            let len = got.encode(&mut bytes).expect("36 bytes are enough");
            bytes.truncate(len);
            bytes
        }),
        Op::CreateApplication {
            aid: number,
            settings,
            info,
            fid,
            name,
        } => {
            let iso = fid.map(|fid| IsoName {
                file_id: IsoFileId(fid),
                df_name: name.map(|name| DfName::new(name).expect("16 bytes")),
            });
            let settings = KeySettings::from_byte(settings);
            let info = KeyInfo::from_byte(info);
            let create = session.create_application(aid(number), settings, info, iso);
            nothing(create.run(radio))
        }
        Op::DeleteThisApplication => {
            let aid = session.selected().unwrap_or(Aid::PICC).to_bytes();
            let code = CommandCode::DeleteApplication;
            raw(session, radio, code, &aid, &[], CommMode::Plain)
        }
        Op::CreateFile {
            no,
            fid,
            mode,
            rights,
            what,
        } => {
            let (no, fid) = (file(no), fid.map(IsoFileId));
            let rights = AccessRights::from_bytes(rights.to_le_bytes());
            nothing(match what {
                NewFile::Standard { size } => session
                    .create_std_data_file(no, fid, mode, rights, u24(size))
                    .run(radio),
                NewFile::Backup { size } => session
                    .create_backup_data_file(no, fid, mode, rights, u24(size))
                    .run(radio),
                NewFile::Value {
                    lower,
                    upper,
                    value,
                    flags,
                } => {
                    let flags = ValueFlags::from_bits_retain(flags);
                    session
                        .create_value_file(no, mode, rights, lower..=upper, value, flags)
                        .run(radio)
                }
                NewFile::Linear { record_size, max } => session
                    .create_linear_record_file(no, fid, mode, rights, u24(record_size), u24(max))
                    .run(radio),
                NewFile::Cyclic { record_size, max } => session
                    .create_cyclic_record_file(no, fid, mode, rights, u24(record_size), u24(max))
                    .run(radio),
            })
        }
        Op::DeleteFile(no) => nothing(session.delete_file(file(no)).run(radio)),
        Op::ChangeFileSettings {
            no,
            comm,
            rights,
            stated,
        } => {
            let rights = AccessRights::from_bytes(rights.to_le_bytes());
            let change = session.change_file_settings(file(no), CommByte(comm), rights);
            nothing(match stated {
                Some(CommMode::Enciphered) => change.under_key().run(radio),
                Some(CommMode::Plain) => change.free().run(radio),
                _ => change.run(radio),
            })
        }
        Op::ReadData {
            no,
            offset,
            len,
            stated,
        } => {
            let mut buffer = vec![0; len as usize];
            let read = session.read_data(file(no), offset..offset + len, &mut buffer);
            in_mode!(read, stated, radio).map(<[u8]>::to_vec)
        }
        Op::ReadToEnd { no, offset, room } => {
            let mut buffer = vec![0; room];
            session
                .read_data_to_end(file(no), offset, &mut buffer)
                .run(radio)
                .map(<[u8]>::to_vec)
        }
        Op::WriteData {
            no,
            offset,
            data,
            stated,
        } => {
            let data = data.bytes();
            let write = session.write_data(file(no), offset, &data);
            nothing(in_mode!(write, stated, radio))
        }
        Op::WriteRecord {
            no,
            offset,
            data,
            stated,
        } => {
            let data = data.bytes();
            let write = session.write_record(file(no), offset, &data);
            nothing(in_mode!(write, stated, radio))
        }
        Op::ReadRecords {
            no,
            first,
            count,
            record_size,
            stated,
        } => {
            let mut buffer = vec![0; (count * record_size) as usize];
            let read = session.read_records(file(no), first, count, record_size, &mut buffer);
            in_mode!(read, stated, radio).map(<[u8]>::to_vec)
        }
        Op::ReadAllRecords { no, first, room } => {
            let mut buffer = vec![0; room];
            session
                .read_all_records(file(no), first, &mut buffer)
                .run(radio)
                .map(<[u8]>::to_vec)
        }
        Op::ClearRecordFile(no) => nothing(session.clear_record_file(file(no)).run(radio)),
        Op::GetValue { no, stated } => in_mode!(session.get_value(file(no)), stated, radio)
            .map(|value| value.to_le_bytes().to_vec()),
        Op::ChangeValue {
            change,
            no,
            amount,
            stated,
        } => {
            let amount = Amount::new(amount).expect("not negative");
            nothing(match change {
                Change::Credit => in_mode!(session.credit(file(no), amount), stated, radio),
                Change::Debit => in_mode!(session.debit(file(no), amount), stated, radio),
                Change::LimitedCredit => {
                    in_mode!(session.limited_credit(file(no), amount), stated, radio)
                }
            })
        }
        Op::Commit => nothing(session.commit_transaction().run(radio)),
        Op::Abort => nothing(session.abort_transaction().run(radio)),
        Op::Guarded { commit } => {
            let mut transaction = session.transaction();
            nothing(if commit {
                transaction.commit().run(radio)
            } else {
                transaction.abort().run(radio)
            })
        }
        Op::Odd(odd) => {
            let (code, params) = odd.frame();
            raw(session, radio, code, &params, &[], CommMode::Plain)
        }
        _ => panic!("{op:?} has been run before"),
    }
}
