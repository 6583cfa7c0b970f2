//! A plan as data: what a card is, what is wrong with it, and what is to be done, for people to read and
//! for [`super::apply`] to carry out. How it is made is told in [`super::planner`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::keys::Level;
use crate::wire::{AccessRights, Aid, CommMode, FileSettings, KeyFlags, KeyNo, KeySettings, Uid};

/// Without these, key settings freeze something for ever.
pub(super) const NOT_FROZEN: KeyFlags =
    KeyFlags::MASTER_KEY_CHANGEABLE.union(KeyFlags::SETTINGS_CHANGEABLE);

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
    pub(super) aid: Aid,
    pub(super) subject: String,
    pub(super) what: String,
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
