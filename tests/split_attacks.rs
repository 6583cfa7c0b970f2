//! What a terminal that lies can do, and what a recorded session is good for. Every test says what
//! it costs the operator: nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/split.rs"]
mod support;

use cmac::{Cmac, KeyInit as _, Mac as _};
use desfire_ev1::error::Authenticity;
use desfire_ev1::picc::Card;
use desfire_ev1::split::{
    Accepted, BaseKey, Carrier, Carries, Challenge, Counters, Diversified, Dukpt, Effect, Finished,
    Freshness, HolderError, Intent, Message, MessageError, Mode, Modes, Nonces, Pending, PolicyFn,
    Record, Refusal, Relay, RemoteCard, ReplayGuard, SoftEntry, SoftKey, SoftKeyError, SoftKeys,
    Stop, StorageKey, TerminalId, TransportKey, TransportKeyId, Verdict,
};
use desfire_ev1::wire::{Aid, Amount, AuthScheme, FileNo, InlineBytes, KeyNo, KeyType, Uid};
use desfire_ev1::{Key, LinkFormat, Machine, Transport, VirtualReader};
use support::*;

fn file(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

// The messages' MACs once more, written from the documentation of the format: who has the
// transport key can forge whatever a terminal can say.

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Cmac::<aes::Aes128>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn tag(label: &[u8], context: &[u8], message: &[u8]) -> [u8; 16] {
    let one = 1_u32.to_be_bytes();
    let length = 128_u32.to_be_bytes();
    let key = mac(b"transport key 07", &[&one, label, &[0], context, &length]);
    mac(&key, &[message])
}

/// Puts a right MAC at the end of a message from the terminal.
fn forge(challenge: &[u8], mut message: Vec<u8>) -> Vec<u8> {
    let body = &challenge[..challenge.len() - 16];
    let end = message.len() - 16;
    let tag = tag(b"desfire split 1 terminal", body, &message[..end]);
    message[end..].copy_from_slice(&tag);
    message
}

// The recorded session: tests/vectors/auth_handshake.txt, an AES key of an EV1.

/// What the attacker has: a recording of the card's link, and what it wants.
struct Recording {
    key_bytes: [u8; 16],
    key: Key,
    enciphered_rnd_b: Vec<u8>,
    token: Vec<u8>,
    proof: Vec<u8>,
    session_key: Vec<u8>,
}

fn recording() -> Recording {
    let text = include_str!("vectors/auth_handshake.txt");
    let block = text
        .split("\n\n")
        .find(|block| block.contains("auth aa") && block.contains("outcome accepted"))
        .expect("an accepted AES handshake");
    assert!(block.contains("origin card"), "{block}");
    let field = |name: &str, skip: usize| {
        let mut lines = block
            .lines()
            .map(str::trim)
            .filter_map(|line| line.strip_prefix(name));
        hex(lines.nth(skip).unwrap())
    };
    let key: [u8; 16] = field("key ", 0).try_into().unwrap();
    Recording {
        key_bytes: key,
        key: Key::aes(key),
        enciphered_rnd_b: field("rx ", 0)[1..].to_vec(),
        token: field("tx ", 1)[1..].to_vec(),
        proof: field("rx ", 1)[1..].to_vec(),
        session_key: field("session_key ", 0),
    }
}

/// Two answers of a holder that gives a session key for a bare challenge are enough.
fn attack(
    recording: &Recording,
    mut session_key_for: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let rnd_b = session_key_for(&recording.enciphered_rnd_b)?;
    let rnd_a = session_key_for(&recording.token[..16])?;
    // B0–3 and B12–15 are bytes 4–7 and 12–15 of the session key. The first block of the token is
    // E(RndA ⊕ E(RndB)), which is deciphered as if it were E(RndB).
    let part = |from: usize, at: usize| -> Vec<u8> {
        let chained = &recording.enciphered_rnd_b[at..at + 4];
        rnd_a[from..from + 4]
            .iter()
            .zip(chained)
            .map(|(a, b)| a ^ b)
            .collect()
    };
    Some([&part(4, 0)[..], &rnd_b[4..8], &part(12, 12), &rnd_b[12..16]].concat())
}

#[test]
fn naive_release_gives_the_recorded_session_away() {
    let recording = recording();
    // The naive holder: the session key for E(RndB), at once.
    let naive = |challenge: &[u8]| {
        let cipher =
            <aes::Aes128 as cbc::cipher::KeyInit>::new_from_slice(&recording.key_bytes).unwrap();
        let mut block: cbc::cipher::Block<aes::Aes128> = challenge.try_into().unwrap();
        cbc::cipher::BlockCipherDecrypt::decrypt_block(&cipher, &mut block);
        let mut rnd_a = [0; 16];
        getrandom::fill(&mut rnd_a).unwrap();
        Some([&rnd_a[..4], &block[..4], &rnd_a[12..], &block[12..]].concat())
    };
    assert_eq!(
        attack(&recording, naive),
        Some(recording.session_key.clone())
    );
}

/// A challenge with any cryptogram: the attacker is a terminal, with its transport key.
fn bare(mode: Mode, counter: u64, cryptogram: &[u8]) -> (Challenge, Vec<u8>) {
    let challenge = Challenge {
        intent: aes(mode, counter),
        aid: AID,
        format: LinkFormat::WRAPPED,
        cryptogram: InlineBytes::new(cryptogram).unwrap(),
    };
    let message = challenge.seal(&transport_key()).unwrap().to_vec();
    (challenge, message)
}

/// A card that says whatever the attacker likes.
struct Puppet(Vec<Vec<u8>>);

impl desfire_ev1::Link for Puppet {
    type Error = Gone;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Puppet {
    fn exchange(&mut self, _: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        if self.0.is_empty() {
            return Err(Gone);
        }
        let answer = self.0.remove(0);
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// The attacker's own terminal, with a card that answers from the recording. The answer of the
/// holder in, the session key out: nothing.
#[test]
fn no_mode_gives_it_away() {
    let recording = recording();
    let wrapped = |payload: &[u8], status| [payload, &[0x91, status][..]].concat();
    let mut counter = 0;
    for mode in [Mode::CardLocked, Mode::Proven, Mode::Script] {
        let mut shop = Shop::new(recording.key.clone());
        let got = attack(&recording, |cryptogram| {
            counter += 1;
            let selected = wrapped(&[], 0);
            let replies = vec![
                selected,
                wrapped(cryptogram, 0xAF),
                wrapped(&recording.proof, 0),
            ];
            let mut card = Puppet(replies);
            let session = desfire_ev1::Session::new()
                .select_application(AID)
                .run(&mut card)
                .unwrap();
            let tap = desfire_ev1::split::Tap::new(session, aes(mode, counter), &transport_key());
            let waiting = tap.run(&mut card).unwrap();
            let answered = shop.answer(&waiting.message().unwrap());
            match mode {
                Mode::CardLocked => {
                    let answer = answered.card_locked().unwrap();
                    leaks_nothing(&recording, &answer);
                    let error = waiting
                        .card_locked(&answer)
                        .unwrap()
                        .run(&mut card)
                        .err()
                        .unwrap();
                    let kind = error.kind().unwrap();
                    assert_eq!(*kind, Authenticity::ProofWrong.into());
                }
                Mode::Proven => {
                    let (token, pending) = answered.proven(0).unwrap();
                    leaks_nothing(&recording, &token);
                    let proven = waiting.proven(&token).unwrap().run(&mut card).unwrap();
                    let refused = pending.release(&proven.message().unwrap(), 0);
                    assert_eq!(refused.err(), Some(Refusal::NotProved));
                }
                _ => {
                    let (mut script, mut record) = ([0; 512], [0; 512]);
                    let (mut session, mut builder) =
                        answered.script(&mut script, &mut record).unwrap();
                    builder
                        .expect(session.get_key_version(KeyNo::MASTER), &[0])
                        .unwrap();
                    let Finished { script, .. } = builder.finish().unwrap();
                    leaks_nothing(&recording, script);
                }
            }
            None
        });
        assert_eq!(got, None);
    }
    // Remote has no challenge to be answered at all.
    let mut shop = Shop::new(recording.key.clone());
    let (_, message) = bare(Mode::Remote, 99, &recording.enciphered_rnd_b);
    let refused = shop.accept(&message).err().unwrap();
    assert!(matches!(
        refused,
        Refusal::Message(MessageError::Malformed(_))
    ));
    let (_, message) = bare(Mode::Remote, 100, &[]);
    let accepted = shop.accept(&message).unwrap();
    let refused = accepted.answer(&mut SoftKey::new(&shop.key), &mut getrandom::SysRng);
    assert!(matches!(
        refused.err(),
        Some(HolderError::Refused(Refusal::WrongMode { .. }))
    ));
}

/// No four bytes of the recorded session key occur in what is given away.
fn leaks_nothing(recording: &Recording, message: &[u8]) {
    for part in recording.session_key.chunks(4) {
        assert!(!message.windows(4).any(|window| window == part));
    }
}

#[test]
fn a_challenge_again() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(Mode::CardLocked, 5));
    let message = waiting.message().unwrap();
    shop.answer(&message);
    assert_eq!(shop.accept(&message).err(), Some(Refusal::Replayed));
    let older = counter.tap(aes(Mode::CardLocked, 4)).message().unwrap();
    assert_eq!(shop.accept(&older).err(), Some(Refusal::Replayed));
    let nonce = Intent {
        freshness: Freshness::Nonce([0; 16]),
        ..aes(Mode::CardLocked, 0)
    };
    let other = counter.tap(nonce).message().unwrap();
    assert_eq!(shop.accept(&other).err(), Some(Refusal::NotFresh));
}

/// The challenge of one card, the token for another: the other refuses, though it has the same key.
#[test]
fn cards_swapped_between_challenge_and_token() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut victim = Counter::demo();
    let other = Card::builder()
        .uid(Uid([4, 1, 1, 1, 1, 1, 1]))
        .seed([9; 16])
        .build();
    let mut swapped = Counter::new(VirtualReader::new(other));
    let model = victim.card().state().application(AID).unwrap().clone();
    swapped
        .reader
        .card_mut()
        .state_mut()
        .put_application(model)
        .unwrap();
    let state = swapped.card().state().clone();

    let waiting = victim.tap(aes(Mode::CardLocked, 1));
    swapped.tap(aes(Mode::CardLocked, 2));
    let answer = shop
        .answer(&waiting.message().unwrap())
        .card_locked()
        .unwrap();
    let error = waiting
        .card_locked(&answer)
        .unwrap()
        .run(&mut swapped)
        .err()
        .unwrap();
    assert!(error.status().is_some());

    let waiting = victim.tap(aes(Mode::Script, 3));
    swapped.tap(aes(Mode::Script, 4));
    let (mut script, mut record) = ([0; 512], [0; 512]);
    let answered = shop.answer(&waiting.message().unwrap());
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, victim.card());
    builder
        .send(session.debit(file(2), Amount::new(1).unwrap()))
        .unwrap();
    builder.send(session.commit_transaction()).unwrap();
    let Finished { script, record } = builder.finish().unwrap();
    let mut receipt = [0; 512];
    let mut player = waiting.script(script, &mut receipt).unwrap();
    let ending = player.play(&mut swapped).unwrap();
    assert!(matches!(ending.stop, Stop::Refused(_)));
    assert_eq!((ending.effect, ending.commands), (Effect::None, 0));
    let receipt = player.into_receipt().unwrap();
    let verdict = record.judge(receipt, &transport_key()).unwrap().verdict;
    assert_eq!(verdict, Verdict::Unknown);
    assert_eq!(*swapped.card().state(), state);
}

/// A played script and all that a lying terminal has of it.
struct Played {
    challenge: Vec<u8>,
    record: Vec<u8>,
    receipt: Vec<u8>,
}

const STORAGE: [u8; 16] = *b"the holder's own";

fn played(shop: &mut Shop, number: u64, torn: Option<usize>) -> Played {
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(Mode::Script, number));
    let challenge = waiting.message().unwrap().to_vec();
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let answered = shop.answer(&challenge);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, counter.card());
    builder
        .send(session.debit(file(2), Amount::new(250).unwrap()))
        .unwrap();
    builder
        .send(session.write_record(file(4), 0, b"coffee"))
        .unwrap();
    builder.send(session.commit_transaction()).unwrap();
    let Finished { script, record } = builder.finish().unwrap();
    let mut sealed = vec![0; record.sealed_len()];
    record.seal(&StorageKey::new(STORAGE), &mut sealed).unwrap();
    let script = script.to_vec();
    counter.torn_at = torn.map(|torn| counter.frames.len() + torn);
    let mut receipt = [0; 512];
    let mut player = waiting.script(&script, &mut receipt).unwrap();
    let _ = player.play(&mut counter);
    let receipt = player.into_receipt().unwrap().to_vec();
    Played {
        challenge,
        record: sealed,
        receipt,
    }
}

fn judged(record: &[u8], receipt: &[u8]) -> Result<Verdict, Refusal> {
    let mut buffer = vec![0; record.len()];
    let record = Record::unseal(record, &StorageKey::new(STORAGE), &mut buffer).unwrap();
    record
        .judge(receipt, &transport_key())
        .map(|judgement| judgement.verdict)
}

/// Every shorter receipt, also with a right MAC: never "done", never "not done".
#[test]
fn a_receipt_cut_short() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let played = played(&mut shop, 1, None);
    assert_eq!(judged(&played.record, &played.receipt), Ok(Verdict::Done));
    for len in 0..played.receipt.len() {
        let cut = played.receipt[..len].to_vec();
        assert!(judged(&played.record, &cut).is_err(), "{len}");
        if len >= 16 {
            let forged = forge(&played.challenge, cut);
            match judged(&played.record, &forged) {
                Ok(verdict) => assert_eq!(verdict, Verdict::Unknown, "{len}"),
                Err(error) => assert!(matches!(error, Refusal::Message(_))),
            }
        }
    }
}

/// Every bit of a receipt changed: noticed, and with a right MAC never more than "unknown".
#[test]
fn a_forged_receipt() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let played = played(&mut shop, 1, None);
    for index in 0..played.receipt.len() - 16 {
        let mut changed = played.receipt.clone();
        changed[index] ^= 0x01;
        assert!(judged(&played.record, &changed).is_err());
        let forged = forge(&played.challenge, changed);
        match judged(&played.record, &forged) {
            Ok(verdict) => assert_eq!(verdict, Verdict::Unknown, "byte {index}"),
            Err(error) => assert!(matches!(error, Refusal::Message(_))),
        }
    }
}

/// The commit has not been sent; the terminal makes up the card's reply.
#[test]
fn a_made_up_commit() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let honest = played(&mut shop, 1, None);
    let torn = played(&mut shop, 2, Some(3));
    // Frame 3 is the commit, whose reply got lost: put in another tap's, and zeros.
    let entry = &honest.receipt[honest.receipt.len() - 16 - 11..honest.receipt.len() - 16];
    for made_up in [entry.to_vec(), [&[0, 8, 0][..], &[0; 8]].concat()] {
        let mut receipt = torn.receipt[..torn.receipt.len() - 16 - 3].to_vec();
        receipt.extend(made_up);
        receipt.extend([0; 16]);
        let forged = forge(&torn.challenge, receipt);
        assert_eq!(judged(&torn.record, &forged), Ok(Verdict::Unknown));
    }
    // The receipt of one tap for another, as it is: it belongs to another challenge.
    let mixed = judged(&torn.record, &honest.receipt);
    assert_eq!(mixed, Err(Refusal::Message(MessageError::MixedUp)));
}

/// The frames of a script, as a lying terminal reads them.
fn frames(script: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = &script[10..script.len() - 16];
    let (token, after) = rest[1..].split_at(usize::from(rest[0]));
    frames.push([&[0xAF][..], token].concat());
    rest = &after[1..];
    while !rest.is_empty() {
        let len = usize::from(u16::from_le_bytes([rest[2], rest[3]]));
        frames.push([&rest[1..2], &rest[4..4 + len]].concat());
        let tagged = rest[0] & 0x28 == 0x20;
        rest = &rest[4 + len + 2 + if tagged { 8 } else { 0 }..];
    }
    frames
}

fn send(counter: &mut Counter, frame: &[u8]) -> Vec<u8> {
    let mut apdu = vec![0x90, frame[0], 0, 0];
    if frame.len() > 1 {
        apdu.push(u8::try_from(frame.len() - 1).unwrap());
        apdu.extend(&frame[1..]);
    }
    apdu.push(0);
    counter.reader.handle(&apdu)
}

/// Frames left out or in another order: the card goes another way, and the holder never says that
/// it has done what it has not.
#[test]
fn frames_left_out_and_reordered() {
    let orders: [&[usize]; 6] = [
        &[0, 1, 3],
        &[0, 3],
        &[0, 2, 1, 3],
        &[0, 1, 1, 3],
        &[0, 2, 3],
        &[0, 1, 2],
    ];
    for (number, order) in (1..).zip(orders) {
        let mut shop = Shop::new(Key::aes([0; 16]));
        let mut counter = Counter::demo();
        let waiting = counter.tap(aes(Mode::Script, number));
        let challenge = waiting.message().unwrap().to_vec();
        let (mut script, mut record) = ([0; 1024], [0; 1024]);
        let answered = shop.answer(&challenge);
        let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
        state_settings(&mut session, counter.card());
        builder
            .send(session.debit(file(2), Amount::new(250).unwrap()))
            .unwrap();
        builder
            .send(session.write_record(file(4), 0, b"coffee"))
            .unwrap();
        builder.send(session.commit_transaction()).unwrap();
        let Finished { script, record } = builder.finish().unwrap();
        let all = frames(script);
        let mut receipt = script[..10].to_vec();
        receipt[1] = 7;
        for (place, index) in order.iter().enumerate() {
            let reply = send(&mut counter, &all[*index]);
            let payload = &reply[..reply.len() - 2];
            if place == 0 {
                receipt.push(16);
                assert_eq!(payload.len(), 16);
            } else {
                receipt.push(reply[reply.len() - 1]);
                receipt.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
            }
            receipt.extend(payload);
        }
        receipt.extend([0; 16]);
        let forged = forge(&challenge, receipt);
        let verdict = match record.judge(&forged, &transport_key()) {
            Ok(judgement) => judgement.verdict,
            // More replies than commands.
            Err(error) => {
                assert!(matches!(error, Refusal::Message(_)), "{error:?}");
                continue;
            }
        };
        assert_eq!(verdict, Verdict::Unknown, "{order:?}");
    }
}

#[test]
fn other_keys_and_other_applications() {
    let mut guard = Counters::<4>::new();
    let policy = PolicyFn(
        |terminal: &TerminalId, key: &desfire_ev1::split::KeyRequest| {
            let ours = terminal.as_bytes() == TERMINAL;
            if ours && key.aid == AID && key.key_no == KeyNo::MASTER {
                Modes::default()
            } else {
                Modes::empty()
            }
        },
    );
    let mut ask = |intent: Intent, aid: Aid| {
        let cryptogram = InlineBytes::new(&[7; 16]).unwrap();
        let challenge = Challenge {
            intent,
            aid,
            format: LinkFormat::NATIVE,
            cryptogram,
        };
        let message = challenge.seal(&transport_key()).unwrap();
        Accepted::check(&message, &transport_key(), &policy, &mut guard).err()
    };
    let good = aes(Mode::CardLocked, 1);
    let not_granted =
        |refused: Option<Refusal>| matches!(refused, Some(Refusal::NotGranted { .. }));
    assert!(not_granted(ask(good, Aid::new(0x12_3456).unwrap())));
    assert!(not_granted(ask(good, Aid::PICC)));
    assert!(not_granted(ask(
        Intent {
            key_no: KeyNo::new(1).unwrap(),
            ..good
        },
        AID
    )));
    assert!(not_granted(ask(
        Intent {
            terminal: TerminalId::new(b"till 8").unwrap(),
            ..good
        },
        AID
    )));
    // Weaker than card-locked: not by default.
    assert!(not_granted(ask(aes(Mode::Proven, 1), AID)));
    // None of that has used up the counter.
    assert_eq!(ask(good, AID), None);
}

#[test]
fn card_locked_needs_sixteen_bytes_and_scripts_need_ev1() {
    let mut shop = Shop::new(Key::des([1; 8]));
    let mut ask = |mode, scheme, number| {
        let intent = intent(mode, scheme, KeyType::Des, number);
        let cryptogram = InlineBytes::new(&[7; 8]).unwrap();
        let challenge = Challenge {
            intent,
            aid: AID,
            format: LinkFormat::NATIVE,
            cryptogram,
        };
        shop.accept(&challenge.seal(&transport_key()).unwrap())
            .err()
    };
    let unsuitable = |refused| matches!(refused, Some(Refusal::Unsuitable { .. }));
    assert!(unsuitable(ask(Mode::CardLocked, AuthScheme::Iso, 1)));
    assert!(unsuitable(ask(Mode::CardLocked, AuthScheme::Legacy, 2)));
    assert!(unsuitable(ask(Mode::Script, AuthScheme::Legacy, 3)));
    assert_eq!(ask(Mode::Script, AuthScheme::Iso, 4), None);
    assert_eq!(ask(Mode::Proven, AuthScheme::Legacy, 5), None);
}

/// Every byte of every message counts, and each way of being wrong has its own name.
#[test]
fn changed_messages() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let challenge = counter.tap(aes(Mode::CardLocked, 1)).message().unwrap();
    for index in 0..challenge.len() {
        let mut changed = challenge.to_vec();
        changed[index] ^= 1;
        let refused = shop.accept(&changed).err().unwrap();
        let Refusal::Message(error) = refused else {
            panic!("{refused:?}")
        };
        match index {
            0 => assert_eq!(
                error,
                MessageError::Version {
                    expected: 1,
                    found: 0
                }
            ),
            1 => assert_eq!(
                error,
                MessageError::Kind {
                    expected: 1,
                    found: 0
                }
            ),
            _ => assert!(matches!(
                error,
                MessageError::Altered | MessageError::Malformed(_)
            )),
        }
    }
    for len in 0..challenge.len() {
        assert!(shop.accept(&challenge[..len]).is_err());
    }
    assert!(shop.accept(&[&challenge[..], &[0]].concat()).is_err());
    // Another terminal's key.
    let other = TransportKey::new([1; 16]);
    let refused = Accepted::check(&challenge, &other, &Modes::all(), &mut shop.guard).err();
    assert_eq!(refused, Some(Refusal::Message(MessageError::Altered)));

    let mut number = 10;
    let mut fresh = |mode| {
        number += 1;
        let waiting = counter.tap(aes(mode, number));
        let answered = shop.answer(&waiting.message().unwrap());
        (waiting, answered)
    };
    let (_, answered) = fresh(Mode::CardLocked);
    let old = answered.card_locked().unwrap();
    let (waiting, _) = fresh(Mode::CardLocked);
    let error = waiting.card_locked(&old).err().unwrap();
    assert_eq!(error, MessageError::MixedUp.into());
    let (waiting, answered) = fresh(Mode::CardLocked);
    let mut answer = answered.card_locked().unwrap().to_vec();
    answer[20] ^= 1;
    assert_eq!(
        waiting.card_locked(&answer).err().unwrap(),
        MessageError::Altered.into()
    );
    let (waiting, answered) = fresh(Mode::CardLocked);
    let answer = answered.card_locked().unwrap();
    assert!(waiting.proven(&answer).is_err());
    let (waiting, answered) = fresh(Mode::Proven);
    let (token, _) = answered.proven(0).unwrap();
    assert_eq!(
        waiting.proven(&[&[2], &token[1..]].concat()).err().unwrap(),
        MessageError::Version {
            expected: 1,
            found: 2
        }
        .into()
    );
    // A way out that was not asked for.
    let (_, answered) = fresh(Mode::Script);
    assert!(matches!(
        answered.card_locked(),
        Err(Refusal::WrongMode {
            asked: Mode::Script
        })
    ));
    let (_, answered) = fresh(Mode::CardLocked);
    assert!(answered.proven(0).is_err());
}

#[test]
fn proven_release_waits_and_expires() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let storage = StorageKey::new(STORAGE);
    let waiting = counter.tap(aes(Mode::Proven, 1));
    let (token, pending) = shop
        .answer(&waiting.message().unwrap())
        .proven(100)
        .unwrap();
    // A holder without memory gets its state back with the proof.
    let sealed = pending.seal(&storage).unwrap();
    let proven = waiting.proven(&token).unwrap().run(&mut counter).unwrap();
    let proof = proven.message().unwrap();
    for index in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[index] ^= 1;
        let error = Pending::unseal(&changed, &storage, &transport_key()).err();
        assert_eq!(error, Some(Refusal::Stored));
    }
    assert!(Pending::unseal(&sealed, &StorageKey::new([0; 16]), &transport_key()).is_err());
    let unsealed = Pending::unseal(&sealed, &storage, &transport_key()).unwrap();
    assert_eq!(unsealed.release(&proof, 101).err(), Some(Refusal::Expired));
    let unsealed = Pending::unseal(&sealed, &storage, &transport_key()).unwrap();
    let release = unsealed.release(&proof, 100).unwrap();
    let mut session = proven.release(&release).unwrap();
    assert_eq!(
        session
            .get_key_version(KeyNo::MASTER)
            .run(&mut counter)
            .unwrap(),
        0
    );
    // Another tap's proof.
    let waiting = counter.tap(aes(Mode::Proven, 2));
    let (_, pending) = shop
        .answer(&waiting.message().unwrap())
        .proven(100)
        .unwrap();
    assert_eq!(
        pending.release(&proof, 0).err(),
        Some(Refusal::Message(MessageError::MixedUp))
    );
}

#[test]
fn dukpt_is_one_key_for_one_tap() {
    let base = BaseKey::new([0x11; 16]);
    let mut terminal = Dukpt::load(&base.initial_key(*b"fleet 01"));
    let mut guard = Counters::<4>::new();
    let mut counter = Counter::demo();
    let key = Key::aes([0; 16]);
    let mut first = None;
    for _ in 0..3 {
        let (id, transport) = terminal.next_key().unwrap();
        let TransportKeyId::Dukpt(ksn) = id else {
            panic!()
        };
        let intent = Intent {
            transport: id,
            freshness: Freshness::Counter(u64::from(ksn.counter)),
            ..aes(Mode::CardLocked, 0)
        };
        let session = counter.selected();
        let tap = desfire_ev1::split::Tap::new(session, intent, &transport);
        let waiting = tap.run(&mut counter).unwrap();
        let message = waiting.message().unwrap();
        // The holder finds the key by what the message claims.
        let claimed = Challenge::claimed(&message).unwrap();
        let TransportKeyId::Dukpt(claimed) = claimed.intent.transport else {
            panic!()
        };
        let host = base.transport_key(claimed).unwrap();
        let accepted = Accepted::check(&message, &host, &Modes::default(), &mut guard).unwrap();
        let answered = accepted
            .answer(&mut SoftKey::new(&key), &mut getrandom::SysRng)
            .unwrap();
        let answer = answered.card_locked().unwrap();
        waiting
            .card_locked(&answer)
            .unwrap()
            .run(&mut counter)
            .unwrap();
        first.get_or_insert((message, host));
    }
    let (message, host) = first.unwrap();
    let refused = Accepted::check(&message, &host, &Modes::default(), &mut guard).err();
    assert_eq!(refused, Some(Refusal::Replayed));
    // The key of a tap with another freshness.
    let (id, transport) = terminal.next_key().unwrap();
    let intent = Intent {
        transport: id,
        ..aes(Mode::CardLocked, 77)
    };
    let cryptogram = InlineBytes::new(&[7; 16]).unwrap();
    let challenge = Challenge {
        intent,
        aid: AID,
        format: LinkFormat::NATIVE,
        cryptogram,
    };
    let message = challenge.seal(&transport).unwrap();
    let refused = Accepted::check(&message, &transport, &Modes::default(), &mut guard).err();
    assert_eq!(refused, Some(Refusal::CounterMismatch));
}

#[test]
fn nonces_and_counters() {
    let (one, other) = (
        TerminalId::new(b"one").unwrap(),
        TerminalId::new(b"other").unwrap(),
    );
    let mut nonces = Nonces::<2>::new();
    let first = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    assert_eq!(nonces.accept(&other, &first), Err(Refusal::NotFresh));
    assert_eq!(nonces.accept(&one, &first), Ok(()));
    assert_eq!(nonces.accept(&one, &first), Err(Refusal::NotFresh));
    let oldest = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    let _ = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    let _ = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    assert_eq!(nonces.accept(&one, &oldest), Err(Refusal::NotFresh));

    let mut counters = Counters::<1>::new();
    assert_eq!(counters.accept(&one, &Freshness::Counter(0)), Ok(()));
    assert_eq!(
        counters.accept(&one, &Freshness::Counter(0)),
        Err(Refusal::Replayed)
    );
    assert_eq!(counters.accept(&one, &Freshness::Counter(9)), Ok(()));
    assert_eq!(
        counters.accept(&other, &Freshness::Counter(1)),
        Err(Refusal::Full)
    );
    let mut restored = Counters::<2>::new();
    for (terminal, counter) in counters.iter() {
        restored.set(&terminal, counter).unwrap();
    }
    assert_eq!(
        restored.accept(&one, &Freshness::Counter(9)),
        Err(Refusal::Replayed)
    );
    assert_eq!(restored.accept(&other, &Freshness::Counter(1)), Ok(()));
}

/// A wrong UID finds a wrong key: the card refuses, and there is no session.
#[test]
fn a_card_that_is_said_to_be_another() {
    let master = Key::aes([0x42; 16]);
    let rule = Diversified {
        with_aid: true,
        suffix: InlineBytes::new(b"shop").unwrap(),
    };
    let entries = [SoftEntry {
        aid: AID,
        key_no: KeyNo::MASTER,
        key: master.clone(),
        diversified: Some(rule),
    }];
    let mut counter = Counter::demo();
    let uid = Uid([0x04, 0x5A, 0x21, 0x7A, 0x3C, 0x5B, 0x80]);
    let card_key = master.diversify(&rule.input(&uid, AID)).unwrap();
    let session = counter.selected();
    let zero = Key::aes([0; 16]);
    let session = session.authenticate_aes(KeyNo::MASTER, &zero, &mut getrandom::SysRng);
    let session = session.run(&mut counter).unwrap();
    session
        .change_key_in_use(&card_key)
        .run(&mut counter)
        .unwrap();
    let mut guard = Counters::<1>::new();
    for (number, claimed, works) in [(1, Some(uid), true), (2, Some(Uid([1; 7])), false)] {
        let intent = Intent {
            uid: claimed,
            ..aes(Mode::CardLocked, number)
        };
        let waiting = counter.tap(intent);
        let message = waiting.message().unwrap();
        let accepted =
            Accepted::check(&message, &transport_key(), &Modes::default(), &mut guard).unwrap();
        let answered = accepted
            .answer_from(&mut SoftKeys::new(&entries), &mut getrandom::SysRng)
            .unwrap();
        let answer = answered.card_locked().unwrap();
        let session = waiting.card_locked(&answer).unwrap().run(&mut counter);
        assert_eq!(session.is_ok(), works);
    }
    let message = counter.tap(aes(Mode::CardLocked, 3)).message().unwrap();
    let accepted =
        Accepted::check(&message, &transport_key(), &Modes::default(), &mut guard).unwrap();
    let refused = accepted
        .answer_from(&mut SoftKeys::new(&entries), &mut getrandom::SysRng)
        .err();
    assert_eq!(refused, Some(HolderError::Key(SoftKeyError::NeedsUid)));
}

/// A network that answers what it likes.
struct Liar<F>(F);

impl<F> Carries for Liar<F> {
    type Error = Gone;
}

impl<F: FnMut(&[u8]) -> Vec<u8>> Carrier for Liar<F> {
    fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Gone> {
        let reply = (self.0)(message);
        answer
            .get_mut(..reply.len())
            .ok_or(Gone)?
            .copy_from_slice(&reply);
        Ok(reply.len())
    }
}

#[test]
fn a_remote_dialogue_takes_no_old_messages() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let mut relay = Relay::new(
        aes(Mode::Remote, 1),
        AID,
        LinkFormat::WRAPPED,
        &transport_key(),
    )
    .unwrap();
    let accepted = shop.accept(&relay.message().unwrap()).unwrap();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut commands: Vec<Vec<u8>> = Vec::new();
    let mut card = RemoteCard::new(
        &accepted,
        Liar(|message: &[u8]| {
            commands.push(message.to_vec());
            // The second answer is the first once more.
            let reply = relay
                .exchange(message, &mut counter)
                .unwrap()
                .unwrap()
                .to_vec();
            kept.push(reply);
            kept[0].clone()
        }),
    )
    .unwrap();
    let mut reply = [0; 64];
    let select = [0x90, 0x5A, 0, 0, 3, 0x16, 0xDE, 0, 0];
    assert_eq!(card.exchange(&select, &mut reply).unwrap(), 2);
    let error = card
        .exchange(&[0x90, 0x6E, 0, 0, 0], &mut reply)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("message 0 where message 1 belongs"),
        "{error}"
    );
    drop(card);
    // An old command at the terminal.
    assert!(relay.command(&commands[0]).is_err());
    assert!(relay.command(&[]).is_err());
}

#[test]
fn a_message_from_slice_is_bounded() {
    assert!(Message::<4>::from_slice(&[0; 5]).is_err());
    assert_eq!(Message::<4>::from_slice(&[1, 2]).unwrap()[..], [1, 2]);
}
