//! The calls for operators and background tasks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use diesel::connection::SimpleConnection as _;
use diesel_async::RunQueryDsl;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tutord_core::operations::{
    Administration, DatabaseIdentity, IdentityListener, PoolStatus, Replica, SchemaState, SeedPlan, ServerStatement,
};
use tutord_core::{Error, Result, Timestamp};

use super::adapter::Sqlite;
use super::pool::unwatched;
use super::{explain, lock, metadata, purge, seed, users};
use crate::migrations::pending;
use crate::probe::{PROBE_KEY, probe_values};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The maximum wait at the start for another process that migrates.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);

#[async_trait]
impl Administration for Sqlite {
    fn backend(&self) -> &'static str {
        "sqlite"
    }

    fn pool(&self) -> PoolStatus {
        self.metrics.status(&self.readers.status())
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        self.schema().await?.check()?;
        let (settings, watch) = (self.settings.clone(), self.watch.clone());
        // On the writer: the commit of any other connection looks like another process's.
        let applied = self.write(async |conn| {
            let outcome = conn.spawn_blocking(move |inner| {
                unwatched(inner, &watch, |inner| {
                    // One process at a time: the lock is taken before anybody looks which migrations are pending.
                    inner.batch_execute(&format!("PRAGMA busy_timeout = {}", MIGRATION_WAIT.as_millis()))?;
                    let outcome = inner.immediate_transaction(|inner| {
                        let applied = inner.run_pending_migrations(MIGRATIONS);
                        let applied = applied.map_err(|error| Error::Migration(error.to_string()))?;
                        Ok::<_, Error>(applied.iter().map(ToString::to_string).collect())
                    });
                    inner.batch_execute(&settings)?;
                    Ok(outcome)
                })
            });
            outcome.await?
        });
        let applied = applied.await?;
        self.write(async |conn| users::backfill_addresses(conn).await).await?;
        Ok(applied)
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        let applied =
            metadata::or_default_without_table(self.read(async |conn| metadata::applied_migrations(conn).await).await)?;
        pending::<diesel::sqlite::Sqlite>(&MIGRATIONS, &applied)
    }

    async fn schema(&self) -> Result<SchemaState> {
        let pending = self.pending_migrations().await?;
        let metadata = self.read(async |conn| metadata::metadata(conn).await).await;
        Ok(SchemaState { pending, metadata: metadata::or_default_without_table(metadata)? })
    }

    async fn try_write(&self) -> Result<()> {
        let grow = AtomicBool::load(&self.may_be_full, Ordering::Relaxed);
        for value in probe_values(grow) {
            self.write(async |conn| metadata::set_metadata(conn, PROBE_KEY, &value).await).await?;
        }
        if grow {
            self.may_be_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.read(async |conn| {
            diesel::sql_query("SELECT 1").execute(conn).await?;
            // The database has no clock of its own.
            Ok(Timestamp::now())
        })
        .await
    }

    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>> {
        Ok(lock::identity(&self.path))
    }

    fn on_identity(&self, listener: IdentityListener) {
        listener(self.serving.as_ref().map(|(lock, _)| lock.identity()));
    }

    async fn purge_conversations(&self, batch: i64) -> Result<usize> {
        self.transaction(async |conn| purge::purge_conversations(conn, batch).await).await
    }

    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.write(async |conn| purge::purge_expired(conn, before, batch).await).await
    }

    async fn explain(&self, shape: &str) -> Result<Option<String>> {
        tokio::task::block_in_place(|| explain::explain(&self.path, shape))
    }

    async fn server_statements(&self, _limit: i64) -> Result<Option<Vec<ServerStatement>>> {
        Ok(None)
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        Ok(Vec::new())
    }

    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64> {
        let mut conn = self.own_connection()?;
        tokio::task::block_in_place(|| Ok(seed::load(&mut conn, plan, progress)?))
    }
}
