//! Split authentication: messages, scripts, receipts, stored records.
//!
//! | first byte, modulo 4 | who lies | what is judged |
//! |---|---|---|
//! | 0 | a terminal with its transport key: any challenge, any proof | what is accepted encodes to the same bytes; no key is released for a proof that is not the card's |
//! | 1 | a key holder with the transport key and no card key: any answer or script | what the player says of the card is true; no handshake comes of it |
//! | 2 | the card or the link under a true script, then the terminal about its receipt | what the player and the key holder say of the card is true |
//! | 3 | whoever stored the bytes: every parser, without a right MAC | nothing gets through |
//!
//! The messages' MACs are made by code of its own, from the documentation of the format.

use cmac::{Cmac, KeyInit as _, Mac as _};
use desfire_ev1::picc::{Card, FileContent};
use desfire_ev1::split::{
    Accepted, Challenge, Counters, Dukpt, Effect, Finished, Freshness, Grant, Intent,
    KnownTerminal, Mode, Modes, Pending, Record, SoftKey, Stop, StorageKey, Tap, TerminalId,
    TransportKey, TransportKeyId, TransportKeys, Verdict, Waiting,
};
use desfire_ev1::wire::{Amount, AuthScheme, FileNo, InlineBytes, KeyNo, KeyType};
use desfire_ev1::{Key, Link, LinkFormat, Machine, Session, Transport, VirtualReader};

use crate::input::{Input, put_chunk};
use crate::rig::{Seeded, Silent, put};

const TRANSPORT: [u8; 16] = *b"transport key 07";
const STORAGE: [u8; 16] = *b"a storage key 16";
const MODES: [Mode; 4] = [Mode::Proven, Mode::CardLocked, Mode::Script, Mode::Remote];
const KINDS: [u8; 4] = [3, 2, 6, 8];
const PRICE: i32 = 77;

/// Who lies, and with what.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => lying_terminal(&mut input),
        1 => lying_holder(&mut input),
        2 => lying_card(&mut input),
        _ => lying_storage(&mut input),
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
fn lying_terminal(input: &mut Input<'_>) {
    let with_mac = input.byte() < 0xE0;
    let body = input.chunk();
    let message = if with_mac {
        sealed(TERMINAL, &[], body)
    } else {
        body.to_vec()
    };
    let Some(accepted) = accept(&message) else {
        return;
    };
    assert!(with_mac, "a challenge without a right MAC was accepted");
    let challenge = *accepted.challenge();
    let key = TransportKey::new(TRANSPORT);
    let again = challenge.seal(&key).expect("it came as a message");
    assert_eq!(again[..], message, "a challenge that has another form");
    assert_eq!(Challenge::open(&message, &key), Ok(challenge));

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
    let Ok(answered) = answered else { return };
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
        _ => {}
    }
}

/// Any answer with a right MAC, of a holder that does not have the card's key.
fn lying_holder(input: &mut Input<'_>) {
    let mode = input.below(3);
    let mut line = Line::new(VirtualReader::demo());
    // Seeds are answers to this very tap; the card's nonces are the same in every run.
    let waiting = line.tap(MODES[mode]);
    let challenge = waiting.message().expect("a challenge").to_vec();
    let body = input.chunk();
    let message = belonging(HOLDER, KINDS[mode], &challenge, body);
    let before = line.card().save();
    match MODES[mode] {
        Mode::CardLocked => {
            if let Ok(unlock) = waiting.card_locked(&message)
                && let Ok(session) = unlock.run(&mut line)
            {
                assert!(!session.is_lost());
            }
        }
        Mode::Proven => {
            if let Ok(prove) = waiting.proven(&message)
                && let Ok(proven) = prove.run(&mut line)
            {
                let release = belonging(HOLDER, 5, &challenge, input.chunk());
                let _ = proven.release(&release);
            }
        }
        _ => {
            let mut receipt = vec![0; 4096];
            let Ok(mut player) = waiting.script(&message, &mut receipt) else {
                return;
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
            return;
        }
    }
    assert_eq!(
        line.card().save(),
        before,
        "a handshake has changed the card"
    );
}

/// A true script; one reply is changed, then the receipt.
fn lying_card(input: &mut Input<'_>) {
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
}

/// Every parser, with bytes of nobody's.
fn lying_storage(input: &mut Input<'_>) {
    let bytes = input.chunk();
    let (key, storage) = (TransportKey::new(TRANSPORT), StorageKey::new(STORAGE));
    let _ = Challenge::claimed(bytes);
    assert!(Challenge::open(bytes, &key).is_err());
    assert!(Pending::unseal(bytes, &storage, &key).is_err());
    let mut room = vec![0; bytes.len()];
    assert!(Record::unseal(bytes, &storage, &mut room).is_err());
    // A terminal's registers have no MAC: they are its own.
    if let Some(saved) = bytes.first_chunk::<{ Dukpt::SAVED }>() {
        let mut dukpt = Dukpt::restore(saved);
        let before = dukpt.counter();
        for _ in 0..4 {
            if dukpt.next_key().is_ok() {
                assert!(dukpt.counter() > before || before == u32::MAX);
            }
        }
        let mut again = [0; Dukpt::SAVED];
        dukpt.save(&mut again);
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
}
