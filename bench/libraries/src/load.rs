//! The cached value, and the loader that every library calls on a miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

/// A value of about 500 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, hitbox_derive::CacheableResponse)]
pub(crate) struct Profile {
    pub(crate) id: u64,
    /// The number of writes that the value shows.
    pub(crate) version: u64,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) text: String,
    pub(crate) tags: Vec<String>,
}

impl Profile {
    pub(crate) fn new(id: u64, version: u64) -> Self {
        Self {
            id,
            version,
            name: format!("Customer {id}"),
            email: format!("customer.{id}@example.com"),
            text: "A text of fifty characters, repeated seven times. ".repeat(7),
            tags: ["europe", "retail", "newsletter"].map(str::to_owned).to_vec(),
        }
    }
}

/// The error of a loader.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the loader failed")]
pub(crate) struct LoadError;

/// The behaviour of a loader. A clone counts into the same counter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    /// Holds the version of each value. Without it, every version is 1.
    database: Option<MultiplexedConnection>,
    /// The time between the query and the end of the load.
    delay: Duration,
    fails: bool,
    count: Arc<AtomicU64>,
}

impl Load {
    /// Returns a value without I/O.
    pub(crate) fn immediate() -> Self {
        Self::default()
    }

    /// Reads the version of the value from a database.
    pub(crate) fn from_database(database: MultiplexedConnection) -> Self {
        Self { database: Some(database), ..Self::default() }
    }

    pub(crate) fn delayed(&self, delay: Duration) -> Self {
        Self { delay, ..self.clone() }
    }

    pub(crate) fn failing(self) -> Self {
        Self { fails: true, ..self }
    }

    /// Returns the number of loads that have started.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Runs the loader.
    pub(crate) async fn run(self, id: u64) -> Result<Profile, LoadError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let version = match self.database {
            Some(mut database) => {
                let version: Option<u64> = database.get(row(id)).await.map_err(|_| LoadError)?;
                version.unwrap_or(0)
            }
            None => 1,
        };
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if self.fails { Err(LoadError) } else { Ok(Profile::new(id, version)) }
    }
}

/// Returns the key of a value's version in the database.
pub(crate) fn row(id: u64) -> String {
    format!("row:{id}")
}
