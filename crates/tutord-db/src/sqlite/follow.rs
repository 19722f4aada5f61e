//! Detection of writes by other processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::pooled_connection::deadpool::Pool;
use querywatch::Watch;
use tokio::time::sleep;
use tutord_core::model::change::{Change, ChangeKind};
use tutord_core::operations::ChangeFeed;
use tutord_core::{Error, Result};

use super::pool::{Conn, get, unwatched};

/// The interval of the check.
const POLL: Duration = Duration::from_millis(500);

/// Reads the file's version on the write connection, where it changes when any other connection commits. Read
/// connections also see the commits of this process, and would mistake them for those of another process.
#[derive(Clone)]
pub(super) struct Follower {
    writer: Pool<Conn>,
    /// The number of connections that the writer's pool has opened.
    opened: Arc<AtomicU64>,
    watch: Watch,
    /// The last processed version.
    done: Arc<Mutex<Version>>,
    found: Version,
}

/// A version is only valid for its connection, so a replaced write connection counts as a change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    connection: u64,
    version: i64,
}

#[derive(QueryableByName)]
struct DataVersion {
    #[diesel(sql_type = BigInt)]
    data_version: i64,
}

impl Follower {
    /// Starts to follow from the current version.
    pub(super) async fn begin(writer: Pool<Conn>, opened: Arc<AtomicU64>, watch: Watch) -> Result<Self> {
        let found = look(&writer, &opened, &watch).await?;
        Ok(Self { writer, opened, watch, done: Arc::new(Mutex::new(found)), found })
    }
}

async fn look(writer: &Pool<Conn>, opened: &AtomicU64, watch: &Watch) -> Result<Version> {
    // It waits like any writer, and is done at once.
    let mut conn = get(writer).await?;
    let connection = opened.load(Ordering::Acquire);
    let watch = watch.clone();
    let version = conn.spawn_blocking(move |inner| {
        unwatched(inner, &watch, |inner| diesel::sql_query("PRAGMA data_version").get_result::<DataVersion>(inner))
    });
    Ok(Version { connection, version: version.await?.data_version })
}

#[async_trait]
impl ChangeFeed for Follower {
    async fn next(&mut self, _limit: i64) -> Result<Vec<Change>> {
        sleep(POLL).await;
        self.found = match look(&self.writer, &self.opened, &self.watch).await {
            Ok(found) => found,
            // While this process writes no other one does.
            Err(Error::Overloaded) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if self.found == *self.done.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Vec::new());
        }
        Ok(vec![Change { id: 0, kind: ChangeKind::Unknown, user_id: None, item_id: None }])
    }

    async fn acknowledge(&mut self, _changes: &[Change]) -> Result<()> {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = self.found;
        Ok(())
    }
}
