//! Cards on a reader, one after the other.

use std::thread::sleep;
use std::time::Duration;

use desfire_ev1::pcsc::{PcscContext, PcscError};
use desfire_ev1::provision::MemoryKeys;
use issue::batch::{Job, joined, line};
use issue::report::{BatchReport, CardReport, End};

use crate::Outcome;
use crate::run::{bar, say};

/// How long a card is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often is looked whether the card is still there.
const PAUSE: Duration = Duration::from_millis(300);

/// Until `count` cards are done, or nobody puts one on the reader any more.
pub fn cards(
    job: &Job<'_, MemoryKeys>,
    name: Option<&str>,
    count: Option<u32>,
    report: &mut BatchReport,
) -> Outcome<()> {
    let context = PcscContext::new()?;
    let mut done = 0;
    // Half-done cards, by the UID, which are waited for again.
    let mut half_done: Vec<CardReport> = Vec::new();
    while count.is_none_or(|count| done < count) {
        eprintln!("put a card on the reader");
        let mut card = match context.wait_for_card(name, PATIENCE) {
            Err(PcscError::NoCard { .. }) => break,
            other => other?,
        };
        let steps = bar(1);
        let attempt = job.once(&mut card, |progress| {
            steps.set_length(u64::try_from(progress.of).unwrap_or(u64::MAX));
            steps.set_position(u64::try_from(progress.number).unwrap_or(u64::MAX));
            steps.set_message(progress.step.to_string());
        });
        steps.finish_and_clear();
        if let Some(plan) = &attempt.plan {
            say(&steps, plan.trim_end());
        }
        let known = |other: &CardReport| other.uid.is_some() && other.uid == attempt.report.uid;
        let before = half_done.iter().position(known);
        let before = before.map(|place| half_done.swap_remove(place));
        let now = joined(before, attempt.report);
        say(&steps, &line(&now));
        if now.end == End::HalfDone {
            eprintln!("put it back: it goes on");
            half_done.push(now);
        } else {
            report.cards.push(now);
            done += 1;
        }
        drop(card);
        eprintln!("take it off the reader");
        while context.wait_for_card(name, Duration::ZERO).is_ok() {
            sleep(PAUSE);
        }
    }
    report.cards.append(&mut half_done);
    Ok(())
}
