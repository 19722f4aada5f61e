//! The calls for operators and background tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use diesel::migration::MigrationVersion;
use diesel_async::{AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tutord_core::operations::{
    Administration, DatabaseIdentity, IdentityListener, PoolStatus, Replica, SchemaState, SeedPlan, ServerStatement,
};
use tutord_core::{Error, Result, Timestamp};

use super::adapter::Postgres;
use super::connect::{connect, connection_error, describe};
use super::{explain, identity, metadata, purge, replicas, seed, server_statements, users};
use crate::migrations::pending;
use crate::probe::{PROBE_KEY, probe_values};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The advisory lock of migrations; a random constant.
const MIGRATION_LOCK: i64 = 7_261_983_450_118_273_641;

#[async_trait]
impl Administration for Postgres {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn pool(&self) -> PoolStatus {
        self.metrics.status(&self.pool.status())
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        // A connection of its own: migrations may outlast any statement time-out.
        let connector = self.connector.without_statement_timeout();
        let mut conn = connect(&connector).await.map_err(connection_error)?;
        let lock = format!("pg_try_advisory_lock({MIGRATION_LOCK})");
        if !diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(&lock)).get_result(&mut conn).await? {
            tracing::info!("another process is migrating the database; waiting for it");
            conn.batch_execute(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")).await?;
        }
        self.schema().await?.check()?;
        let mut harness = AsyncMigrationHarness::new(conn);
        let applied = harness.run_pending_migrations(MIGRATIONS).map(|versions| names(&versions));
        let mut conn = harness.into_inner();
        let applied = applied.map_err(|error| Error::Migration(error.to_string()))?;
        users::backfill_addresses(&mut conn).await?;
        conn.batch_execute(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})")).await?;
        Ok(applied)
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        let applied =
            metadata::or_default_without_table(self.read(async |conn| metadata::applied_migrations(conn).await).await)?;
        pending::<diesel::pg::Pg>(&MIGRATIONS, &applied)
    }

    async fn schema(&self) -> Result<SchemaState> {
        let pending = self.pending_migrations().await?;
        let metadata = self.read(async |conn| metadata::metadata(conn).await).await;
        Ok(SchemaState { pending, metadata: metadata::or_default_without_table(metadata)? })
    }

    async fn try_write(&self) -> Result<()> {
        let grow = AtomicBool::load(&self.may_be_full, Ordering::Relaxed);
        for value in probe_values(grow) {
            self.transaction(async |conn| metadata::set_metadata(conn, PROBE_KEY, &value).await).await?;
        }
        if grow {
            self.may_be_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.read(async |conn| {
            let now = diesel::dsl::sql::<tutord_core::sql_types::Instant>("clock_timestamp()");
            Ok(diesel::select(now).get_result(conn).await?)
        })
        .await
    }

    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>> {
        let client = self.connector.client().await?;
        let answer = client.simple_query(identity::READ).await;
        Ok(identity::parse(&answer.map_err(|error| Error::Unavailable(describe(&error)))?))
    }

    fn on_identity(&self, listener: IdentityListener) {
        self.monitor.listen(listener);
    }

    async fn purge_conversations(&self, batch: i64) -> Result<usize> {
        self.transaction(async |conn| purge::purge_conversations(conn, batch).await).await
    }

    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.write(async |conn| purge::purge_expired(conn, before, batch).await).await
    }

    async fn explain(&self, shape: &str) -> Result<Option<String>> {
        explain::explain(&self.connector, shape).await
    }

    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>> {
        self.read(async |conn| server_statements::read(conn, limit).await).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        self.read(async |conn| replicas::read(conn).await).await
    }

    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64> {
        seed::load(&self.connector, plan, progress).await
    }
}

fn names(versions: &[MigrationVersion<'_>]) -> Vec<String> {
    versions.iter().map(ToString::to_string).collect()
}
