//! Doing what a plan says, one step after the other.
//!
//! Every step is: be whoever may, act, look whether it is done. What a look proves is either asked of
//! the card again or, for what cannot be read back, the MAC of its reply. The first thing that goes
//! wrong ends it: where the card stands is found out by the next plan, not by guessing here.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use rand_core::TryCryptoRng;

use super::hand::Hand;
use super::keys::{KeyFault, KeyStore, Level, Origin, Ring};
use super::layout::{ApplicationLayout, FileKind, FileLayout, RecordsLayout, u24};
use super::plan::{Action, ModeAndRights, Step};
use super::planner::{first_rights, same_kind};
use super::survey::{Halt, Survey};
use crate::command::IsoName;
use crate::wire::{
    AccessRights, Aid, FileNo, FileSettings, KeyFamily, KeyFlags, KeyInfo, KeyNo, KeySettings,
};
use crate::{AsyncTransport, Key, Machine as _, RunError};

/// Why a step ended.
pub(super) enum Fault<E> {
    Halt(Halt<E>),
    /// The card said yes, and it is not so.
    NotAsAsked(&'static str),
}

impl<E> From<RunError<E>> for Fault<E> {
    fn from(error: RunError<E>) -> Self {
        Self::Halt(Halt::Card(error))
    }
}

impl<E> From<KeyFault> for Fault<E> {
    fn from(fault: KeyFault) -> Self {
        Self::Halt(Halt::Keys(fault))
    }
}

/// Nobody is authenticated although somebody was.
const GONE: &str = "the session is gone";
const NO_SUCH_PLACE: &str = "the layout has no such place";

type Done<V, T> = Result<V, Fault<<T as crate::Link>::Error>>;

pub(super) struct Worker<'w, 'a, T: AsyncTransport + ?Sized, R: ?Sized, K: ?Sized> {
    pub(super) hand: &'w mut Hand<'a, T, R>,
    pub(super) ring: &'w Ring<'w, K>,
    /// What each key is now.
    current: BTreeMap<(Level, KeyNo), Origin>,
}

/// One command in the session that there is.
macro_rules! act {
    ($worker:expr, $session:ident => $command:expr) => {{
        let (session, wire) = $worker.hand.somebody().ok_or(Fault::NotAsAsked(GONE))?;
        let $session = session;
        $command.run_async(wire).await?
    }};
}

impl<'w, 'a, T, R, K> Worker<'w, 'a, T, R, K>
where
    T: AsyncTransport + ?Sized,
    R: TryCryptoRng + ?Sized,
    K: KeyStore + ?Sized,
{
    pub(super) fn new(
        hand: &'w mut Hand<'a, T, R>,
        ring: &'w Ring<'w, K>,
        survey: &Survey,
    ) -> Self {
        let mut current = BTreeMap::new();
        if let Some(origin) = survey.picc_key.known() {
            current.insert((Level::Picc, KeyNo::MASTER), origin.clone());
        }
        for (index, app) in survey.apps.iter().enumerate() {
            let keys = app.iter().flat_map(|app| &app.keys);
            for (number, key) in (0..).zip(keys) {
                if let (Ok(key_no), Some(origin)) = (KeyNo::new(number), key.known()) {
                    current.insert((Level::App(index), key_no), origin.clone());
                }
            }
        }
        Self {
            hand,
            ring,
            current,
        }
    }

    /// What a key of the card is now.
    fn key(&self, level: Level, key_no: KeyNo) -> Done<Key, T> {
        let origin = self.current.get(&(level, key_no));
        let mut candidates = self.ring.candidates(level, key_no)?.into_iter();
        candidates
            .find(|candidate| Some(&candidate.origin) == origin)
            .map(|candidate| candidate.key)
            .ok_or(Fault::NotAsAsked("the key that is needed is not known"))
    }

    fn aid(&self, level: Level) -> Aid {
        level.aid(self.ring.layout)
    }

    pub(super) async fn be(&mut self, level: Level, key_no: KeyNo) -> Done<(), T> {
        let key = self.key(level, key_no)?;
        let aid = self.aid(level);
        if self.hand.be(aid, key_no, &key).await? {
            Ok(())
        } else {
            Err(Fault::NotAsAsked("the card does not take its key any more"))
        }
    }

    pub(super) async fn step(&mut self, step: &Step) -> Done<(), T> {
        let level = step.level;
        match step.action {
            Action::SetDefaultKey => self.set_default_key().await,
            Action::CreateApplication { settings } => {
                self.create_application(level, settings).await
            }
            Action::EnterApplication { settings } => self.enter(level, settings).await,
            Action::CreateFile { file } => self.create_file(level, file).await,
            Action::Fill { file, now, from } => self.fill(level, file, now, from).await,
            Action::SetRights { file, now, under } => {
                self.set_rights(level, file, now, under).await
            }
            Action::ChangeKey { key_no, under } => self.change_key(level, key_no, under).await,
            Action::KeySettings(settings) => self.key_settings(level, settings).await,
            Action::SetAts => {
                self.be(Level::Picc, KeyNo::MASTER).await?;
                let ats = self.ring.layout.picc.ats.as_deref().unwrap_or_default();
                act!(self, session => session.set_ats(ats));
                Ok(())
            }
            Action::DisableFormat { .. } => {
                self.be(Level::Picc, KeyNo::MASTER).await?;
                act!(self, session => session.disable_format_for_ever());
                Ok(())
            }
            Action::RandomId => {
                self.be(Level::Picc, KeyNo::MASTER).await?;
                act!(self, session => session.enable_random_id_for_ever());
                Ok(())
            }
        }
    }

    fn application(&self, level: Level) -> Done<&'w ApplicationLayout, T> {
        let Level::App(index) = level else {
            return Err(Fault::NotAsAsked(NO_SUCH_PLACE));
        };
        let applications = &self.ring.layout.applications;
        applications
            .get(index)
            .ok_or(Fault::NotAsAsked(NO_SUCH_PLACE))
    }

    fn file(&self, level: Level, file: usize) -> Done<&'w FileLayout, T> {
        let application = self.application(level)?;
        let file = application.files.get(file);
        file.ok_or(Fault::NotAsAsked(NO_SUCH_PLACE))
    }

    async fn set_default_key(&mut self) -> Done<(), T> {
        let key = match &self.ring.layout.picc.default_key {
            Some(default) => self.ring.resolve(Aid::PICC, default)?,
            None => Some(Key::zero(KeyFamily::ThreeKey3Des)),
        };
        let key = key.ok_or(Fault::NotAsAsked("the UID is not known"))?;
        self.be(Level::Picc, KeyNo::MASTER).await?;
        act!(self, session => session.set_default_key(&key));
        Ok(())
    }

    fn key_info(&self, app: &ApplicationLayout) -> Done<KeyInfo, T> {
        let count = u8::try_from(app.keys.len()).unwrap_or(u8::MAX);
        let info = KeyInfo::new(app.family, count).map_err(|_| Fault::NotAsAsked(NO_SUCH_PLACE))?;
        Ok(if app.has_iso_files() {
            info.with_iso_file_ids()
        } else {
            info
        })
    }

    async fn create_application(&mut self, level: Level, settings: KeySettings) -> Done<(), T> {
        let app = self.application(level)?;
        let info = self.key_info(app)?;
        let iso = app.iso_file_id.map(|file_id| IsoName {
            file_id,
            df_name: app.df_name,
        });
        self.be(Level::Picc, KeyNo::MASTER).await?;
        act!(self, session => session.create_application(app.aid, settings, info, iso));
        Ok(())
    }

    async fn enter(&mut self, level: Level, settings: KeySettings) -> Done<(), T> {
        let app = self.application(level)?;
        let Level::App(index) = level else {
            return Err(Fault::NotAsAsked(NO_SUCH_PLACE));
        };
        let initial = self.ring.initial(index)?;
        let initial = initial.ok_or(Fault::NotAsAsked("the UID is not known"))?;
        let took = self.hand.be(app.aid, KeyNo::MASTER, &initial.key).await?;
        if !took {
            return Err(Fault::NotAsAsked(
                "the new application has other keys than a new one should: the card does not use its default key as it is known to",
            ));
        }
        // By the name under which it is among the candidates.
        let candidates = self.ring.candidates(level, KeyNo::MASTER)?;
        let same = candidates
            .iter()
            .find(|candidate| candidate.key.is_same_as(&initial.key));
        let origin = same.map_or(initial.origin, |candidate| candidate.origin.clone());
        for number in (0..app.keys.len()).filter_map(|number| u8::try_from(number).ok()) {
            if let Ok(key_no) = KeyNo::new(number) {
                let origin = self.initial_origin(level, key_no, &initial.key, &origin)?;
                self.current.insert((level, key_no), origin);
            }
        }
        let (found, info) = self.hand.key_settings().await?;
        let asked = self.key_info(app)?;
        if found != settings || info.family() != asked.family() || info.keys() != asked.keys() {
            return Err(Fault::NotAsAsked(
                "the new application has other key settings",
            ));
        }
        Ok(())
    }

    /// What a key that has the initial value is called among its own candidates.
    fn initial_origin(
        &self,
        level: Level,
        key_no: KeyNo,
        initial: &Key,
        otherwise: &Origin,
    ) -> Done<Origin, T> {
        let candidates = self.ring.candidates(level, key_no)?;
        let same = candidates
            .iter()
            .find(|candidate| candidate.key.is_same_as(initial));
        Ok(same.map_or_else(|| otherwise.clone(), |candidate| candidate.origin.clone()))
    }

    async fn create_file(&mut self, level: Level, file: usize) -> Done<(), T> {
        let file = self.file(level, file)?;
        let (number, mode, rights) = (file.number, file.mode, first_rights(file));
        let iso = file.iso_file_id;
        self.be(level, KeyNo::MASTER).await?;
        match &file.kind {
            FileKind::Standard { size, .. } => {
                let size = u24(*size);
                act!(self, session => session.create_std_data_file(number, iso, mode, rights, size));
            }
            FileKind::Backup { size, .. } => {
                let size = u24(*size);
                act!(self, session => session.create_backup_data_file(number, iso, mode, rights, size));
            }
            FileKind::Value {
                lower,
                upper,
                value,
                flags,
            } => {
                let limits = *lower..=*upper;
                act!(self, session => session.create_value_file(number, mode, rights, limits, *value, *flags));
            }
            FileKind::Linear(records) => {
                let (size, max) = (u24(records.record_size), u24(records.max_records));
                act!(self, session => session.create_linear_record_file(number, iso, mode, rights, size, max));
            }
            FileKind::Cyclic(records) => {
                let (size, max) = (u24(records.record_size), u24(records.max_records));
                act!(self, session => session.create_cyclic_record_file(number, iso, mode, rights, size, max));
            }
        }
        if file.has_content() {
            // Looked at when it gets its own rights.
            return Ok(());
        }
        self.look_at_file(file, rights).await
    }

    /// Tells the session how a file's data travel: a key that may use the file need not be allowed to
    /// ask for its settings.
    pub(super) fn tell(&mut self, file: &FileLayout, now: ModeAndRights) {
        if let Some((session, _)) = self.hand.somebody() {
            let settings = FileSettings {
                comm: now.mode.into(),
                rights: now.rights,
                detail: file.detail(),
            };
            session.assume_file_settings(file.number, &settings);
        }
    }

    /// Whether a file is as it was asked for.
    async fn look_at_file(&mut self, file: &FileLayout, rights: AccessRights) -> Done<(), T> {
        let found = self.hand.file_settings(file.number).await?;
        if same_kind(&file.detail(), &found.detail)
            && found.rights == rights
            && found.comm.mode() == file.mode
        {
            Ok(())
        } else {
            Err(Fault::NotAsAsked("the file has other settings"))
        }
    }

    async fn fill(
        &mut self,
        level: Level,
        file: usize,
        now: ModeAndRights,
        from: u32,
    ) -> Done<(), T> {
        let file = self.file(level, file)?;
        let number = file.number;
        self.be(level, KeyNo::MASTER).await?;
        self.tell(file, now);
        match &file.kind {
            FileKind::Standard { content, .. } => {
                act!(self, session => session.write_data(number, 0, content));
            }
            FileKind::Backup { content, .. } => {
                act!(self, session => session.write_data(number, 0, content));
                act!(self, session => session.commit_transaction());
            }
            FileKind::Value { .. } => {}
            FileKind::Linear(records) | FileKind::Cyclic(records) => {
                let there = usize::try_from(from).unwrap_or(usize::MAX);
                let begun = match records.records.get(..there) {
                    Some(first) => self.has_records(number, records, first).await?,
                    None => false,
                };
                let from = if begun {
                    there
                } else {
                    // Others, or too many.
                    act!(self, session => session.clear_record_file(number));
                    act!(self, session => session.commit_transaction());
                    0
                };
                // One record is all that a transaction adds to a file.
                for record in records.records.iter().skip(from) {
                    act!(self, session => session.write_record(number, 0, record));
                    act!(self, session => session.commit_transaction());
                }
            }
        }
        if self.has_its_content(file).await? {
            Ok(())
        } else {
            Err(Fault::NotAsAsked("the file has another content"))
        }
    }

    /// Reads a file back, as whoever is authenticated: its content, and zeros behind it. Records as many
    /// as the layout has.
    pub(super) async fn has_its_content(&mut self, file: &FileLayout) -> Done<bool, T> {
        Ok(match &file.kind {
            FileKind::Standard { size, content } | FileKind::Backup { size, content } => {
                let size = usize::try_from(*size).unwrap_or(usize::MAX);
                let mut found = vec![0; size];
                self.hand.read_data(file.number, &mut found).await?;
                let wanted = content.iter().chain(core::iter::repeat(&0)).take(size);
                found.iter().eq(wanted)
            }
            FileKind::Value { value, .. } => self.hand.value(file.number).await? == *value,
            FileKind::Linear(records) | FileKind::Cyclic(records) => {
                self.has_records(file.number, records, &records.records)
                    .await?
            }
        })
    }

    /// Whether a record file with as many records as `wanted` has just those.
    async fn has_records(
        &mut self,
        number: FileNo,
        layout: &RecordsLayout,
        wanted: &[Vec<u8>],
    ) -> Done<bool, T> {
        if wanted.is_empty() {
            return Ok(true);
        }
        let size = usize::try_from(layout.record_size).unwrap_or(0);
        let mut expected = Vec::with_capacity(size.saturating_mul(wanted.len()));
        for record in wanted {
            expected.extend(record.iter().chain(core::iter::repeat(&0)).take(size));
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let mut found = vec![0; expected.len()];
        let hand = &mut self.hand;
        hand.read_records(number, count, layout.record_size, &mut found)
            .await?;
        Ok(found == expected)
    }

    async fn set_rights(
        &mut self,
        level: Level,
        file: usize,
        now: ModeAndRights,
        under: Option<KeyNo>,
    ) -> Done<(), T> {
        let file = self.file(level, file)?;
        let (number, mode, rights) = (file.number, file.mode, file.rights);
        self.be(level, under.unwrap_or(KeyNo::MASTER)).await?;
        self.tell(file, now);
        act!(self, session => session.change_file_settings(number, mode, rights));
        self.be(level, KeyNo::MASTER).await?;
        self.look_at_file(file, rights).await
    }

    async fn change_key(&mut self, level: Level, key_no: KeyNo, under: KeyNo) -> Done<(), T> {
        let aid = self.aid(level);
        let slot = self.ring.slot(level, key_no);
        let slot = slot.ok_or(Fault::NotAsAsked(NO_SUCH_PLACE))?;
        let new = self.ring.resolve(aid, &slot.key)?;
        let new = new.ok_or(Fault::NotAsAsked("the UID is not known"))?;
        self.be(level, under).await?;
        if key_no == under {
            let changed = self.hand.change_key_in_use(&new).await;
            changed.ok_or(Fault::NotAsAsked(GONE))??;
            // The reply proves nothing; the new key does.
            self.current.insert((level, key_no), Origin::Wanted);
            return self.be(level, key_no).await;
        }
        let old = self.key(level, key_no)?;
        act!(self, session => session.change_key(key_no, &old, &new));
        self.current.insert((level, key_no), Origin::Wanted);
        if self.hand.key_version(key_no).await? == new.version() {
            Ok(())
        } else {
            Err(Fault::NotAsAsked("the key has another version"))
        }
    }

    async fn key_settings(&mut self, level: Level, settings: KeySettings) -> Done<(), T> {
        self.be(level, KeyNo::MASTER).await?;
        let keeps = KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE;
        if settings.flags.contains(keeps) {
            act!(self, session => session.change_key_settings(settings));
        } else {
            act!(self, session => session.freeze_key_settings_for_ever(settings));
        }
        if self.hand.key_settings().await?.0 == settings {
            Ok(())
        } else {
            Err(Fault::NotAsAsked("the key settings are others"))
        }
    }
}
