//! The cached store: uncached calls, for the outbox and for operators.

use async_trait::async_trait;
use tutord_store::seed::SeedPlan;
use tutord_store::store::{Administration, ChangeFeed, Outbox, PoolStatus, Replica, ServerStatement};
use tutord_store::{DatabaseIdentity, IdentityListener, Result, SchemaState, Timestamp};

use super::CachedStore;

#[async_trait]
impl Outbox for CachedStore {
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>> {
        self.store.follow_changes().await
    }

    async fn own_changes(&self, limit: i64) -> Result<Vec<i64>> {
        self.store.own_changes(limit).await
    }

    async fn acknowledge_changes(&self, ids: &[i64]) -> Result<()> {
        self.store.acknowledge_changes(ids).await
    }

    async fn purge_changes(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.store.purge_changes(before, batch).await
    }
}

#[async_trait]
impl Administration for CachedStore {
    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    fn pool(&self) -> PoolStatus {
        self.store.pool()
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        self.store.migrate().await
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        self.store.pending_migrations().await
    }

    async fn schema(&self) -> Result<SchemaState> {
        self.store.schema().await
    }

    async fn try_write(&self) -> Result<()> {
        self.store.try_write().await
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.store.ping().await
    }

    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>> {
        self.store.database_identity().await
    }

    fn on_identity(&self, listener: IdentityListener) {
        self.store.on_identity(listener);
    }

    // What it removes was hidden before.
    async fn purge_conversations(&self, batch: i64) -> Result<usize> {
        self.store.purge_conversations(batch).await
    }

    // What it removes had expired before.
    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.store.purge_expired(before, batch).await
    }

    async fn explain(&self, shape: &str) -> Result<Option<String>> {
        self.store.explain(shape).await
    }

    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>> {
        self.store.server_statements(limit).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        self.store.replicas().await
    }

    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64> {
        self.store.seed(plan, progress).await
    }
}
