//! What is to be done to a card: a list that a person can read, made from a look at it.
//!
//! For: comparing a layout with a survey. It talks to nobody, so everything that decides about a card
//! can be read in one place. The order of the steps is half of the promise:
//!
//! 1. the default key of new applications, before there are any;
//! 2. the applications, with settings under which everything can still be done;
//! 3. in each: the files; those with content under [`FILLING`] rights, which are the
//!    mark of a file that is not complete, and get their own rights when it is; then all keys but the
//!    master key; then the master key; then the key settings;
//! 4. of the card itself: what cannot be read back (ATS, FormatPICC), then the PICC master key, by
//!    whose version one sees that all before it is done; then its key settings, then the random ID.
//!
//! So no step takes away what a later one needs; a key is either the one before or the one after,
//! and both are at hand; what is frozen is frozen last, after the master key has been proved.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use super::check::Place;
use super::keys::{Level, Origin};
use super::layout::{ApplicationLayout, FILLING, FileKind, FileLayout, KeySlot, Layout};
use super::memory;
use super::survey::{AppFound, KeyFound, Survey};
use crate::wire::{
    Access, AccessRights, Aid, ChangeKeyAccess, CommMode, FileDetail, FileNo, FileSettings,
    KeyFlags, KeyInfo, KeyNo, KeySettings, Uid, ValueFlags,
};

/// Without these, key settings freeze something for ever.
const NOT_FROZEN: KeyFlags = KeyFlags::MASTER_KEY_CHANGEABLE.union(KeyFlags::SETTINGS_CHANGEABLE);

const MAX_APPLICATIONS: usize = 28;

/// How much of a layout is to be brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Keys only: a rollover.
    pub(super) keys_only: bool,
    /// Do what can never be undone, too.
    pub(super) irreversible: bool,
    /// Set again what cannot be read back.
    pub(super) configure_again: bool,
}

/// What stands between a card and its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// It is no DESFire EV1, or does not behave like one.
    NotEv1,
    /// It hides its UID, or tells different ones.
    Uid,
    /// A key is none of those that it could be.
    WrongKey,
    /// A [rollover](super::Issuer::rollover) of a card that has not been issued to its end.
    NotIssued,
    /// Something would have to be changed that has been frozen.
    Frozen,
    /// There is something that cannot be changed and is not as the layout has it.
    Differs,
    /// An ISO FID or DF name belongs to another application.
    NameTaken,
    /// There is no room for another application.
    TooManyApplications,
    /// There is not enough memory.
    NoMemory,
}

/// Something that stands between a card and its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub kind: ProblemKind,
    /// What it is about.
    pub subject: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.subject, self.reason)
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub(super) level: Level,
    pub(super) action: Action,
    aid: Aid,
    subject: String,
    what: String,
}

impl Step {
    /// At which level.
    #[must_use]
    pub const fn aid(&self) -> Aid {
        self.aid
    }

    /// Whether it can never be undone.
    #[must_use]
    pub fn is_irreversible(&self) -> bool {
        match &self.action {
            Action::KeySettings(settings) => !settings.flags.contains(NOT_FROZEN),
            Action::DisableFormat { .. } | Action::RandomId => true,
            _ => false,
        }
    }
}

impl Step {
    /// Whether it is done each time, since the card does not tell whether it is done already: FormatPICC
    /// disabled on a card that has the layout's master key.
    #[must_use]
    pub const fn is_repeated(&self) -> bool {
        matches!(self.action, Action::DisableFormat { again: true })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)
    }
}

/// What a step does. Files by their place in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    SetDefaultKey,
    CreateApplication {
        settings: KeySettings,
    },
    EnterApplication {
        settings: KeySettings,
    },
    CreateFile {
        file: usize,
    },
    /// `now`: mode and rights until then; `from`: how many records are there already.
    Fill {
        file: usize,
        now: ModeAndRights,
        from: u32,
    },
    /// `under`: the key that may; nothing if everybody may.
    SetRights {
        file: usize,
        now: ModeAndRights,
        under: Option<KeyNo>,
    },
    ChangeKey {
        key_no: KeyNo,
        under: KeyNo,
    },
    KeySettings(KeySettings),
    SetAts,
    /// `again`: the card may have it already, which it does not tell.
    DisableFormat {
        again: bool,
    },
    RandomId,
}

/// How a file's data travel, and who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModeAndRights {
    pub(super) mode: CommMode,
    pub(super) rights: AccessRights,
}

impl From<&FileSettings> for ModeAndRights {
    fn from(settings: &FileSettings) -> Self {
        Self {
            mode: settings.comm.mode(),
            rights: settings.rights,
        }
    }
}

/// What a card is, what is wrong with it, and what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The real UID, if it could be found out.
    pub uid: Option<Uid>,
    /// What there is.
    pub found: Vec<String>,
    /// Why the card cannot be made what the layout says. With any of these, nothing is done.
    pub problems: Vec<Problem>,
    /// What is to be done, in this order.
    pub steps: Vec<Step>,
    /// What would be done besides, but can never be undone and has not been asked for.
    pub held_back: Vec<String>,
    /// How many exchanges it took to find this out.
    pub exchanges: u32,
}

impl Plan {
    /// Whether the card is as the layout says, but for what is held back and as far as it tells: steps
    /// that are [repeated](Step::is_repeated) do not count.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.problems.is_empty() && self.steps.iter().all(Step::is_repeated)
    }

    /// Whether the rest can be done.
    #[must_use]
    pub const fn is_possible(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => writeln!(f, "card {uid}")?,
            None => writeln!(f, "card with hidden UID")?,
        }
        for found in &self.found {
            writeln!(f, "  found    {found}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  PROBLEM  {problem}")?;
        }
        let mark = if self.is_possible() {
            "to do"
        } else {
            "not done"
        };
        for (number, step) in (1..).zip(&self.steps) {
            let ever = if step.is_irreversible() {
                " (for ever)"
            } else {
                ""
            };
            writeln!(f, "  {mark:<8} {number}. {step}{ever}")?;
        }
        for held in &self.held_back {
            writeln!(
                f,
                "  held     {held}: can never be undone, and was not asked for"
            )?;
        }
        if self.is_done() {
            let other = if self.steps.is_empty() { "" } else { " else" };
            writeln!(f, "  nothing{other} is to be done")?;
        }
        Ok(())
    }
}

/// Settings under which everything can be done with the master key.
fn working(settings: KeySettings) -> KeySettings {
    KeySettings {
        flags: settings.flags | NOT_FROZEN,
        change_key: ChangeKeyAccess::MasterKey,
    }
}

pub(super) fn make(layout: &Layout, survey: &Survey, options: Options) -> Plan {
    let mut planner = Planner {
        layout,
        survey,
        options,
        plan: Plan {
            uid: survey.uid,
            found: Vec::new(),
            problems: Vec::new(),
            steps: Vec::new(),
            held_back: Vec::new(),
            exchanges: 0,
        },
    };
    planner.card();
    planner.applications();
    planner.picc();
    planner.plan
}

struct Planner<'a> {
    layout: &'a Layout,
    survey: &'a Survey,
    options: Options,
    plan: Plan,
}

impl Planner<'_> {
    fn problem(&mut self, kind: ProblemKind, place: Place, reason: impl Into<String>) {
        let subject = self.layout.subject(place);
        self.plan.problems.push(Problem {
            kind,
            subject,
            reason: reason.into(),
        });
    }

    /// A difference: one that a rollover does not mind.
    fn differs(&mut self, kind: ProblemKind, place: Place, reason: String) {
        if self.options.keys_only {
            self.found(place, reason);
        } else {
            self.problem(kind, place, reason);
        }
    }

    fn found(&mut self, place: Place, what: impl fmt::Display) {
        let subject = self.layout.subject(place);
        self.plan.found.push(if subject.is_empty() {
            what.to_string()
        } else {
            format!("{subject}: {what}")
        });
    }

    fn step(&mut self, level: Level, place: Place, action: Action, what: impl Into<String>) {
        self.plan.steps.push(Step {
            level,
            action,
            aid: level.aid(self.layout),
            subject: self.layout.subject(place),
            what: what.into(),
        });
    }

    fn hold(&mut self, place: Place, what: &str) {
        let subject = self.layout.subject(place);
        self.plan.held_back.push(format!("{subject}: {what}"));
    }

    /// What kind of card it is.
    fn card(&mut self) {
        let hardware = self.survey.version.hardware;
        match (hardware.vendor, hardware.module_type, hardware.major) {
            (0x04, 0x01, 0) => self.problem(
                ProblemKind::NotEv1,
                Place::Layout,
                "a DESFire of the first generation, which cannot protect these commands",
            ),
            (0x04, 0x01, 1) => {}
            (0x04, 0x01, major) => self.found(
                Place::Layout,
                format!("a DESFire of another generation (hardware {major:02X})"),
            ),
            (vendor, kind, _) => self.problem(
                ProblemKind::NotEv1,
                Place::Layout,
                format!("no DESFire (vendor {vendor:02X}, type {kind:02X})"),
            ),
        }
        if self.survey.uid_disputed {
            self.problem(
                ProblemKind::Uid,
                Place::Layout,
                "the card tells another UID than it should: another card, or somebody in between",
            );
        }
        if self.survey.uid.is_none() && self.survey.speaks_ev1() {
            self.problem(
                ProblemKind::Uid,
                Place::Layout,
                "the card hides its UID, and no key that is the same on all cards fits; state the UID",
            );
        }
        if self.survey.hides_uid() && !self.layout.picc.random_id {
            self.differs(
                ProblemKind::Differs,
                Place::Picc,
                "the card shows a random ID, for ever".to_string(),
            );
        }
    }

    fn key_found(&mut self, place: Place, found: &KeyFound) {
        match found {
            KeyFound::Known(origin) => self.found(place, origin),
            KeyFound::Strange { version } => self.problem(
                ProblemKind::WrongKey,
                place,
                format!("the key on the card has version {version} and is none of those that it could be"),
            ),
            KeyFound::Absent => {
                self.problem(ProblemKind::Differs, place, "there is no such key on the card");
            }
        }
    }

    /// A rollover finds the key of delivery. What is in the files has not been looked at then, nor is
    /// all done that the layout's master key stands for: with that key it would count as looked at and
    /// done.
    fn never_issued(&mut self, place: Place) {
        self.problem(
            ProblemKind::NotIssued,
            place,
            "still has the master key that it came with: issue the card to its end before keys are rolled over",
        );
    }

    fn applications(&mut self) {
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

    /// The settings at the end, as far as they may be brought about. What is frozen already stays so.
    fn target(&self, now: KeySettings, settings: KeySettings) -> KeySettings {
        if self.options.irreversible {
            settings
        } else {
            KeySettings {
                flags: settings.flags | (NOT_FROZEN & now.flags),
                ..settings
            }
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

    fn create_file(&mut self, app: usize, number: usize, file: &FileLayout) {
        let (level, place) = (Level::App(app), Place::File(app, number));
        let what = format!("create, {}", describe(file));
        self.step(level, place, Action::CreateFile { file: number }, what);
        if file.has_content() {
            let now = ModeAndRights {
                mode: file.mode,
                rights: FILLING,
            };
            self.fill(app, number, now, 0);
        }
    }

    fn fill(&mut self, app: usize, file: usize, now: ModeAndRights, from: u32) {
        let (level, place) = (Level::App(app), Place::File(app, file));
        let action = Action::Fill { file, now, from };
        self.step(level, place, action, "write its content");
        let action = Action::SetRights {
            file,
            now,
            under: Some(KeyNo::MASTER),
        };
        self.step(level, place, action, "give it its rights");
    }

    fn change_key(
        &mut self,
        level: Level,
        number: u8,
        slot: &KeySlot,
        found: &KeyFound,
        under: KeyNo,
    ) {
        let Ok(key_no) = KeyNo::new(number) else {
            return;
        };
        let from = found
            .known()
            .map_or(String::new(), |origin| format!(", until now {origin}"));
        let which = match level {
            Level::Picc => "the master key ",
            Level::App(_) => "",
        };
        let what = format!("change {which}to {}{from}", slot.key);
        let place = level.key_place(key_no);
        self.step(level, place, Action::ChangeKey { key_no, under }, what);
    }

    /// From the settings in force to those of the layout, or as near as may be.
    fn finish_settings(&mut self, level: Level, place: Place, now: KeySettings, end: KeySettings) {
        let target = self.target(now, end);
        if now != target && now != end {
            let what = format!("set to {:02X}", target.to_byte());
            self.step(level, place, Action::KeySettings(target), what);
        }
        if now != end && target != end {
            self.hold(place, &format!("freeze to {:02X}", end.to_byte()));
        }
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

    fn existing_files(
        &mut self,
        index: usize,
        app: &ApplicationLayout,
        found: &AppFound,
        info: KeyInfo,
    ) {
        let Some(files) = &found.files else { return };
        for (number, _) in files {
            if !app.files.iter().any(|file| file.number == *number) {
                let place = Place::Application(index);
                if found.is_new() {
                    let reason = format!(
                        "file {number} is not in the layout, and the application has its first keys still: anybody may have put it there"
                    );
                    self.problem(ProblemKind::Differs, place, reason);
                } else {
                    let text = format!("file {number} is not in the layout and is left alone");
                    self.found(place, text);
                }
            }
        }
        let mut wanted_ids = Vec::new();
        // Some cards do not tell this of an application. A new one may have been torn off its first such
        // file; one that is in use has them already, or never will.
        let never = !info.iso_file_ids() && found.iso_ids.is_empty() && !found.is_new();
        let there = |file: &FileLayout| files.iter().any(|(number, _)| *number == file.number);
        let mut asked = app.files.iter().filter(|file| file.iso_file_id.is_some());
        if never && !asked.all(there) {
            self.problem(
                ProblemKind::Differs,
                Place::Application(index),
                "was made without ISO FIDs for its files, which cannot be changed",
            );
        }
        for (number, file) in app.files.iter().enumerate() {
            let there = files.iter().find(|(other, _)| *other == file.number);
            match there {
                None => {
                    if file
                        .iso_file_id
                        .is_some_and(|id| found.iso_ids.contains(&id))
                    {
                        let reason = "another file has its ISO FID".to_string();
                        self.problem(ProblemKind::NameTaken, Place::File(index, number), reason);
                    }
                    self.create_file(index, number, file);
                }
                Some((_, settings)) => {
                    wanted_ids.extend(file.iso_file_id);
                    if let Some(settings) = settings {
                        self.existing_file(index, number, file, settings, found);
                    }
                }
            }
        }
        if wanted_ids.iter().any(|id| !found.iso_ids.contains(id)) {
            self.problem(
                ProblemKind::Differs,
                Place::Application(index),
                "a file has not the ISO FID of the layout",
            );
        }
    }

    fn existing_file(
        &mut self,
        app: usize,
        number: usize,
        file: &FileLayout,
        settings: &FileSettings,
        found: &AppFound,
    ) {
        let place = Place::File(app, number);
        if !same_kind(&file.detail(), &settings.detail) {
            self.problem(
                ProblemKind::Differs,
                place,
                format!("is of another type, size or limits than {}", describe(file)),
            );
            return;
        }
        // Without content there is nothing to fill, and its rights are like any others.
        if settings.rights == FILLING && file.has_content() {
            self.found(place, "its content may not be complete");
            self.fill_on(app, number, settings);
            return;
        }
        if settings.rights == file.rights && settings.comm.mode() == file.mode {
            return;
        }
        let what = format!(
            "give it its rights ({}, {}; until now {}, {})",
            file.rights,
            file.mode,
            settings.rights,
            settings.comm.mode()
        );
        let under = match settings.rights.change {
            Access::Never => None,
            Access::Free => Some(None),
            Access::Key(key) => found
                .keys
                .get(usize::from(key.number()))
                .and_then(KeyFound::known)
                .map(|_| Some(key)),
        };
        match under {
            Some(under) => {
                let action = Action::SetRights {
                    file: number,
                    now: settings.into(),
                    under,
                };
                self.step(Level::App(app), place, action, what);
            }
            None => self.problem(
                ProblemKind::Frozen,
                Place::Rights(app, number),
                format!("are {}, and nobody can change them", settings.rights),
            ),
        }
    }

    /// Goes on with a file that is being filled.
    fn fill_on(&mut self, app: usize, number: usize, settings: &FileSettings) {
        let there = match settings.detail {
            FileDetail::LinearRecord {
                current_records, ..
            }
            | FileDetail::CyclicRecord {
                current_records, ..
            } => current_records.get(),
            _ => 0,
        };
        self.fill(app, number, settings.into(), there);
    }

    /// Whether what cannot be read back may not have been set: as long as the PICC master key is
    /// not the layout's, which comes after it.
    fn configuration_due(&self) -> bool {
        self.options.configure_again || !self.survey.picc_key.is_wanted()
    }

    fn picc(&mut self) {
        let layout = &self.layout.picc;
        let level = Level::Picc;
        let KeyFound::Known(origin) = &self.survey.picc_key else {
            return;
        };
        let Some((settings, _)) = self.survey.picc_settings else {
            return;
        };
        let rest = !self.options.keys_only;
        if !rest && matches!(origin, Origin::Factory | Origin::Transport(_)) {
            self.never_issued(Place::Picc);
        }
        if rest && self.configuration_due() && layout.ats.is_some() {
            self.step(level, Place::Picc, Action::SetAts, "set the ATS");
        }
        if rest && layout.disable_format {
            // Whether it is done cannot be asked, and an earlier run may have held it back: the key says
            // nothing of it.
            let what = "disable FormatPICC";
            if self.options.irreversible {
                let again = !self.configuration_due();
                let what = if again {
                    "disable FormatPICC, in case that was held back before"
                } else {
                    what
                };
                self.step(level, Place::Picc, Action::DisableFormat { again }, what);
            } else {
                self.hold(Place::Picc, what);
            }
        }
        if *origin != Origin::Wanted {
            if settings.flags.contains(KeyFlags::MASTER_KEY_CHANGEABLE) {
                self.change_key(level, 0, &layout.key, &self.survey.picc_key, KeyNo::MASTER);
            } else {
                let reason = "the master key is frozen and is not the layout's";
                self.problem(ProblemKind::Frozen, Place::Picc, reason);
            }
        }
        if !rest {
            return;
        }
        let changeable = settings.flags.contains(KeyFlags::SETTINGS_CHANGEABLE);
        if !changeable && settings != layout.settings {
            let reason = format!("are frozen at {:02X}", settings.to_byte());
            self.problem(ProblemKind::Frozen, Place::PiccSettings, reason);
        } else {
            self.finish_settings(level, Place::PiccSettings, settings, layout.settings);
        }
        if layout.random_id && !self.survey.hides_uid() {
            let what = "show a random ID instead of the UID";
            if self.options.irreversible {
                self.step(level, Place::Picc, Action::RandomId, what);
            } else {
                self.hold(Place::Picc, what);
            }
        }
    }
}

/// Whether two files are of the same type, size and limits, whatever they hold.
pub(super) fn same_kind(wanted: &FileDetail, found: &FileDetail) -> bool {
    let stripped = |detail: &FileDetail| match *detail {
        FileDetail::Value {
            lower,
            upper,
            flags,
            ..
        } => FileDetail::Value {
            lower,
            upper,
            limited_credit: 0,
            flags: flags & (ValueFlags::LIMITED_CREDIT | ValueFlags::FREE_GET_VALUE),
        },
        FileDetail::LinearRecord {
            record_size,
            max_records,
            ..
        } => FileDetail::LinearRecord {
            record_size,
            max_records,
            current_records: crate::wire::U24::ZERO,
        },
        FileDetail::CyclicRecord {
            record_size,
            max_records,
            ..
        } => FileDetail::CyclicRecord {
            record_size,
            max_records,
            current_records: crate::wire::U24::ZERO,
        },
        other => other,
    };
    stripped(wanted) == stripped(found)
}

/// The rights that a file is created with.
pub(super) fn first_rights(file: &FileLayout) -> AccessRights {
    if file.has_content() {
        FILLING
    } else {
        file.rights
    }
}

fn describe(file: &FileLayout) -> String {
    let mode = file.mode;
    match &file.kind {
        FileKind::Standard { size, .. } => format!("standard data, {size} bytes, {mode}"),
        FileKind::Backup { size, .. } => format!("backup data, {size} bytes, {mode}"),
        FileKind::Value {
            lower,
            upper,
            value,
            ..
        } => {
            format!("value {value} between {lower} and {upper}, {mode}")
        }
        FileKind::Linear(records) => format!(
            "{} linear records of {} bytes, {mode}",
            records.max_records, records.record_size
        ),
        FileKind::Cyclic(records) => format!(
            "{} cyclic records of {} bytes, {mode}",
            records.max_records, records.record_size
        ),
    }
}
