//! Every message of split authentication, byte for byte as another program makes it: `split_messages.py` computes
//! `split_messages.txt` from the documented formats with ciphers that are not this crate's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/split.rs"]
mod support;

use std::collections::{BTreeMap, VecDeque};

use desfire_ev1::split::{
    Accepted, Answered, Carrier, Carries, Challenge, Freshness, Intent, Ksn, Message, Mode, Modes,
    Pending, Record, Relay, RemoteCard, SoftKey, StorageKey, Tap, TerminalId, TransportKeyId,
    Verdict, Waiting,
};
use desfire_ev1::wire::{Aid, AuthScheme, FileNo, Framing, InlineBytes, KeyNo, KeyType, Uid};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine, Session, Transport, VirtualReader,
};
use support::*;

/// The file's values by their names.
struct Known(BTreeMap<String, Vec<u8>>);

impl Known {
    fn load() -> Self {
        let text = include_str!("split_messages.txt");
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, digits) = line.split_once(' ').unwrap();
            let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
            assert!(rest.is_empty() && !pairs.is_empty(), "{name}");
            let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16);
            let bytes = pairs.iter().map(|pair| byte(pair).unwrap()).collect();
            assert!(values.insert(name.into(), bytes).is_none(), "{name}");
        }
        Self(values)
    }

    fn get(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }
}

#[track_caller]
fn same(what: &str, made: &[u8], known: &[u8]) {
    assert_eq!(hex(made), hex(known), "{what}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The most that a message of this kind can hold.
fn room<const N: usize>(_: &Message<N>) -> usize {
    N
}

/// A generator that gives one nonce, once; behind a short one come zeros.
struct Nonce<'n>(&'n [u8]);

impl rand_core::TryRng for Nonce<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        panic!("a nonce is drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        panic!("a nonce is drawn as bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        let nonce = std::mem::take(&mut self.0);
        assert!(!nonce.is_empty() && nonce.len() <= out.len());
        out.fill(0);
        out[..nonce.len()].copy_from_slice(nonce);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Nonce<'_> {}

/// A card that says what it is told to say.
struct Told(VecDeque<Vec<u8>>);

impl Told {
    fn new() -> Self {
        Self(VecDeque::new())
    }

    fn says(&mut self, payload: &[u8], status: u8) -> &mut Self {
        self.0.push_back([payload, &[0x91, status]].concat());
        self
    }
}

impl Link for Told {
    type Error = Gone;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Told {
    fn exchange(&mut self, _: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        let answer = self.0.pop_front().ok_or(Gone)?;
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// A key and the start of a handshake with it.
struct Handshake<'k> {
    known: &'k Known,
    name: &'static str,
    key: Key,
    scheme: AuthScheme,
}

fn handshakes(known: &Known) -> [Handshake<'_>; 3] {
    let key = |name: &str| known.get(&format!("{name}/key"));
    let handshake = |name, key, scheme| Handshake {
        known,
        name,
        key,
        scheme,
    };
    [
        handshake(
            "aes",
            Key::aes(key("aes").try_into().unwrap()),
            AuthScheme::Aes,
        ),
        handshake(
            "3k3des",
            Key::three_key_3des(key("3k3des").try_into().unwrap()),
            AuthScheme::Iso,
        ),
        handshake(
            "des",
            Key::des(key("des").try_into().unwrap()),
            AuthScheme::Legacy,
        ),
    ]
}

impl Handshake<'_> {
    fn get(&self, name: &str) -> &[u8] {
        self.known.get(&format!("{}/{name}", self.name))
    }

    /// The terminal, up to the card's challenge.
    fn waiting(&self, mode: Mode) -> Waiting {
        let mut card = Told::new();
        card.says(&[], 0).says(self.get("cryptogram"), 0xAF);
        let session = Session::new().select_application(AID);
        let session = session.run(&mut card).unwrap();
        let intent = intent(mode, self.scheme, self.key.key_type(), 7);
        let tap = Tap::new(session, intent, &transport_key());
        tap.run(&mut card).unwrap()
    }

    /// The key holder's answer.
    fn answered(&self, challenge: &[u8]) -> Answered {
        let mut guard = desfire_ev1::split::Counters::<4>::new();
        let grants = grants(Modes::all());
        let accepted =
            Accepted::check(challenge, &till(&transport_key(), &grants), &mut guard).unwrap();
        let mut nonce = Nonce(self.get("rnd-a"));
        let mut key = SoftKey::new(&self.key);
        accepted.answer(&mut key, &mut nonce).unwrap()
    }

    /// The session has the right keys, if it takes the reply that the other program has sealed.
    fn goes_on(&self, session: &mut Session<Authenticated>, next: &[u8]) {
        let mut card = Told::new();
        card.says(next, 0);
        let version = session.get_key_version(KeyNo::MASTER).run(&mut card);
        assert_eq!(version.unwrap(), 0x5A, "{}", self.name);
    }
}

fn storage_key() -> StorageKey {
    StorageKey::new(*b"storage key of 1")
}

#[test]
fn challenges() {
    let known = Known::load();
    let bare = Challenge {
        intent: Intent {
            mode: Mode::Remote,
            scheme: AuthScheme::Aes,
            key_type: KeyType::Aes,
            key_no: KeyNo::MASTER,
            uid: None,
            terminal: TerminalId::new(b"t").unwrap(),
            transport: TransportKeyId::Preshared(0),
            freshness: Freshness::Counter(0),
            purpose: InlineBytes::new(b"").unwrap(),
        },
        aid: Aid::PICC,
        format: LinkFormat {
            framing: Framing::Native,
            max_command: 0,
        },
        cryptogram: InlineBytes::new(&[]).unwrap(),
    };
    let bytes = |from: u8, to: u8| (from..to).collect::<Vec<u8>>();
    let full = Challenge {
        intent: Intent {
            mode: Mode::CardLocked,
            scheme: AuthScheme::Iso,
            key_type: KeyType::ThreeKey3Des,
            key_no: KeyNo::new(13).unwrap(),
            uid: Some(Uid([0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87])),
            terminal: TerminalId::new(&bytes(0x40, 0x50)).unwrap(),
            transport: TransportKeyId::Dukpt(Ksn {
                key_id: bytes(0xA0, 0xA8).try_into().unwrap(),
                counter: 0x0102_0304,
            }),
            freshness: Freshness::Nonce(bytes(0x60, 0x70).try_into().unwrap()),
            purpose: InlineBytes::new(&(0xC0..=0xFF).collect::<Vec<u8>>()).unwrap(),
        },
        aid: Aid::from_bytes([0xF1, 0xF2, 0xF3]),
        format: LinkFormat::WRAPPED,
        cryptogram: InlineBytes::new(&bytes(0x10, 0x20)).unwrap(),
    };
    let legacy = Challenge {
        intent: Intent {
            mode: Mode::Proven,
            scheme: AuthScheme::Legacy,
            key_type: KeyType::TwoKey3Des,
            transport: TransportKeyId::Preshared(0xEE),
            freshness: Freshness::Counter(0x1122_3344_5566_7788),
            ..bare.intent
        },
        aid: VirtualReader::DEMO_AID,
        format: LinkFormat {
            framing: Framing::Native,
            max_command: 17,
        },
        cryptogram: InlineBytes::new(&bytes(0, 8)).unwrap(),
    };
    let des = Challenge {
        intent: Intent {
            scheme: AuthScheme::Iso,
            key_type: KeyType::Des,
            ..legacy.intent
        },
        ..legacy
    };
    let script = Challenge {
        intent: Intent {
            mode: Mode::Script,
            freshness: Freshness::Counter(1),
            ..full.intent
        },
        ..full
    };
    for (name, challenge) in [
        ("least", bare),
        ("most", full),
        ("legacy", legacy),
        ("des", des),
        ("script", script),
    ] {
        let message = known.get(&format!("challenge/{name}"));
        same(name, &challenge.seal(&transport_key()).unwrap(), message);
        let opened = Challenge::open(message, &transport_key());
        assert_eq!(opened.unwrap(), challenge, "{name}");
        assert_eq!(Challenge::claimed(message).unwrap(), challenge, "{name}");
    }
    // The longest there is fills its room, and no message is longer.
    assert_eq!(known.get("challenge/most").len(), Challenge::MAX_LEN);
}

#[test]
fn card_locked() {
    let known = Known::load();
    for handshake in &handshakes(&known)[..2] {
        let waiting = handshake.waiting(Mode::CardLocked);
        let challenge = handshake.get("card-locked/challenge");
        same("challenge", &waiting.message().unwrap(), challenge);
        let answer = handshake.get("card-locked/answer");
        let made = handshake.answered(challenge).card_locked().unwrap();
        same("answer", &made, answer);
        assert_eq!(room(&made), answer.len());

        let mut card = Told::new();
        card.says(handshake.get("card-locked/proof"), 0);
        let unlock = waiting.card_locked(answer).unwrap();
        let mut session = unlock.run(&mut card).unwrap();
        handshake.goes_on(&mut session, handshake.get("card-locked/next"));
    }
}

#[test]
fn proven() {
    let known = Known::load();
    for (handshake, deadline, proof_len) in [
        (&handshakes(&known)[0], 0x0102_0304_0506_0708, 16),
        (&handshakes(&known)[2], 1, 8),
    ] {
        let waiting = handshake.waiting(Mode::Proven);
        let challenge = handshake.get("proven/challenge");
        same("challenge", &waiting.message().unwrap(), challenge);
        let (token, mut pending) = handshake.answered(challenge).proven(deadline).unwrap();
        same("token", &token, handshake.get("proven/token"));
        let sealed = handshake.get("proven/pending");
        let made = pending.seal(&storage_key()).unwrap();
        same("pending", &made, sealed);
        // Format and kind, deadline, answer, session key and the longest challenge, wrapped.
        let longest = 2 + 8 + 16 + 24 + Challenge::MAX_LEN;
        assert_eq!(room(&made), longest.next_multiple_of(8) + 8);
        let restored = Pending::unseal(sealed, &storage_key(), &transport_key());

        // The card's last answer stands in the other program's proof: header 10, length 1.
        let proof = handshake.get("proven/proof");
        let mut card = Told::new();
        card.says(&proof[11..11 + proof_len], 0);
        let proven = waiting.proven(&token).unwrap().run(&mut card).unwrap();
        same("proof", &proven.message().unwrap(), proof);
        let release = handshake.get("proven/release");
        for pending in [&mut pending, &mut restored.unwrap()] {
            let made = pending.release(proof, deadline).unwrap();
            same("release", &made, release);
            assert_eq!(room(&made), release.len());
        }
        if proof_len == 16 {
            // Nothing is longer, and no room is left over.
            assert_eq!(room(&token), token.len());
            assert_eq!(room(&proven.message().unwrap()), proof.len());
        }
        let mut session = proven.release(release).unwrap();
        if handshake.scheme == AuthScheme::Aes {
            // The same handshake as in card-locked mode. Legacy replies in plain carry nothing to look at.
            handshake.goes_on(&mut session, handshake.get("card-locked/next"));
        }
    }
}

#[test]
fn script() {
    let known = Known::load();
    let handshake = &handshakes(&known)[0];
    let waiting = handshake.waiting(Mode::Script);
    let challenge = handshake.get("script/challenge");
    same("challenge", &waiting.message().unwrap(), challenge);

    let (mut script, mut record) = ([0; 512], [0; 512]);
    let answered = handshake.answered(challenge);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, VirtualReader::demo().card());
    let file = |number| FileNo::new(number).unwrap();
    let version = session.get_key_version(KeyNo::MASTER);
    assert_eq!(builder.expect(version, &[0]).unwrap(), 0);
    let data = [0x20, 0x21, 0x22, 0x23, 0x24];
    builder.send(session.write_data(file(1), 3, &data)).unwrap();
    builder.send(session.commit_transaction()).unwrap();
    builder.ask(session.get_value(file(2))).unwrap();
    let finished = builder.finish().unwrap();
    same("script", finished.script, handshake.get("script/script"));
    let mut sealed = vec![0; finished.record.sealed_len()];
    let len = finished.record.seal(&storage_key(), &mut sealed).unwrap();
    same("record", &sealed[..len], handshake.get("script/record"));

    // The card's answers stand in the other program's receipt: header 10, proof, then status, length and reply each.
    let receipt = handshake.get("script/receipt");
    let (mut rest, mut card) = (&receipt[10..receipt.len() - 16], Told::new());
    let proof;
    (proof, rest) = rest[1..].split_at(rest[0].into());
    card.says(proof, 0);
    while let [status, low, high, replies @ ..] = rest {
        let (reply, others) = replies.split_at(u16::from_le_bytes([*low, *high]).into());
        card.says(reply, *status);
        rest = others;
    }
    assert_eq!(card.0.len(), 5);
    let mut room = [0; 256];
    let message = handshake.get("script/script");
    let mut player = waiting.script(message, &mut room).unwrap();
    player.play(&mut card).unwrap();
    same("receipt", player.into_receipt().unwrap(), receipt);

    let mut buffer = vec![0; sealed.len()];
    let stored = handshake.get("script/record");
    let record = Record::unseal(stored, &storage_key(), &mut buffer).unwrap();
    let judgement = record.judge(receipt, &transport_key()).unwrap();
    assert_eq!(judgement.verdict, Verdict::Done);
    assert_eq!((judgement.proved, judgement.unknown), (3, 1));
    let (mut session, mut replay) = record.replay(receipt, &transport_key()).unwrap();
    state_settings(&mut session, VirtualReader::demo().card());
    assert_eq!(session.get_value(file(2)).run(&mut replay).unwrap(), 1000);
}

/// Both ends of a remote dialogue, each with the other program at its other end.
struct Network<'k> {
    known: &'k Known,
    number: usize,
}

impl Carries for Network<'_> {
    type Error = Gone;
}

impl Carrier for Network<'_> {
    fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Gone> {
        let number = self.number;
        self.number += 1;
        let command = self.known.get(&format!("remote/command-{number}"));
        same("command", message, command);
        let reply = self.known.get(&format!("remote/reply-{number}"));
        answer[..reply.len()].copy_from_slice(reply);
        Ok(reply.len())
    }
}

#[test]
fn remote() {
    let known = Known::load();
    let (frame, answer) = ([0x90, 0x60, 0, 0, 0], [0x04, 0x01, 0x91, 0xAF]);
    let challenge = known.get("remote/challenge");

    let mut guard = desfire_ev1::split::Counters::<4>::new();
    let accepted = check(challenge, Modes::all(), &mut guard).unwrap();
    let network = Network {
        known: &known,
        number: 0,
    };
    let mut card = RemoteCard::new(&accepted, network).unwrap();
    for _ in 0..2 {
        let mut reply = [0; 16];
        assert_eq!(card.exchange(&frame, &mut reply).unwrap(), answer.len());
        assert_eq!(reply[..answer.len()], answer);
    }
    let goodbye = known.get("remote/goodbye");
    same("goodbye", &card.goodbye().unwrap(), goodbye);

    let relay = || {
        let intent = aes(Mode::Remote, 7);
        Relay::new(intent, AID, LinkFormat::WRAPPED, &transport_key()).unwrap()
    };
    let mut terminal = relay();
    same("challenge", &terminal.message().unwrap(), challenge);
    for number in 0..2 {
        let command = known.get(&format!("remote/command-{number}"));
        assert_eq!(terminal.command(command).unwrap(), Some(&frame[..]));
        let reply = known.get(&format!("remote/reply-{number}"));
        same("reply", &terminal.reply(Some(&answer)).unwrap(), reply);
    }
    assert_eq!(terminal.command(goodbye).unwrap(), None);

    let mut terminal = relay();
    terminal.command(known.get("remote/command-0")).unwrap();
    let nothing = known.get("remote/no-reply");
    same("no reply", &terminal.reply(None).unwrap(), nothing);
}
