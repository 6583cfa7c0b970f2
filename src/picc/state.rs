//! The card's non-volatile state: what is still there without power.
//!
//! One plain value that can be cloned, compared, stored ([`super::Card::save`]) and prepared
//! for a test. Whatever way it came about, it is one that a card can have: every function
//! that changes it keeps the invariants which [`State::check`] lists.

use alloc::vec::Vec;

use super::choices::{APPLICATIONS_WITHOUT_KEYS, KEY_INFO_RFU, MAX_ATS, RESERVED_FILE_IDS};
use super::file::{File, FileContent};
use super::key::{CardKey, DefaultKey};
use super::memory::{self, StorageSize};
use crate::wire::{
    Aid, DfName, FileNo, IsoFileId, KeyFamily, KeyInfo, KeyNo, KeySettings, Version,
};

/// The most applications of a card.
pub const MAX_APPLICATIONS: usize = 28;

/// The most files of an application.
pub const MAX_FILES: usize = 32;

/// DF name of the PICC itself (EV3 trace, NTAG 424 DNA data sheet).
pub(super) const PICC_DF_NAME: &[u8] = &[0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x00];

/// The ATS of a delivered card: 106 to 848 kbit/s, 64-byte frames, historical byte 80.
pub(super) const DELIVERED_ATS: &[u8] = &[0x06, 0x75, 0x77, 0x81, 0x02, 0x80];

/// Why something cannot be a card's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The bytes do not begin like a stored state.
    #[error("not the stored state of a software card")]
    NotAState,
    /// The bytes are of a form that this version does not know.
    #[error("stored by another version ({0})")]
    Version(u16),
    /// The bytes are damaged, cut off or followed by others.
    #[error("damaged or cut off")]
    Damaged,
    /// No card can be in this state.
    #[error("no card can have this: {0}")]
    Impossible(&'static str),
}

/// Everything that a card keeps without power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) version: Version,
    pub(super) storage: StorageSize,
    pub(super) picc_key: CardKey,
    pub(super) picc_settings: KeySettings,
    pub(super) configuration: Configuration,
    /// Bytes given out, also for what has been deleted since.
    pub(super) used: u32,
    /// In order of creation.
    pub(super) applications: Vec<Application>,
}

/// What SetConfiguration sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) format_disabled: bool,
    pub(super) random_id: bool,
    pub(super) default_key: DefaultKey,
    pub(super) ats: Vec<u8>,
}

impl State {
    /// A card as delivered.
    pub(super) fn delivered(version: Version, storage: StorageSize) -> Self {
        let mut version = version;
        version.hardware.storage = storage.storage_byte();
        version.software.storage = storage.storage_byte();
        Self {
            version,
            storage,
            picc_key: CardKey::of(KeyFamily::Des, &[], 0),
            picc_settings: KeySettings::DEFAULT,
            configuration: Configuration {
                format_disabled: false,
                random_id: false,
                default_key: DefaultKey::ZERO,
                ats: DELIVERED_ATS.to_vec(),
            },
            used: 0,
            applications: Vec::new(),
        }
    }

    /// What GetVersion tells, with the real UID.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// The storage size.
    #[must_use]
    pub const fn storage(&self) -> StorageSize {
        self.storage
    }

    /// The bytes that are left.
    #[must_use]
    pub const fn free_memory(&self) -> u32 {
        self.storage.capacity().saturating_sub(self.used)
    }

    /// The PICC master key.
    #[must_use]
    pub const fn picc_key(&self) -> &CardKey {
        &self.picc_key
    }

    /// Replaces the PICC master key.
    pub fn set_picc_key(&mut self, key: CardKey) {
        self.picc_key = key;
    }

    /// The key settings of the PICC.
    #[must_use]
    pub const fn picc_settings(&self) -> KeySettings {
        self.picc_settings
    }

    /// Replaces the key settings of the PICC.
    pub const fn set_picc_settings(&mut self, settings: KeySettings) {
        self.picc_settings = settings;
    }

    /// Whether FormatPICC has been disabled.
    #[must_use]
    pub const fn format_disabled(&self) -> bool {
        self.configuration.format_disabled
    }

    /// Whether the card shows a random UID.
    #[must_use]
    pub const fn random_id(&self) -> bool {
        self.configuration.random_id
    }

    /// The answer to select with which the card presents itself.
    #[must_use]
    pub fn ats(&self) -> &[u8] {
        &self.configuration.ats
    }

    /// The applications, in order of creation.
    #[must_use]
    pub fn applications(&self) -> &[Application] {
        &self.applications
    }

    /// An application.
    #[must_use]
    pub fn application(&self, aid: Aid) -> Option<&Application> {
        self.applications.iter().find(|app| app.aid == aid)
    }

    /// Shows a random UID from the next activation on, or no longer does.
    pub const fn set_random_id(&mut self, random: bool) {
        self.configuration.random_id = random;
    }

    /// Disables FormatPICC, or enables it again.
    pub const fn set_format_disabled(&mut self, disabled: bool) {
        self.configuration.format_disabled = disabled;
    }

    /// Puts an application with its keys and files in place, as if it had been created; one
    /// of the same AID is replaced.
    ///
    /// # Errors
    /// [`StateError::Impossible`] if a card could not have it; nothing changes then.
    pub fn put_application(&mut self, application: Application) -> Result<(), StateError> {
        let mut next = self.clone();
        let old_cost = next
            .application(application.aid)
            .map_or(0, Application::cost);
        let used = u64::from(next.used)
            .saturating_sub(old_cost)
            .saturating_add(application.cost());
        next.used = u32::try_from(used)
            .map_err(|_| StateError::Impossible("more memory in use than there is"))?;
        match next.application_mut(application.aid) {
            Some(old) => *old = application,
            None => next.applications.push(application),
        }
        next.check()?;
        *self = next;
        Ok(())
    }

    pub(super) fn application_mut(&mut self, aid: Aid) -> Option<&mut Application> {
        self.applications.iter_mut().find(|app| app.aid == aid)
    }

    pub(super) fn file_mut(&mut self, aid: Aid, number: FileNo) -> Option<&mut File> {
        self.application_mut(aid)?
            .files
            .iter_mut()
            .find(|file| file.number == number)
    }

    /// Takes `cost` bytes from the free memory, if there are so many.
    pub(super) fn spend(&mut self, cost: u64) -> bool {
        match u32::try_from(cost) {
            Ok(cost) if cost <= self.free_memory() => {
                self.used = self.used.saturating_add(cost);
                true
            }
            _ => false,
        }
    }

    /// The key settings and the key family of a level.
    pub(super) fn level(&self, aid: Aid) -> Option<(KeySettings, KeyInfo)> {
        if aid.is_picc() {
            let info = KeyInfo::from_byte(self.picc_key.family().bits() | 1);
            return Some((self.picc_settings, info));
        }
        self.application(aid).map(|app| (app.settings, app.info))
    }

    /// A key of a level.
    pub(super) fn key(&self, aid: Aid, number: KeyNo) -> Option<&CardKey> {
        if aid.is_picc() {
            return number.is_master().then_some(&self.picc_key);
        }
        self.application(aid)?
            .keys
            .get(usize::from(number.number()))
    }

    /// Checks what is true of every card.
    ///
    /// # Errors
    /// [`StateError::Impossible`] with what is not.
    pub fn check(&self) -> Result<(), StateError> {
        let storage = self.storage.storage_byte();
        ensure(
            self.version.hardware.storage == storage && self.version.software.storage == storage,
            "storage byte of another size",
        )?;
        ensure(
            self.picc_key.family() != KeyFamily::Unknown,
            "PICC master key of unknown type",
        )?;
        ensure(
            is_ats(&self.configuration.ats),
            "ATS whose length byte is wrong",
        )?;
        ensure(
            self.applications.len() <= MAX_APPLICATIONS,
            "more than 28 applications",
        )?;
        ensure(
            unique(self.applications.iter().map(|app| app.aid)),
            "two applications of one AID",
        )?;
        ensure(
            unique(self.applications.iter().filter_map(|app| app.iso_file_id)),
            "two applications of one ISO FID",
        )?;
        ensure(
            unique(self.applications.iter().filter_map(|app| app.df_name)),
            "two applications of one DF name",
        )?;
        self.applications.iter().try_for_each(Application::check)?;
        let needed = self
            .applications
            .iter()
            .fold(0_u64, |sum, app| sum.saturating_add(app.cost()));
        ensure(
            needed <= self.used.into() && self.used <= self.storage.capacity(),
            "more memory in use than there is",
        )?;
        ensure(
            memory::is_stepped(self.used),
            "memory in use that is no sum of what things cost",
        )
    }
}

/// An application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    pub(super) aid: Aid,
    pub(super) settings: KeySettings,
    pub(super) info: KeyInfo,
    pub(super) iso_file_id: Option<IsoFileId>,
    pub(super) df_name: Option<DfName>,
    pub(super) keys: Vec<CardKey>,
    /// In order of creation.
    pub(super) files: Vec<File>,
}

impl Application {
    /// An application with zero keys of version 0, without files, without ISO names.
    #[must_use]
    pub fn new(aid: Aid, settings: KeySettings, info: KeyInfo) -> Self {
        Self::with_default_key(aid, settings, info, &DefaultKey::ZERO)
    }

    pub(super) fn with_default_key(
        aid: Aid,
        settings: KeySettings,
        info: KeyInfo,
        default: &DefaultKey,
    ) -> Self {
        let keys = (0..info.keys())
            .map(|_| default.as_key(info.family()))
            .collect();
        Self {
            aid,
            settings,
            info,
            iso_file_id: None,
            df_name: None,
            keys,
            files: Vec::new(),
        }
    }

    /// With an ISO FID and perhaps a DF name.
    #[must_use]
    pub fn with_iso_names(mut self, iso_file_id: IsoFileId, df_name: Option<DfName>) -> Self {
        self.iso_file_id = Some(iso_file_id);
        self.df_name = df_name;
        self
    }

    /// With another key in place of a zero key. A number that the application does not have
    /// changes nothing.
    #[must_use]
    pub fn with_key(mut self, number: KeyNo, key: CardKey) -> Self {
        if let Some(slot) = self.keys.get_mut(usize::from(number.number())) {
            *slot = key;
        }
        self
    }

    /// With other key settings.
    #[must_use]
    pub const fn with_settings(mut self, settings: KeySettings) -> Self {
        self.settings = settings;
        self
    }

    /// With one more file.
    #[must_use]
    pub fn with_file(mut self, file: File) -> Self {
        self.files.push(file);
        self
    }

    /// The AID.
    #[must_use]
    pub const fn aid(&self) -> Aid {
        self.aid
    }

    /// Key settings byte 1.
    #[must_use]
    pub const fn settings(&self) -> KeySettings {
        self.settings
    }

    /// Key settings byte 2.
    #[must_use]
    pub const fn info(&self) -> KeyInfo {
        self.info
    }

    /// The ISO FID, if it has one.
    #[must_use]
    pub const fn iso_file_id(&self) -> Option<IsoFileId> {
        self.iso_file_id
    }

    /// The DF name, if it has one.
    #[must_use]
    pub const fn df_name(&self) -> Option<&DfName> {
        self.df_name.as_ref()
    }

    /// The keys, number 0 first.
    #[must_use]
    pub fn keys(&self) -> &[CardKey] {
        &self.keys
    }

    /// The files, in order of creation.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// A file.
    #[must_use]
    pub fn file(&self, number: FileNo) -> Option<&File> {
        self.files.iter().find(|file| file.number == number)
    }

    /// What it and its files cost.
    fn cost(&self) -> u64 {
        self.files
            .iter()
            .map(|file| memory::file_cost(&file.content.detail()))
            .fold(memory::application_cost(self.info), u64::saturating_add)
    }

    fn check(&self) -> Result<(), StateError> {
        ensure(!self.aid.is_picc(), "application with AID 000000")?;
        ensure(is_key_info(self.info), "number or type of keys")?;
        ensure(
            self.keys.len() == usize::from(self.info.keys()),
            "number of keys differs from the key settings",
        )?;
        ensure(
            self.keys
                .iter()
                .all(|key| key.family() == self.info.family()),
            "key of another type than the application's",
        )?;
        ensure(
            self.iso_file_id.is_none_or(is_free_file_id),
            "application with a reserved ISO FID",
        )?;
        ensure(
            self.df_name.is_none() || self.iso_file_id.is_some(),
            "DF name without ISO FID",
        )?;
        ensure(
            self.df_name
                .is_none_or(|name| name.as_bytes() != PICC_DF_NAME),
            "application with the DF name of the PICC",
        )?;
        ensure(
            unique(self.files.iter().map(|file| file.number)),
            "two files of one number",
        )?;
        ensure(
            unique(self.files.iter().filter_map(|file| file.iso_file_id)),
            "two files of one ISO FID",
        )?;
        for file in &self.files {
            ensure(
                file.iso_file_id.is_none_or(|id| {
                    self.info.iso_file_ids()
                        && is_free_file_id(id)
                        && !matches!(file.content, FileContent::Value(_))
                }),
                "file with an ISO FID that it cannot have",
            )?;
            file.check()?;
        }
        Ok(())
    }
}

/// Whether an application can have such keys.
pub(super) const fn is_key_info(info: KeyInfo) -> bool {
    info.keys() <= KeyInfo::MAX_KEYS
        && !matches!(info.family(), KeyFamily::Unknown)
        && (info.to_byte() & KEY_INFO_RFU == 0)
        && (info.keys() > 0 || APPLICATIONS_WITHOUT_KEYS)
}

/// Whether an application or file may have this ISO FID.
pub(super) fn is_free_file_id(id: IsoFileId) -> bool {
    !RESERVED_FILE_IDS.contains(&id.0)
}

/// Whether bytes can be an ATS: the first byte counts them all, itself included.
pub(super) fn is_ats(ats: &[u8]) -> bool {
    ats.len() <= MAX_ATS && ats.first().is_some_and(|tl| usize::from(*tl) == ats.len())
}

pub(super) fn ensure(holds: bool, what: &'static str) -> Result<(), StateError> {
    if holds {
        Ok(())
    } else {
        Err(StateError::Impossible(what))
    }
}

/// Whether no two are equal. The lists are short.
fn unique<T: PartialEq>(items: impl Iterator<Item = T> + Clone) -> bool {
    items.clone().enumerate().all(|(place, item)| {
        items
            .clone()
            .skip(place.saturating_add(1))
            .all(|other| other != item)
    })
}
