//! The changes by other processes: see [`Outbox`].

use async_trait::async_trait;
use tutord_core::operations::{ChangeFeed, Outbox};
use tutord_core::{Result, Timestamp};

use super::adapter::Sqlite;

// SQLite records no changes. The follower detects only that another process wrote.
#[async_trait]
impl Outbox for Sqlite {
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>> {
        Ok(self.serving.as_ref().map(|(_, follower)| Box::new(follower.clone()) as Box<dyn ChangeFeed>))
    }

    async fn own_changes(&self, _limit: i64) -> Result<Vec<i64>> {
        Ok(Vec::new())
    }

    async fn acknowledge_changes(&self, _ids: &[i64]) -> Result<()> {
        Ok(())
    }

    async fn purge_changes(&self, _before: Timestamp, _batch: i64) -> Result<usize> {
        Ok(0)
    }
}
