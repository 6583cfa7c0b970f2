//! A card that uses everything: the layout that the tests of `provision` issue, and its keys.

#![allow(dead_code, reason = "each test uses a part of it")]

use desfire_ev1::picc::Card;
use desfire_ev1::provision::{
    ApplicationLayout, FileKind, FileLayout, KeyRef, KeySlot, Layout, MemoryKeys, PiccLayout,
    RecordsLayout, storage,
};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, ChangeKeyAccess, CommMode, DfName, FileNo, IsoFileId, KeyFamily,
    KeyFlags, KeyNo, KeySettings, Uid, ValueFlags,
};
use desfire_ev1::{Key, VirtualReader};

pub(crate) const UID: Uid = Uid([0x04, 0x51, 0x7A, 0x0E, 0x22, 0x6B, 0x80]);

/// The generations: the layout's version is the generation.
pub(crate) const OLD: u8 = 1;
pub(crate) const NEW: u8 = 2;

/// Applications by the place in the layout.
pub(crate) const AIDS: [u32; 3] = [0xF51A10, 0xF51A20, 0xF51A30];
const FAMILIES: [KeyFamily; 3] = [KeyFamily::Des, KeyFamily::ThreeKey3Des, KeyFamily::Aes];
const KEYS: usize = 4;

pub(crate) fn reader() -> VirtualReader {
    VirtualReader::new(Card::new(UID))
}

fn key_no(number: u8) -> KeyNo {
    KeyNo::new(number).unwrap()
}

fn key(number: u8) -> Access {
    Access::Key(key_no(number))
}

/// The bytes of a key; whatever differs between two keys differs in its bytes.
fn bytes(name: &str, generation: u8) -> [u8; 24] {
    let seed = name
        .bytes()
        .fold(0x1F_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    core::array::from_fn(|i| {
        (i as u8)
            .wrapping_mul(0x3D)
            .wrapping_add(seed)
            .wrapping_add(generation.wrapping_mul(0x57))
            ^ seed.rotate_left(i as u32 % 8)
    })
}

fn key_of(family: KeyFamily, name: &str, generation: u8) -> Key {
    let bytes = bytes(name, generation);
    let sixteen = *bytes.first_chunk().unwrap();
    match family {
        KeyFamily::Aes => Key::aes(sixteen),
        KeyFamily::ThreeKey3Des => Key::three_key_3des(bytes),
        _ => Key::two_key_3des(sixteen).unwrap(),
    }
}

/// Names and families of all keys that have generations.
fn names() -> Vec<(String, KeyFamily)> {
    let mut names = vec![("picc".to_owned(), KeyFamily::Aes)];
    for (app, family) in FAMILIES.into_iter().enumerate() {
        for number in 0..KEYS {
            names.push((format!("app {app} key {number}"), family));
        }
    }
    names
}

pub(crate) fn keys() -> MemoryKeys {
    let mut keys = MemoryKeys::new()
        .with("transport", 0, key_of(KeyFamily::Des, "transport", 0))
        .with("birth", 0x0D, key_of(KeyFamily::ThreeKey3Des, "birth", 0));
    for (name, family) in names() {
        for generation in [OLD, NEW] {
            keys.insert(name.clone(), generation, key_of(family, &name, generation));
        }
    }
    keys
}

/// All key bytes that must never be seen, named.
pub(crate) fn secrets() -> Vec<(String, Vec<u8>)> {
    let mut secrets = Vec::new();
    for (name, family) in names() {
        for generation in [OLD, NEW] {
            let bytes = bytes(&name, generation)[..family.key_len()].to_vec();
            secrets.push((format!("{name} {generation}"), bytes));
        }
    }
    secrets
}

fn slot(name: &str, generation: u8, diversified: bool) -> KeySlot {
    let of = |version| KeyRef {
        name: name.to_owned(),
        version,
        diversified,
    };
    let slot = KeySlot::from(of(generation));
    if generation == NEW {
        slot.or_older(of(OLD))
    } else {
        slot
    }
}

fn file(
    number: u8,
    iso: Option<u16>,
    mode: CommMode,
    rights: [Access; 4],
    kind: FileKind,
) -> FileLayout {
    let [read, write, read_write, change] = rights;
    FileLayout {
        number: FileNo::new(number).unwrap(),
        iso_file_id: iso.map(IsoFileId),
        mode,
        rights: AccessRights {
            read,
            write,
            read_write,
            change,
        },
        kind,
    }
}

fn text(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7) ^ seed).collect()
}

/// The five types, each with what is awkward about it: nobody may write, nobody may change, content
/// of several frames, several first records, a file without content.
fn files(app: u8) -> Vec<FileLayout> {
    let iso = |number: u16| (app == 1).then_some(0xEF00 + number);
    let never = Access::Never;
    vec![
        file(
            0,
            iso(1),
            CommMode::Enciphered,
            [key(1), never, never, never],
            FileKind::Standard {
                size: 200,
                content: text(150, app),
            },
        ),
        file(
            1,
            iso(2),
            CommMode::Mac,
            [key(1), key(2), never, key(3)],
            FileKind::Backup {
                size: 48,
                content: text(48, app ^ 0x40),
            },
        ),
        file(
            2,
            None,
            CommMode::Enciphered,
            [key(1), never, key(2), never],
            FileKind::Value {
                lower: 0,
                upper: 50_000,
                value: 1234,
                flags: ValueFlags::LIMITED_CREDIT,
            },
        ),
        file(
            3,
            None,
            CommMode::Plain,
            [Access::Free, never, key(2), key(0)],
            FileKind::Linear(RecordsLayout {
                record_size: 16,
                max_records: 4,
                records: vec![text(16, 1), text(9, 2)],
            }),
        ),
        file(
            4,
            iso(3),
            CommMode::Mac,
            [key(1), key(2), never, key(0)],
            FileKind::Cyclic(RecordsLayout {
                record_size: 12,
                max_records: 4,
                records: vec![text(12, 3), text(12, 4), text(3, 5)],
            }),
        ),
        file(
            5,
            None,
            CommMode::Plain,
            [Access::Free, Access::Free, never, never],
            FileKind::Standard {
                size: 32,
                content: Vec::new(),
            },
        ),
    ]
}

/// A layout with keys of one generation. The three applications differ in how keys are changed and
/// what is frozen.
pub(crate) fn layout(generation: u8) -> Layout {
    let settings = [
        KeySettings {
            flags: KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::FREE_LISTING,
            change_key: ChangeKeyAccess::MasterKey,
        },
        KeySettings {
            flags: KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE,
            change_key: ChangeKeyAccess::Key(key_no(3)),
        },
        KeySettings {
            flags: KeyFlags::MASTER_KEY_CHANGEABLE,
            change_key: ChangeKeyAccess::SameKey,
        },
    ];
    let applications = (0..3_u8)
        .map(|app| {
            let index = usize::from(app);
            let keys = (0..KEYS)
                // Key 3 of the third application is the same on all cards: it tells the UID.
                .map(|number| {
                    let shared = index == 2 && number == 3;
                    slot(&format!("app {app} key {number}"), generation, !shared)
                })
                .collect();
            let mut layout =
                ApplicationLayout::new(Aid::new(AIDS[index]).unwrap(), FAMILIES[index], keys);
            layout.name = ["canteen", "door", "library"][index].to_owned();
            layout.settings = settings[index];
            layout.files = files(app);
            if app == 1 {
                layout.iso_file_id = Some(IsoFileId(0xDF01));
                layout.df_name = DfName::new(b"campus.door").ok();
            }
            layout
        })
        .collect();
    let mut picc = PiccLayout::new(slot("picc", generation, true));
    picc.transport = vec![KeyRef::same("transport", 0)];
    picc.default_key = Some(KeyRef::same("birth", 0x0D));
    picc.settings.flags = KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::FREE_LISTING;
    picc.random_id = true;
    picc.disable_format = true;
    picc.ats = Some(vec![0x06, 0x75, 0x77, 0x81, 0x02, 0x80]);
    Layout {
        name: "campus card".to_owned(),
        storage: storage::EV1_8K,
        system_id: b"CAMP1".to_vec(),
        picc,
        applications,
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}
