//! The applications: which are missing, which are there, and their keys and settings.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::Planner;
use crate::provision::check::Place;
use crate::provision::keys::{Level, Origin};
use crate::provision::layout::ApplicationLayout;
use crate::provision::memory;
use crate::provision::plan::{Action, NOT_FROZEN, ProblemKind};
use crate::provision::survey::{AppFound, KeyFound};
use crate::wire::{Aid, ChangeKeyAccess, FileNo, KeyFlags, KeyNo, KeySettings};

const MAX_APPLICATIONS: usize = 28;

impl Planner<'_> {
    pub(super) fn applications(&mut self) {
        let layout = self.layout;
        if !self.survey.speaks_ev1() {
            // Nothing was asked of such a card.
            return;
        }
        let known = self.survey.picc_key.known().is_some();
        self.key_found(Place::Picc, &self.survey.picc_key);
        let Some(aids) = &self.survey.aids else {
            self.found(Place::Picc, "the card does not tell its applications");
            return;
        };
        for aid in aids {
            if !layout.applications.iter().any(|app| app.aid == *aid) {
                let text = format!("application {aid} is not in the layout and is left alone");
                self.found(Place::Layout, text);
            }
        }
        self.names();
        self.room(aids);
        let missing = |index: &usize| matches!(self.survey.apps.get(*index), Some(None));
        let missing: Vec<usize> = (0..layout.applications.len()).filter(missing).collect();
        let create = !self.options.keys_only && !missing.is_empty();
        // Always before an application is created: nobody can ask what the default key is, and an
        // application whose keys nobody knows cannot be taken back.
        let named = layout.picc.default_key.as_ref();
        if known && (create || (named.is_some() && self.configuration_due())) {
            let key = named.map_or("zeros".to_string(), |key| key.to_string());
            let what = format!("set the default key of new applications to {key}");
            self.step(Level::Picc, Place::Picc, Action::SetDefaultKey, what);
        }
        if self.options.keys_only {
            for index in missing {
                self.found(Place::Application(index), "is not on the card");
            }
        } else if known {
            for index in missing {
                if let Some(app) = layout.applications.get(index) {
                    let settings = working(app.settings);
                    let what = format!("create with {} {} keys", app.keys.len(), app.family);
                    let action = Action::CreateApplication { settings };
                    self.step(Level::App(index), Place::Application(index), action, what);
                }
            }
        }
        for (index, app) in layout.applications.iter().enumerate() {
            match self.survey.apps.get(index) {
                Some(Some(found)) => self.existing(index, app, found),
                Some(None) if known && !self.options.keys_only => self.new_application(index, app),
                _ => {}
            }
        }
    }

    /// ISO FIDs and DF names are unique on a card, and cannot be changed.
    fn names(&mut self) {
        let Some(names) = &self.survey.names else {
            if self
                .layout
                .applications
                .iter()
                .any(|app| app.iso_file_id.is_some())
            {
                self.found(
                    Place::Layout,
                    "the card does not tell ISO FIDs and DF names",
                );
            }
            return;
        };
        for (index, app) in self.layout.applications.iter().enumerate() {
            let place = Place::Application(index);
            let Some(file_id) = app.iso_file_id else {
                continue;
            };
            for other in names.iter().filter(|other| other.aid != app.aid) {
                if other.file_id == file_id
                    || (app.df_name.is_some() && other.df_name == app.df_name)
                {
                    let reason = format!(
                        "application {} on the card has its ISO FID or DF name",
                        other.aid
                    );
                    self.differs(ProblemKind::NameTaken, place, reason);
                }
            }
            let there = matches!(self.survey.apps.get(index), Some(Some(_)));
            let own = names.iter().find(|other| other.aid == app.aid);
            if there && own.map(|own| (own.file_id, own.df_name)) != Some((file_id, app.df_name)) {
                let reason = "has another ISO FID or DF name".to_string();
                self.differs(ProblemKind::Differs, place, reason);
            }
        }
    }

    fn room(&mut self, aids: &[Aid]) {
        if self.options.keys_only {
            return;
        }
        let (mut applications, mut bytes) = (0_usize, 0_u64);
        for (app, found) in self.layout.applications.iter().zip(&self.survey.apps) {
            let there = |number: FileNo| {
                let files = found.as_ref().and_then(|found| found.files.as_ref());
                files.is_some_and(|files| files.iter().any(|(other, _)| *other == number))
            };
            if found.is_none() {
                applications = applications.saturating_add(1);
                bytes = bytes.saturating_add(memory::application(app));
            }
            for file in app.files.iter().filter(|file| !there(file.number)) {
                bytes = bytes.saturating_add(memory::file(file));
            }
        }
        if aids.len().saturating_add(applications) > MAX_APPLICATIONS {
            let reason = format!(
                "{applications} applications are missing, and there are {} of 28 already",
                aids.len()
            );
            self.problem(ProblemKind::TooManyApplications, Place::Layout, reason);
        }
        if bytes > self.survey.free.into() {
            let reason = format!(
                "about {bytes} bytes are needed and {} are free; deleting gives none back, only FormatPICC does",
                self.survey.free
            );
            self.problem(ProblemKind::NoMemory, Place::Layout, reason);
        }
    }

    fn new_application(&mut self, index: usize, app: &ApplicationLayout) {
        let (level, place) = (Level::App(index), Place::Application(index));
        let settings = working(app.settings);
        let what = "prove that its keys and settings are those of a new application";
        self.step(level, place, Action::EnterApplication { settings }, what);
        for (number, file) in app.files.iter().enumerate() {
            self.create_file(index, number, file);
        }
        let unknown = KeyFound::Known(if self.layout.picc.default_key.is_some() {
            Origin::Default
        } else {
            Origin::Factory
        });
        for (number, slot) in (1..).zip(app.keys.iter().skip(1)) {
            self.change_key(level, number, slot, &unknown, KeyNo::MASTER);
        }
        if let Some(slot) = app.keys.first() {
            self.change_key(level, 0, slot, &unknown, KeyNo::MASTER);
        }
        self.finish_settings(level, Place::Settings(index), settings, app.settings);
    }

    fn existing(&mut self, index: usize, app: &ApplicationLayout, found: &AppFound) {
        let (level, place) = (Level::App(index), Place::Application(index));
        for (number, key) in found.keys.iter().enumerate() {
            if number == 0 || !key.is_wanted() {
                self.key_found(Place::Key(index, number), key);
            }
        }
        let Some(KeyFound::Known(_)) = found.keys.first() else {
            return;
        };
        let Some((settings, info)) = found.settings else {
            return;
        };
        if info.family() != app.family || usize::from(info.keys()) != app.keys.len() {
            let reason = format!("has {} {} keys", info.keys(), info.family());
            self.problem(ProblemKind::Differs, place, reason);
            return;
        }
        if self.options.keys_only {
            if found.is_new() {
                self.never_issued(place);
            }
        } else {
            self.existing_files(index, app, found, info);
        }
        let now = self.existing_keys(index, app, found, settings);
        let end = if self.options.keys_only {
            KeySettings {
                flags: settings.flags,
                ..app.settings
            }
        } else {
            app.settings
        };
        let frozen = !settings.flags.contains(KeyFlags::SETTINGS_CHANGEABLE);
        if frozen && now != end {
            let reason = format!("are frozen at {:02X}", now.to_byte());
            self.differs(ProblemKind::Frozen, Place::Settings(index), reason);
        } else if self.options.keys_only {
            // What is frozen already was not frozen by this.
            if now != end {
                let what = format!("set to {:02X}", end.to_byte());
                self.step(
                    level,
                    Place::Settings(index),
                    Action::KeySettings(end),
                    what,
                );
            }
        } else {
            self.finish_settings(level, Place::Settings(index), now, end);
        }
    }

    /// Brings the keys of an existing application about; the settings that are in force then.
    fn existing_keys(
        &mut self,
        index: usize,
        app: &ApplicationLayout,
        found: &AppFound,
        settings: KeySettings,
    ) -> KeySettings {
        let level = Level::App(index);
        let keys = || (0..).zip(app.keys.iter().zip(&found.keys));
        let stale = |key: &KeyFound| key.known().is_some() && !key.is_wanted();
        // Settings can name keys that the application does not have.
        let known = |number: KeyNo| {
            let key = found.keys.get(usize::from(number.number()));
            key.and_then(KeyFound::known).map(|_| number)
        };
        let mut now = settings;
        if keys().skip(1).any(|(_, (_, key))| stale(key))
            && settings.change_key != ChangeKeyAccess::MasterKey
            && settings.flags.contains(KeyFlags::SETTINGS_CHANGEABLE)
        {
            now.change_key = ChangeKeyAccess::MasterKey;
            let what = format!("set to {:02X} as long as keys are changed", now.to_byte());
            self.step(
                level,
                Place::Settings(index),
                Action::KeySettings(now),
                what,
            );
        }
        for (number, (slot, key)) in keys().skip(1).filter(|(_, (_, key))| stale(key)) {
            let Ok(key_no) = KeyNo::new(number) else {
                continue;
            };
            let under = match now.change_key {
                ChangeKeyAccess::MasterKey => Some(KeyNo::MASTER),
                ChangeKeyAccess::SameKey => Some(key_no),
                ChangeKeyAccess::Key(other) => known(other).filter(|_| other != key_no),
                ChangeKeyAccess::Frozen => None,
            };
            match under {
                Some(under) => self.change_key(level, number, slot, key, under),
                None => self.problem(
                    ProblemKind::Frozen,
                    level.key_place(key_no),
                    "would have to be changed, which the frozen key settings do not allow",
                ),
            }
        }
        if let Some((_, (slot, key))) = keys().next()
            && stale(key)
        {
            if settings.flags.contains(KeyFlags::MASTER_KEY_CHANGEABLE) {
                self.change_key(level, 0, slot, key, KeyNo::MASTER);
            } else {
                let reason = "is frozen and is not the layout's";
                self.problem(ProblemKind::Frozen, Place::Key(index, 0), reason);
            }
        }
        now
    }
}

/// Settings under which everything can be done with the master key.
fn working(settings: KeySettings) -> KeySettings {
    KeySettings {
        flags: settings.flags | NOT_FROZEN,
        change_key: ChangeKeyAccess::MasterKey,
    }
}
