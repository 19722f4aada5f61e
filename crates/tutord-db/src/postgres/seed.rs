//! Bulk load by `COPY`.

use futures_util::{SinkExt as _, pin_mut};
use tokio_postgres::{Client, Transaction};
use tutord_core::operations::SeedPlan;
use tutord_core::{Error, Result};

use super::connect::Connector;
use crate::seed::{CopyText, HighestIds, SeedRow, SeedRows};

/// The number of bytes sent at once.
const CHUNK: usize = 1 << 20;
const TABLES: [&str; 4] = ["users", "exercises", "conversations", "messages"];

/// Loads all rows in one transaction, on a separate connection without a statement timeout.
pub(super) async fn load(
    connector: &Connector,
    plan: &SeedPlan,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<u64> {
    let mut client: Client = connector.client().await?;
    client.batch_execute("SET statement_timeout = 0").await.map_err(failed)?;
    let transaction = client.transaction().await.map_err(failed)?;
    // Nobody else may take the ids that are handed out here.
    let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", TABLES.join(", "));
    transaction.batch_execute(&lock).await.map_err(failed)?;
    let ids = HighestIds {
        users: newest(&transaction, "users").await?,
        exercises: newest(&transaction, "exercises").await?,
        conversations: newest(&transaction, "conversations").await?,
        messages: newest(&transaction, "messages").await?,
    };
    let rows = SeedRows::new(plan, ids);
    let mut done = 0;
    copy(&transaction, rows.users(), &mut done, progress).await?;
    copy(&transaction, rows.exercises(), &mut done, progress).await?;
    copy(&transaction, rows.conversations(), &mut done, progress).await?;
    copy(&transaction, rows.messages(), &mut done, progress).await?;
    for table in TABLES {
        // Forward only: the ids of rows that were removed stay used.
        let sequence = format!(
            "SELECT setval('{table}_id_seq', newest) FROM {table}_id_seq, (SELECT max(id) AS newest FROM {table}) AS _ \
             WHERE newest >= last_value"
        );
        transaction.batch_execute(&sequence).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    // Update the planner's statistics before the first query.
    client.batch_execute(&format!("VACUUM ANALYZE {}", TABLES.join(", "))).await.map_err(failed)?;
    Ok(done)
}

/// Returns the highest id ever assigned, so that ids of removed rows are not reused.
async fn newest(transaction: &Transaction<'_>, table: &str) -> Result<i64> {
    let newest = format!(
        "SELECT GREATEST((SELECT max(id) FROM {table}), CASE WHEN is_called THEN last_value ELSE 0 END) \
         FROM {table}_id_seq"
    );
    transaction.query_one(&newest, &[]).await.map(|row| row.get(0)).map_err(failed)
}

async fn copy<R: SeedRow>(
    transaction: &Transaction<'_>,
    rows: impl Iterator<Item = R>,
    done: &mut u64,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<()> {
    let sink = transaction.copy_in(&format!("COPY {} FROM STDIN", R::TARGET)).await.map_err(failed)?;
    pin_mut!(sink);
    let mut text = CopyText::default();
    for row in rows {
        row.write(&mut text);
        text.end_row();
        *done += 1;
        if text.len() >= CHUNK {
            sink.send(text.take()).await.map_err(failed)?;
            progress(*done);
        }
    }
    sink.send(text.take()).await.map_err(failed)?;
    sink.finish().await.map_err(failed)?;
    progress(*done);
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(database) if *database.code() == tokio_postgres::error::SqlState::UNIQUE_VIOLATION => {
            Error::Conflict(database.constraint().unwrap_or(database.message()).to_owned())
        }
        _ => Error::Unavailable(super::connect::describe(&error)),
    }
}
