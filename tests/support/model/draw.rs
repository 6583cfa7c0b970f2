//! Draws cards and operations: mostly such that make sense where the model stands, and enough of
//! the others.

use desfire_ev1::LinkFormat;
use desfire_ev1::picc::StorageSize;
use desfire_ev1::wire::{AuthScheme, CommMode, KeyFamily};

use super::card::{App, Body, Card, File, Kept, application_cost, blank, file_cost, mode_of};
use super::keys::{self, KeyId};
use super::ops::{self, Change, Data, Fault, NewFile, Odd, Op, Step};
use super::reader::Reader;

/// Where the draws come from: gives a number below the one it is given.
pub(crate) struct Dice(Box<dyn FnMut(u64) -> u64>);

impl Dice {
    /// A generator that every run repeats (splitmix64).
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self::of(move |end| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % end
        })
    }

    /// Any other source, such as the bytes of a fuzzer.
    pub(crate) fn of(draw: impl FnMut(u64) -> u64 + 'static) -> Self {
        Self(Box::new(draw))
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (self.0)(u64::from(end.max(1))) as u32
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    fn range(&mut self, from: u32, to: u32) -> u32 {
        from + self.below(to - from + 1)
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    /// One of the numbers, each as often as its weight says.
    fn weigh<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let sum = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(sum);
        for (weight, what) in of {
            if left < *weight {
                return *what;
            }
            left -= weight;
        }
        of[0].1
    }
}

const AIDS: [u32; 6] = [
    0x00_0001, 0x00_DE16, 0xF5_4230, 0x12_3456, 0xFF_FFFF, 0x0A_0B0C,
];
const FIDS: [u16; 5] = [0xE110, 0xDF01, 0x1000, 0x1001, 0xE104];
const NAMES: [&[u8]; 3] = [
    b"one",
    &[0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x01],
    b"sixteen bytes ..",
];
const FAMILIES: [KeyFamily; 3] = [KeyFamily::Des, KeyFamily::ThreeKey3Des, KeyFamily::Aes];
const MODES: [CommMode; 3] = [CommMode::Plain, CommMode::Mac, CommMode::Enciphered];

/// The link of a sequence.
pub(crate) fn format(dice: &mut Dice) -> LinkFormat {
    let mut format = dice.pick(&[LinkFormat::NATIVE, LinkFormat::WRAPPED]);
    if dice.percent(25) {
        format.max_command = 48;
    }
    format
}

/// What a card holds at the beginning.
pub(crate) fn kept(dice: &mut Dice) -> Kept {
    let size = dice.weigh(&[
        (3, StorageSize::Ev1_2K),
        (2, StorageSize::Ev1_4K),
        (5, StorageSize::Ev1_8K),
    ]);
    let family = dice.pick(&FAMILIES);
    let mut kept = Kept {
        uid: [0x04, 0x5A, 0x21, 0x7A, 0x3C, 0x5B, 0x80],
        size,
        picc_key: dice.pick(keys::of_family(family)),
        picc_settings: flags(dice),
        format_disabled: false,
        random_id: false,
        default_key: false,
        ats: ops::ATS[0],
        used: 0,
        apps: Vec::new(),
    };
    let apps = dice.weigh(&[(1, 0), (4, 1), (4, 2), (2, 3)]);
    for aid in AIDS.into_iter().take(apps) {
        app(dice, &mut kept, aid);
    }
    // Close to the limit of 28.
    if dice.percent(1) {
        for aid in 0x77_0000..0x77_0019 {
            let info = 0x01;
            if application_cost(info) <= kept.free() {
                let app = bare(aid, 0x0F, info);
                kept.used += application_cost(info) as u32;
                kept.apps.push(app);
            }
        }
    }
    kept
}

fn bare(aid: u32, settings: u8, info: u8) -> App {
    let mut app = App {
        aid,
        settings,
        info,
        fid: None,
        name: None,
        keys: Vec::new(),
        files: Vec::new(),
    };
    app.keys = vec![keys::initial(app.family(), false); usize::from(info & 0xF)];
    app
}

fn app(dice: &mut Dice, kept: &mut Kept, aid: u32) {
    let (settings, info) = (settings(dice), info(dice));
    if application_cost(info) > kept.free() {
        return;
    }
    let mut app = bare(aid, settings, info);
    if dice.percent(40) {
        let fid = dice.pick(&FIDS);
        if kept.apps.iter().all(|other| other.fid != Some(fid)) {
            app.fid = Some(fid);
            let name = dice.pick(&NAMES);
            if dice.percent(60) && kept.apps.iter().all(|other| other.name != Some(name)) {
                app.name = Some(name);
            }
        }
    }
    kept.used += application_cost(info) as u32;
    for key in &mut app.keys {
        if dice.percent(60) {
            *key = dice.pick(keys::of_family(key.family()));
        }
    }
    for no in 0..dice.below(7) as u8 {
        let what = new_file(dice);
        if file_cost(&what) > kept.free() || impossible(&what) {
            continue;
        }
        kept.used += file_cost(&what) as u32;
        app.files.push(File {
            no,
            fid: None,
            comm: dice.pick(&[0, 1, 3]),
            rights: rights(dice),
            body: full(dice, blank(&what)),
        });
    }
    kept.apps.push(app);
}

/// What a file takes.
pub(crate) fn cost_of(file: &File) -> u64 {
    file_cost(&match &file.body {
        Body::Standard(data) => NewFile::Standard {
            size: data.len() as u32,
        },
        Body::Backup(data) => NewFile::Backup {
            size: data.len() as u32,
        },
        Body::Value { .. } => NewFile::Value {
            lower: 0,
            upper: 0,
            value: 0,
            flags: 0,
        },
        Body::Records {
            record_size, max, ..
        } => NewFile::Linear {
            record_size: *record_size,
            max: *max,
        },
    })
}

/// Something in a new file.
fn full(dice: &mut Dice, mut body: Body) -> Body {
    match &mut body {
        Body::Standard(data) | Body::Backup(data) => {
            let (seed, len) = (dice.byte(), data.len());
            *data = Data { seed, len }.bytes();
        }
        Body::Value { value, budget, .. } => *budget = (*value).clamp(0, dice.range(0, 40) as i32),
        Body::Records {
            cyclic,
            record_size,
            max,
            list,
        } => {
            for _ in 0..dice.below(*max + u32::from(!*cyclic)) {
                let (seed, len) = (dice.byte(), *record_size as usize);
                list.push(Data { seed, len }.bytes());
            }
        }
    }
    body
}

/// Bits 3 to 0 of key settings byte 1.
fn flags(dice: &mut Dice) -> u8 {
    if dice.percent(60) {
        return 0x0F;
    }
    (0..4)
        .filter(|_| dice.percent(70))
        .fold(0, |flags, bit| flags | 1 << bit)
}

fn settings(dice: &mut Dice) -> u8 {
    let who = dice.weigh(&[
        (12, 0x00),
        (3, 0x10),
        (1, 0x20),
        (3, 0xE0),
        (1, 0xF0),
        (1, 0xD0),
    ]);
    who | flags(dice)
}

fn info(dice: &mut Dice) -> u8 {
    let keys = dice.weigh(&[(1, 0), (2, 1), (4, 2), (6, 3), (3, 4), (1, 14)]);
    let fids = if dice.percent(30) { 0x20 } else { 0 };
    dice.pick(&FAMILIES).bits() | fids | keys
}

fn rights(dice: &mut Dice) -> u16 {
    (0..4).fold(0, |rights, _| {
        let right = dice.weigh(&[
            (30, 0x0),
            (24, 0x1),
            (12, 0x2),
            (20, 0xE),
            (7, 0xF),
            (5, 0x3),
            (2, 0xD),
        ]);
        rights << 4 | right
    })
}

fn new_file(dice: &mut Dice) -> NewFile {
    let size = match dice.below(10) {
        0 => dice.range(140, 320),
        1..4 => dice.range(41, 139),
        _ => dice.range(1, 40),
    };
    let record_size = match dice.below(8) {
        0 => dice.range(50, 130),
        _ => dice.range(1, 20),
    };
    match dice.below(6) {
        0 => NewFile::Standard { size },
        1 => NewFile::Backup { size },
        2 => NewFile::Linear {
            record_size,
            max: dice.range(1, 4),
        },
        3 => NewFile::Cyclic {
            record_size,
            max: dice.range(2, 5),
        },
        _ => {
            let lower = dice.pick(&[0, -50, 10, i32::MIN]);
            let upper = dice.pick(&[100, 1000, 10, i32::MAX]);
            let value = lower.max(0).min(upper) + dice.below(60) as i32;
            NewFile::Value {
                lower,
                upper,
                value: value.clamp(lower, upper),
                flags: dice.weigh(&[(3, 1), (2, 0), (1, 2), (1, 3)]),
            }
        }
    }
}

/// Parameters that are refused.
fn bad_file(dice: &mut Dice) -> NewFile {
    let value = |lower, upper, value| NewFile::Value {
        lower,
        upper,
        value,
        flags: 0,
    };
    dice.pick(&[
        NewFile::Standard { size: 0 },
        NewFile::Backup { size: 0 },
        NewFile::Standard { size: 7900 },
        NewFile::Backup { size: 4000 },
        NewFile::Standard { size: 0xFF_FFFF },
        NewFile::Linear {
            record_size: 0,
            max: 3,
        },
        NewFile::Linear {
            record_size: 4,
            max: 0,
        },
        NewFile::Cyclic {
            record_size: 4,
            max: 1,
        },
        NewFile::Cyclic {
            record_size: 0xFF_FFFF,
            max: 0xFF_FFFF,
        },
        value(10, 5, 7),
        value(0, 5, 6),
        value(0, 5, -1),
        value(3, 3, 3),
    ])
}

fn impossible(what: &NewFile) -> bool {
    matches!(what, NewFile::Value { lower, upper, value, .. } if value < lower || value > upper)
}

/// The next operation, for a card and a reader in this state.
pub(crate) fn step(dice: &mut Dice, card: &Card, reader: &Reader) -> Step {
    let op = op(dice, card, reader);
    let fault = dice.percent(5).then(|| fault(dice));
    Step { op, fault }
}

fn fault(dice: &mut Dice) -> Fault {
    let frame = dice.weigh(&[(8, 1), (4, 2), (2, 3), (1, 4)]);
    let effect = dice.weigh(&[(6, 1), (1, 2), (1, 3)]);
    match dice.below(8) {
        0..2 => Fault::LoseReply(frame),
        2 => Fault::LoseCommand(frame),
        3..5 => Fault::RemoveBefore(frame),
        5 => Fault::CutBefore(effect),
        _ => Fault::CutAfter(effect),
    }
}

fn op(dice: &mut Dice, card: &Card, reader: &Reader) -> Op {
    if !card.powered && dice.percent(85) {
        return Op::Activate;
    }
    if reader.lost && dice.percent(85) {
        return match dice.below(20) {
            0..2 => Op::Activate,
            2 => authenticate(dice, card, reader),
            // Back to where it was, mostly.
            3..13 => Op::Select(reader.selected),
            _ => select(dice, card),
        };
    }
    match dice.below(200) {
        0 => return Op::Activate,
        1 if dice.percent(80) => return Op::FieldOff,
        1 => return Op::DropGuard,
        2..8 => return odd(dice, card, reader),
        8..18 => return select(dice, card),
        18..24 => {
            return dice.pick(&[
                Op::GetVersion,
                Op::FreeMem,
                Op::GetCardUid,
                Op::GetKeySettings,
            ]);
        }
        24..28 => return Op::GetKeyVersion(dice.weigh(&[(6, 0), (3, 1), (2, 2), (1, 3), (1, 13)])),
        _ => {}
    }
    match card.kept.app(reader.selected) {
        None => at_picc_level(dice, card, reader),
        Some(app) => in_application(dice, card, app, reader),
    }
}

fn select(dice: &mut Dice, card: &Card) -> Op {
    if dice.percent(12) || card.kept.apps.is_empty() {
        return Op::Select(dice.pick(&[0, 0, 0, AIDS[4], AIDS[5], 0x40_4040]));
    }
    let app = dice.below(card.kept.apps.len() as u32);
    Op::Select(card.kept.apps[app as usize].aid)
}

fn authenticate(dice: &mut Dice, card: &Card, reader: &Reader) -> Op {
    let keys = match card.kept.app(reader.selected) {
        Some(app) => app.keys.clone(),
        None => vec![card.kept.picc_key],
    };
    let key_no = match dice.below(10) {
        0..5 => 0,
        5..8 => 1,
        8 => 2,
        _ => dice.range(0, 5) as u8,
    };
    let key_no = if usize::from(key_no) >= keys.len() && dice.percent(90) {
        dice.below(keys.len() as u32) as u8
    } else {
        key_no
    };
    with_key(dice, &keys, key_no)
}

/// Authenticates with a key of the level, mostly the right way.
fn with_key(dice: &mut Dice, keys: &[KeyId], key_no: u8) -> Op {
    let stored = keys.get(usize::from(key_no)).copied();
    let stored = stored.unwrap_or_else(|| dice.pick(keys::AES));
    let key = match dice.below(40) {
        0 => KeyId(dice.below(keys::ALL.into()) as u8),
        1 => dice.pick(keys::of_family(stored.family())),
        _ => stored,
    };
    let scheme = match stored.family() {
        _ if dice.percent(3) => dice.pick(&[AuthScheme::Legacy, AuthScheme::Iso, AuthScheme::Aes]),
        KeyFamily::ThreeKey3Des => AuthScheme::Iso,
        KeyFamily::Aes => AuthScheme::Aes,
        _ => dice.pick(&[AuthScheme::Legacy, AuthScheme::Iso]),
    };
    Op::Authenticate {
        scheme,
        key_no,
        key,
    }
}

fn at_picc_level(dice: &mut Dice, card: &Card, reader: &Reader) -> Op {
    if reader.key.is_none() && dice.percent(45) {
        return authenticate(dice, card, reader);
    }
    if !card.kept.apps.is_empty() && dice.percent(45) {
        return select(dice, card);
    }
    match dice.below(32) {
        0..2 => Op::GetApplicationIds,
        2..4 => Op::GetDfNames,
        4..14 => create_application(dice, card),
        14..17 => Op::DeleteApplication(match dice.below(4) {
            0 => dice.pick(&AIDS),
            _ => {
                let apps = &card.kept.apps;
                apps.get(dice.below(apps.len() as u32) as usize)
                    .map_or(AIDS[0], |app| app.aid)
            }
        }),
        17 => Op::FormatPicc,
        18..20 => change_key_settings(dice, true),
        20 => match dice.below(6) {
            0 => Op::DisableFormat,
            1..3 => Op::EnableRandomId,
            _ => Op::SetAts(dice.below(ops::ATS.len() as u32) as usize),
        },
        21..23 => Op::SetDefaultKey(dice.percent(60)),
        23..25 => Op::ChangePiccKey {
            new: KeyId(dice.below(keys::ALL.into()) as u8),
        },
        25..27 => Op::ChangeKeyInUse {
            new: dice.pick(keys::of_family(card.kept.picc_key.family())),
        },
        27 => Op::ChangeKey {
            key_no: dice.below(2) as u8,
            old: card.kept.picc_key,
            new: dice.pick(keys::of_family(card.kept.picc_key.family())),
        },
        // What belongs into an application.
        28 => dice.pick(&[Op::Commit, Op::Abort, Op::GetFileIds, Op::GetIsoFileIds]),
        29 => Op::GetFileSettings(0),
        30 => Op::ReadToEnd {
            no: 0,
            offset: 0,
            room: 64,
        },
        _ => authenticate(dice, card, reader),
    }
}

fn create_application(dice: &mut Dice, card: &Card) -> Op {
    let named = dice.percent(35);
    let fid = if dice.percent(3) {
        0x3F00
    } else {
        dice.pick(&FIDS)
    };
    let mut info = info(dice);
    if dice.percent(4) {
        info = dice.pick(&[0x0F, 0xC1, 0x8F]);
    }
    let mut aid = dice.pick(&AIDS);
    if card.kept.apps.len() > 20 {
        aid = 0x78_0000 + dice.below(100);
    }
    Op::CreateApplication {
        aid,
        settings: settings(dice),
        info,
        fid: named.then_some(fid),
        name: (named && dice.percent(60)).then(|| dice.pick(&NAMES)),
    }
}

fn change_key_settings(dice: &mut Dice, picc: bool) -> Op {
    let settings = if picc { flags(dice) } else { settings(dice) };
    let freezes = settings & 9 != 9;
    Op::ChangeKeySettings {
        settings,
        freeze: dice.percent(if freezes { 60 } else { 20 }),
    }
}

/// Sometimes a mode, right or wrong.
fn stated(dice: &mut Dice) -> Option<CommMode> {
    dice.percent(4).then(|| dice.pick(&MODES))
}

fn data(dice: &mut Dice, len: u32) -> Data {
    Data {
        seed: dice.byte(),
        len: len as usize,
    }
}

/// An offset and a length, mostly within `size`.
fn within(dice: &mut Dice, size: u32) -> (u32, u32) {
    match dice.below(20) {
        0 => (size, 1),
        1 => (0, size + 1),
        2 => (dice.below(size + 3), dice.range(0, 4)),
        3..8 => (0, size),
        _ => {
            let offset = dice.below(size);
            (offset, dice.range(1, size - offset))
        }
    }
}

fn in_application(dice: &mut Dice, card: &Card, app: &App, reader: &Reader) -> Op {
    if app.keys.is_empty() && dice.percent(40) {
        return select(dice, card);
    }
    if reader.key.is_none() && dice.percent(if app.keys.is_empty() { 5 } else { 35 }) {
        return authenticate(dice, card, reader);
    }
    let any_file = |dice: &mut Dice| match app.files.len() as u32 {
        0 => dice.below(8) as u8,
        count if dice.percent(95) => app.files[dice.below(count) as usize].no,
        _ => dice.below(32) as u8,
    };
    if !card.pending.is_empty() && dice.percent(22) {
        return dice.weigh(&[
            (8, Op::Commit),
            (6, Op::Guarded { commit: true }),
            (1, Op::Abort),
            (1, Op::Guarded { commit: false }),
            (1, Op::DropGuard),
        ]);
    }
    match dice.below(100) {
        0..6 => authenticate(dice, card, reader),
        6 => Op::Commit,
        7 => Op::Abort,
        8 => Op::Guarded {
            commit: dice.percent(50),
        },
        // Several on one file.
        9..22 if !app.files.is_empty() => {
            let last = card.pending.keys().next_back();
            let file = last.and_then(|no| app.file(*no)).unwrap_or(&app.files[0]);
            allowed(dice, card, app, file, reader)
        }
        22 => Op::GetFileIds,
        23 => Op::GetIsoFileIds,
        24..27 => Op::GetFileSettings(any_file(dice)),
        27..34 if app.files.len() < 6 => create_file(dice, app),
        27..29 => create_file(dice, app),
        34 => Op::DeleteFile(any_file(dice)),
        35 => change_key_settings(dice, false),
        36..38 => Op::ChangeFileSettings {
            no: any_file(dice),
            comm: dice.weigh(&[(3, 0), (3, 1), (3, 3), (1, 2), (1, 4)]),
            rights: rights(dice),
            // Settings travel enciphered or plain; there is no MACed form.
            stated: stated(dice).filter(|mode| *mode != CommMode::Mac),
        },
        38..41 => {
            let key_no = dice.below(u32::from(app.info & 0xF) + 1).min(13) as u8;
            let family = app.family();
            let stored = app.keys.get(usize::from(key_no)).copied();
            let old = if dice.percent(85) { stored } else { None };
            let other = dice.percent(3);
            Op::ChangeKey {
                key_no,
                old: old.unwrap_or_else(|| dice.pick(keys::of_family(family))),
                new: if other {
                    KeyId(dice.below(keys::ALL.into()) as u8)
                } else {
                    dice.pick(keys::of_family(family))
                },
            }
        }
        41..43 => Op::ChangeKeyInUse {
            new: if dice.percent(90) {
                dice.pick(keys::of_family(app.family()))
            } else {
                KeyId(dice.below(keys::ALL.into()) as u8)
            },
        },
        43 if dice.percent(30) => Op::DeleteThisApplication,
        // What belongs to the PICC level.
        43 => dice.pick(&[
            Op::GetApplicationIds,
            Op::GetDfNames,
            Op::FormatPicc,
            Op::DeleteApplication(AIDS[0]),
            Op::ChangePiccKey { new: KeyId(10) },
            Op::EnableRandomId,
        ]),
        44 => create_application(dice, card),
        _ => match app.files.len() as u32 {
            0 => create_file(dice, app),
            count => {
                let file = &app.files[dice.below(count) as usize];
                if dice.percent(3) {
                    // One that is not there, or not any more, or of another type.
                    let no = dice.below(8) as u8;
                    return on_file(dice, card, &File { no, ..file.clone() });
                }
                allowed(dice, card, app, file, reader)
            }
        },
    }
}

fn create_file(dice: &mut Dice, app: &App) -> Op {
    let what = if dice.percent(12) {
        bad_file(dice)
    } else {
        new_file(dice)
    };
    let fid = match what {
        NewFile::Value { .. } => None,
        _ if app.info & 0x20 != 0 => dice.percent(60).then(|| dice.pick(&FIDS)),
        _ => dice.percent(5).then(|| dice.pick(&FIDS)),
    };
    let no = dice.below(8) as u8;
    Op::CreateFile {
        no: if dice.percent(95) { no } else { 31 },
        fid,
        mode: dice.pick(&MODES),
        rights: rights(dice),
        what,
    }
}

/// Something with a file; if the key in use may not do it, rather a handshake with one that may.
fn allowed(dice: &mut Dice, card: &Card, app: &App, file: &File, reader: &Reader) -> Op {
    let op = on_file(dice, card, file);
    let key = reader.key.map(|(key_no, _)| key_no);
    if op.file_access().is_none() || mode_of(file, key, &op).is_some() || dice.percent(25) {
        return op;
    }
    let keys = 0..app.keys.len() as u8;
    match keys
        .into_iter()
        .find(|key| mode_of(file, Some(*key), &op).is_some())
    {
        Some(key_no) => with_key(dice, &app.keys, key_no),
        None => on_file(dice, card, file),
    }
}

/// What fits the file's type, most of the time.
fn on_file(dice: &mut Dice, card: &Card, file: &File) -> Op {
    let no = file.no;
    let stated = stated(dice);
    if dice.percent(4) {
        let data = data(dice, 3);
        return dice.pick(&[
            Op::ReadData {
                no,
                offset: 0,
                len: 1,
                stated,
            },
            Op::WriteData {
                no,
                offset: 0,
                data,
                stated,
            },
            Op::WriteRecord {
                no,
                offset: 0,
                data,
                stated,
            },
            Op::ReadAllRecords {
                no,
                first: 0,
                room: 400,
            },
            Op::ClearRecordFile(no),
            Op::GetValue { no, stated },
            Op::ChangeValue {
                change: Change::Debit,
                no,
                amount: 1,
                stated,
            },
        ]);
    }
    match &file.body {
        Body::Standard(content) | Body::Backup(content) => {
            let size = content.len() as u32;
            let (offset, len) = within(dice, size);
            match dice.below(10) {
                0..3 => Op::ReadData {
                    no,
                    offset,
                    len,
                    stated,
                },
                3 => Op::ReadToEnd {
                    no,
                    offset,
                    room: if dice.percent(90) {
                        400
                    } else {
                        dice.range(1, 30) as usize
                    },
                },
                _ => Op::WriteData {
                    no,
                    offset,
                    data: data(dice, len),
                    stated,
                },
            }
        }
        Body::Value {
            lower,
            upper,
            value,
            budget,
            ..
        } => {
            let change = dice.pick(&[
                Change::Credit,
                Change::Debit,
                Change::Debit,
                Change::LimitedCredit,
            ]);
            if dice.percent(25) {
                return Op::GetValue { no, stated };
            }
            let running = match card.pending.get(&no) {
                Some(super::card::Pending::Value { value, .. }) => *value,
                _ => *value,
            };
            let room = match change {
                Change::Credit => i64::from(*upper) - i64::from(running),
                Change::Debit => i64::from(running) - i64::from(*lower),
                Change::LimitedCredit => i64::from(*budget),
            };
            let edge = room.clamp(0, i32::MAX.into()) as i32;
            let amount = match dice.below(12) {
                0 => edge,
                1 => edge.saturating_add(1),
                2 => edge / 2,
                3 => 0,
                4 if dice.percent(20) => i32::MAX,
                5..9 if change == Change::LimitedCredit => {
                    dice.range(0, edge.min(25) as u32) as i32
                }
                _ => dice.range(1, 25) as i32,
            };
            Op::ChangeValue {
                change,
                no,
                amount,
                stated,
            }
        }
        Body::Records {
            record_size, list, ..
        } => {
            let there = list.len() as u32;
            match dice.below(12) {
                0..2 => {
                    let first = dice.below(there + 1);
                    let least = u32::from(!dice.percent(10));
                    Op::ReadRecords {
                        no,
                        first,
                        count: dice.range(least, (there - first).max(1)),
                        record_size: if dice.percent(96) {
                            *record_size
                        } else {
                            record_size + 1 - dice.below(3).min(*record_size)
                        },
                        stated,
                    }
                }
                2..4 => Op::ReadAllRecords {
                    no,
                    first: dice.weigh(&[(6, 0), (2, 1), (1, there)]),
                    room: if dice.percent(92) { 700 } else { 10 },
                },
                4 => Op::ClearRecordFile(no),
                _ => {
                    let (offset, len) = within(dice, *record_size);
                    Op::WriteRecord {
                        no,
                        offset,
                        data: data(dice, len),
                        stated,
                    }
                }
            }
        }
    }
}

fn odd(dice: &mut Dice, card: &Card, reader: &Reader) -> Op {
    let in_application = reader.selected != 0;
    let no = card
        .kept
        .app(reader.selected)
        .and_then(|app| app.files.first())
        .map_or(0, |file| file.no);
    let lengths = if in_application {
        ops::WRONG_LENGTHS_APPLICATION
    } else {
        ops::WRONG_LENGTHS_PICC
    };
    let levels = if in_application {
        ops::PICC_ONLY
    } else {
        ops::APPLICATION_ONLY
    };
    Op::Odd(match dice.below(12) {
        0 => Odd::UnknownCommand(dice.pick(&[0x3C, 0xC6, 0xC9, 0xAD, 0x8D, 0x01, 0xFF])),
        1..3 => Odd::WrongLevel(dice.pick(levels).0),
        3..5 => {
            let (code, len) = dice.pick(lengths);
            Odd::WrongLength(code, len)
        }
        5 => {
            let (code, len) = dice.pick(ops::WRONG_LENGTHS_ANY);
            Odd::WrongLength(code, len)
        }
        6 => Odd::KeyNumber(dice.range(14, 63) as u8),
        7..9 => Odd::FileNumber(dice.pick(ops::ON_FILES).0, dice.range(32, 255) as u8),
        9 if in_application => {
            let code = desfire_ev1::wire::CommandCode::WriteData;
            Odd::EmptyWrite(code, no)
        }
        10 if in_application => {
            let change = dice.pick(&[Change::Credit, Change::Debit, Change::LimitedCredit]);
            Odd::NegativeAmount(change, no, -(dice.range(1, 9) as i32))
        }
        9 => Odd::CreateAidZero,
        _ => Odd::DeleteAidZero,
    })
}

/// Reads everything that can be read, so that the library shows what the card holds.
pub(crate) fn audit(card: &Card) -> Vec<Op> {
    let kept = &card.kept;
    let mut ops = vec![Op::Activate, Op::GetVersion, Op::FreeMem];
    let master = |key: KeyId| Op::Authenticate {
        scheme: match key.family() {
            KeyFamily::Aes => AuthScheme::Aes,
            _ => AuthScheme::Iso,
        },
        key_no: 0,
        key,
    };
    ops.push(master(kept.picc_key));
    ops.extend([
        Op::GetKeySettings,
        Op::GetKeyVersion(0),
        Op::GetApplicationIds,
        Op::GetDfNames,
        Op::GetCardUid,
    ]);
    for app in &kept.apps {
        ops.push(Op::Select(app.aid));
        ops.extend((0..app.info & 0xF).map(Op::GetKeyVersion));
        // Files that everybody may read, then key by key.
        let mut unread: Vec<&File> = app.files.iter().collect();
        let mut read = |key: Option<u16>, ops: &mut Vec<Op>| {
            unread.retain(|file| {
                let readers = [file.rights >> 12 & 0xF, file.rights >> 4 & 0xF];
                let may = readers
                    .iter()
                    .any(|right| *right == 0xE || Some(*right) == key);
                if !may {
                    return true;
                }
                let no = file.no;
                ops.push(match &file.body {
                    Body::Standard(_) | Body::Backup(_) => Op::ReadToEnd {
                        no,
                        offset: 0,
                        room: file_room(file),
                    },
                    Body::Value { .. } => Op::GetValue { no, stated: None },
                    Body::Records { list, .. } if list.is_empty() => return false,
                    Body::Records { .. } => Op::ReadAllRecords {
                        no,
                        first: 0,
                        room: file_room(file),
                    },
                });
                false
            });
        };
        if app.settings & 2 != 0 {
            read(None, &mut ops);
        }
        for (key_no, key) in app.keys.iter().enumerate() {
            // Without key 0 only free listings tell the files' modes.
            if key_no > 0 && (app.settings & 2 == 0 || key_no > 3) {
                continue;
            }
            let mut authenticate = master(*key);
            if let Op::Authenticate { key_no: no, .. } = &mut authenticate {
                *no = key_no as u8;
            }
            ops.push(authenticate);
            if key_no == 0 {
                ops.extend([Op::GetKeySettings, Op::GetFileIds]);
                if app.files.iter().any(|file| file.fid.is_some()) {
                    ops.push(Op::GetIsoFileIds);
                }
                ops.extend(app.files.iter().map(|file| Op::GetFileSettings(file.no)));
            }
            read(Some(key_no as u16), &mut ops);
        }
    }
    ops
}

fn file_room(file: &File) -> usize {
    match &file.body {
        Body::Standard(data) | Body::Backup(data) => data.len(),
        Body::Value { .. } => 4,
        Body::Records {
            record_size, list, ..
        } => list.len() * *record_size as usize,
    }
}
