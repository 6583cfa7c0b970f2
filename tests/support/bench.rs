//! What the table of `tests/commands.rs` stands on: the authentications, a prepared software card
//! for each, and a transport that watches what goes through it.
//!
//! The transport looks at frames by itself, with the few lines at the end of this file and none of
//! the library's: what a frame is, how long it may be, which command is under way.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use desfire_ev1::error::{ErrorKind, Outcome};
use desfire_ev1::picc::{Application, Card, CardKey, File, FileContent, Records, Value};
use desfire_ev1::wire::{
    AccessRights, Aid, AuthScheme, CommMode, DfName, FileNo, Framing, IsoFileId, KeyFamily,
    KeyInfo, KeyNo, KeySettings, KeyType, U24, Uid, ValueFlags,
};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine, RunError, Session, Transport, Unauthenticated,
    VirtualReader,
};

/// How a test's command fails.
pub type Failure = RunError<String>;
/// What a test's command comes to.
pub type Done = Result<(), Failure>;

/// Who is authenticated, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Auth {
    None,
    D40Des,
    D40Two,
    IsoDes,
    IsoTwo,
    IsoThree,
    Aes,
}

impl Auth {
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::D40Des,
        Self::D40Two,
        Self::IsoDes,
        Self::IsoTwo,
        Self::IsoThree,
        Self::Aes,
    ];
    /// All but nobody.
    pub const SOME: &[Self] = &[
        Self::D40Des,
        Self::D40Two,
        Self::IsoDes,
        Self::IsoTwo,
        Self::IsoThree,
        Self::Aes,
    ];
    /// With D40 messaging.
    pub const D40: &[Self] = &[Self::D40Des, Self::D40Two];
    /// With EV1 messaging.
    pub const EV1: &[Self] = &[Self::IsoDes, Self::IsoTwo, Self::IsoThree, Self::Aes];

    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::D40Des => "0A DES",
            Self::D40Two => "0A 2K",
            Self::IsoDes => "1A DES",
            Self::IsoTwo => "1A 2K",
            Self::IsoThree => "1A 3K",
            Self::Aes => "AA",
        }
    }

    pub const fn scheme(self) -> Option<AuthScheme> {
        match self {
            Self::None => None,
            Self::D40Des | Self::D40Two => Some(AuthScheme::Legacy),
            Self::IsoDes | Self::IsoTwo | Self::IsoThree => Some(AuthScheme::Iso),
            Self::Aes => Some(AuthScheme::Aes),
        }
    }

    /// The type of all keys on its card. Without authentication it makes no difference.
    pub const fn key_type(self) -> KeyType {
        match self {
            Self::D40Des | Self::IsoDes => KeyType::Des,
            Self::D40Two | Self::IsoTwo => KeyType::TwoKey3Des,
            Self::IsoThree => KeyType::ThreeKey3Des,
            Self::None | Self::Aes => KeyType::Aes,
        }
    }

    pub fn is_ev1(self) -> bool {
        Self::EV1.contains(&self)
    }

    pub fn is_d40(self) -> bool {
        Self::D40.contains(&self)
    }

    /// Bytes of a cipher block, of a MAC, of a CRC: chapters 7.6 and 7.7.
    pub fn sizes(self) -> (usize, usize, usize) {
        match self {
            Self::None => (1, 0, 0),
            Self::D40Des | Self::D40Two => (8, 4, 2),
            Self::IsoDes | Self::IsoTwo | Self::IsoThree => (8, 8, 4),
            Self::Aes => (16, 8, 4),
        }
    }
}

/// The communication mode of the file that a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No file data: one protection always.
    Fixed,
    /// By the file's mode, under a key that a right names.
    Plain,
    Mac,
    Enciphered,
    /// The file is enciphered but access is free: plain by rule 3.1.
    Free,
}

impl Mode {
    pub const FILE: &[Self] = &[Self::Plain, Self::Mac, Self::Enciphered, Self::Free];

    pub const fn letter(self) -> char {
        match self {
            Self::Fixed => 'x',
            Self::Plain => 'p',
            Self::Mac => 'm',
            Self::Enciphered => 'e',
            Self::Free => 'f',
        }
    }

    const fn index(self) -> u8 {
        match self {
            Self::Fixed | Self::Plain => 0,
            Self::Mac => 1,
            Self::Enciphered => 2,
            Self::Free => 3,
        }
    }

    pub const fn comm(self) -> CommMode {
        match self {
            Self::Fixed | Self::Plain => CommMode::Plain,
            Self::Mac => CommMode::Mac,
            Self::Enciphered | Self::Free => CommMode::Enciphered,
        }
    }
}

/// What is selected and which key is authenticated when a command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The PICC, with its master key.
    Picc,
    /// An application, with this key.
    In(Aid, u8),
}

/// An application with four files of each type, all free to list and create.
pub const APP: Aid = Aid::from_bytes([0xC3, 0xB2, 0xA1]);
/// An application that shows and allows nothing without its master key.
pub const LOCKED: Aid = Aid::from_bytes([0x02, 0x00, 0x00]);
/// An application whose master key and settings are frozen.
pub const FROZEN: Aid = Aid::from_bytes([0x03, 0x00, 0x00]);

pub const UID: Uid = Uid([0x04, 0x5A, 0x21, 0x7A, 0x3C, 0x5B, 0x80]);
pub const RECORD: usize = 10;

/// Numbers of the first of four files, one for each mode.
pub const STANDARD: u8 = 1;
pub const BACKUP: u8 = 5;
pub const VALUE: u8 = 9;
pub const LINEAR: u8 = 13;
pub const CYCLIC: u8 = 17;
/// A standard file that nobody may use, one of key 2 only, and a number without file.
pub const NOBODYS: u8 = 21;
pub const OTHERS: u8 = 22;
pub const MISSING: u8 = 23;

pub fn file_no(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

pub fn key_no(number: u8) -> KeyNo {
    KeyNo::new(number).unwrap()
}

pub fn u24(value: u32) -> U24 {
    U24::new(value).unwrap()
}

/// What a file of `len` bytes holds, different for each `number`.
pub fn content(number: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index as u8).wrapping_mul(7).wrapping_add(number ^ 0x5A))
        .collect()
}

/// Bytes of key `number`; the halves differ in more than their low bits.
fn key_bytes(number: u8) -> [u8; 24] {
    core::array::from_fn(|index| {
        (index as u8)
            .wrapping_mul(0x3B)
            .wrapping_add(number.wrapping_mul(0x1D))
            ^ 0xA6
    })
}

/// Number of the PICC master key in here.
pub const PICC_KEY: u8 = 0x0F;

/// Any key as the reader has it; another `number`, another key.
pub fn key_of(key_type: KeyType, number: u8) -> Key {
    let bytes = key_bytes(number);
    let key = Key::from_slice(
        key_type,
        match key_type {
            KeyType::Des => &bytes[..8],
            KeyType::TwoKey3Des | KeyType::Aes => &bytes[..16],
            KeyType::ThreeKey3Des => &bytes,
        },
    );
    let key = key.unwrap();
    match key_type {
        KeyType::Aes => key.with_version(0x40 + number),
        _ => key,
    }
}

/// The same key as the card has it.
pub fn card_key_of(key_type: KeyType, number: u8) -> CardKey {
    let bytes = key_bytes(number);
    let sixteen: [u8; 16] = bytes[..16].try_into().unwrap();
    match key_type {
        KeyType::Des => {
            let half = &bytes[..8];
            CardKey::des([half, half].concat().try_into().unwrap())
        }
        KeyType::TwoKey3Des => CardKey::des(sixteen),
        KeyType::ThreeKey3Des => CardKey::three_key_3des(bytes),
        KeyType::Aes => CardKey::aes(sixteen, 0x40 + number),
    }
}

pub const NDEF: &[u8] = b"\xD2\x76\x00\x00\x85\x01\x01";
pub const LONG_NAME: &[u8] = b"sixteen letters.";

/// The three applications, all keys of one type, and a PICC master key of that type.
fn prepare(auth: Auth) -> Card {
    let key_type = auth.key_type();
    let mut card = Card::new(UID);
    let state = card.state_mut();
    state.set_picc_key(card_key_of(key_type, PICC_KEY));
    let info = KeyInfo::new(key_type.family(), 5).unwrap();
    let application = |aid, settings, info| {
        (0..5).fold(
            Application::new(aid, KeySettings::from_byte(settings), info),
            |app, number| app.with_key(key_no(number), card_key_of(key_type, number)),
        )
    };
    let mut app = application(APP, 0x0F, info.with_iso_file_ids())
        .with_iso_names(IsoFileId(0xE110), DfName::new(NDEF).ok());
    for mode in Mode::FILE {
        for first in [STANDARD, BACKUP, VALUE, LINEAR, CYCLIC] {
            app = app.with_file(prepared_file(auth, *mode, first));
        }
    }
    let standard = |number, rights| {
        File::new(
            file_no(number),
            CommMode::Plain,
            AccessRights::from_bytes(rights),
            FileContent::Standard(content(number, 32)),
        )
    };
    app = app
        .with_file(standard(NOBODYS, [0xFF, 0xFF]))
        .with_file(standard(OTHERS, [0x22, 0x22]));
    let locked = application(LOCKED, 0x09, info)
        .with_iso_names(IsoFileId(0xE111), None)
        .with_file(standard(1, [0x00, 0x00]));
    let frozen = application(FROZEN, 0x00, info)
        .with_iso_names(IsoFileId(0xE112), DfName::new(LONG_NAME).ok());
    for application in [app, locked, frozen] {
        state.put_application(application).unwrap();
    }
    card
}

fn prepared_file(auth: Auth, mode: Mode, first: u8) -> File {
    let number = first + mode.index();
    // Key 1 for the data, key 0 for the settings; or everything free.
    let rights = match (auth, mode) {
        (Auth::None, _) | (_, Mode::Free) => [0xEE, 0xEE],
        _ => [0x10, 0x11],
    };
    let records = |count| {
        let data = content(number, count * RECORD);
        Records::new(u24(RECORD as u32), u24(5), data)
    };
    let content = match first {
        STANDARD => FileContent::Standard(content(number, 100)),
        BACKUP => FileContent::Backup(content(number, 100)),
        VALUE => FileContent::Value(Value {
            lower: -100,
            upper: 1000,
            value: 500,
            limited_credit: 60,
            flags: ValueFlags::LIMITED_CREDIT,
        }),
        LINEAR => FileContent::Linear(records(2)),
        _ => FileContent::Cyclic(records(3)),
    };
    let is_value = matches!(content, FileContent::Value(_));
    let rights = AccessRights::from_bytes(rights);
    let file = File::new(file_no(number), mode.comm(), rights, content);
    if is_value {
        file
    } else {
        file.with_iso_file_id(IsoFileId(0xEF00 + u16::from(number)))
    }
}

static CARDS: LazyLock<Vec<Card>> = LazyLock::new(|| Auth::ALL.map(prepare).to_vec());

/// The card for an authentication, new every time.
pub fn card(auth: Auth) -> Card {
    CARDS[Auth::ALL.iter().position(|each| *each == auth).unwrap()].clone()
}

/// Gives all files of [`APP`] these rights, and value files these flags.
pub fn grant(card: &mut Card, rights: [u8; 2], flags: ValueFlags) {
    let old = card.state().application(APP).unwrap().clone();
    let mut new = Application::new(APP, old.settings(), old.info());
    for (number, key) in (0..).zip(old.keys()) {
        new = new.with_key(key_no(number), key.clone());
    }
    for file in old.files() {
        let mut content = file.content().clone();
        if let FileContent::Value(value) = &mut content {
            value.flags = flags;
        }
        let mode = file.settings().comm.mode();
        let rights = AccessRights::from_bytes(rights);
        new = new.with_file(File::new(file.number(), mode, rights, content));
    }
    card.state_mut().put_application(new).unwrap();
}

/// A session, whatever its type.
pub enum Live {
    Free(Session<Unauthenticated>),
    Authenticated(Session<Authenticated>),
    /// Consumed by a command that ends it.
    Gone,
}

/// Runs a command that both kinds of session have.
macro_rules! call {
    ($bench:expr, |$session:ident| $machine:expr) => {
        match &mut $bench.live {
            $crate::bench::Live::Free($session) => {
                $crate::bench::without_heap(|| $crate::bench::run($machine, &mut $bench.line))
            }
            $crate::bench::Live::Authenticated($session) => {
                $crate::bench::without_heap(|| $crate::bench::run($machine, &mut $bench.line))
            }
            $crate::bench::Live::Gone => panic!("no session is left"),
        }
    };
}

/// The same, without a look at the answer.
macro_rules! attempt {
    ($bench:expr, |$session:ident| $machine:expr) => {
        match &mut $bench.live {
            $crate::bench::Live::Free($session) => $crate::bench::without_heap(|| {
                $crate::bench::run($machine, &mut $bench.line).map(drop)
            }),
            $crate::bench::Live::Authenticated($session) => $crate::bench::without_heap(|| {
                $crate::bench::run($machine, &mut $bench.line).map(drop)
            }),
            $crate::bench::Live::Gone => panic!("no session is left"),
        }
    };
}

/// Runs a command that only an authenticated session has.
macro_rules! authenticated {
    ($bench:expr, |$session:ident| $machine:expr) => {
        match &mut $bench.live {
            $crate::bench::Live::Authenticated($session) => {
                $crate::bench::without_heap(|| $crate::bench::run($machine, &mut $bench.line))
            }
            _ => panic!("nobody is authenticated"),
        }
    };
}

/// Runs a command that takes the session with it.
macro_rules! consume {
    ($bench:expr, |$session:ident| $machine:expr) => {
        match $bench.take() {
            $crate::bench::Live::Free($session) => {
                $crate::bench::without_heap(|| $crate::bench::run($machine, &mut $bench.line))
            }
            $crate::bench::Live::Authenticated($session) => {
                $crate::bench::without_heap(|| $crate::bench::run($machine, &mut $bench.line))
            }
            $crate::bench::Live::Gone => panic!("no session is left"),
        }
    };
}

thread_local! {
    static WATCHED: Cell<usize> = const { Cell::new(0) };
    static SIZES: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// How many machines this thread has made and run under [`without_heap`].
pub fn watched() -> usize {
    WATCHED.get()
}

/// The sizes of all machines that this thread has run, by their type's name.
pub fn sizes() -> BTreeMap<&'static str, usize> {
    SIZES.with_borrow(BTreeMap::clone)
}

/// Runs a machine and notes its size.
pub fn run<M: Machine>(machine: M, line: &mut Line) -> Result<M::Output, Failure> {
    allocation_counter::opt_out(|| {
        SIZES.with_borrow_mut(|sizes| {
            sizes.insert(type_name::<M>(), size_of::<M>());
        });
    });
    machine.run(line)
}

/// Makes and runs a machine, which must allocate nothing. The transport does, and is not counted.
pub fn without_heap<T>(run: impl FnOnce() -> T) -> T {
    let mut result = None;
    let heap = allocation_counter::measure(|| result = Some(run()));
    assert_eq!(heap.count_total, 0, "heap allocations of the library");
    WATCHED.set(WATCHED.get() + 1);
    result.unwrap()
}

/// A session, a transport, and what is being tested.
pub struct Bench {
    pub line: Line,
    pub live: Live,
    pub auth: Auth,
    pub mode: Mode,
}

impl Bench {
    /// A session with the software card: selected, authenticated, nothing logged yet.
    pub fn on_card(card: Card, auth: Auth, mode: Mode, format: LinkFormat, place: Place) -> Self {
        let mut bench = Self {
            line: Line::to_card(card, format),
            live: Live::Free(Session::new()),
            auth,
            mode,
        };
        let number = match place {
            Place::Picc => 0,
            Place::In(aid, number) => {
                bench.select(aid).unwrap();
                number
            }
        };
        if let Some(scheme) = auth.scheme() {
            let key = key_of(
                auth.key_type(),
                match place {
                    Place::Picc => PICC_KEY,
                    Place::In(..) => number,
                },
            );
            bench.authenticate(scheme, number, &key).unwrap();
        }
        bench.line.log.clear();
        bench
    }

    /// A session with a card that says what stands in a script.
    pub fn on_script(selected: u32, format: LinkFormat, script: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self {
            line: Line::new(End::Script(script.into()), format),
            live: Live::Free(Session::at_level(Aid::new(selected).unwrap())),
            auth: Auth::None,
            mode: Mode::Plain,
        }
    }

    pub fn take(&mut self) -> Live {
        std::mem::replace(&mut self.live, Live::Gone)
    }

    pub fn is_lost(&self) -> bool {
        match &self.live {
            Live::Free(session) => session.is_lost(),
            Live::Authenticated(session) => session.is_lost(),
            Live::Gone => true,
        }
    }

    pub fn select(&mut self, aid: Aid) -> Done {
        let session = consume!(self, |s| s.select_application(aid))?;
        self.live = Live::Free(session);
        Ok(())
    }

    pub fn authenticate(&mut self, scheme: AuthScheme, number: u8, key: &Key) -> Done {
        let nonce = core::array::from_fn(|index| 0xB1_u8.wrapping_add(index as u8 * 11));
        self.authenticate_with(scheme, number, key, nonce)
    }

    pub fn authenticate_with(
        &mut self,
        scheme: AuthScheme,
        number: u8,
        key: &Key,
        rnd_a: [u8; 16],
    ) -> Done {
        let session = consume!(self, |s| {
            s.authenticate_with_fixed_nonce_for_testing_only(scheme, key_no(number), key, rnd_a)
        })?;
        self.live = Live::Authenticated(session);
        Ok(())
    }

    /// A key of this card's type.
    pub fn key(&self, number: u8) -> Key {
        key_of(self.auth.key_type(), number)
    }

    /// The card.
    pub fn card(&self) -> &Card {
        match &self.line.end {
            End::Card(reader) => reader.card(),
            End::Script(_) => panic!("there is a script and no card"),
        }
    }

    pub fn application(&self, aid: Aid) -> &Application {
        self.card().state().application(aid).unwrap()
    }

    /// The file of this mode among the four from `first` on.
    pub fn number(&self, first: u8) -> u8 {
        first + self.mode.index()
    }

    pub fn file(&self, first: u8) -> FileNo {
        file_no(self.number(first))
    }

    pub fn stored(&self, number: u8) -> &FileContent {
        let file = self.application(APP).file(file_no(number));
        file.unwrap().content()
    }

    /// Leaves a chain of the card unfinished, behind the session's back.
    pub fn break_chain(&mut self) {
        let command: &[u8] = match self.line.format.framing {
            Framing::Native => &[0x60],
            Framing::Wrapped => &[0x90, 0x60, 0, 0, 0],
        };
        let End::Card(reader) = &mut self.line.end else {
            panic!("there is a script and no card");
        };
        assert!(reader.handle(command).len() > 7);
    }

    pub fn commit(&mut self) {
        call!(self, |s| s.commit_transaction()).unwrap();
    }
}

/// What is done to the last reply of the command that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// A bit of the first or last byte is wrong.
    FlipFirst,
    FlipLast,
    /// A byte too few, or one too many.
    Short,
    Long,
    /// Only the status is left.
    Bare,
    /// Not a reply at all.
    Nothing,
    /// Native: an unknown status. Wrapped: `9000`.
    OtherStatus,
    /// A made-up refusal.
    Refusal,
}

impl Spoil {
    pub const ALL: [Self; 8] = [
        Self::FlipFirst,
        Self::FlipLast,
        Self::Short,
        Self::Long,
        Self::Bare,
        Self::Nothing,
        Self::OtherStatus,
        Self::Refusal,
    ];
}

/// How replies are cut anew.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Every frame but the last has this many bytes.
    Every(usize),
    /// Any length from 1 to 59, from this seed.
    Random(u64),
}

enum End {
    Card(Box<VirtualReader>),
    Script(VecDeque<(Vec<u8>, Vec<u8>)>),
}

/// The transport: to a card or to a script, watched and perhaps disturbed.
pub struct Line {
    format: LinkFormat,
    end: End,
    /// What was sent and what came back.
    pub log: Vec<(Vec<u8>, Vec<u8>)>,
    /// First byte, or INS, of the command that is under way.
    current: u8,
    /// Spoils the last reply of this command.
    pub spoil: Option<(u8, Spoil)>,
    /// Whether it has been done.
    pub spoilt: bool,
    cut: Option<Cut>,
    /// Parts of a reply that are still to come, and the status behind them.
    parts: VecDeque<Vec<u8>>,
    /// The longest command.
    pub longest: usize,
}

impl Line {
    fn new(end: End, format: LinkFormat) -> Self {
        Self {
            format,
            end,
            log: Vec::new(),
            current: 0,
            spoil: None,
            spoilt: false,
            cut: None,
            parts: VecDeque::new(),
            longest: 0,
        }
    }

    fn to_card(card: Card, format: LinkFormat) -> Self {
        let reader = VirtualReader::new(card).with_format(format);
        Self::new(End::Card(Box::new(reader)), format)
    }

    /// Cuts the card's replies anew.
    pub const fn recut(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Allows only commands of so many bytes.
    pub fn narrow(&mut self, max_command: usize) {
        self.format.max_command = max_command;
    }

    /// Whether a script has been played to its end.
    pub fn is_over(&self) -> bool {
        matches!(&self.end, End::Script(script) if script.is_empty())
    }

    fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>, String> {
        match &mut self.end {
            End::Script(script) => {
                let (expected, reply) = script.pop_front().ok_or("the script is over")?;
                assert_eq!(hex(command), hex(&expected), "sent, and in the script");
                Ok(reply)
            }
            End::Card(reader) => {
                let mut reply = [0; 64];
                let len = Transport::exchange(&mut **reader, command, &mut reply)
                    .map_err(|error| error.to_string())?;
                Ok(reply[..len].to_vec())
            }
        }
    }

    /// Fetches the whole reply and cuts it anew.
    fn cut_anew(&mut self, cut: Cut, first: Vec<u8>) -> Result<Vec<u8>, String> {
        let framing = self.format.framing;
        let (mut status, part) = reply_of(framing, &first);
        if status != 0xAF && status != 0x00 || part.is_empty() {
            return Ok(first);
        }
        let mut whole = part.to_vec();
        while status == 0xAF {
            let more: &[u8] = match framing {
                Framing::Native => &[0xAF],
                Framing::Wrapped => &[0x90, 0xAF, 0, 0, 0],
            };
            let reply = self.ask(more)?;
            let (next, part) = reply_of(framing, &reply);
            status = next;
            whole.extend(part);
        }
        assert_eq!(status, 0x00, "the card refused in the middle of a reply");
        let mut seed = match cut {
            Cut::Every(_) => 0,
            Cut::Random(seed) => seed,
        };
        while !whole.is_empty() {
            let len = match cut {
                Cut::Every(len) => len,
                Cut::Random(_) => {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) as usize % 59 + 1
                }
            };
            let rest = whole.split_off(len.min(whole.len()));
            self.parts.push_back(std::mem::replace(&mut whole, rest));
        }
        Ok(self.next_part())
    }

    fn next_part(&mut self) -> Vec<u8> {
        let part = self.parts.pop_front().unwrap();
        let status = if self.parts.is_empty() { 0x00 } else { 0xAF };
        encode_reply(self.format.framing, status, &part)
    }

    fn disturb(&self, spoil: Spoil, reply: &[u8], iso: bool) -> Vec<u8> {
        let native = self.format.framing == Framing::Native && !iso;
        let (mut payload, status) = if native {
            (reply[1..].to_vec(), reply[..1].to_vec())
        } else {
            let (payload, status) = reply.split_at(reply.len() - 2);
            (payload.to_vec(), status.to_vec())
        };
        let status = match (spoil, native, iso) {
            (Spoil::Nothing, true, _) => return Vec::new(),
            (Spoil::Nothing, false, _) => return vec![0x91],
            (Spoil::OtherStatus, true, _) => return vec![0x3E],
            (Spoil::OtherStatus, false, false) => return vec![0x90, 0x00],
            (Spoil::OtherStatus, false, true) => return vec![0x61, 0x00],
            (Spoil::Refusal, true, _) => return vec![0xEE],
            (Spoil::Refusal, false, false) => return vec![0x91, 0xEE],
            (Spoil::Refusal, false, true) => return vec![0x69, 0x85],
            _ => status,
        };
        match spoil {
            Spoil::FlipFirst => payload[0] ^= 0x80,
            Spoil::FlipLast => *payload.last_mut().unwrap() ^= 0x01,
            Spoil::Short => drop(payload.pop().unwrap()),
            Spoil::Long => payload.push(0xFF),
            _ => payload.clear(),
        }
        if native {
            [status, payload].concat()
        } else {
            [payload, status].concat()
        }
    }

    /// All payload of `code` and its continuations in the log, sent and received, without `AF`
    /// and status bytes; nothing if it did not end well.
    pub fn joined(&self, code: u8) -> Option<(Vec<u8>, Vec<u8>)> {
        let framing = self.format.framing;
        let start = self
            .log
            .iter()
            .position(|(sent, _)| command_of(framing, sent).0 == code)?;
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for (index, (command, reply)) in self.log[start..].iter().enumerate() {
            let (code, payload) = command_of(framing, command);
            if index > 0 && code != 0xAF {
                return None;
            }
            sent.extend(payload);
            let (status, data) = reply_of(framing, reply);
            received.extend(data);
            match status {
                0x00 => return Some((sent, received)),
                0xAF => {}
                _ => return None,
            }
        }
        None
    }

    /// Whether an ISO 7816-4 command was sent and answered with `9000`.
    pub fn saw_iso(&self, ins: u8) -> bool {
        self.log.iter().any(|(sent, reply)| {
            sent[0] == 0x00 && sent[1] == ins && reply.ends_with(&[0x90, 0x00])
        })
    }
}

impl Link for Line {
    type Error = String;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Line {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, String> {
        let mut result = Ok(0);
        allocation_counter::opt_out(|| result = self.carry(command, reply));
        result
    }
}

impl Line {
    fn carry(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, String> {
        // No command is ever longer than 60 bytes, native or wrapped, or than the link allows.
        assert!(command.len() <= 60.min(self.format.max_command));
        self.longest = self.longest.max(command.len());
        let framing = self.format.framing;
        let iso = command[0] == 0x00;
        let code = if iso {
            command[1]
        } else {
            command_of(framing, command).0
        };
        let more = code == 0xAF;
        if !more {
            self.current = code;
        }
        let mut answer = if more && !self.parts.is_empty() {
            self.next_part()
        } else {
            let answer = self.ask(command)?;
            // The two frames of a handshake are no chain.
            let handshake = matches!(self.current, 0x0A | 0x1A | 0xAA);
            match self.cut {
                Some(cut) if !iso && !handshake => self.cut_anew(cut, answer)?,
                _ => answer,
            }
        };
        let done = match iso {
            true => answer.ends_with(&[0x90, 0x00]),
            false => reply_of(framing, &answer).0 == 0x00,
        };
        if let Some((watched, spoil)) = self.spoil
            && done
            && self.current == watched
        {
            answer = self.disturb(spoil, &answer, iso);
            self.spoil = None;
            self.spoilt = true;
        }
        self.log.push((command.to_vec(), answer.clone()));
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// Code and parameters of a native or wrapped command; of an ISO command INS and what follows P2.
pub fn command_of(framing: Framing, command: &[u8]) -> (u8, &[u8]) {
    match (framing, command) {
        (_, [0x00, ins, _, _, rest @ ..]) => (*ins, rest),
        (Framing::Native, [code, payload @ ..]) => (*code, payload),
        (Framing::Wrapped, [0x90, code, 0, 0, 0]) => (*code, &[]),
        (Framing::Wrapped, [0x90, code, 0, 0, lc, payload @ .., 0])
            if usize::from(*lc) == payload.len() && *lc > 0 =>
        {
            (*code, payload)
        }
        (_, other) => panic!("this is no command: {}", hex(other)),
    }
}

/// Native status and data of a reply; an ISO status word that is not `91xx` counts as 1.
fn reply_of(framing: Framing, reply: &[u8]) -> (u8, &[u8]) {
    match (framing, reply) {
        (Framing::Native, [status, data @ ..]) => (*status, data),
        (Framing::Wrapped, [data @ .., 0x91, status]) => (*status, data),
        (_, data) => (0x01, data),
    }
}

fn encode_reply(framing: Framing, status: u8, data: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Native => [&[status], data].concat(),
        Framing::Wrapped => [data, &[0x91, status]].concat(),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits to bytes; blanks may separate them.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    assert!(digits.len().is_multiple_of(2), "odd: {text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// What a failure was: for a refusal its status or status word in hexadecimal, with a question mark
/// if the command may have been carried out all the same, and with `asking` before it if it was the
/// question for the file's settings that was refused.
pub fn verdict(failure: &Failure) -> String {
    let RunError::Protocol(error) = failure else {
        return format!("transport: {failure:?}");
    };
    match (error.outcome, error.kind) {
        (Outcome::Refused, ErrorKind::Refused(status)) => format!("{:02X}", status.to_byte()),
        (Outcome::Refused, ErrorKind::RefusedIso(word)) => word.to_string(),
        (Outcome::Unknown, ErrorKind::Refused(status)) => format!("{:02X}?", status.to_byte()),
        (Outcome::Unknown, ErrorKind::RefusedIso(word)) => format!("{word}?"),
        (Outcome::NotSent, ErrorKind::Refused(status)) if error.while_asking => {
            format!("asking {:02X}", status.to_byte())
        }
        (Outcome::NotSent, ErrorKind::Misuse(_)) => "unsent".to_owned(),
        (Outcome::Unknown, ErrorKind::Authenticity(_)) => "authenticity".to_owned(),
        (Outcome::Unknown, ErrorKind::Malformed(_)) => "malformed".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The family of a key, for creating applications.
pub fn family(auth: Auth) -> KeyFamily {
    auth.key_type().family()
}
