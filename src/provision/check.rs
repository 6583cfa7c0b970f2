//! Whether a layout can be brought onto a card at all, found out before one is touched.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use super::layout::{
    ApplicationLayout, FILLING, FileKind, FileLayout, KeyRef, KeySlot, Layout, PiccLayout,
    RecordsLayout,
};
use super::memory;
use crate::wire::{
    Access, ChangeKeyAccess, IsoFileId, KeyFamily, KeyFlags, KeyInfo, U24, ValueFlags,
};

const MAX_APPLICATIONS: usize = 28;
const MAX_FILES: usize = 32;
/// Nobody reads more, and each may be long.
pub(super) const MAX_ERRORS: usize = 100;
/// FIDs that neither application nor file may have (proxmark3).
const RESERVED_FILE_IDS: [u16; 4] = [0x0000, 0x3F00, 0x3FFF, 0xFFFF];
/// DF name of the PICC itself.
const PICC_DF_NAME: &[u8] = &[0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x00];
/// UID and AID in the input of a diversification.
const UID_AND_AID: usize = 10;
/// The longest that AN10922 takes: for AES, and for the DES family.
const MAX_INPUT_AES: usize = 31;
const MAX_INPUT_DES: usize = 15;

/// A place in a layout. Applications, keys and files are counted from 0 in the order in which they
/// stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The layout as a whole.
    Layout,
    /// The card itself.
    Picc,
    /// The key settings of the card.
    PiccSettings,
    /// An application.
    Application(usize),
    /// Its key settings.
    Settings(usize),
    /// One of its keys.
    Key(usize, usize),
    /// One of its files.
    File(usize, usize),
    /// The rights of a file.
    Rights(usize, usize),
    /// The content of a file.
    Content(usize, usize),
}

#[cfg(feature = "provision-toml")]
impl Place {
    /// What it is a part of.
    #[cfg(feature = "provision-toml")]
    pub(super) const fn parent(self) -> Option<Self> {
        match self {
            Self::Layout => None,
            Self::Picc | Self::Application(_) => Some(Self::Layout),
            Self::PiccSettings => Some(Self::Picc),
            Self::Settings(app) | Self::Key(app, _) | Self::File(app, _) => {
                Some(Self::Application(app))
            }
            Self::Rights(app, file) | Self::Content(app, file) => Some(Self::File(app, file)),
        }
    }
}

/// What is wrong with a layout, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// Where in the layout.
    pub place: Place,
    /// In words: "application F51A10, file 3".
    pub subject: String,
    /// The line of the text that it was read from, counted from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.subject.is_empty() {
            write!(f, "{}: ", self.subject)?;
        }
        f.write_str(&self.reason)
    }
}

impl core::error::Error for LayoutError {}

/// All that is wrong with a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutErrors(pub Vec<LayoutError>);

impl fmt::Display for LayoutErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl core::error::Error for LayoutErrors {}

impl Layout {
    /// Whether a card can be brought to look like this. Everything that is wrong is told at once, up to
    /// 100 faults.
    ///
    /// # Errors
    /// [`LayoutErrors`]
    pub fn check(&self) -> Result<(), LayoutErrors> {
        let mut check = Check {
            layout: self,
            errors: Vec::new(),
        };
        check.all();
        if check.errors.is_empty() {
            Ok(())
        } else {
            Err(LayoutErrors(check.errors))
        }
    }

    /// What it costs, as far as that can be told beforehand; see [`Layout::storage`].
    #[must_use]
    pub fn memory_needed(&self) -> u64 {
        let files = self.applications.iter().flat_map(|app| &app.files);
        let applications = self.applications.iter().map(memory::application);
        applications
            .chain(files.map(memory::file))
            .fold(0, u64::saturating_add)
    }

    /// A place in words.
    pub(super) fn subject(&self, place: Place) -> String {
        let application = |index: usize| match self.applications.get(index) {
            Some(app) if app.name.is_empty() => format!("application {}", app.aid),
            Some(app) => format!("application {} ({})", app.aid, app.name),
            None => String::new(),
        };
        let file = |app: usize, file: usize| {
            let number = self
                .applications
                .get(app)
                .and_then(|app| app.files.get(file));
            let number = number.map_or(String::new(), |file| file.number.to_string());
            format!("{}, file {number}", application(app))
        };
        match place {
            Place::Layout => String::new(),
            Place::Picc => "PICC".to_string(),
            Place::PiccSettings => "PICC, key settings".to_string(),
            Place::Application(app) => application(app),
            Place::Settings(app) => format!("{}, key settings", application(app)),
            Place::Key(app, key) => format!("{}, key {key}", application(app)),
            Place::File(app, index) => file(app, index),
            Place::Rights(app, index) => format!("{}, rights", file(app, index)),
            Place::Content(app, index) => format!("{}, content", file(app, index)),
        }
    }
}

struct Check<'l> {
    layout: &'l Layout,
    errors: Vec<LayoutError>,
}

impl Check<'_> {
    fn wrong(&mut self, place: Place, reason: impl Into<String>) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        self.errors.push(LayoutError {
            place,
            subject: self.layout.subject(place),
            line: None,
            reason: reason.into(),
        });
    }

    fn all(&mut self) {
        let layout = self.layout;
        self.picc(&layout.picc);
        if layout.applications.len() > MAX_APPLICATIONS {
            self.wrong(Place::Layout, "a card has room for 28 applications");
        }
        for (index, app) in layout.applications.iter().enumerate() {
            self.application(index, app);
        }
        let needed = layout.memory_needed();
        if needed > layout.storage.into() {
            let reason = format!(
                "it needs about {needed} bytes and the card has {}",
                layout.storage
            );
            self.wrong(Place::Layout, reason);
        }
        self.uid_can_be_found();
    }

    fn picc(&mut self, picc: &PiccLayout) {
        self.slot(Place::Picc, &picc.key);
        for key in picc.transport.iter().chain(&picc.default_key) {
            self.reference(Place::Picc, key);
        }
        if picc.settings.change_key != ChangeKeyAccess::MasterKey {
            self.wrong(
                Place::PiccSettings,
                "the card itself has one key only, so that no other can change keys",
            );
        }
        let frozen = !picc
            .settings
            .flags
            .contains(KeyFlags::MASTER_KEY_CHANGEABLE);
        if frozen && !picc.key.older.is_empty() {
            self.wrong(Place::PiccSettings, FROZEN_BUT_OLDER);
        }
        if let Some(ats) = &picc.ats {
            let stated = ats.first().map(|length| usize::from(*length));
            if stated != Some(ats.len()) || !(2..=20).contains(&ats.len()) {
                self.wrong(
                    Place::Picc,
                    "an ATS has 2 to 20 bytes, of which the first is their number",
                );
            }
        }
    }

    fn slot(&mut self, place: Place, slot: &KeySlot) {
        self.reference(place, &slot.key);
        for older in &slot.older {
            self.reference(place, older);
            if older.name == slot.key.name && older.version == slot.key.version {
                self.wrong(
                    place,
                    format!("the older key has the name and version of the new one: {older}"),
                );
            }
        }
    }

    fn reference(&mut self, place: Place, key: &KeyRef) {
        if key.name.is_empty() {
            self.wrong(place, "a key without a name");
        }
        if key.diversified && self.layout.system_id.len() + UID_AND_AID > MAX_INPUT_AES {
            self.wrong(place, "the system identifier is too long: 21 bytes at most");
        }
    }

    fn application(&mut self, index: usize, app: &ApplicationLayout) {
        let place = Place::Application(index);
        let before = self.layout.applications.get(..index).unwrap_or_default();
        if app.aid.is_picc() {
            self.wrong(place, "AID 000000 is the card itself");
        }
        if before.iter().any(|other| other.aid == app.aid) {
            self.wrong(place, "another application has this AID");
        }
        if let Some(id) = app.iso_file_id {
            self.file_id(place, id);
            if before.iter().any(|other| other.iso_file_id == Some(id)) {
                self.wrong(place, format!("another application has the ISO FID {id}"));
            }
        }
        if let Some(name) = &app.df_name {
            if app.iso_file_id.is_none() {
                self.wrong(place, "a DF name needs an ISO FID");
            }
            if name.as_bytes() == PICC_DF_NAME {
                self.wrong(place, "this is the DF name of the card itself");
            }
            if before
                .iter()
                .any(|other| other.df_name.as_ref() == Some(name))
            {
                self.wrong(place, "another application has this DF name");
            }
        }
        if app.family == KeyFamily::Unknown {
            self.wrong(place, "keys of unknown type");
        }
        if app.keys.is_empty() || app.keys.len() > usize::from(KeyInfo::MAX_KEYS) {
            self.wrong(place, "an application has 1 to 14 keys");
        }
        for (number, slot) in app.keys.iter().enumerate() {
            self.slot(Place::Key(index, number), slot);
            let input = self.layout.system_id.len() + UID_AND_AID;
            let diversified = slot.older.iter().any(|key| key.diversified) || slot.key.diversified;
            if diversified && app.family != KeyFamily::Aes && input > MAX_INPUT_DES {
                self.wrong(
                    Place::Key(index, number),
                    "diversification of DES-family keys takes a system identifier of 5 bytes at most",
                );
            }
        }
        self.settings(index, app);
        if app.files.len() > MAX_FILES {
            self.wrong(place, "an application has room for 32 files");
        }
        for (number, file) in app.files.iter().enumerate() {
            self.file(index, number, app, file);
        }
    }

    /// Settings that would stop what the layout itself asks for.
    fn settings(&mut self, index: usize, app: &ApplicationLayout) {
        let place = Place::Settings(index);
        let has_older = |slot: &KeySlot| !slot.older.is_empty();
        let master_has_older = app.keys.first().is_some_and(has_older);
        let others_have_older = app.keys.iter().skip(1).any(has_older);
        let changeable = app.settings.flags.contains(KeyFlags::SETTINGS_CHANGEABLE);
        if master_has_older && !app.settings.flags.contains(KeyFlags::MASTER_KEY_CHANGEABLE) {
            self.wrong(place, FROZEN_BUT_OLDER);
        }
        match app.settings.change_key {
            ChangeKeyAccess::Key(key) if usize::from(key.number()) >= app.keys.len() => {
                let reason = format!("keys are changed with key {key}, which does not exist");
                self.wrong(place, reason);
            }
            ChangeKeyAccess::Key(key) if !changeable => {
                let slot = app.keys.get(usize::from(key.number()));
                if slot.is_some_and(has_older) {
                    let reason = format!(
                        "key {key} is to be replaced, but with settings frozen like this it is not sure that a card lets it be changed"
                    );
                    self.wrong(place, reason);
                }
            }
            ChangeKeyAccess::Frozen if !changeable && others_have_older => {
                self.wrong(place, FROZEN_BUT_OLDER);
            }
            _ => {}
        }
    }

    fn file_id(&mut self, place: Place, id: IsoFileId) {
        if RESERVED_FILE_IDS.contains(&id.0) {
            self.wrong(place, format!("the ISO FID {id} is reserved"));
        }
    }

    fn file(&mut self, app_index: usize, index: usize, app: &ApplicationLayout, file: &FileLayout) {
        let place = Place::File(app_index, index);
        let before = app.files.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.number == file.number) {
            self.wrong(place, "another file has this number");
        }
        if let Some(id) = file.iso_file_id {
            self.file_id(place, id);
            if before.iter().any(|other| other.iso_file_id == Some(id)) {
                self.wrong(place, format!("another file has the ISO FID {id}"));
            }
            if matches!(file.kind, FileKind::Value { .. }) {
                self.wrong(place, "a value file cannot have an ISO FID");
            }
        }
        self.rights(Place::Rights(app_index, index), app, file);
        let content = Place::Content(app_index, index);
        match &file.kind {
            FileKind::Standard {
                size,
                content: bytes,
            }
            | FileKind::Backup {
                size,
                content: bytes,
            } => {
                self.size(place, "size", *size, 1);
                if bytes.len() > usize::try_from(*size).unwrap_or(usize::MAX) {
                    let reason = format!("{} bytes do not fit into {size}", bytes.len());
                    self.wrong(content, reason);
                }
            }
            FileKind::Value {
                lower,
                upper,
                value,
                flags,
            } => {
                if lower >= upper {
                    self.wrong(place, "the upper limit must be higher than the lower");
                } else if !(*lower..=*upper).contains(value) {
                    let reason = format!("the value {value} is not between {lower} and {upper}");
                    self.wrong(content, reason);
                }
                let known = ValueFlags::LIMITED_CREDIT | ValueFlags::FREE_GET_VALUE;
                if !known.contains(*flags) {
                    self.wrong(place, "unknown flags of a value file");
                }
            }
            FileKind::Linear(records) => {
                self.records(place, content, records, 1, records.max_records);
            }
            FileKind::Cyclic(records) => {
                let readable = records.max_records.saturating_sub(1);
                self.records(place, content, records, 2, readable);
            }
        }
    }

    fn rights(&mut self, place: Place, app: &ApplicationLayout, file: &FileLayout) {
        let rights = file.rights;
        for (name, access) in [
            ("read", rights.read),
            ("write", rights.write),
            ("read & write", rights.read_write),
            ("change", rights.change),
        ] {
            if let Access::Key(key) = access
                && usize::from(key.number()) >= app.keys.len()
            {
                let reason = format!(
                    "{name} is given to key {key}, and there are {} keys",
                    app.keys.len()
                );
                self.wrong(place, reason);
            }
        }
        if rights == FILLING {
            self.wrong(
                place,
                "these rights mark a file that is being filled; give read and write to key 0 instead",
            );
        }
    }

    fn size(&mut self, place: Place, what: &str, size: u32, least: u32) {
        if !(least..=U24::MAX).contains(&size) {
            self.wrong(place, format!("the {what} cannot be {size}"));
        }
    }

    fn records(
        &mut self,
        place: Place,
        content: Place,
        records: &RecordsLayout,
        least: u32,
        room: u32,
    ) {
        self.size(place, "size of a record", records.record_size, 1);
        self.size(place, "number of records", records.max_records, least);
        if records.records.len() > usize::try_from(room).unwrap_or(usize::MAX) {
            let reason = format!("{} records do not fit into {room}", records.records.len());
            self.wrong(content, reason);
        }
        let size = usize::try_from(records.record_size).unwrap_or(usize::MAX);
        for record in &records.records {
            if record.is_empty() {
                self.wrong(content, "an empty record");
            }
            if record.len() > size {
                let reason = format!(
                    "a record of {} bytes does not fit into {size}",
                    record.len()
                );
                self.wrong(content, reason);
            }
        }
    }

    /// A card that hides its UID tells it only to somebody who has a key of it, and a diversified
    /// key cannot be known without it.
    fn uid_can_be_found(&mut self) {
        let picc = &self.layout.picc;
        let slots = self.layout.applications.iter().flat_map(|app| &app.keys);
        let mut keys = slots.chain([&picc.key]).map(|slot| &slot.key);
        if picc.random_id && keys.all(|key| key.diversified) {
            self.wrong(
                Place::Picc,
                "with a random ID one key at least must be the same on all cards: all others are made from the UID, which nobody could find out any more",
            );
        }
    }
}

const FROZEN_BUT_OLDER: &str = "these settings freeze a key for which older ones are listed: cards that have them could never get the new one";
