//! The books in PostgreSQL, for several server nodes.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};

use super::operations::SCHEMA;
use super::{LedgerError, Operation, PATIENCE, Row, Sql, Value, fingerprint};

/// Connections per node.
const CONNECTIONS: usize = 16;
/// How long the database lets a statement of ours wait or work, and a transaction of ours lie idle, in
/// milliseconds. The first two are below [`PATIENCE`]: a caller that gives up leaves a rollback behind the
/// statement that blocks, on a connection that goes to the next caller; so the database has to end it
/// first. The third frees the rows of a node that hangs.
const BOUNDS: &str =
    "-c lock_timeout=2000 -c statement_timeout=4000 -c idle_in_transaction_session_timeout=10000";
/// How long what was sent may stay unacknowledged, before the connection counts as broken.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How long a connection may be silent before it is asked for a sign of life, and how often then.
const SILENCE: Duration = Duration::from_secs(15);
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Postgres {
    pool: Pool,
    config: Arc<Config>,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self, LedgerError> {
        let mut config: Config = url.parse().map_err(LedgerError::unavailable)?;
        // Of an option that is there twice the last one holds.
        let options = [config.get_options().unwrap_or_default(), BOUNDS].join(" ");
        config
            .options(options.trim_start())
            .connect_timeout(PATIENCE)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .keepalives(true)
            .keepalives_idle(SILENCE)
            .keepalives_interval(SIGN_OF_LIFE)
            .keepalives_retries(3);
        let manager = Manager::from_config(
            config.clone(),
            NoTls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .wait_timeout(Some(PATIENCE))
            .create_timeout(Some(PATIENCE))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(LedgerError::unavailable)?;
        let mut client = pool.get().await.map_err(LedgerError::unavailable)?;
        let transaction = client.transaction().await.map_err(unavailable)?;
        // Two nodes that start together would both make the tables.
        transaction
            .batch_execute("SELECT pg_advisory_xact_lock(5069651)")
            .await
            .map_err(unavailable)?;
        for statement in SCHEMA {
            transaction
                .batch_execute(statement)
                .await
                .map_err(unavailable)?;
        }
        transaction.commit().await.map_err(unavailable)?;
        drop(client);
        let config = Arc::new(config);
        Ok(Self { pool, config })
    }

    /// Takes a node's name for as long as the connection that is returned lives. Nothing if somebody has
    /// the name.
    pub(super) async fn take_name(&self, node: &str) -> Result<Option<Client>, LedgerError> {
        let connected = self.config.connect(NoTls).await;
        let (client, connection) = connected.map_err(unavailable)?;
        // Ends with the client.
        tokio::spawn(connection);
        // So that the name of a server whose machine is gone is free after half a minute.
        client
            .batch_execute(
                "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5;
                 SET tcp_keepalives_count = 3",
            )
            .await
            .map_err(unavailable)?;
        let [a, b, c, d, e, f, g, h, ..] = fingerprint(node.as_bytes());
        let number = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let row = client
            .query_one("SELECT pg_try_advisory_lock($1)", &[&number])
            .await
            .map_err(unavailable)?;
        let mine: bool = row.try_get(0).map_err(unavailable)?;
        Ok(mine.then_some(client))
    }

    pub(super) async fn perform<O: Operation>(
        &self,
        operation: O,
    ) -> Result<O::Output, LedgerError> {
        let mut client = self.pool.get().await.map_err(LedgerError::unavailable)?;
        let transaction = client.transaction().await.map_err(unavailable)?;
        let mut statements = Statements(transaction);
        let output = operation.run(&mut statements).await?;
        statements.0.commit().await.map_err(unavailable)?;
        Ok(output)
    }
}

/// With the server's own words, which `Display` leaves out.
fn unavailable(error: tokio_postgres::Error) -> LedgerError {
    match error.as_db_error() {
        Some(db) => LedgerError::unavailable(db),
        None => LedgerError::unavailable(error),
    }
}

/// An open transaction; dropped, it is rolled back.
struct Statements<'c>(deadpool_postgres::Transaction<'c>);

impl Sql for Statements<'_> {
    async fn query(
        &mut self,
        sql: &'static str,
        params: &[Value],
    ) -> Result<Vec<Row>, LedgerError> {
        let statement = self.0.prepare_cached(sql).await.map_err(unavailable)?;
        let params: Vec<&(dyn ToSql + Sync)> = params
            .iter()
            .map(|value| match value {
                Value::Int(value) => value as &(dyn ToSql + Sync),
                Value::Text(value) => value,
                Value::Bytes(value) => value,
                Value::Null => &None::<i64>,
            })
            .collect();
        let rows = self
            .0
            .query(&statement, &params)
            .await
            .map_err(unavailable)?;
        rows.iter().map(row).collect()
    }
}

fn row(row: &tokio_postgres::Row) -> Result<Row, LedgerError> {
    let value = |column: usize, kind: &Type| {
        let value = match *kind {
            Type::INT8 => row.try_get::<_, Option<i64>>(column)?.map(Value::Int),
            Type::TEXT => row.try_get::<_, Option<String>>(column)?.map(Value::Text),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(column)?.map(Value::Bytes),
            _ => None,
        };
        Ok(value.unwrap_or(Value::Null))
    };
    let columns = row.columns().iter().enumerate();
    columns
        .map(|(column, of)| value(column, of.type_()))
        .collect::<Result<_, _>>()
        .map(Row)
        .map_err(unavailable)
}
