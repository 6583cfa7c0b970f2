//! The files of an application: which are missing, which are being filled, which differ.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::Planner;
use crate::provision::check::Place;
use crate::provision::keys::Level;
use crate::provision::layout::{ApplicationLayout, FILLING, FileKind, FileLayout};
use crate::provision::plan::{Action, ModeAndRights, ProblemKind};
use crate::provision::survey::{AppFound, KeyFound};
use crate::wire::{
    Access, AccessRights, FileDetail, FileSettings, KeyInfo, KeyNo, U24, ValueFlags,
};

impl Planner<'_> {
    pub(super) fn create_file(&mut self, app: usize, number: usize, file: &FileLayout) {
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

    pub(super) fn existing_files(
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
}

/// Whether two files are of the same type, size and limits, whatever they hold.
pub(in crate::provision) fn same_kind(wanted: &FileDetail, found: &FileDetail) -> bool {
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
            current_records: U24::ZERO,
        },
        FileDetail::CyclicRecord {
            record_size,
            max_records,
            ..
        } => FileDetail::CyclicRecord {
            record_size,
            max_records,
            current_records: U24::ZERO,
        },
        other => other,
    };
    stripped(wanted) == stripped(found)
}

/// The rights that a file is created with.
pub(in crate::provision) fn first_rights(file: &FileLayout) -> AccessRights {
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
