//! The changes recorded by triggers: see [`Outbox`] and the migration `0003_outbox`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{Client, Statement};
use tutord_core::model::change::{Change, ChangeKind, GRACE};
use tutord_core::operations::{ChangeFeed, Outbox};
use tutord_core::schema::outbox;
use tutord_core::sql_types::Instant;
use tutord_core::{Error, Result, Timestamp};

use super::adapter::Postgres;
use super::connect::{describe, node_name};
use super::monitor::Monitor;

/// The advisory lock of the process that follows the changes; a random constant.
const LOCK: i64 = 3_915_572_046_320_868_117;
/// The interval of the check for unannounced changes and for a live connection.
const POLL: Duration = Duration::from_secs(1);

#[async_trait]
impl Outbox for Postgres {
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>> {
        let (monitor, term) = (Arc::clone(&self.monitor), self.monitor.term());
        let (client, announced) = self.connector.listening_client().await?;
        let deadline = self.deadline;
        let begin = async {
            let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?;
            if !row.get::<_, bool>(0) {
                return Ok(None);
            }
            client.batch_execute("LISTEN tutord_outbox").await?;
            let open = client
                .prepare(
                    "SELECT id, kind, user_id, item_id FROM outbox \
                     WHERE node = '' OR created_at < clock_timestamp() - make_interval(secs => $1) ORDER BY id LIMIT $2",
                )
                .await?;
            let done = client.prepare("DELETE FROM outbox WHERE id = ANY($1)").await?;
            Ok(Some((open, done)))
        };
        let begun = within(deadline, begin).await?;
        Ok(begun.map(|(open, done)| {
            // What was noted before is looked for at once.
            announced.notify_one();
            Box::new(OutboxFeed { client, announced, open, done, deadline, monitor, term }) as Box<dyn ChangeFeed>
        }))
    }

    async fn own_changes(&self, limit: i64) -> Result<Vec<i64>> {
        let Some(node) = self.node.map(node_name) else { return Ok(Vec::new()) };
        self.read(async |conn| {
            let own = outbox::table.filter(outbox::node.eq(&node)).order(outbox::id.asc()).limit(limit);
            Ok(own.select(outbox::id).load(conn).await?)
        })
        .await
    }

    async fn acknowledge_changes(&self, ids: &[i64]) -> Result<()> {
        self.write(async |conn| {
            diesel::delete(outbox::table.filter(outbox::id.eq_any(ids))).execute(conn).await?;
            Ok(())
        })
        .await
    }

    async fn purge_changes(&self, before: Timestamp, batch: i64) -> Result<usize> {
        // diesel's DELETE supports neither LIMIT nor a sub-query on its own table.
        const DELETE: &str =
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE created_at < $1 ORDER BY created_at LIMIT $2)";
        self.write(async |conn| {
            let delete = diesel::sql_query(DELETE).bind::<Instant, _>(before).bind::<BigInt, _>(batch);
            Ok(delete.execute(conn).await?)
        })
        .await
    }
}

/// A listening connection that holds the lock.
struct OutboxFeed {
    client: Client,
    announced: Arc<Notify>,
    open: Statement,
    done: Statement,
    deadline: Duration,
    monitor: Arc<Monitor>,
    /// The term of the connection.
    term: u64,
}

#[async_trait]
impl ChangeFeed for OutboxFeed {
    async fn next(&mut self, limit: i64) -> Result<Vec<Change>> {
        // Without a word for a while, there may still be some of a process that died.
        let _ = timeout(POLL, self.announced.notified()).await;
        if self.term != self.monitor.term() {
            return Err(Error::Unavailable("the database is another one than before".to_owned()));
        }
        let rows = within(self.deadline, self.client.query(&self.open, &[&GRACE.as_secs_f64(), &limit])).await?;
        if i64::try_from(rows.len()) == Ok(limit) {
            self.announced.notify_one();
        }
        let change = |row: tokio_postgres::Row| Change {
            id: row.get(0),
            kind: ChangeKind::read(row.get(1)),
            user_id: row.get(2),
            item_id: row.get(3),
        };
        Ok(rows.into_iter().map(change).collect())
    }

    async fn acknowledge(&mut self, changes: &[Change]) -> Result<()> {
        let ids: Vec<i64> = changes.iter().map(|change| change.id).collect();
        // By its name: diesel's `execute` is in scope too.
        within(self.deadline, Client::execute(&self.client, &self.done, &[&ids])).await?;
        Ok(())
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match timeout(deadline, work).await {
        Ok(outcome) => outcome.map_err(|error| Error::Unavailable(describe(&error))),
        Err(_) => Err(Error::Timeout),
    }
}
