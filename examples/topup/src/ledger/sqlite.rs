//! The books in SQLite: one thread has the database and commits what waits together, so that many
//! conversations share one write to the disk.

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
}

impl Sqlite {
    pub(super) fn open(file: &str) -> Result<Self, LedgerError> {
        let connection = connect(file).map_err(LedgerError::unavailable)?;
        let (jobs, waiting) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || serve(connection, waiting))
            .map_err(LedgerError::unavailable)?;
        Ok(Self { jobs })
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
        let mut committed = statements.batch("BEGIN IMMEDIATE");
        if committed.is_ok() {
            while let Some(job) = next.take() {
                tell.extend(job(Ok(&mut statements)));
                if tell.len() < TOGETHER {
                    next = waiting.try_recv().ok();
                }
            }
            committed = statements.batch("COMMIT");
            if committed.is_err() {
                // A full disk may have rolled it back already; then this says so.
                let _ = statements.batch("ROLLBACK");
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
    /// Runs one operation so that its failure undoes it and nothing else.
    fn within<O: Operation>(&mut self, operation: &O) -> Result<O::Output, LedgerError> {
        self.batch("SAVEPOINT operation")?;
        // No statement ever waits, so there is nothing to wake up for.
        let ready = futures_util::FutureExt::now_or_never(operation.run(self));
        let result =
            ready.unwrap_or_else(|| Err(LedgerError::unavailable("a statement did not end")));
        if result.is_err() {
            self.batch("ROLLBACK TO operation")?;
        }
        self.batch("RELEASE operation")?;
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
