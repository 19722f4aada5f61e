//! Plans of statements, taken without running them.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Error as Refused, SimpleQueryMessage};
use tutord_core::{Error, Result};

use super::connect::{Connector, describe};
use crate::explain::{is_plannable, numbered};

/// The timeout of planning; the server's own timeout is a second for each statement and for locks.
const SETTINGS: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 1000; \
                        SET LOCAL plan_cache_mode = force_generic_plan";
const DEADLINE: Duration = Duration::from_secs(5);
/// The first version that supports `EXPLAIN (GENERIC_PLAN)`.
const GENERIC_PLAN: u32 = 160_000;

/// Returns the generic plan of a shape. Uses a separate connection, because the pool may be exhausted.
pub(super) async fn explain(connector: &Connector, shape: &str) -> Result<Option<String>> {
    if !is_plannable(shape) {
        return Ok(None);
    }
    let client = connector.client().await?;
    match timeout(DEADLINE, plan(&client, shape)).await {
        Ok(Ok(plan)) => Ok(Some(plan)),
        // Some texts can't be read without their values, such as `interval '1 day'`, and a lock may be held for long.
        Ok(Err(error)) if error.as_db_error().is_some() => {
            tracing::debug!(error = describe(&error), shape, "a statement can't be planned without its values");
            Ok(None)
        }
        Ok(Err(error)) => Err(Error::Unavailable(describe(&error))),
        Err(_) => Err(Error::Timeout),
    }
}

async fn plan(client: &Client, shape: &str) -> std::result::Result<String, Refused> {
    let (statement, values) = numbered(shape);
    client.batch_execute(SETTINGS).await?;
    let version = lines(client, "SHOW server_version_num").await?;
    let plan = if version.parse().unwrap_or(0) >= GENERIC_PLAN {
        lines(client, &format!("EXPLAIN (GENERIC_PLAN) {statement}")).await?
    } else {
        client.batch_execute(&format!("PREPARE tutord_explained AS {statement}")).await?;
        let nulls = if values == 0 { String::new() } else { format!("({})", vec!["NULL"; values].join(", ")) };
        lines(client, &format!("EXPLAIN EXECUTE tutord_explained{nulls}")).await?
    };
    client.batch_execute("ROLLBACK").await?;
    Ok(plan)
}

/// Returns the first column of the rows of a statement.
async fn lines(client: &Client, sql: &str) -> std::result::Result<String, Refused> {
    let rows = client.simple_query(sql).await?;
    let lines = rows.iter().filter_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
