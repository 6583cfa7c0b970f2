//! What a card is to look like: plain data, without a single key in it.
//!
//! For: saying everything that CreateApplication, the Create commands, ChangeKey and SetConfiguration
//! will be told. May know: wire values. May not: hold keys (they are named), know a card.

use alloc::string::String;
use alloc::vec::Vec;

use crate::wire::{
    Access, AccessRights, Aid, CommMode, DfName, FileDetail, FileNo, IsoFileId, KeyFamily, KeyNo,
    KeySettings, U24, ValueFlags,
};

/// The rights under which a file with content is filled, before it gets its own: read never, write
/// never, read & write and change key 0.
///
/// On a card they are the mark of a file whose content may not be complete, so no layout may ask
/// for them. (Read and write key 0 say the same.)
pub const FILLING: AccessRights = AccessRights {
    read: Access::Never,
    write: Access::Never,
    read_write: Access::Key(KeyNo::MASTER),
    change: Access::Key(KeyNo::MASTER),
};

/// Memory of the three EV1 cards as delivered, in bytes: what FreeMem says (proxmark3, Elmue).
pub mod storage {
    /// MF3ICD21.
    pub const EV1_2K: u32 = 2304;
    /// MF3ICD41.
    pub const EV1_4K: u32 = 4864;
    /// MF3ICD81.
    pub const EV1_8K: u32 = 7936;
}

/// A key by its name: which key, of which generation, and whether each card has its own.
///
/// The version is the byte that GetKeyVersion tells; it tells the generations of a key apart on the
/// card. A diversified key is made with AN10922 from `UID ‖ AID ‖ system identifier`, the AID in
/// the order in which it is written (000000 for keys of the PICC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// What the key store calls it.
    pub name: String,
    /// Version, which is the generation.
    pub version: u8,
    /// Whether every card has its own.
    pub diversified: bool,
}

impl KeyRef {
    /// A key that is the same on all cards.
    pub fn same(name: impl Into<String>, version: u8) -> Self {
        Self {
            name: name.into(),
            version,
            diversified: false,
        }
    }

    /// A key of which every card has its own.
    pub fn diversified(name: impl Into<String>, version: u8) -> Self {
        Self {
            diversified: true,
            ..Self::same(name, version)
        }
    }
}

impl core::fmt::Display for KeyRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "'{}' version {}", self.name, self.version)
    }
}

/// A key of the card: what it is to be, and what it may still be on cards issued earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// What it is to be.
    pub key: KeyRef,
    /// What it may be now. All are tried, and replaced. Contents under such a key are not looked at: a
    /// key that anybody knows belongs here only if cards are in use with it.
    pub older: Vec<KeyRef>,
}

impl From<KeyRef> for KeySlot {
    fn from(key: KeyRef) -> Self {
        Self {
            key,
            older: Vec::new(),
        }
    }
}

impl KeySlot {
    /// With one more key that it may be now.
    #[must_use]
    pub fn or_older(mut self, older: KeyRef) -> Self {
        self.older.push(older);
        self
    }
}

/// A whole card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For people.
    pub name: String,
    /// The memory that it must fit into, in bytes, as FreeMem of an empty card tells it; see
    /// [`storage`].
    pub storage: u32,
    /// Third part of the input of every diversification; may be empty.
    pub system_id: Vec<u8>,
    /// The card itself.
    pub picc: PiccLayout,
    /// The applications, in the order in which they are created.
    pub applications: Vec<ApplicationLayout>,
}

impl Layout {
    /// All keys that it names, older ones and the manufacturer's included, in no order to rely on; a
    /// key that is named twice comes twice.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRef> {
        let slots = self.applications.iter().flat_map(|app| &app.keys);
        let slots = [&self.picc.key].into_iter().chain(slots);
        slots
            .flat_map(|slot| [&slot.key].into_iter().chain(&slot.older))
            .chain(&self.picc.transport)
            .chain(&self.picc.default_key)
    }
}

/// The card itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PiccLayout {
    /// The PICC master key. It may be of any type.
    pub key: KeySlot,
    /// With which keys cards come from the manufacturer, besides the zero DES key.
    pub transport: Vec<KeyRef>,
    /// What all keys of new applications start with. Without it they start as zeros, which is a weakness of
    /// cards that are torn and never finished: see the limits of [`crate::provision`].
    pub default_key: Option<KeyRef>,
    /// Key settings, in force when all is done.
    pub settings: KeySettings,
    /// Show a random UID. For ever.
    pub random_id: bool,
    /// Disable FormatPICC. For ever.
    pub disable_format: bool,
    /// Another ATS, with its length first.
    pub ats: Option<Vec<u8>>,
}

impl PiccLayout {
    /// A card with this master key, and else as delivered.
    #[must_use]
    pub fn new(key: impl Into<KeySlot>) -> Self {
        Self {
            key: key.into(),
            transport: Vec::new(),
            default_key: None,
            settings: KeySettings::DEFAULT,
            random_id: false,
            disable_format: false,
            ats: None,
        }
    }
}

/// An application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationLayout {
    /// For people; may be empty.
    pub name: String,
    /// Its AID.
    pub aid: Aid,
    /// Its ISO FID.
    pub iso_file_id: Option<IsoFileId>,
    /// Its DF name; needs an ISO FID.
    pub df_name: Option<DfName>,
    /// The type of all its keys.
    pub family: KeyFamily,
    /// Its keys, the master key first: 1 to 14.
    pub keys: Vec<KeySlot>,
    /// Key settings, in force when all is done.
    pub settings: KeySettings,
    /// Its files, in the order in which they are created.
    pub files: Vec<FileLayout>,
}

impl ApplicationLayout {
    /// An application without files, all settings as on delivery.
    #[must_use]
    pub fn new(aid: Aid, family: KeyFamily, keys: Vec<KeySlot>) -> Self {
        Self {
            name: String::new(),
            aid,
            iso_file_id: None,
            df_name: None,
            family,
            keys,
            settings: KeySettings::DEFAULT,
            files: Vec::new(),
        }
    }

    /// Whether its files may have ISO FIDs.
    #[must_use]
    pub fn has_iso_files(&self) -> bool {
        self.files.iter().any(|file| file.iso_file_id.is_some())
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLayout {
    /// Its number.
    pub number: FileNo,
    /// Its ISO FID; not for value files.
    pub iso_file_id: Option<IsoFileId>,
    /// How its data travel.
    pub mode: CommMode,
    /// Who may do what; anything but [`FILLING`].
    pub rights: AccessRights,
    /// Its type, size and content.
    pub kind: FileKind,
}

/// Type, size and initial content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Standard data.
    Standard {
        /// Bytes.
        size: u32,
        /// From the first byte on; the rest is zero.
        content: Vec<u8>,
    },
    /// Backup data.
    Backup {
        /// Bytes.
        size: u32,
        /// From the first byte on; the rest is zero.
        content: Vec<u8>,
    },
    /// A value.
    Value {
        /// The least it may be.
        lower: i32,
        /// The most it may be.
        upper: i32,
        /// What it is at first.
        value: i32,
        /// LimitedCredit and free GetValue.
        flags: ValueFlags,
    },
    /// Linear records.
    Linear(RecordsLayout),
    /// Cyclic records, of which one fewer than `max_records` can be read.
    Cyclic(RecordsLayout),
}

/// Sizes and first records of a record file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsLayout {
    /// Bytes of a record.
    pub record_size: u32,
    /// How many records.
    pub max_records: u32,
    /// The records that are there at first, oldest first; what is short is filled with zeros.
    pub records: Vec<Vec<u8>>,
}

impl FileLayout {
    /// Whether something has to be written into it after it has been created.
    #[must_use]
    pub fn has_content(&self) -> bool {
        match &self.kind {
            FileKind::Standard { content, .. } | FileKind::Backup { content, .. } => {
                !content.is_empty()
            }
            FileKind::Value { .. } => false,
            FileKind::Linear(records) | FileKind::Cyclic(records) => !records.records.is_empty(),
        }
    }

    /// What GetFileSettings tells of it after its creation, besides mode and rights. Sizes beyond
    /// 24 bits, which no layout that has been checked has, count as the greatest.
    #[must_use]
    pub(super) fn detail(&self) -> FileDetail {
        match &self.kind {
            FileKind::Standard { size, .. } => FileDetail::StandardData { size: u24(*size) },
            FileKind::Backup { size, .. } => FileDetail::BackupData { size: u24(*size) },
            FileKind::Value {
                lower,
                upper,
                flags,
                ..
            } => FileDetail::Value {
                lower: *lower,
                upper: *upper,
                limited_credit: 0,
                flags: *flags,
            },
            FileKind::Linear(records) => FileDetail::LinearRecord {
                record_size: u24(records.record_size),
                max_records: u24(records.max_records),
                current_records: U24::ZERO,
            },
            FileKind::Cyclic(records) => FileDetail::CyclicRecord {
                record_size: u24(records.record_size),
                max_records: u24(records.max_records),
                current_records: U24::ZERO,
            },
        }
    }
}

pub(super) fn u24(number: u32) -> U24 {
    const GREATEST: U24 = U24::from_bytes([0xFF; 3]);
    U24::new(number).unwrap_or(GREATEST)
}
