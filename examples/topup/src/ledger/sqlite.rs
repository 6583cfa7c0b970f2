//! The books in SQLite: one thread has the database and commits what waits together, so that many
//! conversations share one write to the disk.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tokio::sync::{mpsc, oneshot};

use super::operations::SCHEMA;
use super::{LedgerError, Operation, Row, Sql, Value};

/// How long to wait for another process that has the database.
const BUSY: Duration = Duration::from_secs(2);
/// The most operations that wait; above that the books count as out of reach.
const QUEUE: usize = 16_384;
/// The most operations in one transaction.
const TOGETHER: usize = 256;

/// Runs an operation and keeps its answer, to be told when the transaction is on the disk.
type Job = Box<dyn FnOnce(Result<&mut Statements<'_>, &LedgerError>) -> Option<Tell> + Send>;
/// Tells the answer, or why there is none.
type Tell = Box<dyn FnOnce(Result<(), &LedgerError>)>;

#[derive(Clone)]
pub(super) struct Sqlite {
    jobs: mpsc::Sender<Job>,
    /// None if the database is in memory, and nobody else's.
    file: Option<PathBuf>,
}

impl Sqlite {
    pub(super) fn open(file: &str) -> Result<Self, LedgerError> {
        let connection = connect(file).map_err(LedgerError::unavailable)?;
        let file = connection.path().filter(|path| !path.is_empty());
        let file = file.map(PathBuf::from);
        let (jobs, waiting) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || serve(connection, waiting))
            .map_err(LedgerError::unavailable)?;
        Ok(Self { jobs, file })
    }

    /// Takes a node's name for as long as the file that is returned is open; the system closes it
    /// also for a process that was killed. Nothing if somebody has the name.
    pub(super) fn take_name(&self, node: &str) -> Result<Option<Option<File>>, LedgerError> {
        let Some(books) = &self.file else {
            return Ok(Some(None));
        };
        let mut name = books.clone().into_os_string();
        name.push(format!("-{node}.lock"));
        let file = File::create(name).map_err(LedgerError::unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(LedgerError::unavailable(error)),
        }
    }

    pub(super) async fn perform<O: Operation>(
        &self,
        operation: O,
    ) -> Result<O::Output, LedgerError> {
        let (answer, heard) = oneshot::channel();
        let job: Job = Box::new(move |statements| {
            // Nobody waits any more: not to do it is safer than to do it late.
            if answer.is_closed() {
                return None;
            }
            let result = match statements {
                Ok(statements) => statements.within(&operation),
                Err(error) => Err(again(error)),
            };
            Some(Box::new(move |committed| {
                let result = result.and_then(|output| committed.map(|()| output).map_err(again));
                // The caller may have gone; the books are right either way.
                let _ = answer.send(result);
            }))
        });
        self.jobs
            .try_send(job)
            .map_err(|_| LedgerError::unavailable("too much waits for the database"))?;
        heard
            .await
            .unwrap_or_else(|_| Err(LedgerError::unavailable("the database has stopped")))
    }
}

fn again(error: &LedgerError) -> LedgerError {
    LedgerError::unavailable(error)
}

fn connect(file: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What was answered must survive a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    for statement in SCHEMA {
        connection.execute_batch(statement)?;
    }
    Ok(connection)
}

fn serve(mut connection: Connection, mut waiting: mpsc::Receiver<Job>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut next = Some(first);
        let mut tell = Vec::new();
        let mut statements = Statements(&mut connection);
        let mut committed = statements.begin();
        while committed.is_ok() {
            let Some(job) = next.take() else {
                committed = statements.commit();
                break;
            };
            tell.extend(job(Ok(&mut statements)));
            if !statements.is_open() {
                // Whatever came now would be by itself, and not undone with the others.
                committed = Err(LedgerError::unavailable("the database has undone it"));
            } else if tell.len() < TOGETHER {
                next = waiting.try_recv().ok();
            }
        }
        if let (Some(job), Err(error)) = (next, &committed) {
            tell.extend(job(Err(error)));
        }
        for tell in tell {
            tell(committed.as_ref().copied());
        }
    }
}

/// An open transaction.
struct Statements<'c>(&'c mut Connection);

impl Statements<'_> {
    fn begin(&self) -> Result<(), LedgerError> {
        // Left over only if not even a rollback was possible.
        self.roll_back();
        self.batch("BEGIN IMMEDIATE")
    }

    fn commit(&self) -> Result<(), LedgerError> {
        self.batch("COMMIT").inspect_err(|_| self.roll_back())
    }

    fn is_open(&self) -> bool {
        !self.0.is_autocommit()
    }

    fn roll_back(&self) {
        if self.is_open() {
            // If it fails, it is tried again before anything else is begun.
            let _ = self.batch("ROLLBACK");
        }
    }

    /// Runs one operation so that its failure undoes it and nothing else. Where that cannot be done,
    /// the whole transaction is undone: by SQLite itself when the disk is full or broken, or here.
    fn within<O: Operation>(&mut self, operation: &O) -> Result<O::Output, LedgerError> {
        self.batch("SAVEPOINT operation")?;
        // No statement ever waits, so there is nothing to wake up for.
        let ready = futures_util::FutureExt::now_or_never(operation.run(self));
        let result =
            ready.unwrap_or_else(|| Err(LedgerError::unavailable("a statement did not end")));
        let undone = match result {
            Ok(_) => Ok(()),
            Err(_) => self.batch("ROLLBACK TO operation"),
        };
        if undone
            .and_then(|()| self.batch("RELEASE operation"))
            .is_err()
        {
            self.roll_back();
        }
        result
    }

    fn batch(&self, sql: &str) -> Result<(), LedgerError> {
        self.0.execute_batch(sql).map_err(LedgerError::unavailable)
    }

    fn rows(&self, sql: &str, params: &[Value]) -> rusqlite::Result<Vec<Row>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = statement.column_count();
        let params = params.iter().map(|value| match value {
            Value::Int(value) => rusqlite::types::Value::Integer(*value),
            Value::Text(value) => rusqlite::types::Value::Text(value.clone()),
            Value::Bytes(value) => rusqlite::types::Value::Blob(value.clone()),
            Value::Null => rusqlite::types::Value::Null,
        });
        let rows = statement.query_map(rusqlite::params_from_iter(params), |row| {
            let value = |column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Integer(value) => Value::Int(value),
                    ValueRef::Text(value) => Value::Text(String::from_utf8_lossy(value).into()),
                    ValueRef::Blob(value) => Value::Bytes(value.to_vec()),
                    ValueRef::Null | ValueRef::Real(_) => Value::Null,
                })
            };
            (0..columns).map(value).collect::<Result<_, _>>().map(Row)
        })?;
        rows.collect()
    }
}

impl Sql for Statements<'_> {
    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value],
    ) -> impl Future<Output = Result<Vec<Row>, LedgerError>> + Send {
        std::future::ready(self.rows(sql, params).map_err(LedgerError::unavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AddAccount, FindAccount, fingerprint};
    use super::*;

    fn account(name: &str) -> AddAccount {
        AddAccount {
            name: name.to_owned(),
            token: fingerprint(name.as_bytes()),
        }
    }

    /// A full or broken disk can make SQLite undo a transaction by itself; a trigger can too.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_rollback_of_the_databases_own_what_is_told_is_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("books.sqlite");
        let books = Sqlite::open(file.to_str().unwrap()).unwrap();
        let other = Connection::open(&file).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER undoes BEFORE INSERT ON accounts WHEN NEW.name = 'bad'
                 BEGIN SELECT RAISE(ROLLBACK, 'undone'); END",
            )
            .unwrap();
        // Until this one lets go, all of them wait for one transaction.
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut waiting = Vec::new();
        for name in ["first", "bad", "second", "third"] {
            let books = books.clone();
            let added = tokio::spawn(async move { books.perform(account(name)).await });
            waiting.push((name, added));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        other.execute_batch("COMMIT").unwrap();
        let mut done = Vec::new();
        for (name, added) in waiting {
            let told = added.await.unwrap();
            let token = fingerprint(name.as_bytes());
            let there = books.perform(FindAccount { token }).await.unwrap();
            assert_eq!(told.is_ok(), there.is_some(), "{name}: {told:?}");
            done.push(told.is_ok());
        }
        // The first was in the same transaction.
        assert_eq!(done, [false, false, true, true]);
    }
}
