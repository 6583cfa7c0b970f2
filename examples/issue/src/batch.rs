//! One card after the other: what is done with each, and what is said of it.

use std::time::Instant;

use desfire_ev1::provision::{Issuer, KeyStore, Progress, ProvisionError, Step};
use desfire_ev1::{Link, LinkFormat, Outcome, Transport};
use getrandom::SysRng;

use crate::report::{CardReport, End};

/// What is done with every card.
pub struct Job<'a, K: ?Sized> {
    /// Layout and keys.
    pub issuer: Issuer<'a, K>,
    /// Only look.
    pub dry_run: bool,
    /// Show the plan of every card.
    pub show_plans: bool,
}

/// A card that was on the reader once.
pub struct Attempt {
    /// What became of it, this attempt alone.
    pub report: CardReport,
    /// Its plan, where plans are to be shown.
    pub plan: Option<String>,
}

/// Counts, also for a card that is torn off and then has no report of its own.
struct Counted<'t, T: ?Sized> {
    transport: &'t mut T,
    exchanges: u32,
}

impl<T: Link + ?Sized> Link for Counted<'_, T> {
    type Error = T::Error;

    fn format(&self) -> LinkFormat {
        self.transport.format()
    }
}

impl<T: Transport + ?Sized> Transport for Counted<'_, T> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, T::Error> {
        self.exchanges = self.exchanges.saturating_add(1);
        self.transport.exchange(command, reply)
    }
}

impl<K: KeyStore + ?Sized> Job<'_, K> {
    /// Does it with one card, once. `watch` is told of every step.
    pub fn once<T>(&self, transport: &mut T, watch: impl FnMut(Progress<'_>)) -> Attempt
    where
        T: Transport + ?Sized,
        T::Error: std::error::Error + 'static,
    {
        let started = Instant::now();
        let mut counted = Counted {
            transport,
            exchanges: 0,
        };
        let mut attempt = if self.dry_run {
            self.look(&mut counted)
        } else {
            self.apply(&mut counted, watch)
        };
        attempt.report.exchanges = counted.exchanges;
        attempt.report.milliseconds = started.elapsed().as_millis();
        attempt
    }

    fn look<T>(&self, transport: &mut T) -> Attempt
    where
        T: Transport + ?Sized,
        T::Error: std::error::Error + 'static,
    {
        let mut report = nothing_yet();
        let plan = match self.issuer.plan(transport, &mut SysRng) {
            Ok(plan) => plan,
            Err(error) => {
                fill_in_error(&mut report, &error);
                return Attempt { report, plan: None };
            }
        };
        report.uid = plan.uid.map(|uid| uid.to_string());
        report.steps = plan.steps.len();
        report.looking = plan.exchanges;
        report.held_back.clone_from(&plan.held_back);
        report.trouble = plan.problems.iter().map(ToString::to_string).collect();
        report.end = if !plan.is_possible() {
            End::Refused
        } else if plan.is_done() {
            End::NothingToDo
        } else {
            End::Planned
        };
        let plan = self.show_plans.then(|| plan.to_string());
        Attempt { report, plan }
    }

    fn apply<T>(&self, transport: &mut T, mut watch: impl FnMut(Progress<'_>)) -> Attempt
    where
        T: Transport + ?Sized,
        T::Error: std::error::Error + 'static,
    {
        let mut report = nothing_yet();
        let (mut uid, mut done) = (None, 0);
        let applied = self
            .issuer
            .apply_watched(transport, &mut SysRng, |progress| {
                uid = progress.uid;
                done = progress.number.saturating_sub(1);
                watch(progress);
            });
        report.uid = uid.map(|uid| uid.to_string());
        report.steps = done;
        match applied {
            Ok(applied) => {
                report.uid = applied.uid.map(|uid| uid.to_string());
                report.steps = applied.steps.len();
                report.looking = applied.looking;
                report.held_back = applied.held_back;
                report.end = if applied.steps.iter().all(Step::is_repeated) {
                    End::NothingToDo
                } else {
                    End::Issued
                };
            }
            Err(error) => fill_in_error(&mut report, &error),
        }
        Attempt { report, plan: None }
    }
}

const fn nothing_yet() -> CardReport {
    CardReport {
        uid: None,
        end: End::Failed,
        attempts: 1,
        steps: 0,
        exchanges: 0,
        looking: 0,
        milliseconds: 0,
        held_back: Vec::new(),
        trouble: Vec::new(),
    }
}

fn fill_in_error<E: std::fmt::Display>(report: &mut CardReport, error: &ProvisionError<E>) {
    match error {
        ProvisionError::NotPossible(plan) => {
            report.uid = plan.uid.map(|uid| uid.to_string());
            report.looking = plan.exchanges;
            report.end = End::Refused;
            report.trouble = plan.problems.iter().map(ToString::to_string).collect();
        }
        ProvisionError::Card { step, error } => {
            // What a card refuses once it refuses again.
            let (end, how) = if error.outcome() == Outcome::Refused {
                (End::Failed, "refused")
            } else {
                (End::HalfDone, "torn")
            };
            report.end = end;
            report.trouble.push(match step {
                Some(at) => format!("{how} in step {} ({}): {error}", at.0, at.1),
                None => format!("{how} while looking: {error}"),
            });
        }
        other => {
            report.end = End::Failed;
            report.trouble.push(other.to_string());
        }
    }
}

/// What is known of a card after one more attempt.
#[must_use]
pub fn joined(before: Option<CardReport>, now: CardReport) -> CardReport {
    let Some(before) = before else { return now };
    let end = match now.end {
        End::Issued | End::NothingToDo => End::Resumed,
        other => other,
    };
    let mut trouble = before.trouble;
    trouble.extend(now.trouble);
    CardReport {
        uid: now.uid.or(before.uid),
        end,
        attempts: before.attempts.saturating_add(now.attempts),
        milliseconds: before.milliseconds.saturating_add(now.milliseconds),
        trouble,
        ..now
    }
}

/// One line for one card.
#[must_use]
pub fn line(card: &CardReport) -> String {
    let uid = card.uid.as_deref().unwrap_or("(unknown)");
    let mut line = format!(
        "{uid:<14}  {:<13}  {:>3} steps  {:>4} exchanges",
        card.end.word(),
        card.steps,
        card.exchanges
    );
    if card.attempts > 1 {
        line += &format!("  attempt {}", card.attempts);
    }
    if let Some(last) = card.trouble.last()
        && !card.end.is_good()
    {
        line += &format!("  {last}");
    }
    line
}
