//! How a plan is made: a layout is compared with a survey.
//!
//! It talks to nobody, so everything that decides about a card can be read in one place. The order of the
//! steps is half of the promise:
//!
//! 1. the default key of new applications, before there are any;
//! 2. the applications, with settings under which everything can still be done;
//! 3. in each: the files; those with content under [`FILLING`](super::layout::FILLING) rights, which are the
//!    mark of a file that is not complete, and get their own rights when it is; then all keys but the
//!    master key; then the master key; then the key settings;
//! 4. of the card itself: what cannot be read back (ATS, FormatPICC), then the PICC master key, by
//!    whose version one sees that all before it is done; then its key settings, then the random ID.
//!
//! So no step takes away what a later one needs; a key is either the one before or the one after,
//! and both are at hand; what is frozen is frozen last, after the master key has been proved.

mod application;
mod file;
mod picc;

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use super::check::Place;
use super::keys::Level;
use super::layout::{KeySlot, Layout};
use super::plan::{Action, NOT_FROZEN, Options, Plan, Problem, ProblemKind, Step};
use super::survey::{KeyFound, Survey};
use crate::wire::{KeyNo, KeySettings};

pub(super) use file::{first_rights, same_kind};

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
}
