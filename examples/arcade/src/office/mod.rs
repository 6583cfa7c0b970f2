//! The back office: collects what the terminals report and keeps the books, in SQLite.
//!
//! Reports come late, in any order, and more than once; none of that changes what the books say
//! when all have come. Whether an operation was paid follows from what was seen, never from what is
//! likely:
//!
//! | known | then |
//! |---|---|
//! | its record was on the card, whoever saw it | paid |
//! | its own terminal settled it | as settled |
//! | another record with its number was on the card | not paid |
//! | it was missing on the card later, by more than the clocks may be apart: its session was over | not paid |
//! | neither | open |

mod audit;

use std::collections::BTreeSet;

use desfire_ev1::purse::{Evidence, Intent, Kind, Record, Settlement, Stamp};
use desfire_ev1::wire::Uid;
use rusqlite::{Connection, params};

use crate::terminal::{self, Report, Suspicion};

pub use audit::{Finding, Reason};

/// The tables.
const SCHEMA: &str = include_str!("schema.sql");

/// The back office.
pub struct Office {
    db: Connection,
}

/// The books of everything, in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Put on cards at the desks.
    pub money_in: i64,
    /// Taken from cards by the machines.
    pub money_out: i64,
    /// Operations of which is not known whether they were paid.
    pub open: i64,
}

/// The books of one purse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurseBook {
    /// The purse.
    pub id: u64,
    /// Whose.
    pub holder: String,
    /// Put in.
    pub money_in: i64,
    /// Taken out.
    pub money_out: i64,
    /// Operations that are open.
    pub open: i64,
}

impl Office {
    /// An empty one in memory.
    ///
    /// # Errors
    /// SQLite.
    pub fn in_memory() -> rusqlite::Result<Self> {
        Self::with(Connection::open_in_memory()?)
    }

    /// In a file, which must not hold another day.
    ///
    /// # Errors
    /// SQLite; the file holds something already.
    pub fn in_file(path: &std::path::Path) -> rusqlite::Result<Self> {
        Self::with(Connection::open(path)?)
    }

    fn with(db: Connection) -> rusqlite::Result<Self> {
        db.execute_batch(SCHEMA)?;
        Ok(Self { db })
    }

    /// A terminal is set up, this many metres from the door.
    ///
    /// # Errors
    /// SQLite.
    pub fn set_up(
        &self,
        id: u32,
        name: &str,
        kind: terminal::Kind,
        metres: u32,
    ) -> rusqlite::Result<()> {
        let kind = match kind {
            terminal::Kind::Desk => "credit",
            terminal::Kind::Machine => "debit",
        };
        self.db
            .prepare_cached("INSERT INTO terminal VALUES (?, ?, ?, ?, 0)")?
            .execute(params![id, name, kind, metres])?;
        Ok(())
    }

    /// A card is handed out.
    ///
    /// # Errors
    /// SQLite.
    pub fn issued(&self, purse: u64, uid: Uid, holder: &str) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("INSERT INTO purse VALUES (?, ?, ?)")?
            .execute(params![purse.cast_signed(), uid.to_string(), holder])?;
        Ok(())
    }

    /// A terminal delivers: everything that it has had to tell until a time.
    ///
    /// # Errors
    /// SQLite; then nothing of it is kept, and it must be delivered again.
    pub fn collect(
        &mut self,
        terminal: u32,
        until: u32,
        reports: &[Report],
    ) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        for report in reports {
            match report {
                Report::Intent(intent) => keep_intent(&transaction, terminal, intent)?,
                Report::Settled(stamp, settlement) => {
                    keep_settlement(&transaction, *stamp, *settlement)?;
                }
                Report::Seen {
                    time,
                    purse,
                    record,
                    newest,
                } => {
                    keep_record(&transaction, *purse, record)?;
                    if *newest {
                        transaction
                            .prepare_cached("INSERT OR IGNORE INTO tap VALUES (?, ?, ?, ?)")?
                            .execute(params![
                                purse.cast_signed(),
                                time,
                                terminal,
                                record.sequence.get()
                            ])?;
                    }
                }
                Report::Suspicion { time, uid, why } => {
                    let certain = !matches!(why, Suspicion::WrongKey);
                    let original = match why {
                        Suspicion::Evidence(Evidence::Foreign { stored, .. }) => {
                            Some(stored.to_string())
                        }
                        _ => None,
                    };
                    transaction
                        .prepare_cached(
                            "INSERT OR IGNORE INTO suspicion VALUES (?, ?, ?, ?, ?, ?)",
                        )?
                        .execute(params![
                            uid.to_string(),
                            time,
                            terminal,
                            why.to_string(),
                            certain,
                            original
                        ])?;
                }
            }
        }
        transaction
            .prepare_cached("UPDATE terminal SET until = max(until, ?) WHERE id = ?")?
            .execute(params![until, terminal])?;
        transaction.commit()
    }

    /// The books of everything.
    ///
    /// # Errors
    /// SQLite.
    pub fn books(&self) -> rusqlite::Result<Books> {
        let sql = "SELECT coalesce(sum(money_in), 0), coalesce(sum(money_out), 0),
                          coalesce(sum(open), 0) FROM book";
        self.db.prepare_cached(sql)?.query_row([], |row| {
            Ok(Books {
                money_in: row.get(0)?,
                money_out: row.get(1)?,
                open: row.get(2)?,
            })
        })
    }

    /// The books of every purse.
    ///
    /// # Errors
    /// SQLite.
    pub fn purses(&self) -> rusqlite::Result<Vec<PurseBook>> {
        let sql = "SELECT id, holder, money_in, money_out, open FROM book ORDER BY id";
        self.db
            .prepare_cached(sql)?
            .query_map([], |row| {
                Ok(PurseBook {
                    id: row.get::<_, i64>(0)?.cast_unsigned(),
                    holder: row.get(1)?,
                    money_in: row.get(2)?,
                    money_out: row.get(3)?,
                    open: row.get(4)?,
                })
            })?
            .collect()
    }

    /// The cards that no terminal shall serve any more: those of all findings.
    ///
    /// # Errors
    /// SQLite.
    pub fn block_list(&self) -> rusqlite::Result<BTreeSet<Uid>> {
        Ok(self.audit()?.iter().map(|finding| finding.uid).collect())
    }
}

fn keep_record(db: &Connection, purse: u64, record: &Record) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            purse.cast_signed(),
            record.sequence.get(),
            kind(record.kind),
            record.amount.get(),
            record.balance.get(),
            record.stamp.time,
            record.stamp.terminal,
            record.stamp.transaction.cast_signed(),
        ])?;
    Ok(())
}

fn keep_intent(db: &Connection, terminal: u32, intent: &Intent) -> rusqlite::Result<()> {
    // The terminal has seen the record before it on the card.
    keep_record(db, intent.purse_id(), intent.before())?;
    let record = intent.record();
    db.prepare_cached("INSERT OR IGNORE INTO intent VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            intent.purse_id().cast_signed(),
            record.sequence.get(),
            kind(record.kind),
            record.amount.get(),
            record.balance.get(),
            record.stamp.time,
            terminal,
            record.stamp.transaction.cast_signed(),
        ])?;
    Ok(())
}

fn keep_settlement(db: &Connection, stamp: Stamp, settlement: Settlement) -> rusqlite::Result<()> {
    let paid = match settlement {
        Settlement::Paid => true,
        Settlement::NotPaid => false,
        // Says nothing that the records of others do not say.
        Settlement::TooLate => return Ok(()),
    };
    db.prepare_cached("INSERT OR IGNORE INTO settlement VALUES (?, ?, ?)")?
        .execute(params![
            stamp.terminal,
            stamp.transaction.cast_signed(),
            paid
        ])?;
    Ok(())
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Opening => "opening",
        Kind::Debit => "debit",
        Kind::Credit => "credit",
    }
}
