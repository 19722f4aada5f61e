//! Calls for operators and background tasks.

use async_trait::async_trait;

use super::identity::{DatabaseIdentity, IdentityListener};
use super::metadata::SchemaState;
use super::pool::PoolStatus;
use super::replicas::Replica;
use super::seed::SeedPlan;
use super::statements::ServerStatement;
use crate::error::Result;
use crate::time::Timestamp;

/// Calls for operators and background tasks.
#[async_trait]
pub trait Administration: Send + Sync {
    /// Returns `postgres` or `sqlite`.
    fn backend(&self) -> &'static str;

    /// Returns the status of the connection pool.
    fn pool(&self) -> PoolStatus;

    /// Applies pending migrations and returns their names. One process at a time.
    async fn migrate(&self) -> Result<Vec<String>>;

    /// Returns the names of the pending migrations.
    async fn pending_migrations(&self) -> Result<Vec<String>>;

    /// Returns the metadata of the schema and its pending migrations. 2 statements.
    async fn schema(&self) -> Result<SchemaState>;

    /// Checks that the database accepts writes, by writing and committing a row. The first check, and the checks after
    /// a write that failed for lack of disk space, write a row that needs new space. 1 statement, or 2.
    async fn try_write(&self) -> Result<()>;

    /// Checks that the database responds, and returns its clock. 1 statement.
    async fn ping(&self) -> Result<Timestamp>;

    /// Reads the identity of the database. Returns `None` if it is unknown: on a server in recovery, before the first
    /// migration, and on SQLite before a process has served the file. 1 statement, on a separate connection.
    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>>;

    /// Calls `listener` with the identity: at once, and before any call returns data of another database than before.
    /// On PostgreSQL, only for a store with a node; changes behind open connections are
    /// detected within 250 ms, or within about a second if a server hangs.
    fn on_identity(&self, listener: IdentityListener);

    /// Removes at most `batch` messages of deleted conversations, and the conversations that are then empty. Returns
    /// the number of removed rows; call until it returns 0.
    async fn purge_conversations(&self, batch: i64) -> Result<usize>;

    /// Removes sessions, tokens, trusted browsers and idempotency keys that ended before `before`, about `batch` of
    /// each. Returns the number of removed rows; call until it returns 0.
    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize>;

    /// Returns the plan (the text of EXPLAIN) of a statement of this shape, which has a `?` for each value. Does not
    /// execute the statement. Uses a separate connection, for a few seconds at most. Returns `None` for statements that
    /// are not about rows, or that can't be planned without values.
    async fn explain(&self, shape: &str) -> Result<Option<String>>;

    /// Returns the statements with the longest total time according to `pg_stat_statements`, at most `limit`, or `None`
    /// if the extension is missing, can't be read, or the database is SQLite. 2 statements.
    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>>;

    /// Returns the connected replicas (`pg_stat_replication`), at most [`MAX_REPLICAS`](super::MAX_REPLICAS), by name and address; none on
    /// SQLite. 1 statement.
    async fn replicas(&self) -> Result<Vec<Replica>>;

    /// Loads the rows of a plan in one transaction and returns their number. Reports the number of written rows to
    /// `progress` from time to time. Returns [`Error::Conflict`](crate::Error::Conflict) if this plan's students
    /// already exist.
    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64>;
}
