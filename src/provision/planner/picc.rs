//! The card itself: ATS, FormatPICC, its master key, its settings, the random ID.

use alloc::format;

use super::Planner;
use crate::provision::check::Place;
use crate::provision::keys::{Level, Origin};
use crate::provision::plan::{Action, ProblemKind};
use crate::provision::survey::KeyFound;
use crate::wire::{KeyFlags, KeyNo};

impl Planner<'_> {
    pub(super) fn picc(&mut self) {
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

    /// Whether what cannot be read back may not have been set: as long as the PICC master key is
    /// not the layout's, which comes after it.
    pub(super) fn configuration_due(&self) -> bool {
        self.options.configure_again || !self.survey.picc_key.is_wanted()
    }
}
