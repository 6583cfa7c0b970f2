//! The books in PostgreSQL, for several server nodes.

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, NoTls};

use super::operations::SCHEMA;
use super::{LedgerError, Operation, PATIENCE, Row, Sql, Value};

/// Connections per node.
const CONNECTIONS: usize = 16;

#[derive(Clone)]
pub(super) struct Postgres {
    pool: Pool,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self, LedgerError> {
        let mut config: Config = url.parse().map_err(LedgerError::unavailable)?;
        config.connect_timeout(PATIENCE);
        let manager = Manager::from_config(
            config,
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
        Ok(Self { pool })
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
