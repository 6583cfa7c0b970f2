//! What was done, for programs: JSON with everything, CSV with a line for each card. No keys.

use std::io;
use std::path::Path;

use serde::Serialize;

/// How a card ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum End {
    /// Brought to the layout.
    Issued,
    /// Was half done, and was brought to the layout.
    Resumed,
    /// Was as it should be.
    NothingToDo,
    /// Looked at only: it can be brought to the layout.
    Planned,
    /// It cannot be brought to the layout; nothing was done to it.
    Refused,
    /// Half done: put it back.
    HalfDone,
    /// The program or the card behaved as it should not.
    Failed,
}

impl End {
    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Resumed => "resumed",
            Self::NothingToDo => "nothing to do",
            Self::Planned => "planned",
            Self::Refused => "REFUSED",
            Self::HalfDone => "HALF DONE",
            Self::Failed => "FAILED",
        }
    }

    /// Whether it is as it should be.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(
            self,
            Self::Issued | Self::Resumed | Self::NothingToDo | Self::Planned
        )
    }
}

/// One card.
#[derive(Clone, Debug, Serialize)]
pub struct CardReport {
    /// Its UID, if it is known.
    pub uid: Option<String>,
    /// How it ended.
    pub end: End,
    /// How often it lay on the reader.
    pub attempts: u32,
    /// Steps that were done (or, of a card that was only planned, would be) in the last attempt.
    pub steps: usize,
    /// Exchanges with the card in the last attempt.
    pub exchanges: u32,
    /// Those of them that were needed to look.
    pub looking: u32,
    /// Time on the reader, all attempts together.
    pub milliseconds: u128,
    /// What was left, since it can never be undone and was not asked for.
    pub held_back: Vec<String>,
    /// What was wrong, in every attempt.
    pub trouble: Vec<String>,
}

/// A batch.
#[derive(Clone, Debug, Serialize)]
pub struct BatchReport {
    /// The layout's name.
    pub layout: String,
    /// Whether cards were only looked at.
    pub dry_run: bool,
    /// Whether only keys were replaced.
    pub rollover: bool,
    /// The cards.
    pub cards: Vec<CardReport>,
}

impl BatchReport {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, end: End) -> usize {
        self.cards.iter().filter(|card| card.end == end).count()
    }

    /// Whether all are as they should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.cards.iter().all(|card| card.end.is_good())
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n")
    }

    /// Writes it as CSV.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_csv(&self, path: &Path) -> io::Result<()> {
        let mut csv = csv::Writer::from_path(path)?;
        csv.write_record([
            "uid",
            "end",
            "attempts",
            "steps",
            "exchanges",
            "looking",
            "milliseconds",
            "held_back",
            "trouble",
        ])?;
        for card in &self.cards {
            csv.write_record([
                card.uid.clone().unwrap_or_default(),
                card.end.word().to_owned(),
                card.attempts.to_string(),
                card.steps.to_string(),
                card.exchanges.to_string(),
                card.looking.to_string(),
                card.milliseconds.to_string(),
                card.held_back.join("; "),
                card.trouble.join("; "),
            ])?;
        }
        csv.flush()
    }
}
