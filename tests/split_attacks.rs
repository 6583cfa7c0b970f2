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
    Accepted, AsyncCarrier, BaseKey, Carrier, Carries, Challenge, Counters, Diversified, Dukpt,
    Effect, Finished, Freshness, Grant, HolderError, Intent, KnownTerminal, Message, MessageError,
    Mode, Modes, Nonces, Pending, Policy, Record, Refusal, Relay, RelayCommand, RelayGate,
    RelayReply, RemoteCard, RemoteError, ReplayGuard, SoftEntry, SoftKey, SoftKeyError, SoftKeys,
    Stop, StorageKey, TerminalError, TerminalId, TransportKey, TransportKeyId, TransportKeys,
    Verdict,
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
                    let (token, mut pending) = answered.proven(0).unwrap();
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

/// A terminal that would like the key holder to believe that the card has other data than stated, and has
/// therefore not done what it has done.
#[test]
fn a_forged_deviation() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(Mode::Script, 1));
    let challenge = waiting.message().unwrap().to_vec();
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let answered = shop.answer(&challenge);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, counter.card());
    let value = 1000_i32.to_le_bytes();
    builder.expect(session.get_value(file(2)), &value).unwrap();
    let mut buffer = [0; 4];
    let read = session.read_data(file(1), 0..4, &mut buffer);
    builder.expect(read, &[0; 4]).unwrap();
    let debit = session.debit(file(2), Amount::new(250).unwrap());
    builder.send(debit).unwrap();
    builder.send(session.commit_transaction()).unwrap();
    let Finished { script, record } = builder.finish().unwrap();
    let mut sealed = vec![0; record.sealed_len()];
    record.seal(&StorageKey::new(STORAGE), &mut sealed).unwrap();
    let mut receipt = [0; 512];
    let mut player = waiting.script(script, &mut receipt).unwrap();
    player.play(&mut counter).unwrap();
    let receipt = player.into_receipt().unwrap().to_vec();
    assert_eq!(judged(&sealed, &receipt), Ok(Verdict::Done));

    // Header 10, proof 17, the value's reply 3 + 16, the data's 3 + 12; then what changes the card.
    let (value_at, data_at, end) = (10 + 17 + 3, 10 + 17 + 19 + 3, 10 + 17 + 19 + 15);
    let places = (value_at..value_at + 16).chain(data_at..data_at + 12);
    for place in places {
        for bit in 0..8 {
            let mut whole = receipt.clone();
            whole[place] ^= 1 << bit;
            // As if the terminal had stopped there.
            let mut stopped = whole[..end].to_vec();
            stopped.extend([0; 16]);
            for forged in [whole, stopped] {
                let forged = forge(&challenge, forged);
                assert_eq!(judged(&sealed, &forged), Ok(Verdict::Unknown), "{place}");
            }
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
    let (key, grants) = (transport_key(), grants(Modes::default()));
    // Till 8 has the same transport key, and nothing is granted to it: nobody should do that.
    let other = KnownTerminal {
        id: TerminalId::new(b"till 8").unwrap(),
        ..till(&key, &[])
    };
    let books = [till(&key, &grants), other];
    let mut ask = |intent: Intent, aid: Aid| {
        let cryptogram = InlineBytes::new(&[7; 16]).unwrap();
        let challenge = Challenge {
            intent,
            aid,
            format: LinkFormat::NATIVE,
            cryptogram,
        };
        let message = challenge.seal(&transport_key()).unwrap();
        Accepted::check(&message, &books[..], &mut guard).err()
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

/// The books say whose a transport key is, and nothing else does.
#[test]
fn a_transport_key_speaks_for_its_own_terminal_only() {
    let (one, other) = (TransportKey::new([1; 16]), TransportKey::new([2; 16]));
    let base = BaseKey::new([0x11; 16]);
    let grants = grants(Modes::default());
    let name = |name: &[u8]| TerminalId::new(name).unwrap();
    let preshared = |version, key| TransportKeys::One {
        id: TransportKeyId::Preshared(version),
        key,
    };
    let known = |id, transport| KnownTerminal {
        id,
        transport,
        grants: &grants,
    };
    let dukpt = TransportKeys::Dukpt {
        base: &base,
        key_id: *b"fleet 01",
    };
    // The first is about to get a new key, the third has a register.
    let books = [
        known(name(b"one"), preshared(1, &one)),
        known(name(b"one"), preshared(2, &other)),
        known(name(b"other"), preshared(1, &other)),
        known(name(b"third"), dukpt),
    ];
    let mut number = 0;
    let mut ask = |terminal: &[u8], id, key: &TransportKey, books: &dyn Policy| {
        number += 1;
        let freshness = match id {
            TransportKeyId::Dukpt(ksn) => ksn.counter.into(),
            TransportKeyId::Preshared(_) => number,
        };
        let challenge = Challenge {
            intent: Intent {
                terminal: name(terminal),
                transport: id,
                freshness: Freshness::Counter(freshness),
                ..aes(Mode::CardLocked, 0)
            },
            aid: AID,
            format: LinkFormat::NATIVE,
            cryptogram: InlineBytes::new(&[7; 16]).unwrap(),
        };
        let message = challenge.seal(key).unwrap();
        Accepted::check(&message, books, &mut Counters::<1>::new()).err()
    };
    let (first, second) = (TransportKeyId::Preshared(1), TransportKeyId::Preshared(2));
    let all = &books.as_slice();
    let altered = Some(Refusal::Message(MessageError::Altered));
    assert_eq!(ask(b"one", first, &one, all), None);
    assert_eq!(ask(b"one", second, &other, all), None);
    assert_eq!(ask(b"other", first, &other, all), None);
    assert_eq!(ask(b"one", first, &other, all), altered);
    assert_eq!(ask(b"other", first, &one, all), altered);
    let unknown = Some(Refusal::UnknownTerminal);
    assert_eq!(ask(b"other", second, &other, all), unknown);
    assert_eq!(ask(b"nobody", first, &one, all), unknown);
    let mut register = Dukpt::load(&base.initial_key(*b"fleet 01"));
    let (id, key) = register.next_key().unwrap();
    assert_eq!(ask(b"third", id, &key, all), None);
    assert_eq!(ask(b"one", id, &key, all), unknown);
    // A key that was derived in an HSM, for this transaction and no other.
    let derived = known(name(b"third"), TransportKeys::One { id, key: &key });
    assert_eq!(ask(b"third", id, &key, &derived), None);
    let (next, next_key) = register.next_key().unwrap();
    assert_eq!(ask(b"third", next, &next_key, &derived), unknown);
    // Another initial key of the same fleet, in the name of the third.
    let mut stolen = Dukpt::load(&base.initial_key(*b"fleet 02"));
    let (id, key) = stolen.next_key().unwrap();
    assert_eq!(ask(b"third", id, &key, all), unknown);
    // Books that give an entry of another name, or without that key.
    struct Careless<'k>(KnownTerminal<'k>);
    impl Policy for Careless<'_> {
        fn terminal(&self, _: &TerminalId, _: TransportKeyId) -> Option<KnownTerminal<'_>> {
            Some(self.0)
        }
    }
    let careless = Careless(known(name(b"one"), preshared(1, &one)));
    assert_eq!(ask(b"one", first, &one, &careless), None);
    assert_eq!(ask(b"other", first, &one, &careless), unknown);
    assert_eq!(ask(b"one", second, &one, &careless), unknown);
}

/// A grant is for one key, by one authentication, in its modes.
#[test]
fn what_is_not_granted_is_refused() {
    let key = transport_key();
    let granted = [
        Grant {
            aid: AID,
            key_no: KeyNo::MASTER,
            scheme: AuthScheme::Iso,
            modes: Modes::SCRIPT,
        },
        Grant {
            aid: AID,
            key_no: KeyNo::MASTER,
            scheme: AuthScheme::Iso,
            modes: Modes::REMOTE,
        },
        Grant {
            aid: AID,
            key_no: KeyNo::new(1).unwrap(),
            scheme: AuthScheme::Legacy,
            modes: Modes::PROVEN,
        },
    ];
    let mut allowed = Vec::new();
    let mut number = 0;
    let mut guard = Counters::<1>::new();
    for key_no in [0, 1, 2] {
        for scheme in [AuthScheme::Legacy, AuthScheme::Iso] {
            for mode in [Mode::Proven, Mode::CardLocked, Mode::Script, Mode::Remote] {
                number += 1;
                let challenge = Challenge {
                    intent: Intent {
                        key_no: KeyNo::new(key_no).unwrap(),
                        ..intent(mode, scheme, KeyType::TwoKey3Des, number)
                    },
                    aid: AID,
                    format: LinkFormat::NATIVE,
                    cryptogram: match mode {
                        Mode::Remote => InlineBytes::EMPTY,
                        _ => InlineBytes::new(&[7; 8]).unwrap(),
                    },
                };
                let message = challenge.seal(&key).unwrap();
                match Accepted::check(&message, &till(&key, &granted), &mut guard) {
                    Ok(_) => allowed.push((key_no, scheme, mode)),
                    Err(Refusal::NotGranted { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    let expected = [
        (0, AuthScheme::Iso, Mode::Script),
        (0, AuthScheme::Iso, Mode::Remote),
        (1, AuthScheme::Legacy, Mode::Proven),
    ];
    assert_eq!(allowed, expected);
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
        let error = match shop.accept(&changed).err().unwrap() {
            Refusal::Message(error) => error,
            // The terminal's name, and which of its keys.
            Refusal::UnknownTerminal if (11..19).contains(&index) => continue,
            refused => panic!("{index}: {refused:?}"),
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
    let (other, all) = (TransportKey::new([1; 16]), grants(Modes::all()));
    let refused = Accepted::check(&challenge, &till(&other, &all), &mut shop.guard).err();
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

/// The messages that belong to a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    CardLocked,
    Token,
    Proof,
    Release,
    Script,
    Receipt,
    Command,
    Reply,
}

const SENT: [Sent; 8] = [
    Sent::CardLocked,
    Sent::Token,
    Sent::Proof,
    Sent::Release,
    Sent::Script,
    Sent::Receipt,
    Sent::Command,
    Sent::Reply,
];

/// A tap up to this message, which is changed on its way: what its reader says.
fn on_its_way(
    sent: Sent,
    number: u64,
    change: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<(), MessageError> {
    fn at_terminal<O>(taken: Result<O, TerminalError>) -> Result<(), MessageError> {
        match taken {
            Ok(_) => Ok(()),
            Err(TerminalError::Message(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }
    fn at_holder<O>(taken: Result<O, Refusal>) -> Result<(), MessageError> {
        match taken {
            Ok(_) => Ok(()),
            Err(Refusal::Message(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }
    let mode = match sent {
        Sent::CardLocked => Mode::CardLocked,
        Sent::Token | Sent::Proof | Sent::Release => Mode::Proven,
        Sent::Script | Sent::Receipt => Mode::Script,
        Sent::Command | Sent::Reply => Mode::Remote,
    };
    if mode == Mode::Remote {
        let (mut relay, accepted) = dialogue(number);
        let mut gate = RelayGate::new(&accepted).unwrap();
        let mut change = Some(change);
        let mut heard = Ok(());
        let mut card = RemoteCard::new(
            &accepted,
            Liar(|message: &[u8]| {
                let change = change.take().unwrap();
                if sent == Sent::Command {
                    heard = at_terminal(relay.command(&change(message)));
                    return Vec::new();
                }
                relay.command(message).unwrap().unwrap();
                let reply = change(&relay.reply(Some(&[0x91, 0])).unwrap());
                heard = gate.admit(&reply);
                reply
            }),
        )
        .unwrap();
        let exchanged = card.exchange(&VERSION, &mut [0; 64]);
        if sent == Sent::Reply {
            // The card's side says the same as the gate.
            match (exchanged, heard) {
                (Ok(2), Ok(())) => {}
                (Err(RemoteError::Message(error)), Err(at_gate)) => assert_eq!(error, at_gate),
                other => panic!("{other:?}"),
            }
        }
        return heard;
    }
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(mode, number));
    let answered = shop.answer(&waiting.message().unwrap());
    match mode {
        Mode::CardLocked => {
            let answer = answered.card_locked().unwrap();
            at_terminal(waiting.card_locked(&change(&answer)))
        }
        Mode::Proven => {
            let (token, mut pending) = answered.proven(0).unwrap();
            if sent == Sent::Token {
                return at_terminal(waiting.proven(&change(&token)));
            }
            let proven = waiting.proven(&token).unwrap().run(&mut counter).unwrap();
            let proof = proven.message().unwrap();
            if sent == Sent::Proof {
                return at_holder(pending.release(&change(&proof), 0));
            }
            let release = pending.release(&proof, 0).unwrap();
            at_terminal(proven.release(&change(&release)))
        }
        _ => {
            let (mut script, mut record) = ([0; 512], [0; 512]);
            let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
            let version = session.get_key_version(KeyNo::MASTER);
            builder.expect(version, &[0]).unwrap();
            let Finished { script, record } = builder.finish().unwrap();
            let mut receipt = [0; 256];
            if sent == Sent::Script {
                return at_terminal(waiting.script(&change(script), &mut receipt).map(|_| ()));
            }
            let mut player = waiting.script(script, &mut receipt).unwrap();
            player.play(&mut counter).unwrap();
            let receipt = player.into_receipt().unwrap();
            at_holder(record.judge(&change(receipt), &transport_key()))
        }
    }
}

/// Every message: an old version, another kind, a changed byte, a part, another tap's. Each is refused
/// by its own name.
#[test]
fn every_message_is_refused_by_name() {
    for sent in SENT {
        let mut right = Vec::new();
        let taken = on_its_way(sent, 1, |message| {
            right = message.to_vec();
            right.clone()
        });
        assert_eq!(taken, Ok(()), "{sent:?}");
        let change = |index: usize, bits: u8| {
            on_its_way(sent, 1, |message| {
                let mut changed = message.to_vec();
                changed[index] ^= bits;
                changed
            })
        };
        let kind = right[1];
        let version = MessageError::Version {
            expected: 1,
            found: 3,
        };
        assert_eq!(change(0, 2), Err(version), "{sent:?}");
        let other = MessageError::Kind {
            expected: kind,
            found: kind ^ 0x20,
        };
        assert_eq!(change(1, 0x20), Err(other), "{sent:?}");
        for index in 2..right.len() {
            let expected = match index {
                2..10 => MessageError::MixedUp,
                _ => MessageError::Altered,
            };
            assert_eq!(change(index, 1), Err(expected), "{sent:?}, byte {index}");
        }
        for len in [0, 1, 2, 9, 10, 25, right.len() - 1] {
            let cut = on_its_way(sent, 1, |message| message[..len].to_vec());
            assert!(cut.is_err(), "{sent:?}, {len}");
        }
        let longer = on_its_way(sent, 1, |message| [message, &[0]].concat());
        assert_eq!(longer, Err(MessageError::Altered), "{sent:?}");
        let mixed_up = on_its_way(sent, 2, |_| right.clone());
        assert_eq!(mixed_up, Err(MessageError::MixedUp), "{sent:?}");
    }
    // Each kind at the place of every other.
    let mut all = Vec::new();
    for sent in SENT {
        on_its_way(sent, 1, |message| {
            all.push((sent, message.to_vec()));
            message.to_vec()
        })
        .unwrap();
    }
    for sent in SENT {
        for (other, message) in &all {
            if sent != *other {
                let taken = on_its_way(sent, 1, |_| message.clone());
                assert!(matches!(taken, Err(MessageError::Kind { .. })), "{sent:?}");
            }
        }
    }
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
    let mut unsealed = Pending::unseal(&sealed, &storage, &transport_key()).unwrap();
    assert_eq!(unsealed.release(&proof, 101).err(), Some(Refusal::Expired));
    let mut unsealed = Pending::unseal(&sealed, &storage, &transport_key()).unwrap();
    let release = unsealed.release(&proof, 100).unwrap();
    let mut session = proven.release(&release).unwrap();
    assert_eq!(
        session
            .get_key_version(KeyNo::MASTER)
            .run(&mut counter)
            .unwrap(),
        0
    );
    // Another tap's proof, and messages of somebody who has not the terminal's key: the right proof is
    // still taken, once.
    let waiting = counter.tap(aes(Mode::Proven, 2));
    let challenge = waiting.message().unwrap();
    let (token, mut pending) = shop.answer(&challenge).proven(100).unwrap();
    assert_eq!(
        pending.release(&proof, 0).err(),
        Some(Refusal::Message(MessageError::MixedUp))
    );
    let proven = waiting.proven(&token).unwrap().run(&mut counter).unwrap();
    let right = proven.message().unwrap();
    for index in 0..right.len() {
        let mut changed = right.to_vec();
        changed[index] ^= 1;
        let refused = pending.release(&changed, 0).err();
        assert!(matches!(refused, Some(Refusal::Message(_))), "{index}");
    }
    assert!(pending.release(&right, 0).is_ok());
    assert_eq!(pending.release(&right, 0).err(), Some(Refusal::Expired));
    assert_eq!(pending.seal(&storage).err(), Some(Refusal::Expired));
    // A wrong proof with the right MAC is the only one that is judged.
    let waiting = counter.tap(aes(Mode::Proven, 3));
    let challenge = waiting.message().unwrap();
    let (token, mut pending) = shop.answer(&challenge).proven(100).unwrap();
    let proven = waiting.proven(&token).unwrap().run(&mut counter).unwrap();
    let right = proven.message().unwrap();
    let mut guessed = right.to_vec();
    guessed[11] ^= 1;
    let guessed = forge(&challenge, guessed);
    assert_eq!(pending.release(&guessed, 0).err(), Some(Refusal::NotProved));
    assert_eq!(pending.release(&right, 0).err(), Some(Refusal::Expired));
}

#[test]
fn dukpt_is_one_key_for_one_tap() {
    let base = BaseKey::new([0x11; 16]);
    let mut terminal = Dukpt::load(&base.initial_key(*b"fleet 01"));
    let mut guard = Counters::<4>::new();
    let mut counter = Counter::demo();
    let key = Key::aes([0; 16]);
    let grants = grants(Modes::default());
    let books = KnownTerminal {
        id: TerminalId::new(TERMINAL).unwrap(),
        transport: TransportKeys::Dukpt {
            base: &base,
            key_id: *b"fleet 01",
        },
        grants: &grants,
    };
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
        let accepted = Accepted::check(&message, &books, &mut guard).unwrap();
        let answered = accepted
            .answer(&mut SoftKey::new(&key), &mut getrandom::SysRng)
            .unwrap();
        let answer = answered.card_locked().unwrap();
        waiting
            .card_locked(&answer)
            .unwrap()
            .run(&mut counter)
            .unwrap();
        first.get_or_insert(message);
    }
    let refused = Accepted::check(&first.unwrap(), &books, &mut guard).err();
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
    let refused = Accepted::check(&message, &books, &mut guard).err();
    assert_eq!(refused, Some(Refusal::CounterMismatch));
}

#[test]
fn nonces_and_counters() {
    let (one, other) = (
        TerminalId::new(b"one").unwrap(),
        TerminalId::new(b"other").unwrap(),
    );
    let mut nonces = Nonces::<2, 2>::new();
    let first = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    assert_eq!(nonces.accept(&other, &first), Err(Refusal::NotFresh));
    assert_eq!(nonces.accept(&one, &first), Ok(()));
    assert_eq!(nonces.accept(&one, &first), Err(Refusal::NotFresh));
    let oldest = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    let _ = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    let _ = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    assert_eq!(nonces.accept(&one, &oldest), Err(Refusal::NotFresh));

    // As long as a place is free nothing is pushed out, and then the oldest is.
    let mut two = Nonces::<1, 2>::new();
    let issue = |nonces: &mut Nonces<1, 2>| nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    let (a, b) = (issue(&mut two), issue(&mut two));
    assert_eq!(two.accept(&one, &b), Ok(()));
    let c = issue(&mut two);
    let d = issue(&mut two);
    assert_eq!(two.accept(&one, &a), Err(Refusal::NotFresh));
    assert_eq!(two.accept(&one, &c), Ok(()));
    assert_eq!(two.accept(&one, &d), Ok(()));
    let (a, b) = (issue(&mut two), issue(&mut two));
    assert_eq!(two.accept(&one, &b), Ok(()));
    let c = issue(&mut two);
    assert_eq!(two.accept(&one, &a), Ok(()));
    assert_eq!(two.accept(&one, &c), Ok(()));

    // A terminal that asks and asks pushes out its own, and no other's.
    let kept = nonces.issue(&other, &mut getrandom::SysRng).unwrap();
    for _ in 0..100 {
        let _ = nonces.issue(&one, &mut getrandom::SysRng).unwrap();
    }
    let third = TerminalId::new(b"third").unwrap();
    let full = nonces.issue(&third, &mut getrandom::SysRng);
    assert_eq!(full, Err(Refusal::Full));
    assert_eq!(nonces.accept(&other, &kept), Ok(()));
    // Whose nonces are used leaves the place.
    let its = nonces.issue(&third, &mut getrandom::SysRng).unwrap();
    assert_eq!(nonces.accept(&other, &kept), Err(Refusal::NotFresh));
    assert_eq!(nonces.accept(&other, &its), Err(Refusal::NotFresh));
    assert_eq!(nonces.accept(&third, &its), Ok(()));
    for full in [
        Nonces::<0, 2>::new().issue(&one, &mut getrandom::SysRng),
        Nonces::<2, 0>::new().issue(&one, &mut getrandom::SysRng),
    ] {
        assert_eq!(full, Err(Refusal::Full));
    }

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
        let accepted = check(&message, Modes::default(), &mut guard).unwrap();
        let answered = accepted
            .answer_from(&mut SoftKeys::new(&entries), &mut getrandom::SysRng)
            .unwrap();
        let answer = answered.card_locked().unwrap();
        let session = waiting.card_locked(&answer).unwrap().run(&mut counter);
        assert_eq!(session.is_ok(), works);
    }
    let message = counter.tap(aes(Mode::CardLocked, 3)).message().unwrap();
    let accepted = check(&message, Modes::default(), &mut guard).unwrap();
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
    // That was the end: nothing more goes out, and no goodbye says that all is well.
    let error = card.exchange(&[0x90, 0x6E, 0, 0, 0], &mut reply);
    assert!(matches!(error, Err(RemoteError::Over)));
    assert_eq!(card.goodbye().err(), Some(Refusal::Expired));
    assert_eq!(commands.len(), 2);
    // An old command at the terminal.
    assert!(relay.command(&commands[0]).is_err());
    assert!(relay.command(&[]).is_err());
}

/// A terminal and a key holder in the middle of nothing.
fn dialogue(number: u64) -> (Relay, Accepted) {
    let intent = aes(Mode::Remote, number);
    let relay = Relay::new(intent, AID, LinkFormat::WRAPPED, &transport_key()).unwrap();
    let mut shop = Shop::new(Key::aes([0; 16]));
    let accepted = shop.accept(&relay.message().unwrap()).unwrap();
    (relay, accepted)
}

/// Each half has a door for each mode, and only the one that was asked for is open.
#[test]
fn doors_of_other_modes() {
    type Enter = fn(desfire_ev1::split::Waiting, &mut [u8]) -> Option<TerminalError>;
    let doors: [(Mode, Enter); 3] = [
        (Mode::CardLocked, |waiting, message| {
            waiting.card_locked(message).err()
        }),
        (Mode::Proven, |waiting, message| {
            waiting.proven(message).err()
        }),
        (Mode::Script, |waiting, message| {
            waiting.script(message, &mut [0; 64]).err()
        }),
    ];
    for asked in [Mode::CardLocked, Mode::Proven, Mode::Script] {
        for (door, enter) in doors {
            let waiting = Counter::demo().tap(aes(asked, 1));
            let error = enter(waiting, &mut [0; 64]).unwrap();
            let closed = error == TerminalError::WrongMode { asked };
            assert_eq!(closed, asked != door, "{asked} {door}");
        }
        let mut shop = Shop::new(Key::aes([0; 16]));
        let waiting = Counter::demo().tap(aes(asked, 1));
        let accepted = shop.accept(&waiting.message().unwrap()).unwrap();
        let refused = Some(Refusal::WrongMode { asked });
        assert_eq!(RelayGate::new(&accepted).err(), refused);
        let network = Liar(|_: &[u8]| Vec::<u8>::new());
        assert_eq!(RemoteCard::new(&accepted, network).err(), refused);
    }
}

/// The longest frames in both directions, and none longer.
#[test]
fn frames_of_any_length() {
    for (command_len, reply_len, fits) in [
        (0, 0, true),
        (60, 60, true),
        (72, 258, true),
        (73, 258, false),
        (72, 259, false),
    ] {
        let (mut relay, accepted) = dialogue(1);
        let command = vec![7; command_len];
        let answer = vec![9; reply_len];
        let mut card = Echo(answer.clone());
        let carrier = Liar(|message: &[u8]| match relay.exchange(message, &mut card) {
            Ok(Some(reply)) => reply.to_vec(),
            _ => Vec::new(),
        });
        let mut remote = RemoteCard::new(&accepted, carrier).unwrap();
        let mut reply = [0; 300];
        let result = remote.exchange(&command, &mut reply);
        match result {
            Ok(len) => {
                assert!(fits, "{command_len} {reply_len}");
                assert_eq!(reply[..len], answer);
            }
            Err(_) => assert!(!fits, "{command_len} {reply_len}"),
        }
    }
    assert_eq!(room(&RelayCommand::from_slice(&[]).unwrap()), 26 + 3 + 72);
    assert_eq!(room(&RelayReply::from_slice(&[]).unwrap()), 26 + 3 + 258);
}

/// The most that a message of this kind can hold.
fn room<const N: usize>(_: &Message<N>) -> usize {
    N
}

/// A card that answers everything alike.
struct Echo(Vec<u8>);

impl desfire_ev1::Link for Echo {
    type Error = Gone;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Echo {
    fn exchange(&mut self, _: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        reply
            .get_mut(..self.0.len())
            .ok_or(Gone)?
            .copy_from_slice(&self.0);
        Ok(self.0.len())
    }
}

const VERSION: [u8; 5] = [0x90, 0x60, 0, 0, 0];
const FREE_MEMORY: [u8; 5] = [0x90, 0x6E, 0, 0, 0];

/// The answer to a call that failed comes late: it must not be taken for the answer to the next.
#[test]
fn a_late_answer_is_nobodys() {
    let (mut relay, accepted) = dialogue(1);
    let mut counter = Counter::demo();
    let mut late: Option<Vec<u8>> = None;
    struct Lossy<F>(F);
    impl<F> Carries for Lossy<F> {
        type Error = Gone;
    }
    impl<F: FnMut(&[u8]) -> Option<Vec<u8>>> Carrier for Lossy<F> {
        fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Gone> {
            let reply = (self.0)(message).ok_or(Gone)?;
            answer[..reply.len()].copy_from_slice(&reply);
            Ok(reply.len())
        }
    }
    let mut card = RemoteCard::new(
        &accepted,
        Lossy(|message: &[u8]| match late.take() {
            None => {
                let reply = relay.exchange(message, &mut counter).unwrap().unwrap();
                late = Some(reply.to_vec());
                None
            }
            late => late,
        }),
    )
    .unwrap();
    let mut reply = [0; 64];
    let lost = card.exchange(&VERSION, &mut reply);
    assert!(matches!(lost, Err(RemoteError::Carrier(Gone))));
    let next = card.exchange(&FREE_MEMORY, &mut reply);
    assert!(matches!(next, Err(RemoteError::Over)), "{next:?}");
}

/// The same for a future that was given up.
#[test]
fn an_exchange_that_was_given_up_is_the_last() {
    let (mut relay, accepted) = dialogue(1);
    let mut counter = Counter::demo();
    struct Slow<F>(F);
    impl<F> Carries for Slow<F> {
        type Error = Gone;
    }
    impl<F: FnMut(&[u8]) -> Option<Vec<u8>>> AsyncCarrier for Slow<F> {
        async fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Gone> {
            match (self.0)(message) {
                None => std::future::pending().await,
                Some(reply) => {
                    answer[..reply.len()].copy_from_slice(&reply);
                    Ok(reply.len())
                }
            }
        }
    }
    let mut calls = 0;
    let mut card = RemoteCard::new(
        &accepted,
        Slow(|message: &[u8]| {
            calls += 1;
            let reply = relay.exchange(message, &mut counter).unwrap().unwrap();
            (calls == 1).then(|| reply.to_vec())
        }),
    )
    .unwrap();
    use desfire_ev1::AsyncTransport as _;
    let mut reply = [0; 64];
    pollster::block_on(card.exchange(&VERSION, &mut reply)).unwrap();
    {
        let mut given_up = std::pin::pin!(card.exchange(&FREE_MEMORY, &mut reply));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(given_up.as_mut().poll(&mut context).is_pending());
    }
    let next = pollster::block_on(card.exchange(&FREE_MEMORY, &mut reply));
    assert!(matches!(next, Err(RemoteError::Over)), "{next:?}");
    assert_eq!(calls, 2);
}

/// Nothing reaches the card twice, and after the end nothing does.
#[test]
fn a_relay_takes_each_command_once() {
    let (mut relay, accepted) = dialogue(1);
    let mut commands: Vec<Vec<u8>> = Vec::new();
    let mut card = RemoteCard::new(
        &accepted,
        Liar(|message: &[u8]| {
            commands.push(message.to_vec());
            let frame = relay.command(message).unwrap().unwrap().to_vec();
            assert_eq!(frame, VERSION);
            // The network brings it once more, before the card has answered.
            let again = relay.command(message);
            assert_eq!(again.err(), Some(TerminalError::OutOfTurn));
            let reply = relay.reply(Some(&[0x91, 0x00])).unwrap().to_vec();
            let twice = relay.reply(Some(&[0x91, 0x00]));
            assert_eq!(twice.err(), Some(TerminalError::OutOfTurn));
            // And after it.
            let old = relay.command(message).err().unwrap();
            assert!(matches!(
                old,
                TerminalError::Message(MessageError::Sequence { .. })
            ));
            reply
        }),
    )
    .unwrap();
    let mut reply = [0; 64];
    for _ in 0..2 {
        assert_eq!(card.exchange(&VERSION, &mut reply).unwrap(), 2);
    }
    let goodbye = card.goodbye().unwrap();
    assert_eq!(relay.command(&goodbye), Ok(None));
    for late in [&goodbye[..], &commands[0]] {
        assert_eq!(relay.command(late).err(), Some(TerminalError::OutOfTurn));
    }
}

/// At a door that is open to all: what is not the terminal's next reply does not come in.
#[test]
fn a_gate_lets_in_what_is_next() {
    let (mut relay, accepted) = dialogue(1);
    let mut gate = RelayGate::new(&accepted).unwrap();
    let mut card = RemoteCard::new(
        &accepted,
        Liar(|message: &[u8]| {
            relay.command(message).unwrap().unwrap();
            let reply = relay.reply(Some(&[0x91, 0x00])).unwrap().to_vec();
            for index in 0..reply.len() {
                let mut changed = reply.clone();
                changed[index] ^= 1;
                assert!(gate.admit(&changed).is_err(), "{index}");
                assert!(gate.admit(&reply[..index]).is_err(), "{index}");
            }
            assert_eq!(gate.admit(&reply), Ok(()));
            let again = gate.admit(&reply);
            assert!(matches!(again, Err(MessageError::Sequence { .. })));
            reply
        }),
    )
    .unwrap();
    let mut reply = [0; 64];
    for _ in 0..3 {
        assert_eq!(card.exchange(&VERSION, &mut reply).unwrap(), 2);
    }
    // Another dialogue's.
    let (mut other, _) = dialogue(2);
    let (_, accepted) = dialogue(3);
    let mut elsewhere = RelayGate::new(&accepted).unwrap();
    assert!(other.reply(None).is_err());
    let mut shop = Shop::new(Key::aes([0; 16]));
    let its = shop.accept(&other.message().unwrap()).unwrap();
    let mut card = RemoteCard::new(
        &its,
        Liar(|message: &[u8]| {
            other.command(message).unwrap().unwrap();
            let reply = other.reply(None).unwrap().to_vec();
            assert_eq!(elsewhere.admit(&reply), Err(MessageError::MixedUp));
            reply
        }),
    )
    .unwrap();
    let gone = card.exchange(&VERSION, &mut reply);
    assert!(matches!(gone, Err(RemoteError::CardGone)));
    assert_eq!(card.goodbye().err(), Some(Refusal::Expired));
}

#[test]
fn a_message_from_slice_is_bounded() {
    assert!(Message::<4>::from_slice(&[0; 5]).is_err());
    assert_eq!(Message::<4>::from_slice(&[1, 2]).unwrap()[..], [1, 2]);
}
