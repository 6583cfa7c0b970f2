//! What a row of the table of `tests/commands.rs` is made of, and all rows.
//!
//! The bytes of `golden` are written by hand from the reference or copied from recordings; the
//! library has made none of them.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::Key;
use desfire_ev1::picc::Card;
use desfire_ev1::wire::{
    AuthScheme, CommandCode, Instruction, IsoInstruction, KeyFamily, ValueFlags,
};

use crate::bench::{APP, Auth, Bench, Done, Mode, Place, grant, unhex};

/// What is done to a card before.
pub type Prepare = fn(&mut Card);
/// One exchange: command and reply native, command and reply wrapped.
pub type Exchange = [&'static str; 4];

/// What protects data on their way: columns *Req EV1* and *Rsp EV1* of chapter 3.0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nothing, not even in a session.
    Bare,
    /// `c` of a request, `+M` of a reply.
    Standard,
    /// By the file's mode.
    File,
    /// ChangeFileSettings: enciphered, or plain if the right is free.
    Change,
    /// Always enciphered, with so many CRCs.
    Cipher(usize),
    /// A handshake's proof.
    Proof,
    /// GET CHALLENGE: what comes is not proved by itself.
    Challenge,
}

/// Sizes and protection of request and reply.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// Clear parameters.
    pub header: usize,
    /// Protected parameters, which may depend on the keys' type.
    pub data: fn(Auth) -> usize,
    pub request: Guard,
    /// Data of the reply.
    pub back: fn(Auth) -> usize,
    pub reply: Guard,
}

/// Known bytes.
pub struct Golden {
    pub what: &'static str,
    /// What is selected at the start.
    pub selected: u32,
    pub script: Vec<Exchange>,
    pub go: fn(&mut Bench) -> Done,
    /// Last replies, native and wrapped, that must be rejected, and as what.
    pub rejected: Vec<[&'static str; 3]>,
}

/// One thing done on the software card, and what must come of it.
pub struct Case {
    pub what: &'static str,
    /// `ok`, `unsent`, or a status or status word in hexadecimal.
    pub expect: &'static str,
    /// Where the row itself says nothing else.
    pub place: Option<Place>,
    pub under: Option<&'static [Auth]>,
    pub prepare: Option<Prepare>,
    pub go: fn(&mut Bench) -> Done,
    /// It changes the card before it is refused.
    pub changes: bool,
}

impl Case {
    pub fn changing(mut self) -> Self {
        self.changes = true;
        self
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub fn under(mut self, auths: &'static [Auth]) -> Self {
        self.under = Some(auths);
        self
    }

    pub fn with(mut self, prepare: Prepare) -> Self {
        self.prepare = Some(prepare);
        self
    }
}

/// A case for [`Row::case`].
pub fn case(what: &'static str, expect: &'static str, go: fn(&mut Bench) -> Done) -> Case {
    Case {
        what,
        expect,
        place: None,
        under: None,
        prepare: None,
        go,
        changes: false,
    }
}

/// A command.
pub struct Row {
    pub command: Instruction,
    pub place: Place,
    pub modes: &'static [Mode],
    /// The row's own run authenticates.
    pub handshake: bool,
    pub traffic: Traffic,
    /// Why a cell cannot be.
    pub applies: fn(Auth, Mode) -> Result<(), &'static str>,
    /// What has to happen before.
    pub before: fn(&mut Bench),
    /// The command, and a look at its answer.
    pub run: fn(&mut Bench) -> Done,
    /// A look at the card.
    pub after: fn(&mut Bench),
    pub golden: Vec<Golden>,
    pub cases: Vec<Case>,
    /// A shorter answer is an answer too, if nothing protects it.
    pub list: bool,
    /// Where a frame of the reply ends means something.
    pub frames_matter: bool,
}

pub const NO_SESSION: &str =
    "needs a session by type: the method exists on Session<Authenticated> only";
pub const NO_KEY: &str = "nothing is MACed or enciphered without a session (told to: \
    NotAuthenticated, unsent); free access is f";
pub const ISO_WRITE: &str =
    "no source tells how an EV1 session proves ISO writes: IsoWriteInSession, unsent";
pub const ISO_PLAIN: &str =
    "ISO requests are never protected: the card refuses files of this mode with 6982";
pub const D40_KEYS: &str = "0A takes DES and 2K3DES keys only: KeyType, unsent";
pub const ISO_KEYS: &str = "1A takes DES, 2K3DES and 3K3DES keys only: KeyType, unsent";
pub const AES_KEYS: &str = "AA takes AES keys only: KeyType, unsent";
pub const MAKES_IT: &str = "the command makes the session of the other columns";
pub const EV1_ONLY: &str = "the ISO 7816-4 authentication ends in EV1 messaging, never in D40";

pub fn always(_: Auth, _: Mode) -> Result<(), &'static str> {
    Ok(())
}

/// For methods of authenticated sessions.
pub fn session_only(auth: Auth, _: Mode) -> Result<(), &'static str> {
    match auth {
        Auth::None => Err(NO_SESSION),
        _ => Ok(()),
    }
}

/// For file data.
pub fn file_data(auth: Auth, mode: Mode) -> Result<(), &'static str> {
    match (auth, mode) {
        (Auth::None, Mode::Mac | Mode::Enciphered) => Err(NO_KEY),
        _ => Ok(()),
    }
}

impl Row {
    /// A command without file data, inside the application under key 1.
    pub fn new(command: impl Into<Instruction>, run: fn(&mut Bench) -> Done) -> Self {
        Self {
            command: command.into(),
            place: Place::In(APP, 1),
            modes: &[Mode::Fixed],
            handshake: false,
            traffic: Traffic {
                header: 0,
                data: |_| 0,
                request: Guard::Standard,
                back: |_| 0,
                reply: Guard::Standard,
            },
            applies: always,
            before: |_| {},
            run,
            after: |_| {},
            golden: Vec::new(),
            cases: Vec::new(),
            list: false,
            frames_matter: false,
        }
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Clear parameters, and data of the reply.
    pub fn sizes(mut self, header: usize, back: fn(Auth) -> usize) -> Self {
        self.traffic.header = header;
        self.traffic.back = back;
        self
    }

    pub fn request(mut self, data: fn(Auth) -> usize, guard: Guard) -> Self {
        self.traffic.data = data;
        self.traffic.request = guard;
        self
    }

    pub fn reply(mut self, guard: Guard) -> Self {
        self.traffic.reply = guard;
        self
    }

    pub fn modes(mut self, modes: &'static [Mode]) -> Self {
        self.modes = modes;
        self
    }

    pub fn applies(mut self, applies: fn(Auth, Mode) -> Result<(), &'static str>) -> Self {
        self.applies = applies;
        self
    }

    pub fn before(mut self, before: fn(&mut Bench)) -> Self {
        self.before = before;
        self
    }

    pub fn after(mut self, after: fn(&mut Bench)) -> Self {
        self.after = after;
        self
    }

    pub fn list(mut self) -> Self {
        self.list = true;
        self
    }

    pub fn golden(
        mut self,
        what: &'static str,
        selected: u32,
        script: &[&[Exchange]],
        go: fn(&mut Bench) -> Done,
        rejected: &[[&'static str; 3]],
    ) -> Self {
        self.golden.push(Golden {
            what,
            selected,
            script: script.concat(),
            go,
            rejected: rejected.to_vec(),
        });
        self
    }

    pub fn case(mut self, case: Case) -> Self {
        self.cases.push(case);
        self
    }

    /// What comes of the command under each right alone, the others being F: `ok` under those in
    /// `granting`, which are `R`, `W`, `RW` and `C`.
    pub fn granted_by(mut self, granting: &[&str], otherwise: &'static str) -> Self {
        let alone: [(&str, &'static str, Prepare); 4] = [
            ("R", "under the right R alone", |card| {
                grant(card, [0xFF, 0x1F], ValueFlags::LIMITED_CREDIT);
            }),
            ("W", "under the right W alone", |card| {
                grant(card, [0xFF, 0xF1], ValueFlags::LIMITED_CREDIT);
            }),
            ("RW", "under the right RW alone", |card| {
                grant(card, [0x1F, 0xFF], ValueFlags::LIMITED_CREDIT);
            }),
            ("C", "under the right C alone", |card| {
                grant(card, [0xF1, 0xFF], ValueFlags::LIMITED_CREDIT);
            }),
        ];
        for (right, what, prepare) in alone {
            let granted = granting.contains(&right);
            let case = case(what, if granted { "ok" } else { otherwise }, self.run)
                .at(Place::In(APP, 1))
                .under(Auth::SOME)
                .with(prepare);
            self.cases.push(case);
        }
        self
    }

    /// Code or INS.
    pub fn code(&self) -> u8 {
        match self.command {
            Instruction::Native(code) => code.to_byte(),
            Instruction::Iso(instruction) => instruction.to_byte(),
        }
    }

    pub fn is_iso(&self) -> bool {
        matches!(self.command, Instruction::Iso(_))
    }
}

/// What the reference has: every native command but `AF`, which goes on with others, and every ISO
/// 7816-4 command.
pub fn reference() -> Vec<Instruction> {
    let native = CommandCode::ALL.iter().copied();
    let native = native.filter(|code| *code != CommandCode::AdditionalFrame);
    let iso = IsoInstruction::ALL.iter().copied();
    native
        .map(Instruction::from)
        .chain(iso.map(Instruction::from))
        .collect()
}

pub fn array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

/// Plays [`D40_HANDSHAKE`].
pub fn d40(bench: &mut Bench) -> Done {
    let nonce = array("0001020304050607 0000000000000000");
    bench.authenticate_with(AuthScheme::Legacy, 0, &Key::zero(KeyFamily::Des), nonce)
}

/// Plays [`ISO_HANDSHAKE`].
pub fn iso(bench: &mut Bench) -> Done {
    let nonce = array("0102030405060708 0000000000000000");
    bench.authenticate_with(AuthScheme::Iso, 0, &Key::zero(KeyFamily::Des), nonce)
}

/// Plays [`AES_HANDSHAKE`].
pub fn aes(bench: &mut Bench) -> Done {
    let nonce = array("f44b26f5686f3a391cd38ebd10772281");
    bench.authenticate_with(AuthScheme::Aes, 0, &Key::zero(KeyFamily::Aes), nonce)
}

/// Plays [`PART_17`].
pub fn part_17(bench: &mut Bench) -> Done {
    let key = Key::aes(array("10182028303840485058606870788088"));
    let nonce = array("40e7d27174cba675e8efbab99c530e3d");
    bench.authenticate_with(AuthScheme::Aes, 1, &key, nonce)
}

/// `0A` with the zero DES key: recorded, chapter 13.1. Session key 00010203F6B03339.
pub const D40_HANDSHAKE: [Exchange; 2] = [
    [
        "0a 00",
        "af 63c54dcf6f3a6fc9",
        "90 0a 00 00 01 00 00",
        "63c54dcf6f3a6fc9 91 af",
    ],
    [
        "af 491e890de9ace9329c5c6d55d9fa36d7",
        "00 b7d1da7ce0dd986b",
        "90 af 00 00 10 491e890de9ace9329c5c6d55d9fa36d7 00",
        "b7d1da7ce0dd986b 91 00",
    ],
];

/// `1A` with the zero DES key: recorded, chapter 13.1. Session key 0102030499D2F4FF.
pub const ISO_HANDSHAKE: [Exchange; 2] = [
    [
        "1a 00",
        "af 83b8794092327259",
        "90 1a 00 00 01 00 00",
        "83b8794092327259 91 af",
    ],
    [
        "af cc4506665c229b49bbd7b67113a942f3",
        "00 03fb11800b820495",
        "90 af 00 00 10 cc4506665c229b49bbd7b67113a942f3 00",
        "03fb11800b820495 91 00",
    ],
];

/// `AA` with the zero AES key: recorded, chapter 13.1.
pub const AES_HANDSHAKE: [Exchange; 2] = [
    [
        "aa 00",
        "af b969fdfe56fd91fc9de6f6f213b8fd1e",
        "90 aa 00 00 01 00 00",
        "b969fdfe56fd91fc9de6f6f213b8fd1e 91 af",
    ],
    [
        "af 36aad7df6e436ba08d18613830a70d5ad43e3d3f4a8d47541eee623a934e4774",
        "00 800db680bc146bd121d6578f2d2e2059",
        "90 af 00 00 20 36aad7df6e436ba08d18613830a70d5ad43e3d3f4a8d47541eee623a934e4774 00",
        "800db680bc146bd121d6578f2d2e2059 91 00",
    ],
];

/// RFDoorLock, part 17: `AA` with key 1 of an EV1 8K, recorded.
pub const PART_17: [Exchange; 2] = [
    [
        "aa 01",
        "af b351cb2465d4f33ac627fd6e87a168f2",
        "90 aa 00 00 01 01 00",
        "b351cb2465d4f33ac627fd6e87a168f2 91 af",
    ],
    [
        "af 044b6cac343a0865895149649ca8dde1f5ac4ec67bd208900af02f049e05f0b0",
        "00 a2ee144b1012fbeb7b2f11132d95a454",
        "90 af 00 00 20 044b6cac343a0865895149649ca8dde1f5ac4ec67bd208900af02f049e05f0b0 00",
        "a2ee144b1012fbeb7b2f11132d95a454 91 00",
    ],
];
