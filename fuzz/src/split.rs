//! Split authentication: messages, scripts, receipts, stored records.
//!
//! | first byte, modulo 5 | who lies | what is judged |
//! |---|---|---|
//! | 0 | a terminal with its transport key: any challenge, any proof, any reply of a remote card | what is accepted encodes to the same bytes; no key is released for a proof that is not the card's; a remote card says what is in the message that is next |
//! | 1 | a key holder with the transport key and no card key: any answer, script or remote command | what the player says of the card is true; no handshake comes of it; what goes to the card is in the message that is next |
//! | 2 | the card or the link under a true script, then the terminal about its receipt | what the player and the key holder say of the card is true |
//! | 3 | whoever stored the bytes: every parser, without a right MAC | nothing gets through; a terminal's registers never go back |
//! | 4 | the network between two true ends of a remote dialogue | nothing changed, kept back or repeated is taken by either |
//!
//! The messages' MACs are made by code of its own, from the documentation of the format.

use std::cell::RefCell;

use cmac::{Cmac, KeyInit as _, Mac as _};
use desfire_ev1::picc::{Card, FileContent};
use desfire_ev1::split::{
    Accepted, BaseKey, Carrier, Carries, Challenge, Counters, Dukpt, Effect, Finished, Freshness,
    Grant, Intent, KnownTerminal, Mode, Modes, Pending, Record, Refusal, Relay, RelayGate,
    RemoteCard, RemoteError, SoftKey, Stop, StorageKey, Tap, TerminalError, TerminalId,
    TransportKey, TransportKeyId, TransportKeys, Verdict, Waiting,
};
use desfire_ev1::wire::{Amount, AuthScheme, FileNo, InlineBytes, KeyNo, KeyType};
use desfire_ev1::{Key, Link, LinkFormat, Machine, RunError, Session, Transport, VirtualReader};

use crate::input::{Input, put_chunk};
use crate::rig::{Seeded, Silent, put};

const TRANSPORT: [u8; 16] = *b"transport key 07";
const STORAGE: [u8; 16] = *b"a storage key 16";
const MODES: [Mode; 4] = [Mode::Proven, Mode::CardLocked, Mode::Script, Mode::Remote];
/// What the key holder's messages are in these modes.
const KINDS: [u8; 4] = [3, 2, 6, 8];
/// The terminal's in remote mode.
const REPLY: u8 = 9;
const PRICE: i32 = 77;
/// Messages of a made-up dialogue.
const MAX_STEPS: usize = 32;

/// Who lies, and with what.
pub fn run(data: &[u8]) {
    play(data);
}

/// Whether anything has been taken from the liar.
pub(crate) fn play(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    match input.below(5) {
        0 => lying_terminal(&mut input),
        1 => lying_holder(&mut input),
        2 => lying_card(&mut input),
        3 => lying_storage(&mut input),
        _ => lying_network(&mut input),
    }
}

/// The seed of a challenge with this cryptogram, for a proof that may come after it.
#[must_use]
pub fn seed_challenge(mode: usize, cryptogram: &[u8], proof: &[u8]) -> Vec<u8> {
    let challenge = Challenge {
        intent: Intent {
            key_type: if cryptogram.len() == 8 {
                KeyType::TwoKey3Des
            } else {
                KeyType::Aes
            },
            scheme: if cryptogram.len() == 8 {
                AuthScheme::Iso
            } else {
                AuthScheme::Aes
            },
            ..intent(MODES[mode])
        },
        aid: VirtualReader::DEMO_AID,
        format: LinkFormat::WRAPPED,
        cryptogram: InlineBytes::new(cryptogram).expect("up to 16 bytes"),
    };
    let message = challenge.seal(&TransportKey::new(TRANSPORT)).expect("room");
    let mut seed = vec![0, 0];
    put_chunk(&mut seed, &message[..message.len() - 16]);
    put_chunk(&mut seed, proof);
    seed
}

/// The seed of a true answer or script, as a terminal gets it.
#[must_use]
pub fn seed_answer(mode: usize) -> Vec<u8> {
    let mut line = Line::new(VirtualReader::demo());
    let (waiting, message, _) = match MODES[mode] {
        Mode::Script => true_script(&mut line),
        _ => true_answer(&mut line, MODES[mode]),
    };
    drop(waiting);
    let mut seed = vec![1, mode as u8];
    put_chunk(&mut seed, &message[10..message.len() - 16]);
    seed
}

/// The seed of a remote dialogue in which one side says what belongs there: replies to the key holder, or
/// commands and answers to the terminal.
#[must_use]
pub fn seed_dialogue(to_holder: bool, frames: &[&[u8]]) -> Vec<u8> {
    let mut seed = if to_holder {
        let mut seed = seed_challenge(3, &[], &[]);
        // The length of a proof, which this mode does not have.
        seed.pop();
        seed
    } else {
        vec![1, 3]
    };
    for frame in frames {
        if to_holder {
            put_chunk(&mut seed, &[0x60]);
            seed.extend([0, 0]);
            put_chunk(&mut seed, frame);
        } else {
            seed.extend([1, 0]);
            put_chunk(&mut seed, frame);
            seed.push(0);
            put_chunk(&mut seed, &[0x91, 0x00]);
            seed.push(0);
        }
    }
    seed
}

/// The seed of bytes that were stored as `kind` of [`STORED`], with a change at this place; then of a
/// terminal's registers, changed so.
#[must_use]
pub fn seed_stored(kind: u8, place: u8, registers: &[u8]) -> Vec<u8> {
    [&[3, 0, kind, place, 1], registers].concat()
}

/// The seed of a network that does so with each message; see [`Between::carried`].
#[must_use]
pub fn seed_network(changes: &[u8]) -> Vec<u8> {
    [&[4], changes].concat()
}

/// The seed of a true script of which the reply with this number is changed so.
#[must_use]
pub fn seed_script(frame: u8, change: u8) -> Vec<u8> {
    vec![2, frame, change, 1, 0x80, 0]
}

fn intent(mode: Mode) -> Intent {
    Intent {
        mode,
        scheme: AuthScheme::Aes,
        key_type: KeyType::Aes,
        key_no: KeyNo::MASTER,
        uid: None,
        terminal: TerminalId::new(b"till 7").expect("a name"),
        transport: TransportKeyId::Preshared(1),
        freshness: Freshness::Counter(9),
        purpose: InlineBytes::new(b"one coffee").expect("short"),
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Cmac::<aes::Aes128>::new_from_slice(key).expect("16 bytes");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// A message with a right MAC at its end. The context is the challenge without its MAC, or nothing.
fn sealed(label: &[u8], context: &[u8], message: &[u8]) -> Vec<u8> {
    let (one, length) = (1_u32.to_be_bytes(), 128_u32.to_be_bytes());
    let key = mac(&TRANSPORT, &[&one, label, &[0], context, &length]);
    [message, &mac(&key, &[message])].concat()
}

const TERMINAL: &[u8] = b"desfire split 1 terminal";
const HOLDER: &[u8] = b"desfire split 1 holder";

/// Header, body and MAC of a message that belongs to a challenge.
fn belonging(label: &[u8], kind: u8, challenge: &[u8], body: &[u8]) -> Vec<u8> {
    let (context, id) = challenge.split_at(challenge.len() - 16);
    let message = [&[1, kind], &id[..8], body].concat();
    sealed(label, context, &message)
}

/// The card on its reader, with one reply changed.
struct Line {
    reader: VirtualReader,
    frames: usize,
    /// Number of the reply, and what becomes of it; no bytes are no reply.
    change: Option<(usize, Vec<u8>)>,
    /// Replies of the frames so far.
    changed: bool,
}

impl Line {
    fn new(reader: VirtualReader) -> Self {
        Self {
            reader,
            frames: 0,
            change: None,
            changed: false,
        }
    }

    fn card(&self) -> &Card {
        self.reader.card()
    }

    fn tap(&mut self, mode: Mode) -> Waiting {
        let session = Session::new().select_application(VirtualReader::DEMO_AID);
        let session = session.run(self).expect("the demonstration card");
        Tap::new(session, intent(mode), &TransportKey::new(TRANSPORT))
            .run(self)
            .expect("the demonstration card")
    }

    fn balance(&self) -> i32 {
        let application = self.card().state().application(VirtualReader::DEMO_AID);
        let file = application.and_then(|app| app.file(purse()));
        match file.map(|file| file.content()) {
            Some(FileContent::Value(value)) => value.value,
            _ => panic!("no purse"),
        }
    }
}

impl Link for Line {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.reader.format()
    }
}

impl Transport for Line {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        self.frames += 1;
        assert!(self.frames < 2000, "a script that goes on and on");
        let mut answer = self.reader.handle(command);
        if let Some((at, changed)) = &self.change
            && self.frames == *at
        {
            self.changed |= answer != *changed;
            answer.clone_from(changed);
        }
        put(&answer, reply)
    }
}

fn purse() -> FileNo {
    FileNo::new(2).expect("a file number")
}

fn accept(message: &[u8]) -> Option<Accepted> {
    let mut guard = Counters::<4>::new();
    let claimed = Challenge::claimed(message).ok()?;
    let till = KnownTerminal {
        id: claimed.intent.terminal,
        transport: TransportKeys::One {
            id: claimed.intent.transport,
            key: &TransportKey::new(TRANSPORT),
        },
        // Whatever it asks for.
        grants: &[Grant {
            aid: claimed.aid,
            key_no: claimed.intent.key_no,
            scheme: claimed.intent.scheme,
            modes: Modes::all(),
        }],
    };
    Accepted::check(message, &till, &mut guard).ok()
}

fn true_answer(line: &mut Line, mode: Mode) -> (Waiting, Vec<u8>, Option<Pending>) {
    let waiting = line.tap(mode);
    let challenge = waiting.message().expect("a challenge");
    let answered = accept(&challenge)
        .expect("a true challenge")
        .answer(&mut SoftKey::new(&Key::aes([0; 16])), &mut Seeded(3))
        .expect("a true challenge");
    if mode == Mode::CardLocked {
        let message = answered.card_locked().expect("a true challenge");
        (waiting, message.to_vec(), None)
    } else {
        let (message, pending) = answered.proven(100).expect("a true challenge");
        (waiting, message.to_vec(), Some(pending))
    }
}

/// A debit and its commit. The record is sealed.
fn true_script(line: &mut Line) -> (Waiting, Vec<u8>, Option<Pending>) {
    let (waiting, script, _) = script_and_record(line);
    (waiting, script, None)
}

fn script_and_record(line: &mut Line) -> (Waiting, Vec<u8>, Vec<u8>) {
    let waiting = line.tap(Mode::Script);
    let challenge = waiting.message().expect("a challenge");
    let answered = accept(&challenge)
        .expect("a true challenge")
        .answer(&mut SoftKey::new(&Key::aes([0; 16])), &mut Seeded(3))
        .expect("a true challenge");
    let (mut script, mut record) = ([0; 512], [0; 1024]);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).expect("room");
    let application = line.card().state().application(VirtualReader::DEMO_AID);
    for file in application.expect("the demonstration's").files() {
        session.assume_file_settings(file.number(), &file.settings());
    }
    let price = Amount::new(PRICE).expect("an amount");
    builder
        .send(session.debit(purse(), price))
        .expect("a debit");
    builder
        .send(session.commit_transaction())
        .expect("a commit");
    let Finished { script, record } = builder.finish().expect("a whole script");
    let mut sealed = vec![0; record.sealed_len()];
    let len = record
        .seal(&StorageKey::new(STORAGE), &mut sealed)
        .expect("room");
    sealed.truncate(len);
    (waiting, script.to_vec(), sealed)
}

/// Any challenge with a right MAC; then any proof.
fn lying_terminal(input: &mut Input<'_>) -> bool {
    let with_mac = input.byte() < 0xE0;
    let body = input.chunk();
    let message = if with_mac {
        sealed(TERMINAL, &[], body)
    } else {
        body.to_vec()
    };
    let Some(accepted) = accept(&message) else {
        return false;
    };
    assert!(with_mac, "a challenge without a right MAC was accepted");
    let challenge = *accepted.challenge();
    let key = TransportKey::new(TRANSPORT);
    let again = challenge.seal(&key).expect("it came as a message");
    assert_eq!(again[..], message, "a challenge that has another form");
    assert_eq!(Challenge::open(&message, &key), Ok(challenge));
    if challenge.intent.mode == Mode::Remote {
        return lying_replies(&accepted, &message, input);
    }

    // Keys of the type that was asked for, whose bytes the terminal does not have.
    let bytes: [u8; 24] = core::array::from_fn(|i| (i as u8).wrapping_mul(0x47) ^ 0x9C);
    let key_type = challenge.intent.key_type;
    let len = match key_type {
        KeyType::Des => 8,
        KeyType::ThreeKey3Des => 24,
        _ => 16,
    };
    let card_key = Key::from_slice(key_type, &bytes[..len]).expect("a key");
    let answered = accepted.answer(&mut SoftKey::new(&card_key), &mut Seeded(3));
    let Ok(answered) = answered else { return false };
    match challenge.intent.mode {
        Mode::Proven => {
            let (token, pending) = answered.proven(100).expect("what was asked for");
            assert!(
                !token
                    .windows(8)
                    .any(|part| bytes.windows(8).any(|key| key == part))
            );
            let stored = pending.seal(&StorageKey::new(STORAGE)).expect("room");
            let unsealed = Pending::unseal(&stored, &StorageKey::new(STORAGE), &key);
            let mut pending = unsealed.expect("what was sealed");
            let proof = belonging(TERMINAL, 4, &message, input.chunk());
            assert!(
                pending.release(&proof, 1).is_err(),
                "a key for a made-up proof"
            );
        }
        Mode::CardLocked => {
            let answer = answered.card_locked();
            assert!(answer.is_ok() || key_type.nonce_len() == 8);
        }
        Mode::Script => {
            let (mut script, mut record) = ([0; 256], [0; 512]);
            let begun = answered.script(&mut script, &mut record);
            if let Ok((session, builder)) = begun {
                drop(session);
                assert!(builder.finish().is_err(), "an empty script");
            }
        }
        Mode::Remote => panic!("a remote challenge was answered"),
    }
    true
}

/// A message of a remote dialogue as somebody makes it up who has the transport key.
struct MadeUp {
    message: Vec<u8>,
    /// It is the one that is next, from the side that is heard.
    belongs: bool,
    /// Nothing at the end, or if the card did not answer.
    frame: Option<Vec<u8>>,
}

fn made_up(
    (from, kind): (&[u8], u8),
    challenge: &[u8],
    number: u16,
    input: &mut Input<'_>,
) -> MadeUp {
    let how = input.byte();
    let mut frame = input.chunk().to_vec();
    if how & 0x01 != 0 {
        frame.extend(input.chunk());
    }
    let flag = match how >> 1 & 3 {
        0 | 1 => 0,
        2 => 1,
        _ => input.byte(),
    };
    let said = match how & 0x08 {
        0 => number,
        _ => u16::from_le_bytes([input.byte(), input.byte()]),
    };
    let side = match how & 0x10 {
        0 => from,
        _ if from == HOLDER => TERMINAL,
        _ => HOLDER,
    };
    let what = match how & 0x20 {
        0 => kind,
        _ => input.byte(),
    };
    let body = [&said.to_le_bytes()[..], &[flag], &frame].concat();
    let mut message = belonging(side, what, challenge, &body);
    let mut xor = 0;
    if how & 0x40 != 0 {
        let at = input.below(256) % message.len();
        xor = input.byte();
        message[at] ^= xor;
    }
    MadeUp {
        belongs: (side, what, said, xor) == (from, kind, number, 0)
            && (flag == 0 || flag == 1 && frame.is_empty()),
        message,
        frame: (flag == 0).then_some(frame),
    }
}

/// A network that is a function.
struct Carry<F>(F);

impl<F> Carries for Carry<F> {
    type Error = Silent;
}

impl<F: FnMut(&[u8]) -> Vec<u8>> Carrier for Carry<F> {
    fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Silent> {
        put(&(self.0)(message), answer)
    }
}

/// Any reply in a remote dialogue: the key holder takes those that are next for the card's, once.
fn lying_replies(accepted: &Accepted, challenge: &[u8], input: &mut Input<'_>) -> bool {
    let (answer, asked) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let network = Carry(|message: &[u8]| {
        asked.borrow_mut().push(message.to_vec());
        answer.borrow().clone()
    });
    let mut card = RemoteCard::new(accepted, network).expect("remote mode");
    let mut gate = RelayGate::new(accepted).expect("remote mode");
    let command = |number: u16, end: u8, frame: &[u8]| {
        let body = [&number.to_le_bytes()[..], &[end], frame].concat();
        belonging(HOLDER, KINDS[3], challenge, &body)
    };
    let mut number = 0;
    while usize::from(number) < MAX_STEPS && !input.is_over() {
        let frame = input.chunk();
        let len = input.pick(&[300, 61, 8]);
        let made_up = made_up((TERMINAL, REPLY), challenge, number, input);
        answer.borrow_mut().clone_from(&made_up.message);
        let mut room = [0xEE; 300];
        let heard = card.exchange(frame, &mut room[..len]);
        let asked_now = asked.take();
        if frame.len() > 72 {
            assert!(asked_now.is_empty(), "a command that is too long was sent");
        } else {
            assert_eq!(asked_now, [command(number, 0, frame)]);
            let admitted = gate.admit(&made_up.message);
            assert_eq!(admitted.is_ok(), made_up.belongs, "{admitted:?}");
            assert!(gate.admit(&made_up.message).is_err(), "let in twice");
        }
        let right = made_up
            .frame
            .filter(|told| made_up.belongs && frame.len() <= 72 && told.len() <= len.min(258));
        match (heard, right) {
            (Ok(len), Some(told)) => {
                assert_eq!(room[..len], told);
                number += 1;
            }
            (Err(_), None) => {
                assert_eq!(room, [0xEE; 300], "refused, and it has left something");
                let next = card.exchange(&[0x60], &mut room);
                assert!(matches!(next, Err(RemoteError::Over)), "{next:?}");
                assert!(asked.take().is_empty());
                assert_eq!(card.goodbye().err(), Some(Refusal::Expired));
                return number > 0;
            }
            (heard, right) => panic!("{heard:?} of {right:?}"),
        }
    }
    let goodbye = card.goodbye().expect("a dialogue that is whole");
    assert_eq!(goodbye[..], command(number, 1, &[]));
    number > 0
}

/// Any answer with a right MAC, of a holder that does not have the card's key.
fn lying_holder(input: &mut Input<'_>) -> bool {
    let mode = input.below(4);
    if MODES[mode] == Mode::Remote {
        return lying_commands(input);
    }
    let mut line = Line::new(VirtualReader::demo());
    // Seeds are answers to this very tap; the card's nonces are the same in every run.
    let waiting = line.tap(MODES[mode]);
    let challenge = waiting.message().expect("a challenge").to_vec();
    let body = input.chunk();
    let message = belonging(HOLDER, KINDS[mode], &challenge, body);
    let before = line.card().save();
    let mut taken = false;
    match MODES[mode] {
        Mode::CardLocked => {
            if let Ok(unlock) = waiting.card_locked(&message)
                && let Ok(session) = unlock.run(&mut line)
            {
                taken = true;
                assert!(!session.is_lost());
            }
        }
        Mode::Proven => {
            if let Ok(prove) = waiting.proven(&message)
                && let Ok(proven) = prove.run(&mut line)
            {
                taken = true;
                let release = belonging(HOLDER, 5, &challenge, input.chunk());
                let _ = proven.release(&release);
            }
        }
        _ => {
            let mut receipt = vec![0; 4096];
            let Ok(mut player) = waiting.script(&message, &mut receipt) else {
                return false;
            };
            let _ = player.play(&mut line);
            let ending = player.ending();
            line.reader.card_mut().activate();
            if ending.effect == Effect::None {
                assert_eq!(
                    line.card().save(),
                    before,
                    "{ending:?}, and the card is another"
                );
            }
            let _ = player.into_receipt();
            return true;
        }
    }
    assert_eq!(
        line.card().save(),
        before,
        "a handshake has changed the card"
    );
    taken
}

/// A terminal that has been asked for a remote dialogue.
fn relay(key: &TransportKey) -> Relay {
    let (aid, format) = (VirtualReader::DEMO_AID, LinkFormat::WRAPPED);
    Relay::new(intent(Mode::Remote), aid, format, key).expect("remote mode")
}

/// Any command in a remote dialogue, and any answer of the card: the terminal sends what is next, once, and
/// tells what the card has said.
fn lying_commands(input: &mut Input<'_>) -> bool {
    let mut relay = relay(&TransportKey::new(TRANSPORT));
    let challenge = relay.message().expect("a challenge").to_vec();
    let (mut number, mut open, mut over) = (0_u16, None, false);
    let mut last = Vec::new();
    for _ in 0..MAX_STEPS {
        if input.is_over() {
            break;
        }
        if input.byte() & 1 == 0 {
            let answer = [input.chunk(), &[7; 10][..input.below(11)]].concat();
            let reply = relay.reply(Some(&answer));
            match open.take() {
                None => assert_eq!(reply.err(), Some(TerminalError::OutOfTurn)),
                Some(_) if answer.len() > 258 => assert!(reply.is_err()),
                Some(number) => {
                    let number: u16 = number;
                    let body = [&number.to_le_bytes()[..], &[0], &answer].concat();
                    let right = belonging(TERMINAL, REPLY, &challenge, &body);
                    assert_eq!(reply.expect("it fits")[..], right);
                }
            }
        } else {
            let made_up = made_up((HOLDER, KINDS[3]), &challenge, number, input);
            let told = relay.command(&made_up.message);
            match made_up.frame {
                _ if over || open.is_some() => assert_eq!(told, Err(TerminalError::OutOfTurn)),
                _ if !made_up.belongs => assert!(told.is_err(), "{told:02X?}"),
                None => {
                    assert_eq!(told, Ok(None));
                    over = true;
                }
                Some(frame) if frame.len() > 72 => {
                    assert_eq!(told, Err(TerminalError::BufferTooSmall));
                }
                Some(frame) => {
                    assert_eq!(told, Ok(Some(&frame[..])));
                    open = Some(number);
                    number += 1;
                    last = made_up.message;
                }
            }
        }
        assert!(relay.command(&last).is_err(), "a command was taken twice");
    }
    number > 0
}

/// Whoever carries the messages between two true ends, without a key.
struct Between<'i, 'd> {
    relay: Relay,
    gate: RelayGate,
    line: Line,
    input: &'i mut Input<'d>,
    /// All messages so far.
    kept: Vec<Vec<u8>>,
    /// One was brought that was not what was sent.
    changed: bool,
}

impl Between<'_, '_> {
    /// What arrives of a message.
    fn carried(&mut self, message: &[u8]) -> Vec<u8> {
        match self.input.byte() {
            0..=0xBF => message.to_vec(),
            0xC0..=0xDF => self.kept[self.input.below(self.kept.len())].clone(),
            0xE0..=0xEF => {
                let mut changed = message.to_vec();
                let at = self.input.below(256) % changed.len().max(1);
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= self.input.byte();
                }
                changed
            }
            0xF0..=0xF7 => message[..self.input.below(message.len() + 1)].to_vec(),
            _ => self.input.chunk().to_vec(),
        }
    }

    /// Brings a command to the terminal; the reply that comes of it, or nothing.
    fn delivered(&mut self, message: &[u8]) -> Vec<u8> {
        let told = self.carried(message);
        let frame = match self.relay.command(&told) {
            Ok(frame) => frame.expect("it is not the end").to_vec(),
            Err(error) => {
                assert_ne!(told, message, "{error}");
                self.changed = true;
                return Vec::new();
            }
        };
        assert_eq!(told, message, "taken, and not what was sent");
        let again = self.relay.command(message);
        assert!(again.is_err(), "taken twice");
        let mut reply = [0; 258];
        let len = self.line.exchange(&frame, &mut reply).expect("a card");
        let reply = self.relay.reply(Some(&reply[..len])).expect("it fits");
        assert!(self.relay.command(message).is_err(), "taken twice");
        reply.to_vec()
    }
}

impl Carries for &mut Between<'_, '_> {
    type Error = Silent;
}

impl Carrier for &mut Between<'_, '_> {
    fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Silent> {
        assert!(!self.changed, "a dialogue that goes on after a change");
        self.kept.push(message.to_vec());
        let reply = self.delivered(message);
        if !reply.is_empty() {
            self.kept.push(reply.clone());
        }
        let told = self.carried(&reply);
        let right = !reply.is_empty() && told == reply;
        assert_eq!(self.gate.admit(&told).is_ok(), right);
        assert!(self.gate.admit(&told).is_err(), "let in twice");
        self.changed |= !right;
        put(&told, answer)
    }
}

/// Selection, handshake, debit and commit.
fn pay<T: Transport>(card: &mut T) -> Result<(), RunError<T::Error>> {
    let session = Session::new().select_application(VirtualReader::DEMO_AID);
    let session = session.run(card)?;
    let key = Key::aes([0; 16]);
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, &key, &mut Seeded(3))
        .run(card)?;
    let price = Amount::new(PRICE).expect("an amount");
    session.debit(purse(), price).run(card)?;
    session.commit_transaction().run(card)
}

/// Both ends are true; messages are changed, kept back, repeated.
fn lying_network(input: &mut Input<'_>) -> bool {
    let relay = relay(&TransportKey::new(TRANSPORT));
    let accepted = accept(&relay.message().expect("a challenge")).expect("a true challenge");
    let mut between = Between {
        relay,
        gate: RelayGate::new(&accepted).expect("remote mode"),
        line: Line::new(VirtualReader::demo()),
        input,
        kept: Vec::new(),
        changed: false,
    };
    let before = between.line.balance();
    let mut card = RemoteCard::new(&accepted, &mut between).expect("remote mode");
    let paid = pay(&mut card);
    let goodbye = card.goodbye();
    between.line.reader.card_mut().activate();
    let (after, done) = (between.line.balance(), before - PRICE);
    if between.changed {
        assert!(paid.is_err(), "paid, and a message was another");
        assert_eq!(goodbye.err(), Some(Refusal::Expired));
        assert!(after == before || after == done, "{after} out of {before}");
    } else {
        paid.expect("nothing was changed");
        assert_eq!(after, done);
        let goodbye = goodbye.expect("nothing was changed");
        assert_eq!(between.relay.command(&goodbye), Ok(None));
        let late = between.relay.command(&goodbye);
        assert_eq!(late, Err(TerminalError::OutOfTurn));
    }
    true
}

/// A true script; one reply is changed, then the receipt.
fn lying_card(input: &mut Input<'_>) -> bool {
    let mut line = Line::new(VirtualReader::demo());
    let (waiting, script, record) = script_and_record(&mut line);
    let challenge = waiting.message().expect("a challenge").to_vec();
    let before = line.balance();
    let at = line.frames + 1 + input.below(5);
    let change = input.byte();
    if change != 0 {
        let told = match change & 3 {
            1 => Vec::new(),
            2 => input.chunk().to_vec(),
            _ => vec![0x91, input.byte()],
        };
        line.change = Some((at, told));
    }
    let mut receipt = vec![0; 4096];
    let mut player = waiting
        .script(&script, &mut receipt)
        .expect("a true script");
    let _ = player.play(&mut line);
    let ending = player.ending();
    let receipt = player.into_receipt().expect("a receipt").to_vec();
    line.reader.card_mut().activate();
    let (after, done) = (line.balance(), before - PRICE);
    assert!(after == before || after == done, "{after} out of {before}");
    match ending.effect {
        Effect::None => assert_eq!(after, before, "{ending:?}"),
        Effect::Done => assert_eq!(after, done, "{ending:?}"),
        Effect::Possible => {}
    }
    if ending.stop == Stop::Complete {
        assert!(!line.changed, "complete, and a reply was another");
        assert_eq!(after, done);
    }
    let judge = |receipt: &[u8]| {
        let mut room = vec![0; record.len()];
        let record = Record::unseal(&record, &StorageKey::new(STORAGE), &mut room);
        let record = record.expect("what was sealed");
        record.judge(receipt, &TransportKey::new(TRANSPORT))
    };
    let told = judge(&receipt).expect("a true receipt");
    let honest = |verdict| match verdict {
        Verdict::Done => assert_eq!(after, done, "{told:?}"),
        Verdict::NotDone => assert_eq!(after, before, "{told:?}"),
        Verdict::Unknown => {}
    };
    honest(told.verdict);

    // The terminal forges another receipt, with a right MAC: of what was not done it cannot say that
    // it was.
    let mut forged = receipt[10..receipt.len() - 16].to_vec();
    match input.byte() {
        0 => {}
        1 => {
            let at = input.below(256) % forged.len().max(1);
            if let Some(byte) = forged.get_mut(at) {
                *byte ^= input.byte();
            }
        }
        2 => forged.truncate(input.below(256)),
        _ => forged = input.chunk().to_vec(),
    }
    let forged = belonging(TERMINAL, 7, &challenge, &forged);
    if let Ok(told) = judge(&forged)
        && told.verdict == Verdict::Done
    {
        assert_eq!(after, done, "a forged receipt is believed: {told:?}");
    }
    true
}

/// What a true one stores or sends, with something changed.
const STORED: [&str; 3] = ["challenge", "pending", "record"];

/// Every parser, with bytes of nobody's; and with true ones in which one byte is another.
fn lying_storage(input: &mut Input<'_>) -> bool {
    let bytes = input.chunk();
    let (key, storage) = (TransportKey::new(TRANSPORT), StorageKey::new(STORAGE));
    let _ = Challenge::claimed(bytes);
    let parse = |what: &str, bytes: &[u8]| match what {
        "challenge" => Challenge::open(bytes, &key).is_ok(),
        "pending" => Pending::unseal(bytes, &storage, &key).is_ok(),
        _ => Record::unseal(bytes, &storage, &mut vec![0; bytes.len()]).is_ok(),
    };
    for what in STORED {
        assert!(!parse(what, bytes), "a {what} out of nothing");
    }
    let what = input.pick(&STORED);
    let mut line = Line::new(VirtualReader::demo());
    let mut stored = match what {
        "challenge" => line.tap(Mode::Proven).message().expect("room").to_vec(),
        "pending" => {
            let (_, _, pending) = true_answer(&mut line, Mode::Proven);
            let pending = pending.expect("it waits for the proof");
            pending.seal(&storage).expect("room").to_vec()
        }
        _ => script_and_record(&mut line).2,
    };
    assert!(parse(what, &stored));
    let place = input.below(256) % stored.len();
    let xor = input.byte();
    stored[place] ^= xor;
    assert_eq!(parse(what, &stored), xor == 0, "a {what} that was changed");
    lying_registers(input);
    true
}

/// A terminal's registers: they have no MAC, but a counter that never goes back.
fn lying_registers(input: &mut Input<'_>) {
    let base = BaseKey::new([0x5B; 16]);
    let mut dukpt = Dukpt::load(&base.initial_key(*b"till 007"));
    let how = input.byte();
    for _ in 0..how >> 2 {
        dukpt.next_key().expect("a new terminal");
    }
    let mut saved = [0; Dukpt::SAVED];
    dukpt.save(&mut saved);
    match how & 3 {
        0 => {}
        1 => {
            let place = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
            saved[place % Dukpt::SAVED] ^= input.byte();
        }
        2 => saved[Dukpt::SAVED - 4..].copy_from_slice(&input.exactly(4)),
        _ => saved.copy_from_slice(&input.exactly(Dukpt::SAVED)),
    }
    let mut dukpt = Dukpt::restore(&saved);
    let mut again = [0; Dukpt::SAVED];
    dukpt.save(&mut again);
    assert_eq!(saved, again, "restored as something else");
    for _ in 0..4 {
        let before = dukpt.counter();
        match dukpt.next_key() {
            Ok((id, key)) => {
                let TransportKeyId::Dukpt(ksn) = id else {
                    panic!("a key of another kind: {id:?}")
                };
                assert_eq!(ksn.counter, before);
                let after = dukpt.counter();
                assert!(after == 0 || after > before, "{before} and then {after}");
                if how & 3 == 0 {
                    let host = base.transport_key(ksn).expect("a counter that is used");
                    let message = relay(&key).message().expect("a challenge");
                    assert!(Challenge::open(&message, &host).is_ok(), "{ksn:?}");
                }
            }
            Err(error) => assert_eq!((error, before), (TerminalError::KeysUsedUp, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nothing is wrong with is done, and said to be done.
    #[test]
    fn a_true_script_is_complete() {
        let mut line = Line::new(VirtualReader::demo());
        let (waiting, script, _) = script_and_record(&mut line);
        let mut receipt = vec![0; 4096];
        let mut player = waiting.script(&script, &mut receipt).unwrap();
        let ending = player.play(&mut line).unwrap();
        assert_eq!((ending.stop, ending.effect), (Stop::Complete, Effect::Done));
        assert_eq!(line.balance(), 1000 - PRICE);
    }

    #[test]
    fn seeds_are_what_they_are_taken_for() {
        let seed = seed_challenge(0, &[7; 16], &[]);
        let mut input = Input::new(&seed[2..]);
        assert!(accept(&sealed(TERMINAL, &[], input.chunk())).is_some());
        for mode in 0..3 {
            let seed = seed_answer(mode);
            let mut line = Line::new(VirtualReader::demo());
            let waiting = line.tap(MODES[mode]);
            let challenge = waiting.message().unwrap().to_vec();
            let mut input = Input::new(&seed[2..]);
            let message = belonging(HOLDER, KINDS[mode], &challenge, input.chunk());
            match MODES[mode] {
                Mode::CardLocked => drop(
                    waiting
                        .card_locked(&message)
                        .unwrap()
                        .run(&mut line)
                        .unwrap(),
                ),
                Mode::Proven => drop(waiting.proven(&message).unwrap().run(&mut line).unwrap()),
                _ => {
                    let mut receipt = vec![0; 4096];
                    let mut player = waiting.script(&message, &mut receipt).unwrap();
                    assert_eq!(player.play(&mut line).unwrap().stop, Stop::Complete);
                }
            }
        }
        for frame in 0..5 {
            for change in 0..4 {
                run(&seed_script(frame, change));
            }
        }
    }

    /// Both sides take what belongs there, so that the oracle is not one of errors alone.
    #[test]
    fn dialogues_get_somewhere() {
        for to_holder in [true, false] {
            assert!(play(&seed_dialogue(to_holder, &[&[0x91, 0x00], &[]])));
        }
        for changes in [
            &[][..],
            &[0, 0, 0xC0, 0],
            &[0, 0, 0, 0xC0, 1],
            &[0xE0, 9, 1],
        ] {
            assert!(play(&seed_network(changes)));
        }
        for how in 0..4 {
            assert!(play(&seed_stored(how, how, &[how | 8, 1, 2, 3])));
        }
    }
}
