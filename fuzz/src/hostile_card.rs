//! A hostile card, or somebody on the link, against a live session.
//!
//! The card is honest in the handshake, unless the input says otherwise, so it has the session's keys:
//! whatever it answers can be sealed as the session expects it. The input says which calls are made,
//! and of each reply whether it is honest, honest data that are damaged, frames that are not even
//! sealed, or any plaintext enciphered. Where the mode is left to the library, it says the file's settings
//! too, and the reply is sealed as they want it.
//!
//! Oracle, on a third implementation of secure messaging, written on the bare ciphers:
//!
//! - what a call returns as good is what the card has sealed, whole, and nothing else;
//! - after an error the session is lost, the caller's buffer holds nothing of the reply, and the
//!   outcome fits; without anything sent, nothing has changed;
//! - the requests of the library are sealed as they must be, also by the settings that it was told, for
//!   which it asks once;
//! - no card keeps a call going for ever.
//!
//! With suite 7 it is longer procedures instead: [`procedures`].

use std::collections::VecDeque;

use desfire_ev1::wire::{Aid, CommMode, FileSettings, Framing};
use desfire_ev1::{
    Authenticated, Link, LinkFormat, Outcome, RunError, Session, Transport, Unauthenticated,
};

use crate::calls::{Call, Kind, ROOM, Reply, Request, Shape, settings_for};
use crate::input::{Input, put_chunk};
use crate::procedures;
use crate::puppet::{Frames, Puppet, Seal, crc16, crc32, one};
use crate::rig::{AID, MODES, SUITES, Silent, Suite, command, framed, put};

/// Calls of one input.
const MAX_CALLS: usize = 48;
/// As every frame brings a byte, no reply takes more frames than this.
const MAX_FRAMES: usize = ROOM + 64;

enum Live {
    Nobody(Session<Unauthenticated>),
    Keyed(Suite, Session<Authenticated>),
}

/// A session and the card's end of it.
struct Open {
    live: Live,
    seal: Option<Seal>,
    /// The settings of the file that the session has been told.
    known: Option<Vec<u8>>,
}

/// Suite, framing, level, then handshakes and calls.
pub fn run(data: &[u8]) {
    play(data);
}

/// How many calls have succeeded in sessions that go on, and in how many of them the library asked for the
/// file's settings.
pub(crate) fn play(data: &[u8]) -> (usize, usize) {
    let (mut good, mut asked) = (0, 0);
    let mut input = Input::new(data);
    let how = input.byte();
    let suite = SUITES.get(usize::from(how & 7)).copied();
    let framing = [Framing::Native, Framing::Wrapped][usize::from(how >> 3 & 1)];
    let at_picc_level = how & 0x10 != 0;
    if how & 7 == 7 {
        let good = match how & 0x10 {
            0 => procedures::purses(input, framing),
            _ => usize::from(procedures::issues(input, framing)),
        };
        return (good, 0);
    }
    let mut open: Option<Open> = None;
    for _ in 0..MAX_CALLS {
        if input.is_over() {
            break;
        }
        let begun = open
            .take()
            .or_else(|| begin(suite, framing, at_picc_level, &mut input));
        let Some(begun) = begun else { continue };
        let called = one_call(begun, framing, &mut input);
        good += usize::from(called.good);
        asked += usize::from(called.good && called.asked);
        open = called.open;
    }
    (good, asked)
}

/// The seed of a sequence of calls with honest handshakes; see `examples/seeds.rs`.
#[must_use]
pub fn seed(suite: usize, framing: Framing, at_picc_level: bool) -> Vec<u8> {
    let framing = u8::from(framing == Framing::Wrapped) << 3;
    let mut bytes = vec![suite as u8 | framing | u8::from(at_picc_level) << 4];
    if suite < SUITES.len() {
        bytes.extend(HONEST_HANDSHAKE);
    }
    bytes
}

/// The seed of honest calls at a level, for which no recording is needed: in an application those whose mode
/// is left to the library, which asks for it or knows it.
#[must_use]
pub fn seed_calls(suite: usize, framing: Framing, at_picc_level: bool) -> Vec<u8> {
    use Kind as K;
    let keyed = SUITES.get(suite).copied();
    let mut bytes = seed(suite, framing, at_picc_level);
    let put = |bytes: &mut Vec<u8>, kind, data: &[u8]| {
        let plain = CommMode::Plain;
        bytes.extend(Call::seed(kind, plain, 8, (0, plain)));
        put_answer(bytes, Answer::Sealed(data));
    };
    if at_picc_level {
        put(&mut bytes, K::FreeMem, &[0, 8, 0]);
        put(&mut bytes, K::GetApplicationIds, &[0x21, 0x43, 0x65]);
        put(&mut bytes, K::CreateApplication, &[]);
        put(&mut bytes, K::GetKeySettings, &[0x0F, 0x81]);
        return bytes;
    }
    for (number, kinds) in (0..).zip([
        &[K::Debit, K::GetValue, K::Credit, K::LimitedCredit][..],
        &[K::ReadData, K::WriteData, K::ReadToEnd],
        &[K::ReadRecords, K::WriteRecord, K::ReadAllRecords],
    ]) {
        let mode = MODES[(suite + number) % 3];
        for (at, kind) in kinds.iter().enumerate() {
            bytes.extend(Call::seed_asking(*kind, 8));
            if at == 0 {
                put_chunk(&mut bytes, &settings_for(*kind, mode, keyed.is_none(), 8));
            }
            let data: &[u8] = match kind {
                K::GetValue => &[5, 0, 0, 0],
                K::ReadData | K::ReadToEnd | K::ReadRecords | K::ReadAllRecords => &[3; 8],
                _ => &[],
            };
            put_answer(&mut bytes, Answer::Sealed(data));
        }
        // So that the next one is asked for.
        put(&mut bytes, K::DeleteFile, &[]);
    }
    bytes
}

/// Both replies as they are.
const HONEST_HANDSHAKE: [u8; 2] = [0, 0];

/// How a seed has a call answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// These data, sealed.
    Sealed(&'a [u8]),
    /// These frames as they are.
    Frames(&'a [Vec<u8>]),
}

/// Appends a command as a recording has it.
pub fn put_command(out: &mut Vec<u8>, code: u8, mode: CommMode, len: usize, answer: Answer<'_>) {
    use desfire_ev1::wire::CommandCode as C;
    let kind = match C::from_byte(code) {
        C::GetVersion => Kind::GetVersion,
        C::FreeMem => Kind::FreeMem,
        C::GetKeySettings => Kind::GetKeySettings,
        C::GetKeyVersion => Kind::GetKeyVersion,
        C::GetApplicationIds => Kind::GetApplicationIds,
        C::GetDfNames => Kind::GetDfNames,
        C::GetFileIds => Kind::GetFileIds,
        C::GetIsoFileIds => Kind::GetIsoFileIds,
        C::GetFileSettings => Kind::GetFileSettings,
        C::CreateApplication => Kind::CreateApplication,
        C::CreateStdDataFile => Kind::CreateStdDataFile,
        C::CreateBackupDataFile => Kind::CreateBackupDataFile,
        C::CreateValueFile => Kind::CreateValueFile,
        C::CreateLinearRecordFile => Kind::CreateLinearRecordFile,
        C::CreateCyclicRecordFile => Kind::CreateCyclicRecordFile,
        C::DeleteFile => Kind::DeleteFile,
        C::ClearRecordFile => Kind::ClearRecordFile,
        C::CommitTransaction => Kind::Commit,
        C::AbortTransaction => Kind::Abort,
        C::ReadData => Kind::ReadData,
        C::ReadRecords => Kind::ReadRecords,
        C::GetValue => Kind::GetValue,
        C::WriteData => Kind::WriteData,
        C::WriteRecord => Kind::WriteRecord,
        C::Credit => Kind::Credit,
        C::Debit => Kind::Debit,
        C::LimitedCredit => Kind::LimitedCredit,
        C::ChangeFileSettings => Kind::ChangeFileSettings,
        C::GetCardUid => Kind::GetCardUid,
        C::DeleteApplication => Kind::DeleteApplication,
        C::FormatPicc => Kind::Format,
        C::ChangeKeySettings => Kind::ChangeKeySettings,
        C::SetConfiguration => Kind::SetAts,
        C::ChangeKey => Kind::ChangeKey,
        C::SelectApplication => Kind::Select,
        _ => Kind::Raw,
    };
    let bytes = Call::seed(kind, mode, len, (code, CommMode::Plain));
    out.extend(&bytes);
    // A request that takes more than one frame is heard on.
    let how = usize::from(out[0]);
    let suite = SUITES.get(how & 7).copied();
    let request_len = Call::draw(&mut Input::new(&bytes)).shape(suite).request_len;
    let chunk = if how & 8 == 0 { 59 } else { 54 };
    let frames = request_len.unwrap_or_default().div_ceil(chunk);
    out.extend(vec![0; frames.saturating_sub(1)]);
    put_answer(out, answer);
}

fn put_answer(out: &mut Vec<u8>, answer: Answer<'_>) {
    match answer {
        Answer::Sealed(data) => {
            out.push(3);
            put_chunk(out, &data[..data.len().min(255)]);
            out.push(0);
        }
        Answer::Frames(frames) => {
            out.push(5);
            out.push(frames.len().clamp(1, 4) as u8 - 1);
            for frame in frames.iter().take(4) {
                put_chunk(out, frame);
            }
        }
    }
}

/// A card with one of its replies replaced here and there.
struct Meddled<'i, 'd, A> {
    card: Puppet<A>,
    input: &'i mut Input<'d>,
    /// Every reply so far was the card's.
    honest: bool,
}

impl<A> Link for Meddled<'_, '_, A> {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.card.format()
    }
}

impl<A: FnMut(&mut Seal, u8, &[u8]) -> Frames> Transport for Meddled<'_, '_, A> {
    fn exchange(&mut self, sent: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        let len = self.card.exchange(sent, reply)?;
        let change = self.input.byte();
        let true_reply = reply[..len].to_vec();
        let told = match change {
            0..=0x7F => return Ok(len),
            0x80..=0xBF => {
                let mut told = true_reply.clone();
                let at = usize::from(change & 0x3F) % len;
                told[at] ^= self.input.byte();
                told
            }
            _ => self.input.chunk().to_vec(),
        };
        self.honest &= told == true_reply;
        let room = reply.get_mut(..told.len()).ok_or(Silent)?;
        room.copy_from_slice(&told);
        Ok(told.len())
    }
}

/// Selects and authenticates.
fn begin(
    suite: Option<Suite>,
    framing: Framing,
    at_picc_level: bool,
    input: &mut Input<'_>,
) -> Option<Open> {
    let open = |live, seal| Open {
        live,
        seal,
        known: None,
    };
    let aid = if at_picc_level { Aid::PICC } else { AID };
    let session = Session::at_level(aid);
    let Some(suite) = suite else {
        return Some(open(Live::Nobody(session), None));
    };
    let mut card = Meddled {
        card: Puppet::new(suite, framing, |_: &mut Seal, _, _: &[u8]| one(Vec::new())),
        input,
        honest: true,
    };
    match suite.authenticate(session, &mut card, 0, 7) {
        Ok(session) => {
            assert!(card.honest, "a handshake has succeeded with other replies");
            assert!(card.card.seal.is_some() && !session.is_lost());
            Some(open(Live::Keyed(suite, session), card.card.seal))
        }
        Err(error) => {
            assert!(!card.honest, "an honest handshake has failed: {error}");
            assert_ne!(error.outcome(), Outcome::NotSent);
            None
        }
    }
}

/// What has become of a call.
struct Called {
    /// The session, if it goes on.
    open: Option<Open>,
    good: bool,
    /// The library has asked for the file's settings.
    asked: bool,
}

fn one_call(open: Open, framing: Framing, input: &mut Input<'_>) -> Called {
    let Open { live, seal, known } = open;
    let call = Call::draw(input);
    let suite = match &live {
        Live::Keyed(suite, _) => Some(*suite),
        Live::Nobody(_) => None,
    };
    let mut line = Line {
        format: LinkFormat {
            framing,
            max_command: 60,
        },
        shape: call.shape(suite),
        suite,
        is_ev1: suite.is_some_and(Suite::is_ev1),
        call,
        seal,
        before: None,
        input,
        phase: Phase::Hearing,
        request: Vec::new(),
        code: 0,
        asking: false,
        known,
        told: Vec::new(),
        ended: false,
        frames: 0,
    };
    let was_known = line.known.is_some();
    let call = line.call.clone();
    let mut buffer = [0xEE; ROOM];
    let (live, result, lost) = match live {
        Live::Keyed(suite, session) if call.takes_session() => {
            let result = call.run_taking(suite, session, &mut line);
            line.judge_taken(&result);
            return Called {
                open: None,
                good: result.is_ok(),
                asked: false,
            };
        }
        Live::Keyed(suite, mut session) => {
            let result = call.run_keyed(suite, &mut session, &mut line, &mut buffer);
            let lost = session.is_lost();
            (Live::Keyed(suite, session), result, lost)
        }
        Live::Nobody(session) if call.takes_session() || is_keyed(&call) => {
            let open = Open {
                live: Live::Nobody(session),
                seal: None,
                known: line.known,
            };
            return Called {
                open: Some(open),
                good: false,
                asked: false,
            };
        }
        Live::Nobody(mut session) => {
            let result = call.run(&mut session, &mut line, &mut buffer);
            let lost = session.is_lost();
            (Live::Nobody(session), result, lost)
        }
    };
    line.judge(&result, lost, &buffer);
    let asked = call.leaves_mode() && !was_known && line.known.is_some();
    if let Ok(data) = &result {
        if call.kind == Kind::GetFileSettings {
            line.known = Some(data.clone());
        } else if call.makes_forget() {
            line.known = None;
        }
    }
    Called {
        good: result.is_ok(),
        asked,
        open: (!lost).then_some(Open {
            live,
            seal: line.seal,
            known: line.known,
        }),
    }
}

fn is_keyed(call: &Call) -> bool {
    use Kind as K;
    matches!(
        call.kind,
        K::GetCardUid
            | K::DeleteApplication
            | K::Format
            | K::ChangeKeySettings
            | K::FreezeKeySettings
            | K::SetDefaultKey
            | K::SetAts
            | K::EnableRandomId
            | K::DisableFormat
            | K::ChangeKey
    )
}

enum Phase {
    /// The request is not complete.
    Hearing,
    /// What is still to be said; when nothing is left, frames of the input.
    Answering(VecDeque<Vec<u8>>),
}

/// The card's end of one call.
struct Line<'i, 'd> {
    format: LinkFormat,
    call: Call,
    shape: Shape,
    suite: Option<Suite>,
    is_ev1: bool,
    seal: Option<Seal>,
    /// The seal before the last reply.
    before: Option<Seal>,
    input: &'i mut Input<'d>,
    phase: Phase,
    request: Vec<u8>,
    code: u8,
    /// GetFileSettings is out, which the call has sent ahead.
    asking: bool,
    /// What the session knows of the file, or has just been told.
    known: Option<Vec<u8>>,
    /// Payload of all frames of the reply.
    told: Vec<u8>,
    /// The last frame said that it was the last.
    ended: bool,
    frames: usize,
}

impl Link for Line<'_, '_> {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Line<'_, '_> {
    fn exchange(&mut self, sent: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        assert!(sent.len() <= 60, "a frame of {} bytes", sent.len());
        self.frames += 1;
        assert!(self.frames < MAX_FRAMES, "a call that goes on and on");
        let frame = self.answer(sent);
        self.note(&frame);
        put(&frame, reply)
    }
}

impl Line<'_, '_> {
    fn answer(&mut self, sent: &[u8]) -> Vec<u8> {
        let (code, params) = if self.call.is_iso() {
            (sent[1], Vec::new())
        } else {
            command(self.format.framing, sent)
        };
        // After the answer to what was asked ahead comes the call itself.
        if self.asking && code != 0xAF {
            self.asking = false;
            self.phase = Phase::Hearing;
        }
        if let Phase::Answering(frames) = &mut self.phase {
            return match frames.pop_front() {
                Some(frame) => frame,
                None => self.input.chunk().to_vec(),
            };
        }
        self.told.clear();
        self.ended = false;
        if self.request.is_empty() && code != 0xAF {
            self.code = code;
        }
        if self.call.leaves_mode() && self.request.is_empty() {
            if self.known.is_none() {
                assert_eq!(code, 0xF5, "a mode that nobody has told");
                self.asking = true;
                return self.tell_settings(&params);
            }
            self.follow_settings();
        }
        self.request.extend(&params);
        let whole = self.shape.request_len.unwrap_or(self.request.len());
        if self.request.len() < whole {
            return match self.input.byte() {
                0..=0xBF => framed(self.format.framing, 0xAF, &[]),
                _ => self.input.chunk().to_vec(),
            };
        }
        assert_eq!(self.request.len(), whole, "more was sent than there is");
        self.take_in();
        self.before = self.seal.clone();
        let mut frames = self.plan();
        let first = frames.pop_front().unwrap_or_default();
        self.phase = Phase::Answering(frames);
        first
    }

    /// GetFileSettings, which was sent ahead: settings of the input.
    fn tell_settings(&mut self, params: &[u8]) -> Vec<u8> {
        let mut settings = self.input.chunk().to_vec();
        if let Some(first) = settings.first_mut() {
            *first %= 5;
        }
        let sealed = match &mut self.seal {
            Some(seal) => {
                seal.heard(0xF5, params);
                seal.plain(&settings)
            }
            None => settings.clone(),
        };
        // Of others the library says that they are none, and the session is lost.
        if FileSettings::decode(&settings).is_ok() {
            self.known = Some(settings);
        }
        let mut frames = self.cut(&sealed, 59);
        let first = frames.pop_front().unwrap_or_default();
        self.phase = Phase::Answering(frames);
        first
    }

    /// The call itself comes, in the mode that the settings give it.
    fn follow_settings(&mut self) {
        let known = self.known.as_deref().unwrap_or_default();
        let mode = self.call.mode_by(known, self.suite.is_some());
        let mode = mode.unwrap_or_else(|| panic!("{:?} sent, by {known:02X?}", self.call));
        self.call.mode = mode;
        self.shape = self.call.shape(self.suite);
    }

    /// The request is complete: checks how it is sealed.
    fn take_in(&mut self) {
        if self.call.is_iso() {
            return;
        }
        let Some(seal) = &mut self.seal else { return };
        let (code, sent) = (self.code, &self.request);
        match self.shape.request {
            Request::Plain => seal.heard(code, sent),
            Request::Mac { header } if self.is_ev1 => {
                let (data, mac) = sent.split_at(sent.len() - 8);
                let right = seal.absorb(&[&[code], data].concat());
                assert_eq!(mac, &right[..8], "the MAC over {header} and more bytes");
            }
            Request::Mac { header } => {
                let data = &sent[header..sent.len() - 4];
                assert_eq!(&sent[header..], seal.maced(data), "the MAC of a request");
            }
            Request::Cipher { header, data } => {
                let (header, blocks) = sent.split_at(header);
                let plain = seal.decrypt(blocks);
                if let Some(len) = data {
                    let (data, rest) = plain.split_at(len);
                    let crc = if self.is_ev1 {
                        crc32(&[&[code], header, data].concat()).to_vec()
                    } else {
                        crc16(data).to_vec()
                    };
                    let padding = rest.strip_prefix(&crc[..]);
                    let padding = padding.expect("the CRC of a request");
                    assert!(padding.iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    fn sealed(&mut self, data: &[u8]) -> Vec<u8> {
        let Some(seal) = &mut self.seal else {
            return data.to_vec();
        };
        match self.shape.reply {
            Reply::Bare => data.to_vec(),
            Reply::Standard => seal.plain(data),
            Reply::Mac => seal.maced(data),
            // A card marks the end where the reader has not said it.
            Reply::Cipher if matches!(self.call.kind, Kind::ReadToEnd | Kind::ReadAllRecords) => {
                seal.mark_padded(data)
            }
            Reply::Cipher => seal.zero_padded(data),
        }
    }

    /// The reply, frame by frame.
    fn plan(&mut self) -> VecDeque<Vec<u8>> {
        match self.input.below(8) {
            0..=2 => {
                let data = self.input.exactly(self.shape.usual);
                let sealed = self.sealed(&data);
                let chunk = self.chunk_len();
                self.cut(&sealed, chunk)
            }
            3 => {
                let data = self.input.chunk().to_vec();
                let sealed = self.sealed(&data);
                let chunk = self.chunk_len();
                self.cut(&sealed, chunk)
            }
            4 => {
                let data = vec![0x11; self.shape.usual];
                let mut sealed = self.sealed(&data);
                let at = usize::from(self.input.byte());
                match self.input.byte() {
                    0x00 => sealed.truncate(at % (sealed.len() + 1)),
                    0xFF => sealed.extend(self.input.chunk()),
                    _ if sealed.is_empty() => {}
                    xor => {
                        let at = at % sealed.len();
                        sealed[at] ^= xor;
                    }
                }
                self.cut(&sealed, 59)
            }
            5 => {
                let count = 1 + self.input.below(4);
                (0..count).map(|_| self.input.chunk().to_vec()).collect()
            }
            6 => {
                let block = self.seal.as_ref().map_or(8, Seal::block_len);
                let mut plain = self.input.chunk().to_vec();
                // With a CRC where the input wants one, else the padding would never be seen.
                let crc_at = usize::from(self.input.byte()).min(plain.len());
                if let (Some(seal), true) = (&self.seal, self.input.byte() < 0xC0) {
                    let crc = seal.crc(&plain[..crc_at]);
                    plain.splice(crc_at..crc_at, crc);
                }
                plain.resize(plain.len().next_multiple_of(block), 0);
                let cipher = match &mut self.seal {
                    Some(seal) => seal.encrypt(&plain),
                    None => plain,
                };
                let chunk = self.chunk_len();
                self.cut(&cipher, chunk)
            }
            _ => {
                let status = self.input.byte();
                let payload = self.input.chunk();
                let payload = &payload[..payload.len().min(59)];
                VecDeque::from([framed(self.format.framing, status, payload)])
            }
        }
    }

    fn chunk_len(&mut self) -> usize {
        match self.input.below(64) {
            0 => 59,
            some => some.min(59),
        }
    }

    fn cut(&self, payload: &[u8], chunk: usize) -> VecDeque<Vec<u8>> {
        let framing = self.format.framing;
        if self.call.is_iso() {
            let whole = &payload[..payload.len().min(59)];
            return VecDeque::from([[whole, &[0x90, 0x00]].concat()]);
        }
        if payload.is_empty() {
            return VecDeque::from([framed(framing, 0x00, &[])]);
        }
        let parts = payload.chunks(chunk);
        let last = parts.len() - 1;
        parts
            .enumerate()
            .map(|(at, part)| framed(framing, if at == last { 0x00 } else { 0xAF }, part))
            .collect()
    }

    /// Keeps what was really told, whoever has made it.
    fn note(&mut self, frame: &[u8]) {
        let (status, payload) = match (self.call.is_iso(), self.format.framing, frame) {
            (true, _, [payload @ .., 0x90, 0x00]) => (0x00, payload),
            (false, Framing::Native, [status, payload @ ..]) => (*status, payload),
            (false, Framing::Wrapped, [payload @ .., 0x91, status]) => (*status, payload),
            _ => (0xFF, &[][..]),
        };
        self.ended = status == 0x00;
        if matches!(status, 0x00 | 0xAF) && matches!(self.phase, Phase::Answering(_)) {
            self.told.extend(payload);
        }
    }

    /// What the call has returned as good must be what was sealed.
    fn judge(
        &mut self,
        result: &Result<Vec<u8>, RunError<Silent>>,
        lost: bool,
        buffer: &[u8; ROOM],
    ) {
        let what = self.call.clone();
        let keyed = self.seal.is_some();
        match result {
            Ok(data) => {
                assert!(!lost && self.frames > 0, "{what:?}");
                assert!(self.ended, "{what:?}: the reply was not at its end");
                self.judge_data(data);
            }
            Err(error) if self.frames == 0 => {
                assert_eq!(error.outcome(), Outcome::NotSent, "{what:?}: {error}");
                assert!(!lost, "{what:?}: {error}");
                assert_eq!(buffer, &[0xEE; ROOM]);
            }
            Err(error) => {
                // A refusal in the middle of a write has an unknown outcome.
                let refused = error.protocol().is_some_and(|error| {
                    use desfire_ev1::error::ErrorKind::{Refused, RefusedIso};
                    matches!(error.kind, Refused(_) | RefusedIso(_))
                });
                // What was learned is good, and forbids the call.
                let unsent = error.outcome() == Outcome::NotSent
                    && error.protocol().is_some_and(|error| !error.while_asking);
                if keyed && !unsent {
                    assert!(lost, "{what:?}: {error}, and the session goes on");
                } else {
                    assert!(lost || refused || unsent, "{what:?}: {error}");
                }
                if unsent {
                    assert!(self.asking, "{what:?}: sent, and not sent: {error}");
                }
                for byte in buffer {
                    assert!(
                        matches!(byte, 0 | 0xEE),
                        "{what:?}: {error}; left in the buffer: {buffer:02X?}"
                    );
                }
            }
        }
    }

    fn judge_data(&mut self, got: &[u8]) {
        let told = &self.told;
        let what = &self.call;
        let Some(mut seal) = self.before.clone() else {
            self.assert_same(got, told);
            return;
        };
        let is_mac = match self.shape.reply {
            Reply::Bare => false,
            // An ISO command without data has no MAC either.
            Reply::Standard if self.call.is_iso() && self.shape.usual == 0 => false,
            Reply::Standard => self.is_ev1,
            Reply::Mac => true,
            Reply::Cipher => {
                let plain = seal.deciphered(told);
                let crc = seal.crc(got);
                let rest = plain.strip_prefix(got);
                let padding = rest.and_then(|rest| rest.strip_prefix(&crc[..]));
                let padding = padding.unwrap_or_else(|| {
                    panic!("{what:?}: took {got:02X?} out of {plain:02X?}");
                });
                let block = seal.block_len();
                let right = match padding {
                    [0x80, zeros @ ..] => padding.len() <= block && zeros.iter().all(|b| *b == 0),
                    zeros => padding.len() < block && zeros.iter().all(|b| *b == 0),
                };
                assert!(right, "{what:?}: padding {padding:02X?}");
                seal.follow(told);
                self.seal = Some(seal);
                return;
            }
        };
        if !is_mac {
            self.assert_same(got, told);
            self.seal = Some(seal);
            return;
        }
        let mac_len = if self.is_ev1 { 8 } else { 4 };
        let data = &told[..told.len() - mac_len];
        self.assert_same(got, data);
        let right = seal.maced(data);
        assert_eq!(*told, right, "{what:?}: a wrong MAC was taken as good");
        self.seal = Some(seal);
    }

    fn assert_same(&self, got: &[u8], told: &[u8]) {
        let (mut got, mut told) = (got.to_vec(), told.to_vec());
        if self.shape.is_set {
            got.sort_unstable();
            told.sort_unstable();
        }
        assert_eq!(got, told, "{:?} returns what was not sent", self.call);
    }

    /// A call that took the session.
    fn judge_taken(&self, result: &Result<(), RunError<Silent>>) {
        match result {
            Ok(()) => assert!(self.frames > 0 && self.ended, "{:?}", self.call),
            Err(error) if self.frames == 0 => {
                assert_eq!(error.outcome(), Outcome::NotSent);
            }
            Err(error) => assert_ne!(error.outcome(), Outcome::NotSent, "{:?}", self.call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::ALL;
    use crate::rig::Script;
    use desfire_ev1::wire::{CommMode, CommandCode, IsoInstruction};
    use std::collections::BTreeSet;

    /// The first frame of every call, at both levels.
    #[test]
    fn every_command_is_called() {
        let mut seen = BTreeSet::new();
        for kind in ALL {
            for level in [Aid::PICC, AID] {
                let bytes = Call::seed(*kind, CommMode::Plain, 8, (0x71, CommMode::Plain));
                let call = Call::draw(&mut Input::new(&bytes));
                let mut silent = Script::new(LinkFormat::NATIVE, []);
                let mut puppet =
                    Puppet::new(SUITES[3], Framing::Native, |_: &mut Seal, _, _: &[u8]| {
                        one(Vec::new())
                    });
                let session = Session::at_level(level);
                let mut session = SUITES[3].authenticate(session, &mut puppet, 0, 1).unwrap();
                seen.extend(puppet.sent.iter().map(|frame| (false, frame[0])));
                if call.takes_session() {
                    let _ = call.run_taking(SUITES[3], session, &mut silent);
                } else {
                    let mut buffer = [0; ROOM];
                    let _ = call.run_keyed(SUITES[3], &mut session, &mut silent, &mut buffer);
                    let mut nobody = Session::at_level(level);
                    if !is_keyed(&call) {
                        let _ = call.run(&mut nobody, &mut silent, &mut buffer);
                    }
                }
                seen.extend(silent.sent.iter().map(|frame| match frame[..] {
                    [0x00, ins, ..] => (true, ins),
                    _ => (false, frame[0]),
                }));
            }
        }
        for code in CommandCode::ALL {
            let by_hand = matches!(
                code,
                CommandCode::Authenticate | CommandCode::AuthenticateIso
            );
            assert!(by_hand || seen.contains(&(false, code.to_byte())), "{code}");
        }
        let handshake = [
            IsoInstruction::ExternalAuthenticate,
            IsoInstruction::InternalAuthenticate,
        ];
        for ins in IsoInstruction::ALL {
            let later = handshake.contains(ins);
            assert!(later || seen.contains(&(true, ins.to_byte())), "{ins:?}");
        }
    }

    /// What nothing is wrong with succeeds: the oracle is not one that forbids everything.
    #[test]
    fn honest_answers_are_believed() {
        let mut believed = 0;
        for suite in SUITES {
            for framing in [Framing::Native, Framing::Wrapped] {
                for kind in ALL {
                    for mode in crate::rig::MODES {
                        believed += honest(suite, framing, *kind, mode);
                    }
                }
            }
        }
        // Two framings, three modes, six suites; what the level or the messaging forbids is not sent.
        assert!(believed > 1000, "{believed}");
    }

    fn honest(suite: Suite, framing: Framing, kind: Kind, mode: CommMode) -> usize {
        let mut bytes = HONEST_HANDSHAKE.to_vec();
        bytes.extend(Call::seed(kind, mode, 40, (0x3C, mode)));
        bytes.push(0);
        let shape = Call::draw(&mut Input::new(&bytes[2..])).shape(Some(suite));
        let data: Vec<u8> = match kind {
            Kind::GetFileIds => vec![0, 1, 2, 3, 4],
            Kind::GetFileSettings => vec![0, 3, 0x11, 0x11, 32, 0, 0],
            _ => vec![1; shape.usual],
        };
        bytes.extend(data);
        bytes.push(0);
        let mut input = Input::new(&bytes);
        let at_picc = matches!(kind, Kind::GetApplicationIds | Kind::GetDfNames);
        let open = begin(Some(suite), framing, at_picc, &mut input).unwrap();
        usize::from(one_call(open, framing, &mut input).open.is_some())
    }

    /// So do those whose mode was left to the library: it asks for each of three files once.
    #[test]
    fn modes_are_found_out() {
        for suite in 0..=SUITES.len() {
            for framing in [Framing::Native, Framing::Wrapped] {
                let calls = play(&seed_calls(suite, framing, false));
                assert_eq!(calls, (13, 3), "suite {suite}");
                let calls = play(&seed_calls(suite, framing, true));
                assert_eq!(calls, (4, 0), "suite {suite}");
            }
        }
    }
}
