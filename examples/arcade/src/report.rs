//! What came of a day: the money, to the cent, and the frauds, by name.

use std::collections::BTreeSet;
use std::fmt;

use desfire_ev1::purse::{Kind, Record, Refusal};

use crate::day::{Day, DayError, Person, Tally};
use crate::fraud::Fraud;
use crate::office::{Books, Finding, Reason};
use crate::terminal::Outcome;

/// What came of a day.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the back office's books say.
    pub books: Books,
    /// Cards in order: how many.
    pub in_order: usize,
    /// What is on them, read from the cards' memory.
    pub on_cards: i64,
    /// What should be on the blocked cards, by the books.
    pub blocked_by_books: i64,
    /// Money in, less money out, less what is on the cards. Zero, or the books are wrong.
    pub difference: i64,
    /// Purses in order whose own books do not meet the card.
    pub wrong_purses: Vec<String>,
    /// Cards in order with an operation of which nobody knows what became of it.
    pub unsettled: i64,
    /// What was up and what was found.
    pub frauds: Vec<Caught>,
    /// Findings about people who have done nothing.
    pub wrongly_accused: Vec<Finding>,
    /// What was counted.
    pub tally: Tally,
}

/// A fraud, and how it was found.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Who.
    pub name: String,
    /// What.
    pub fraud: Fraud,
    /// Found as; nothing if it was not.
    pub reasons: BTreeSet<Reason>,
    /// What the books say that the card should hold.
    pub by_books: i64,
    /// What it holds.
    pub on_card: i64,
}

impl Report {
    /// Draws up the balance of a day that has passed.
    ///
    /// # Errors
    /// SQLite.
    pub fn of(day: &Day<'_>) -> Result<Self, DayError> {
        let findings = day.office.audit()?;
        let books = day.office.books()?;
        let mut report = Self {
            books,
            in_order: 0,
            on_cards: 0,
            blocked_by_books: 0,
            difference: 0,
            wrong_purses: Vec::new(),
            unsettled: 0,
            frauds: Vec::new(),
            wrongly_accused: Vec::new(),
            tally: day.tally,
        };
        for (person, book) in day.people.iter().zip(day.office.purses()?) {
            let by_books = book.money_in - book.money_out;
            let on_card = person.on_card();
            let of_person: Vec<_> = findings
                .iter()
                .filter(|finding| finding.holder.as_ref() == Some(&person.name))
                .cloned()
                .collect();
            if let Some(fraud) = person.fraud {
                report.frauds.push(Caught {
                    name: person.name.clone(),
                    fraud,
                    reasons: of_person.iter().map(|finding| finding.reason).collect(),
                    by_books,
                    on_card,
                });
            } else {
                report.wrongly_accused.extend(of_person.iter().cloned());
            }
            if of_person.is_empty() {
                report.in_order += 1;
                report.on_cards += on_card;
                report.unsettled += book.open;
                if by_books != on_card {
                    report.wrong_purses.push(person.name.clone());
                }
            } else {
                report.blocked_by_books += by_books;
            }
        }
        report.difference =
            books.money_in - books.money_out - report.on_cards - report.blocked_by_books;
        Ok(report)
    }

    /// Whether every cent is where the books say, every fraud found, and nobody else accused.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.difference == 0
            && self.unsettled == 0
            && self.wrong_purses.is_empty()
            && self.wrongly_accused.is_empty()
            && self.frauds.iter().all(|caught| !caught.reasons.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, amount: i64| {
            writeln!(f, "  {what:<44}{:>12}", Money(amount))
        };
        writeln!(f, "Taps")?;
        for (what, count) in [
            ("cards held to a reader", tally.taps),
            ("of those disturbed", tally.disturbed),
            ("after which the terminal said \"again\"", tally.again),
            ("paid before, and settled at a later tap", tally.owed),
            ("refused by the block list", tally.blocked),
            ("refused because the card cannot be right", tally.refused),
            ("commands sent to cards", tally.exchanges),
        ] {
            writeln!(f, "  {what:<44}{count:>12}")?;
        }
        writeln!(f, "\nMoney")?;
        line(f, "in, at the desks", self.books.money_in)?;
        line(f, "out, at the machines", self.books.money_out)?;
        let cards = format!("on {} cards in order, by the cards", self.in_order);
        line(f, &cards, self.on_cards)?;
        line(f, "on blocked cards, by the books", self.blocked_by_books)?;
        line(f, "difference", self.difference)?;
        let not_played = self.books.money_out - tally.played;
        if not_played != 0 {
            line(f, "paid for games that nobody came back for", not_played)?;
        }
        if self.unsettled != 0 {
            writeln!(f, "  {} operations nobody knows about", self.unsettled)?;
        }
        for name in &self.wrong_purses {
            writeln!(f, "  the card of {name} does not hold what the books say")?;
        }
        if !self.frauds.is_empty() {
            writeln!(f, "\nFraud")?;
        }
        for caught in &self.frauds {
            writeln!(f, "  {:<9}{}", caught.name, caught.fraud.deed())?;
            let found: Vec<_> = caught.reasons.iter().map(ToString::to_string).collect();
            if found.is_empty() {
                writeln!(f, "           NOT FOUND")?;
            } else {
                writeln!(f, "           found: {}", found.join(", "))?;
            }
            writeln!(
                f,
                "           the card holds {}, the books say {}",
                Money(caught.on_card),
                Money(caught.by_books)
            )?;
        }
        for finding in &self.wrongly_accused {
            let who = finding.holder.as_deref().unwrap_or("nobody");
            let (reason, detail) = (finding.reason, &finding.detail);
            writeln!(f, "  WRONGLY ACCUSED: {who}: {reason}: {detail}")?;
        }
        Ok(())
    }
}

/// What a terminal's display says after a tap.
#[must_use]
pub fn display(outcome: &Outcome) -> String {
    let rest = |record: &Record| Money(record.balance.get().into());
    let amount = |record: &Record| Money(record.amount.get().into());
    match outcome {
        Outcome::Done(record) if record.kind == Kind::Debit => {
            format!("{} paid, {} left. Go!", amount(record), rest(record))
        }
        Outcome::Done(record) => {
            format!("{} on your card, it holds {}", amount(record), rest(record))
        }
        Outcome::Owed(record) if record.kind == Kind::Debit => {
            format!("{} was paid already. Go!", amount(record))
        }
        Outcome::Owed(record) => format!("the {} are on your card already", amount(record)),
        Outcome::Seen(records) => {
            let newest = records.first().map_or(0, |record| record.balance.get());
            format!("your card holds {}", Money(newest.into()))
        }
        Outcome::Refused(Refusal::TooLittle { balance, .. }) => {
            format!("only {} left: see the desk", Money((*balance).into()))
        }
        Outcome::Refused(refusal) => refusal.to_string(),
        Outcome::Blocked => "this card is blocked: see the desk".to_owned(),
        Outcome::Again => "hold your card to the reader again".to_owned(),
        Outcome::NotOurs => "not recognised: again, or see the desk".to_owned(),
        Outcome::Fraud(_) => "this card cannot be right: see the desk".to_owned(),
    }
}

/// The last operations of a person's card, as the desk shows them.
#[must_use]
pub fn statement(day: &Day<'_>, person: &Person) -> String {
    use std::fmt::Write as _;

    let mut text = format!(
        "The last operations on the card of {} ({})\n",
        person.name, person.uid
    );
    for record in &person.history {
        let place = day.place_name(record.stamp.terminal);
        let change = match record.kind {
            Kind::Opening => "handed out".to_owned(),
            _ => format!("{:+.2}", f64::from(record.change()) / 100.0),
        };
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "  {}  {place:<18}{change:>10}{:>10}   no. {}",
            Clock(record.stamp.time),
            money(record),
            record.sequence.get()
        );
    }
    text
}

fn money(record: &Record) -> String {
    Money(record.balance.get().into()).to_string()
}

/// Cents, as people write them.
#[derive(Clone, Copy, Debug)]
pub struct Money(pub i64);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        f.pad(&format!("{sign}{}.{:02}", cents / 100, cents % 100))
    }
}

/// The time of the day.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub u32);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0 / 60 % (24 * 60);
        write!(f, "{:02}:{:02}", minutes / 60, minutes % 60)
    }
}
