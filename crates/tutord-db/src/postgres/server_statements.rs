//! Statistics of the server, if the extension `pg_stat_statements` is available.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Double, Text};
use diesel_async::RunQueryDsl;
use tutord_core::Result;
use tutord_core::operations::ServerStatement;

use super::sqlcommenter::Connection;

#[derive(QueryableByName)]
struct ExtensionRow {
    #[diesel(sql_type = Bool)]
    there: bool,
}

#[derive(QueryableByName)]
struct StatementRow {
    #[diesel(sql_type = Text)]
    query: String,
    #[diesel(sql_type = BigInt)]
    calls: i64,
    #[diesel(sql_type = Double)]
    total_exec_time: f64,
    #[diesel(sql_type = Double)]
    mean_exec_time: f64,
    #[diesel(sql_type = Double)]
    max_exec_time: f64,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

pub(super) async fn read(conn: &mut Connection, limit: i64) -> Result<Option<Vec<ServerStatement>>> {
    let there = "SELECT to_regclass('pg_stat_statements') IS NOT NULL AS there";
    if !diesel::sql_query(there).get_result::<ExtensionRow>(conn).await?.there {
        return Ok(None);
    }
    // Of other users' statements the text is not shown.
    let newest = "SELECT query, calls, total_exec_time, mean_exec_time, max_exec_time, rows FROM pg_stat_statements \
                  WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                  AND query <> '<insufficient privilege>' ORDER BY total_exec_time DESC LIMIT $1";
    let rows = diesel::sql_query(newest).bind::<BigInt, _>(limit).load::<StatementRow>(conn).await;
    match rows {
        Ok(rows) => Ok(Some(rows.into_iter().map(ServerStatement::from).collect())),
        // The extension is there, but the server was not started with its library, or this user may not read it.
        Err(diesel::result::Error::DatabaseError(_, info)) => {
            tracing::debug!(error = info.message(), "pg_stat_statements can't be read");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl From<StatementRow> for ServerStatement {
    fn from(row: StatementRow) -> Self {
        Self {
            sql: row.query,
            calls: row.calls,
            total_ms: row.total_exec_time,
            mean_ms: row.mean_exec_time,
            max_ms: row.max_exec_time,
            rows: row.rows,
        }
    }
}
