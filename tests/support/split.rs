//! A shop for the tests of split authentication: a terminal, a key holder, a card, and the link
//! between terminal and card recorded.
#![allow(dead_code, reason = "not every test uses all of it")]

use desfire_ev1::picc::{Application, Card};
use desfire_ev1::split::{
    Accepted, Answered, Counters, Freshness, Grant, Intent, KnownTerminal, Mode, Modes, Refusal,
    ReplayGuard, SoftKey, Tap, TerminalId, TransportKey, TransportKeyId, TransportKeys, Waiting,
};
use desfire_ev1::wire::{Aid, AuthScheme, InlineBytes, KeyInfo, KeyNo, KeySettings, KeyType, Uid};
use desfire_ev1::{
    AsyncTransport, Key, Link, LinkFormat, Machine, Session, Transport, VirtualReader,
};

pub const TERMINAL: &[u8] = b"till 7";
pub const AID: Aid = VirtualReader::DEMO_AID;

pub fn transport_key() -> TransportKey {
    TransportKey::new(*b"transport key 07")
}

pub fn intent(mode: Mode, scheme: AuthScheme, key_type: KeyType, counter: u64) -> Intent {
    Intent {
        mode,
        scheme,
        key_type,
        key_no: KeyNo::MASTER,
        uid: None,
        terminal: TerminalId::new(TERMINAL).unwrap(),
        transport: TransportKeyId::Preshared(1),
        freshness: Freshness::Counter(counter),
        purpose: InlineBytes::new(b"one coffee").unwrap(),
    }
}

pub fn aes(mode: Mode, counter: u64) -> Intent {
    intent(mode, AuthScheme::Aes, KeyType::Aes, counter)
}

/// Key 0 of the application, by every authentication.
pub fn grants(modes: Modes) -> [Grant; 3] {
    [AuthScheme::Legacy, AuthScheme::Iso, AuthScheme::Aes].map(|scheme| Grant {
        aid: AID,
        key_no: KeyNo::MASTER,
        scheme,
        modes,
    })
}

/// The one terminal of these tests.
pub fn till<'k>(key: &'k TransportKey, grants: &'k [Grant]) -> KnownTerminal<'k> {
    KnownTerminal {
        id: TerminalId::new(TERMINAL).unwrap(),
        transport: TransportKeys::One {
            id: TransportKeyId::Preshared(1),
            key,
        },
        grants,
    }
}

/// A challenge at a key holder that knows this terminal and grants it these modes.
pub fn check(
    message: &[u8],
    modes: Modes,
    guard: &mut impl ReplayGuard,
) -> Result<Accepted, Refusal> {
    Accepted::check(message, &till(&transport_key(), &grants(modes)), guard)
}

/// The key holder of the tests.
pub struct Shop {
    pub guard: Counters<4>,
    pub policy: Modes,
    pub key: Key,
}

impl Shop {
    pub fn new(key: Key) -> Self {
        Self {
            guard: Counters::new(),
            policy: Modes::all(),
            key,
        }
    }

    pub fn accept(&mut self, message: &[u8]) -> Result<Accepted, Refusal> {
        check(message, self.policy, &mut self.guard)
    }

    pub fn answer(&mut self, message: &[u8]) -> Answered {
        self.accept(message)
            .unwrap()
            .answer(&mut SoftKey::new(&self.key), &mut getrandom::SysRng)
            .unwrap()
    }
}

/// The demonstration card, its settings known, every frame kept.
pub struct Counter {
    pub reader: VirtualReader,
    pub frames: Vec<(Vec<u8>, Vec<u8>)>,
    /// The frame with this number is not answered.
    pub torn_at: Option<usize>,
}

impl Counter {
    pub fn new(reader: VirtualReader) -> Self {
        Self {
            reader,
            frames: Vec::new(),
            torn_at: None,
        }
    }

    pub fn demo() -> Self {
        Self::new(VirtualReader::demo())
    }

    pub fn card(&self) -> &Card {
        self.reader.card()
    }

    pub fn selected(&mut self) -> Session<desfire_ev1::Unauthenticated> {
        // A card that was left in the middle of a handshake says `CA` once.
        if let Ok(session) = Session::new().select_application(AID).run(self) {
            return session;
        }
        Session::new().select_application(AID).run(self).unwrap()
    }

    pub fn tap(&mut self, intent: Intent) -> Waiting {
        let session = self.selected();
        Tap::new(session, intent, &transport_key())
            .run(self)
            .unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gone")
    }
}

impl std::error::Error for Gone {}

impl Link for Counter {
    type Error = Gone;

    fn format(&self) -> LinkFormat {
        self.reader.format()
    }
}

impl Transport for Counter {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        let torn = self.torn_at == Some(self.frames.len());
        let answer = self.reader.handle(command);
        self.frames.push((command.to_vec(), answer.clone()));
        if torn || answer.is_empty() {
            return Err(Gone);
        }
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

impl AsyncTransport for Counter {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        Transport::exchange(self, command, reply)
    }
}

/// The settings of the demonstration card's files, stated.
pub fn state_settings<S>(session: &mut Session<S>, card: &Card) {
    let application = card.state().application(AID).unwrap();
    for file in application.files() {
        session.assume_file_settings(file.number(), &file.settings());
    }
}

/// A generator that always gives the same: for comparing bytes.
pub struct Fixed(pub u8);

impl rand_core::TryRng for Fixed {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes([self.0; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes([self.0; 8]))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for (byte, index) in out.iter_mut().zip(0_u8..) {
            *byte = self.0 ^ index;
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Fixed {}

/// The demonstration's application with keys of another type: all zero, or as given.
pub fn card_with(key: &Key) -> Card {
    let demo = VirtualReader::demo();
    let model = demo.card().state().application(AID).unwrap();
    let info = KeyInfo::new(key.key_type().family(), 3).unwrap();
    let mut application = Application::new(AID, KeySettings::DEFAULT, info);
    for file in model.files() {
        application = application.with_file(file.clone());
    }
    let mut card = Card::builder().uid(Uid([4, 5, 6, 7, 8, 9, 10])).build();
    card.state_mut().put_application(application).unwrap();
    let mut counter = Counter::new(VirtualReader::new(card));
    let zero = Key::zero(key.key_type().family());
    let scheme = match key.key_type() {
        KeyType::Aes => AuthScheme::Aes,
        _ => AuthScheme::Iso,
    };
    let session = counter.selected();
    let session = session.authenticate(scheme, KeyNo::MASTER, &zero, &mut Fixed(9));
    let session = session.run(&mut counter).unwrap();
    session.change_key_in_use(key).run(&mut counter).unwrap();
    let state = counter.card().state().clone();
    Card::builder().state(state).build()
}
