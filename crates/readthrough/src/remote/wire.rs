//! The commands that the protocol needs of a server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::key::Names;

/// Why a command was not carried out, or may not have been.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What the server knows when a connection begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server's run: another one after a restart or a failover, which may have lost invalidations.
    pub(crate) identity: String,
    /// A number for each namespace that was flushed, and one for all under `*`.
    pub(crate) epochs: HashMap<String, String>,
    /// The newest invalidation.
    pub(crate) newest: Position,
}

/// A place in the stream of invalidations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The stream's own id, which increases even when the stream is made anew.
    pub(crate) id: String,
    /// One more than that of the event before; begins with 1.
    pub(crate) number: u64,
}

impl Default for Position {
    fn default() -> Self {
        Self { id: "0-0".to_owned(), number: 0 }
    }
}

/// Something that was invalidated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: Position,
    /// The process that invalidated.
    pub(crate) node: u64,
    /// Names of entries and groups; empty when epochs changed.
    pub(crate) names: Vec<String>,
}

/// The answer to the request for a lease.
#[derive(Debug)]
pub(crate) struct Acquired {
    /// Whether the lease was granted.
    pub(crate) granted: bool,
    /// The generation of the group; 0 for an entry by itself.
    pub(crate) generation: u64,
    /// What is stored now.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Who asks for the right to fill an entry, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseRequest {
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
    /// The generation of the group when it has none.
    pub(crate) generation: u64,
    pub(crate) generation_ttl: Duration,
}

/// An entry to store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fill<'a> {
    /// The lease.
    pub(crate) token: u64,
    /// The group's generation when the lease was granted.
    pub(crate) generation: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) ttl: Duration,
    pub(crate) generation_ttl: Duration,
}

/// An entry to store in the place of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replacement<'a> {
    /// What the stored entry must begin with.
    pub(crate) expected: &'a [u8],
    /// What the group's generation must be, and what it becomes.
    pub(crate) generations: (u64, u64),
    pub(crate) bytes: &'a [u8],
    pub(crate) ttl: Duration,
    pub(crate) generation_ttl: Duration,
}

/// What the operator should know of the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Info(pub(crate) HashMap<String, String>);

/// One connection.
#[async_trait]
pub(crate) trait Wire: Send + Sync {
    async fn hello(&self) -> Result<Hello>;

    /// The bytes under each name of an entry or a group, in one round trip.
    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Grants the lease of an entry unless somebody has it, atomically with the answer.
    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<Acquired>;

    /// Stores an entry if the lease and the generation are still those, atomically, and ends the lease.
    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool>;

    /// Lets a lease last for `ttl` from now on, unless it was revoked or has expired, atomically.
    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()>;

    /// Ends a lease without storing.
    async fn release(&self, names: &Names, token: u64) -> Result<()>;

    /// Stores an entry, and its group's new generation, if both are still what is expected, atomically; ends any lease.
    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool>;

    /// Removes entries with their leases, and generations of groups; then appends an event with the names.
    async fn invalidate(&self, names: &[String], node: u64) -> Result<()>;

    /// Appends an event with the names, and removes nothing.
    async fn announce(&self, names: &[String], node: u64) -> Result<()>;

    /// Gives a namespace (or all, as `*`) a new epoch; then appends an event without names.
    async fn flush(&self, namespace: &str, node: u64) -> Result<()>;

    /// All events after a position, in their order; waits for one as long as `wait`.
    async fn events(&self, after: &Position, wait: Duration) -> Result<Vec<Event>>;

    async fn info(&self) -> Result<Info>;

    /// Runs a script of the program's own.
    async fn script(&self, script: &str, key: &str, arguments: &[i64]) -> Result<Vec<i64>>;

    /// Whether the server's run may change without the connection breaking.
    fn survives_failover(&self) -> bool {
        false
    }
}

/// Makes connections.
#[async_trait]
pub(crate) trait Connect: Send + Sync {
    /// A connection all of whose keys, but those of scripts, begin with `scope`.
    async fn connect(&self, scope: &str) -> Result<Arc<dyn Wire>>;
}
