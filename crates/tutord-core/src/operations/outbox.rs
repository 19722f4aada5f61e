//! Changes that the database records, for the invalidation of caches.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::change::Change;
use crate::time::Timestamp;

/// Changes of rows behind cached values. The transaction of each change records it, regardless of the client.
///
/// A process that was opened with a node id invalidates its own changes at once and
/// [acknowledges](Self::acknowledge_changes) them. The one process that [follows](Self::follow_changes) invalidates all
/// other changes, and those that were not acknowledged within [`GRACE`](crate::model::change::GRACE), because their
/// process may have died after the commit. SQLite records no changes: the process that serves
/// detects whether another process wrote.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Becomes the process that follows the changes. Returns `None` if another process does, or on SQLite if this
    /// process does not serve.
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>>;

    /// Returns the oldest unacknowledged changes of this process. 1 statement.
    async fn own_changes(&self, limit: i64) -> Result<Vec<i64>>;

    /// Removes processed changes. 1 statement.
    async fn acknowledge_changes(&self, ids: &[i64]) -> Result<()>;

    /// Removes at most `batch` unfollowed changes from before `before`, and returns their number. 1 statement.
    async fn purge_changes(&self, before: Timestamp, batch: i64) -> Result<usize>;
}

/// A feed of changes that must be invalidated. Dropping it lets another process follow.
#[async_trait]
pub trait ChangeFeed: Send {
    /// Waits for changes, for about a second, and returns at most `limit`, oldest first; the result can be empty.
    ///
    /// # Errors
    /// Returns an error if the connection is lost; another process can follow then.
    async fn next(&mut self, limit: i64) -> Result<Vec<Change>>;

    /// Removes processed changes. `next` returns the remaining ones again.
    async fn acknowledge(&mut self, changes: &[Change]) -> Result<()>;
}
