//! The books: accounts, their cards, vouchers, and what became of every top-up.
//!
//! For: spending a voucher at most once, whatever crashes, and never forgetting one that may have
//! been spent. May know: SQL databases. May not know: phones, messages, how a card is read.
//!
//! # A voucher's life
//!
//! ```text
//! issued --reserve--> reserved --the card has it-----> credited
//!    ^                    |
//!    +----released-------+   the card can never have it
//! ```
//!
//! A voucher is reserved for one card and one sequence number of its purse **before** the commit
//! leaves for the card. Only what the card itself has proved moves it on. What is uncertain stays
//! reserved, for ever if need be, until that card is tapped again; time alone releases nothing.
//!
//! # Why a late settlement cannot go wrong
//!
//! Every conversation *claims* the card first, which gives it the card's next **epoch**. Only the
//! conversation with the newest epoch can reserve, and a conversation settles only reservations of
//! epochs before its own (and its own). So whatever it settles was reserved before its claim, its
//! claim came before its authentication, and on the card its authentication ended every session
//! before it: what the card's record says then is final. Claims have a lease, so that a crashed
//! server does not lock a card for long; a clock that is wrong costs time, not money.
//!
//! Beside that, the database itself refuses a second open or credited top-up of one voucher, and a
//! second open one of one card, by unique indexes.

mod operations;
mod postgres;
mod sqlite;

use std::time::Duration;

use desfire_ev1::wire::Uid;
use sha2::{Digest as _, Sha256};

pub use operations::{
    AddAccount, AddCard, AddVoucher, Books, Claim, Claimed, FindAccount, FindVoucher, Forget,
    ListTopUps, Offer, OpenTopUp, Pending, ReadBooks, Reserve, Reserved, Settle, Settled, State,
    TopUp, Unclaim,
};

/// How long an operation may take before the caller hears that the books are out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Locked, full, gone, or too slow. What was asked for may still have happened, unless the
    /// operation says otherwise; each is such that it does no harm.
    #[error("the books cannot be reached: {0}")]
    Unavailable(String),
    /// The books say one thing and the card has proved another: a person must look at this.
    #[error("the books contradict a card: {0}")]
    Contradiction(String),
    /// The URL names no database that this program knows.
    #[error("{0} is no database; use a file name, or a URL that begins with postgres://")]
    Url(String),
}

impl LedgerError {
    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// The hash by which a bearer secret, an account's token or a voucher's code, stands in the books:
/// who reads the database cannot use it.
#[must_use]
pub fn fingerprint(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// One value of a row or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing.
    Null,
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Uid> for Value {
    fn from(value: Uid) -> Self {
        Self::Bytes(value.0.to_vec())
    }
}

/// One row, and typed ways to its columns.
pub struct Row(Vec<Value>);

impl Row {
    fn int(&self, column: usize) -> Result<i64, LedgerError> {
        match self.0.get(column) {
            Some(Value::Int(value)) => Ok(*value),
            Some(Value::Null) => Ok(0),
            _ => Err(LedgerError::unavailable("a column is no number")),
        }
    }

    fn text(&self, column: usize) -> Result<&str, LedgerError> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(value),
            _ => Err(LedgerError::unavailable("a column is no text")),
        }
    }

    fn bytes(&self, column: usize) -> Result<&[u8], LedgerError> {
        match self.0.get(column) {
            Some(Value::Bytes(value)) => Ok(value),
            _ => Err(LedgerError::unavailable("a column is not bytes")),
        }
    }
}

/// A database in the middle of a transaction. The statements in `operations.rs` are the same for all:
/// parameters are `$1`, `$2` ... in the order in which they first occur.
pub trait Sql: Send {
    /// Runs one statement to its end.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value],
    ) -> impl Future<Output = Result<Vec<Row>, LedgerError>> + Send;
}

/// Something that is done to the books in one transaction: all of it, or nothing.
pub trait Operation: Clone + Send + Sync + 'static {
    /// What comes out.
    type Output: Send + 'static;

    /// Does it. An error undoes it.
    #[doc(hidden)]
    fn run<S: Sql>(
        &self,
        sql: &mut S,
    ) -> impl Future<Output = Result<Self::Output, LedgerError>> + Send;
}

/// The books, in SQLite or PostgreSQL. Clones share them.
#[derive(Clone)]
pub struct Ledger(Database);

#[derive(Clone)]
enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Ledger {
    /// Opens the database: a file name (SQLite; `:memory:` for one that is gone with the program) or
    /// `postgres://user@host:port/database`. Makes the tables if there are none.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if it cannot be opened.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let database = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Database::Postgres(postgres::Postgres::open(url).await?)
        } else if url.contains("://") {
            return Err(LedgerError::Url(url.to_owned()));
        } else {
            Database::Sqlite(sqlite::Sqlite::open(url)?)
        };
        Ok(Self(database))
    }

    /// Carries out an operation in a transaction of its own.
    ///
    /// # Errors
    /// [`LedgerError`]; with [`LedgerError::Unavailable`] it may have happened.
    pub async fn perform<O: Operation>(&self, operation: O) -> Result<O::Output, LedgerError> {
        let done = async {
            match &self.0 {
                Database::Sqlite(sqlite) => sqlite.perform(operation).await,
                Database::Postgres(postgres) => postgres.perform(operation).await,
            }
        };
        tokio::time::timeout(PATIENCE, done)
            .await
            .unwrap_or_else(|_| Err(LedgerError::unavailable("no answer in time")))
    }
}
