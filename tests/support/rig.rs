//! What the tests of the reader side share: key sets of every cipher, cards with files, transports
//! that count and keep what goes through them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use desfire_ev1::internals::{self, Chain};
use desfire_ev1::picc::{
    Application, Card, CardKey, File, FileContent, Records, StateError, Value,
};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, AuthScheme, CommMode, FileNo, Framing, KeyFamily, KeyInfo, KeyNo,
    KeySettings, KeyType, U24, Uid, ValueFlags,
};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine, RunError, Session, Transport, Unauthenticated,
};
use rand_core::{TryCryptoRng, TryRng};

pub(crate) const AID: Aid = Aid::from_bytes([0x21, 0x43, 0x65]);
pub(crate) const UID: Uid = Uid([0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0xF6]);

/// One cipher with one of the messagings that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) scheme: AuthScheme,
    pub(crate) key_type: KeyType,
}

const fn suite(scheme: AuthScheme, key_type: KeyType) -> Suite {
    Suite { scheme, key_type }
}

pub(crate) const EV1: [Suite; 4] = [
    suite(AuthScheme::Iso, KeyType::Des),
    suite(AuthScheme::Iso, KeyType::TwoKey3Des),
    suite(AuthScheme::Iso, KeyType::ThreeKey3Des),
    suite(AuthScheme::Aes, KeyType::Aes),
];

pub(crate) const D40: [Suite; 2] = [
    suite(AuthScheme::Legacy, KeyType::Des),
    suite(AuthScheme::Legacy, KeyType::TwoKey3Des),
];

pub(crate) const SUITES: [Suite; 6] = [EV1[0], EV1[1], EV1[2], EV1[3], D40[0], D40[1]];

pub(crate) const MODES: [CommMode; 3] = [CommMode::Plain, CommMode::Mac, CommMode::Enciphered];

/// Bytes that look like nothing else: where they turn up, a key has leaked.
const KEY_BYTES: [u8; 24] = [
    0xC6, 0x1D, 0x8F, 0x37, 0xE2, 0x5B, 0x94, 0xAC, 0x71, 0xD8, 0x3E, 0xB5, 0x69, 0xF3, 0x82, 0x4C,
    0x97, 0x2B, 0xE9, 0x56, 0xBD, 0x63, 0xCA, 0x78,
];

impl Suite {
    pub(crate) fn is_ev1(self) -> bool {
        self.scheme != AuthScheme::Legacy
    }

    pub(crate) fn family(self) -> KeyFamily {
        self.key_type.family()
    }

    pub(crate) fn block_len(self) -> usize {
        self.key_type.block_len()
    }

    pub(crate) fn mac_len(self) -> usize {
        if self.is_ev1() { 8 } else { 4 }
    }

    pub(crate) fn crc_len(self) -> usize {
        if self.is_ev1() { 4 } else { 2 }
    }

    pub(crate) fn key_len(self) -> usize {
        match self.key_type {
            KeyType::Des => 8,
            KeyType::TwoKey3Des | KeyType::Aes => 16,
            KeyType::ThreeKey3Des => 24,
        }
    }

    /// The raw bytes of key `number`, 8 to 24 of them.
    pub(crate) fn key_bytes(self, number: u8) -> Vec<u8> {
        KEY_BYTES[..self.key_len()]
            .iter()
            .map(|byte| byte.rotate_left(u32::from(number)) ^ (number << 1))
            .collect()
    }

    pub(crate) fn key(self, number: u8) -> Key {
        Key::from_slice(self.key_type, &self.key_bytes(number)).unwrap()
    }

    pub(crate) fn card_key(self, number: u8) -> CardKey {
        card_key(self.key_type, &self.key_bytes(number), 0)
    }

    /// An application with three keys and no files.
    pub(crate) fn application(self) -> Application {
        let info = KeyInfo::new(self.family(), 3).unwrap();
        (0..3).fold(
            Application::new(AID, KeySettings::DEFAULT, info),
            |application, number| {
                application.with_key(KeyNo::new(number).unwrap(), self.card_key(number))
            },
        )
    }

    /// A card with the application and these files.
    pub(crate) fn card(self, files: impl IntoIterator<Item = File>) -> Card {
        self.try_card(files).unwrap()
    }

    pub(crate) fn try_card(
        self,
        files: impl IntoIterator<Item = File>,
    ) -> Result<Card, StateError> {
        let mut card = Card::new(UID);
        let application = files
            .into_iter()
            .fold(self.application(), Application::with_file);
        card.state_mut().put_application(application)?;
        Ok(card)
    }

    /// Selects the application and authenticates with a key of it.
    pub(crate) fn open<T: Transport + ?Sized>(
        self,
        transport: &mut T,
        number: u8,
        seed: u64,
    ) -> Result<Session<Authenticated>, RunError<T::Error>> {
        let session = Session::new().select_application(AID).run(transport)?;
        self.authenticate(session, transport, number, seed)
    }

    pub(crate) fn authenticate<T: Transport + ?Sized, S>(
        self,
        session: Session<S>,
        transport: &mut T,
        number: u8,
        seed: u64,
    ) -> Result<Session<Authenticated>, RunError<T::Error>> {
        let (rng, number, key) = (
            &mut Seeded(seed),
            KeyNo::new(number).unwrap(),
            self.key(number),
        );
        match self.scheme {
            AuthScheme::Legacy => session
                .authenticate_legacy(number, &key, rng)
                .run(transport),
            AuthScheme::Iso => session.authenticate_iso(number, &key, rng).run(transport),
            AuthScheme::Aes => session.authenticate_aes(number, &key, rng).run(transport),
        }
    }
}

/// What nobody may see of a handshake under `key`: its last two exchanges, and RndA.
pub(crate) fn handshake_secrets(
    suite: Suite,
    key: &Key,
    rnd_a: &[u8; 16],
    log: &[Exchanged],
) -> Vec<(&'static str, Vec<u8>)> {
    let [.., (_, challenge), (_, proof)] = log else {
        panic!("no handshake");
    };
    let answered =
        internals::handshake(suite.scheme, key, rnd_a, &challenge[1..], &proof[1..]).unwrap();
    let session_key = &answered.session_key[..suite.key_len()];
    let mut rnd_b = challenge[1..].to_vec();
    Chain::new(key, &[]).cbc_decrypt(&mut rnd_b);
    let chain = Chain::new(&Key::from_slice(suite.key_type, session_key).unwrap(), &[]);
    let [k1, k2] = chain.subkeys().map(<[u8]>::to_vec);
    vec![
        ("the session key", session_key.to_vec()),
        ("subkey K1", k1),
        ("subkey K2", k2),
        ("RndA", rnd_a[..suite.key_type.nonce_len()].to_vec()),
        ("RndB", rnd_b),
    ]
}

/// A key as the card stores it.
pub(crate) fn card_key(key_type: KeyType, bytes: &[u8], version: u8) -> CardKey {
    match key_type {
        KeyType::Des => CardKey::des([bytes, bytes].concat().try_into().unwrap()),
        KeyType::TwoKey3Des => CardKey::des(bytes.try_into().unwrap()),
        KeyType::ThreeKey3Des => CardKey::three_key_3des(bytes.try_into().unwrap()),
        KeyType::Aes => CardKey::aes(bytes.try_into().unwrap(), version),
    }
}

/// A generator that tests can repeat (splitmix64).
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

impl TryRng for Seeded {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.next() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        dst.copy_from_slice(&self.bytes(dst.len()));
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

pub(crate) fn file_no(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

pub(crate) fn key_no(number: u8) -> KeyNo {
    KeyNo::new(number).unwrap()
}

pub(crate) fn u24(value: usize) -> U24 {
    U24::from_len(value).unwrap()
}

/// Rights from the word as people write it: Read, Write, Read&Write, Change.
pub(crate) fn rights(word: u16) -> AccessRights {
    AccessRights::from_bytes(word.to_le_bytes())
}

/// All rights with key 0.
pub(crate) const MASTER_ONLY: AccessRights = {
    let master = Access::Key(KeyNo::MASTER);
    AccessRights {
        read: master,
        write: master,
        read_write: master,
        change: master,
    }
};

pub(crate) fn standard(number: u8, mode: CommMode, data: Vec<u8>) -> File {
    File::new(
        file_no(number),
        mode,
        MASTER_ONLY,
        FileContent::Standard(data),
    )
}

pub(crate) fn value(number: u8, mode: CommMode, value: i32) -> File {
    let value = Value {
        lower: -1_000_000_000,
        upper: 1_000_000_000,
        value,
        limited_credit: 0,
        flags: ValueFlags::LIMITED_CREDIT,
    };
    File::new(
        file_no(number),
        mode,
        MASTER_ONLY,
        FileContent::Value(value),
    )
}

pub(crate) fn cyclic(number: u8, mode: CommMode, size: usize, max: usize, data: Vec<u8>) -> File {
    let records = Records::new(u24(size), u24(max), data);
    File::new(
        file_no(number),
        mode,
        MASTER_ONLY,
        FileContent::Cyclic(records),
    )
}

/// The transport has nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silent;

impl core::fmt::Display for Silent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the transport is silent")
    }
}

impl core::error::Error for Silent {}

/// One command and its reply.
pub(crate) type Exchanged = (Vec<u8>, Vec<u8>);

/// A card on a reader that keeps a log and holds the library to the frame limit.
pub(crate) struct Wire {
    pub(crate) card: Card,
    pub(crate) format: LinkFormat,
    pub(crate) log: Vec<Exchanged>,
}

impl Wire {
    pub(crate) fn new(card: Card, format: LinkFormat) -> Self {
        Self {
            card,
            format,
            log: Vec::new(),
        }
    }
}

impl Link for Wire {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Wire {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        let limit = self.format.max_command.min(60);
        assert!(
            command.len() <= limit,
            "{} bytes where {limit} are allowed: {command:02X?}",
            command.len()
        );
        let answer = self.card.handle(command);
        self.log.push((command.to_vec(), answer.clone()));
        put(&answer, reply)
    }
}

/// Hands an answer to the library as a good transport does.
pub(crate) fn put(answer: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
    if answer.is_empty() {
        return Err(Silent);
    }
    reply
        .get_mut(..answer.len())
        .ok_or(Silent)?
        .copy_from_slice(answer);
    Ok(answer.len())
}

/// A transport that answers from a list, whatever it is asked, and counts.
pub(crate) struct Script {
    pub(crate) format: LinkFormat,
    pub(crate) replies: Vec<Vec<u8>>,
    /// How many commands have come.
    pub(crate) sent: Vec<Vec<u8>>,
}

impl Script {
    pub(crate) fn new(format: LinkFormat, replies: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            format,
            replies: replies.into_iter().collect(),
            sent: Vec::new(),
        }
    }
}

impl Link for Script {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Script {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        let answer = self.replies.get(self.sent.len());
        self.sent.push(command.to_vec());
        // As an empty reply is one that a test may want, only the end of the list is silence.
        let answer = answer.ok_or(Silent)?;
        reply
            .get_mut(..answer.len())
            .ok_or(Silent)?
            .copy_from_slice(answer);
        Ok(answer.len())
    }
}

/// A reply in the framing of the link.
pub(crate) fn framed(framing: Framing, status: u8, payload: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Native => [&[status], payload].concat(),
        Framing::Wrapped => [payload, &[0x91, status]].concat(),
    }
}

/// Status and payload of a reply.
pub(crate) fn unframed(framing: Framing, reply: &[u8]) -> (u8, Vec<u8>) {
    match framing {
        Framing::Native => (reply[0], reply[1..].to_vec()),
        Framing::Wrapped => {
            let (payload, sw) = reply.split_at(reply.len() - 2);
            assert_eq!(sw[0], 0x91);
            (sw[1], payload.to_vec())
        }
    }
}

/// Code and payload of a command.
pub(crate) fn command(framing: Framing, command: &[u8]) -> (u8, Vec<u8>) {
    match framing {
        Framing::Native => (command[0], command[1..].to_vec()),
        Framing::Wrapped if command.len() == 5 => (command[1], Vec::new()),
        Framing::Wrapped => (command[1], command[5..command.len() - 1].to_vec()),
    }
}

/// A session that must have lost step: nothing that needs it is sent.
pub(crate) fn assert_lost<S>(session: &mut Session<S>) {
    assert!(session.is_lost(), "the session should be lost");
    let mut silent = Script::new(LinkFormat::NATIVE, []);
    let error = session.get_version().run(&mut silent).unwrap_err();
    assert_eq!(
        error.kind(),
        Some(&desfire_ev1::error::Misuse::SessionLost.into())
    );
    assert_eq!(error.outcome(), desfire_ev1::Outcome::NotSent);
    assert!(silent.sent.is_empty(), "a lost session has sent something");
}

/// An unauthenticated session in the application.
pub(crate) fn at_application() -> Session<Unauthenticated> {
    Session::at_level(AID)
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = core::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
