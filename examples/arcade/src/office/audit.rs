//! What cannot be: found in the records, and named.
//!
//! Reports come late, so a terminal that has not delivered yet must not make a thief of anybody: what
//! is missing counts as missing only when every terminal that could have it has delivered past the
//! time in question. What contradicts itself counts at once.

use std::collections::BTreeSet;
use std::fmt;

use desfire_ev1::wire::Uid;
use rusqlite::Row;

use super::Office;

/// How fast people walk, in metres a second: faster is two cards.
const WALKING: i64 = 3;

/// How far the terminals' clocks may be apart, in seconds.
const CLOCKS: i64 = 10;

/// A card that cannot be right, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The card.
    pub uid: Uid,
    /// The name of whoever it was handed out to, if it was.
    pub holder: Option<String>,
    /// What kind of thing.
    pub reason: Reason,
    /// In words.
    pub detail: String,
}

/// What kind of thing cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A terminal has refused it as false.
    RefusedAtTheTerminal,
    /// Two records with one number: there are two of this card, or it was set back.
    TwoPasts,
    /// It had fewer operations behind it than at a time before.
    SetBack,
    /// It was at two places in less time than it takes to walk.
    TwoPlaces,
    /// A balance that does not follow from the one before.
    DoesNotAddUp,
    /// A credit that no desk has made.
    TopUpOfNobody,
    /// A debit that no machine has made.
    DebitOfNobody,
    /// A number of which no record was ever seen.
    Gap,
    /// More spent than was ever put on it.
    Overspent,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RefusedAtTheTerminal => "refused at the terminal",
            Self::TwoPasts => "two pasts",
            Self::SetBack => "set back",
            Self::TwoPlaces => "at two places",
            Self::DoesNotAddUp => "does not add up",
            Self::TopUpOfNobody => "top-up of nobody",
            Self::DebitOfNobody => "debit of nobody",
            Self::Gap => "gap in the sequence",
            Self::Overspent => "more spent than loaded",
        })
    }
}

/// Every query gives purse or UID, and the words.
const CHECKS: &[(Reason, &str)] = &[
    (
        Reason::TwoPasts,
        "SELECT purse, printf('operation %d is there %d times', sequence, count(*))
         FROM fact GROUP BY purse, sequence HAVING count(*) > 1",
    ),
    (
        Reason::SetBack,
        "SELECT late.purse, printf('at operation %d, after it had been at %d',
                late.sequence, max(early.sequence))
         FROM tap AS late JOIN tap AS early USING (purse)
         WHERE late.sequence < early.sequence AND early.time + :clocks < late.time
         GROUP BY late.purse, late.time, late.terminal, late.sequence",
    ),
    (
        Reason::TwoPlaces,
        "WITH hop AS (
            SELECT purse, time, terminal,
                lag(time) OVER card AS time_before, lag(terminal) OVER card AS terminal_before
            FROM tap WINDOW card AS (PARTITION BY purse ORDER BY time, terminal))
         SELECT purse, printf('%s and %s are %d m apart, and it was at both within %d s',
                here.name, there.name, abs(here.metres - there.metres), time - time_before)
         FROM hop JOIN terminal AS here ON here.id = terminal
            JOIN terminal AS there ON there.id = terminal_before
         WHERE abs(here.metres - there.metres) > :walking * (time - time_before + :clocks)",
    ),
    (
        Reason::DoesNotAddUp,
        "SELECT this.purse, printf('operation %d left %.2f where %.2f belongs', this.sequence,
                this.balance / 100.0, (before.balance + this.change) / 100.0)
         FROM (SELECT *, CASE kind WHEN 'credit' THEN amount WHEN 'debit' THEN -amount ELSE 0 END
                AS change FROM fact) AS this
            JOIN fact AS before ON before.purse = this.purse
                AND before.sequence = this.sequence - 1
         WHERE this.balance <> before.balance + this.change
            AND NOT EXISTS (SELECT 1 FROM fact AS other WHERE other.purse = this.purse
                AND other.sequence = before.sequence
                AND other.balance + this.change = this.balance)",
    ),
    (
        Reason::TopUpOfNobody,
        "SELECT purse, printf('%.2f, said to be from terminal %d, which knows nothing of it',
                amount / 100.0, fact.terminal)
         FROM fact LEFT JOIN terminal ON terminal.id = fact.terminal
         WHERE fact.kind = 'credit'
            AND (terminal.kind IS NOT 'credit' OR terminal.until > fact.time + :clocks)
            AND NOT EXISTS (SELECT 1 FROM intent WHERE intent.terminal = fact.terminal
                AND intent.trans = fact.trans AND intent.purse = fact.purse
                AND intent.sequence = fact.sequence AND intent.amount = fact.amount
                AND intent.kind = 'credit')",
    ),
    (
        Reason::DebitOfNobody,
        "SELECT purse, printf('%.2f, said to be from terminal %d, which knows nothing of it',
                amount / 100.0, fact.terminal)
         FROM fact LEFT JOIN terminal ON terminal.id = fact.terminal
         WHERE fact.kind = 'debit'
            AND (terminal.kind IS NOT 'debit' OR terminal.until > fact.time + :clocks)
            AND NOT EXISTS (SELECT 1 FROM intent WHERE intent.terminal = fact.terminal
                AND intent.trans = fact.trans AND intent.purse = fact.purse
                AND intent.sequence = fact.sequence AND intent.amount = fact.amount
                AND intent.kind = 'debit')",
    ),
    (
        Reason::Gap,
        "SELECT this.purse, printf('nobody has seen what came right before operation %d',
                this.sequence)
         FROM fact AS this
         WHERE this.sequence > 0
            AND (SELECT min(until) FROM terminal) > this.time + :clocks
            AND NOT EXISTS (SELECT 1 FROM fact AS before WHERE before.purse = this.purse
                AND before.sequence = this.sequence - 1)
         GROUP BY this.purse, this.sequence",
    ),
    (
        Reason::Overspent,
        "SELECT id, printf('%.2f put on it and %.2f spent', money_in / 100.0, money_out / 100.0)
         FROM book
         WHERE money_out > money_in
            AND (SELECT min(until) FROM terminal) >
                (SELECT max(time) + :clocks FROM fact WHERE fact.purse = book.id)",
    ),
];

impl Office {
    /// Everything that cannot be, by what has been delivered. One finding for each card and
    /// reason: the first of its kind.
    ///
    /// # Errors
    /// SQLite.
    pub fn audit(&self) -> rusqlite::Result<Vec<Finding>> {
        let mut findings = self.refused_at_terminals()?;
        for (reason, sql) in CHECKS {
            let mut statement = self.db.prepare_cached(&format!(
                "WITH found (purse, detail) AS ({sql})
                 SELECT purse.uid, purse.holder, min(detail) FROM found
                 JOIN purse ON purse.id = found.purse GROUP BY purse.id"
            ))?;
            for (name, value) in [(":clocks", CLOCKS), (":walking", WALKING)] {
                if let Some(index) = statement.parameter_index(name)? {
                    statement.raw_bind_parameter(index, value)?;
                }
            }
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                findings.push(finding(row, *reason)?);
            }
        }
        findings.sort();
        Ok(findings)
    }

    /// What a terminal has refused for what is on the card. (A card that fails the handshake may only
    /// have been unlucky; and if not, it gets nowhere without being blocked, too.)
    fn refused_at_terminals(&self) -> rusqlite::Result<Vec<Finding>> {
        let sql = "SELECT suspicion.uid, purse.holder, min(why)
                   FROM suspicion LEFT JOIN purse ON purse.uid = coalesce(original, suspicion.uid)
                   WHERE certain GROUP BY suspicion.uid";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut findings = Vec::new();
        while let Some(row) = rows.next()? {
            findings.push(finding(row, Reason::RefusedAtTheTerminal)?);
        }
        Ok(findings)
    }

    /// The reasons found for one card.
    ///
    /// # Errors
    /// SQLite.
    pub fn reasons(&self, uid: Uid) -> rusqlite::Result<BTreeSet<Reason>> {
        let findings = self.audit()?;
        let of_card = findings.iter().filter(|finding| finding.uid == uid);
        Ok(of_card.map(|finding| finding.reason).collect())
    }
}

fn finding(row: &Row<'_>, reason: Reason) -> rusqlite::Result<Finding> {
    Ok(Finding {
        uid: uid(&row.get::<_, String>(0)?),
        holder: row.get(1)?,
        reason,
        detail: row.get(2)?,
    })
}

/// From the hexadecimal digits that [`Uid`] prints.
fn uid(digits: &str) -> Uid {
    let mut bytes = [0; 7];
    let mut digits = digits.chars().filter_map(|digit| digit.to_digit(16));
    for byte in &mut bytes {
        let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        *byte = u8::try_from(high * 16 + low).unwrap_or(0);
    }
    Uid(bytes)
}
