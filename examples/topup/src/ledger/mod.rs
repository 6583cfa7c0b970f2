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
//! reserved until that card is tapped again, or a person settles it by hand; time alone releases
//! nothing.
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

mod by_hand;
mod operations;
mod postgres;
mod sqlite;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use desfire_ev1::wire::Uid;
use sha2::{Digest as _, Sha256};

pub use by_hand::{
    ByHand, Find, Finding, Kind, ListWaiting, ReadTrail, SettleByHand, Trace, Waiting,
};
pub use operations::{
    AddAccount, AddCard, AddVoucher, Books, Claim, Claimed, FindAccount, FindVoucher, Forget,
    ListTopUps, Offer, OpenTopUp, Pending, ReadBooks, Reserve, Reserved, Settle, Settled, State,
    TopUp, Unclaim,
};

/// How long an operation may take before the caller hears that the books are out of reach.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the name of a node that may just have been killed.
const NAME_PATIENCE: Duration = Duration::from_secs(2);

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
    /// Two servers of one name would take each other's claims for their own.
    #[error("another server named {0:?} has these books; give each its own name with --node")]
    NameTaken(String),
    /// The name of a node is none.
    #[error("{0:?} is no name for a server: 1 to 32 letters, digits, hyphens")]
    Name(String),
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

/// Now, as it stands in the books: milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
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

    fn uid(&self, column: usize) -> Result<Uid, LedgerError> {
        let uid = self.bytes(column)?.try_into();
        Ok(Uid(uid.map_err(|_| {
            LedgerError::unavailable("a UID is no UID")
        })?))
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
pub struct Ledger {
    database: Database,
    /// What keeps the node's name this process's, until the last clone is gone.
    name: Arc<OnceLock<Taken>>,
}

/// What holds a node's name.
enum Taken {
    /// A database in memory has no other node.
    Alone,
    File {
        _locked: std::fs::File,
    },
    Session {
        _client: Box<tokio_postgres::Client>,
    },
}

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
        } else if let Some((scheme, _)) = url.split_once("://") {
            // The rest may hold a password.
            return Err(LedgerError::Url(format!("{scheme}://...")));
        } else {
            Database::Sqlite(sqlite::Sqlite::open(url)?)
        };
        Ok(Self {
            database,
            name: Arc::default(),
        })
    }

    /// Takes the name of this server node, and gives back what a node of this name held when it was
    /// killed. Nobody else can have the name as long as this process has the books open: a
    /// second server that was started with the same one would give back the claims of the first
    /// while they are in use.
    ///
    /// With PostgreSQL the name is as long this process's as one connection stays; if the database was
    /// away in between, that is only found out at the next start.
    ///
    /// # Errors
    /// [`LedgerError::Name`], [`LedgerError::NameTaken`], [`LedgerError::Unavailable`].
    pub async fn enter(&self, node: &str) -> Result<(), LedgerError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if node.is_empty() || node.len() > 32 || !node.chars().all(fits) {
            return Err(LedgerError::Name(node.to_owned()));
        }
        let until = Instant::now() + NAME_PATIENCE;
        let taken = loop {
            let taken = match &self.database {
                Database::Sqlite(sqlite) => sqlite.take_name(node)?.map(|file| match file {
                    Some(file) => Taken::File { _locked: file },
                    None => Taken::Alone,
                }),
                Database::Postgres(postgres) => postgres.take_name(node).await?.map(|client| {
                    let _client = Box::new(client);
                    Taken::Session { _client }
                }),
            };
            match taken {
                Some(taken) => break taken,
                // A database takes a moment to see that a killed server has gone.
                None if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                None => return Err(LedgerError::NameTaken(node.to_owned())),
            }
        };
        if self.name.set(taken).is_err() {
            return Err(LedgerError::NameTaken(node.to_owned()));
        }
        let node = node.to_owned();
        self.perform(Forget { node }).await
    }

    /// Carries out an operation in a transaction of its own.
    ///
    /// # Errors
    /// [`LedgerError`]; with [`LedgerError::Unavailable`] it may have happened.
    pub async fn perform<O: Operation>(&self, operation: O) -> Result<O::Output, LedgerError> {
        // In a box, where it is only while something is asked of the books: a conversation is as large
        // as its largest future, and thousands wait for their phones.
        let done = Box::pin(async {
            match &self.database {
                Database::Sqlite(sqlite) => sqlite.perform(operation).await,
                Database::Postgres(postgres) => postgres.perform(operation).await,
            }
        });
        tokio::time::timeout(PATIENCE, done)
            .await
            .unwrap_or_else(|_| Err(LedgerError::unavailable("no answer in time")))
    }
}
