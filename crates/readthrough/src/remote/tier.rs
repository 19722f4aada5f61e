//! The operations that the protocol needs of a second tier.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use crate::key::{Keys, Names, keys_of};

/// The cause of a failed command. The server may have executed it all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TierError(pub(crate) String);

impl TierError {
    /// Creates an error. [`RedisFault`](crate::RedisFault) is derived from the error codes of Redis in its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, TierError>;

/// The state of the server at the beginning of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerState {
    /// The replication history of the server. A restart and a promotion, which may lose invalidations, begin a new one.
    pub lineage: String,
    /// The epochs.
    pub epochs: Epochs,
    /// The position of the newest event.
    pub newest: Option<StreamPosition>,
    /// The clock of the server, in milliseconds since 1970; 0 if unknown.
    pub time_ms: u64,
    /// Set if a master that has lost its replicas still accepts writes.
    pub accepts_isolated_writes: bool,
}

/// The random numbers that values in Redis must carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The epoch of the server.
    pub server: String,
    /// A number for each namespace that was flushed, and one for all namespaces under `*`.
    pub namespaces: HashMap<String, String>,
}

/// News from the stream, with the proof that the server is the master.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Poll {
    /// The replication history; `None` if this poll did not read it.
    pub lineage: Option<String>,
    /// The epochs; `None` if the server has lost them.
    pub epochs: Option<Epochs>,
    /// The newest event before the events were read; `None` if the stream does not exist.
    pub tail: Option<StreamPosition>,
    /// The clock of the server, in milliseconds since 1970; 0 if unknown.
    pub time_ms: u64,
    /// The events after the requested position, in order.
    pub events: Vec<Event>,
}

/// A position in the stream of invalidations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// The id of the stream entry, which increases even if the stream is created again.
    pub id: String,
    /// The sequence number of the event. The first event has 1, each later one the next number.
    pub sequence: u64,
}

impl Default for StreamPosition {
    fn default() -> Self {
        Self { id: "0-0".to_owned(), sequence: 0 }
    }
}

/// An invalidation in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The position in the stream.
    pub position: StreamPosition,
    /// The process that invalidated.
    pub node: u64,
    /// Names of entries and groups; empty if epochs changed, which wakes the readers of the stream.
    pub names: Vec<String>,
}

/// The response to a request for a lease.
#[derive(Debug)]
pub struct LeaseResponse {
    /// Set if the lease was granted.
    pub is_granted: bool,
    /// The generation of the group; 0 for a single entry.
    pub generation: u64,
    /// The stored entry.
    pub bytes: Option<Vec<u8>>,
}

/// A request for the permission to store an entry.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest {
    /// A random number that identifies the lease.
    pub token: u64,
    /// The time to live of the lease.
    pub ttl: Duration,
    /// The generation that the group gets if it has none.
    pub generation: u64,
    /// The time to live of the generation.
    pub generation_ttl: Duration,
}

/// An entry to store.
#[derive(Debug, Clone, Copy)]
pub struct Fill<'a> {
    /// The token of the lease.
    pub token: u64,
    /// The generation of the group when the lease was granted.
    pub generation: u64,
    /// The entry.
    pub bytes: &'a [u8],
    /// The time to live of the entry.
    pub ttl: Duration,
    /// The time to live of the generation.
    pub generation_ttl: Duration,
}

/// An entry that replaces another.
#[derive(Debug, Clone, Copy)]
pub struct Replacement<'a> {
    /// The first bytes of the stored entry.
    pub expected: &'a [u8],
    /// The expected generation of the group, and its new one.
    pub generations: (u64, u64),
    /// The entry.
    pub bytes: &'a [u8],
    /// The time to live of the entry.
    pub ttl: Duration,
    /// The time to live of the generation.
    pub generation_ttl: Duration,
}

/// The fields of the server's `INFO`.
pub type Info = HashMap<String, String>;

/// One connection to the second tier. A cache calls [`open_epoch`](Self::open_epoch) first, and then
/// [`is_current_master`](Self::is_current_master) every [`l1_staleness`](crate::CacheBuilder::l1_staleness).
#[async_trait]
pub trait SecondTier: Any + Send + Sync {
    /// Reads the state of the server, after a test of the commands that the protocol needs.
    ///
    /// Begins a new epoch if the server has none, if its lineage is not that in which the epoch began, or if the epoch does
    /// not come after `predecessor`, the epoch that this process used last.
    async fn open_epoch(&self, predecessor: Option<&str>) -> Result<ServerState>;

    /// Reads the bytes under each name of an entry or a group, in one round trip.
    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Grants the lease of an entry unless it is held, atomically with the response.
    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<LeaseResponse>;

    /// Reads the generation of each group, and gives `generation` to those that have none, atomically for each group.
    async fn generations(&self, groups: &[String], generation: u64, ttl: Duration) -> Result<Vec<u64>>;

    /// Stores an entry if the token and the generation still match, atomically, and releases the lease.
    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool>;

    /// Extends a lease by `ttl` from now unless it was revoked or has expired, atomically.
    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()>;

    /// Releases a lease without storing a value.
    async fn release(&self, names: &Names, token: u64) -> Result<()>;

    /// Stores an entry and the new generation of its group if both are as expected, atomically; revokes any lease.
    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool>;

    /// Removes entries with their leases, and generations of groups; then appends an event with the names.
    async fn invalidate(&self, names: &[String], node: u64) -> Result<()>;

    /// Appends an event with the names and removes nothing.
    async fn announce(&self, names: &[String], node: u64) -> Result<()>;

    /// Gives a namespace, or all with `*`, a new number; then appends an event without names. Returns the new epochs.
    async fn flush(&self, namespace: &str, node: u64) -> Result<Epochs>;

    /// Reads all events after a position. Waits up to `wait` for the first one.
    ///
    /// Before it reads, it sends a write that a replica refuses, and a master that has too few replicas.
    async fn poll(&self, after: &StreamPosition, wait: Duration) -> Result<Poll>;

    /// Returns whether clients should still use this server.
    async fn is_current_master(&self) -> Result<bool> {
        Ok(true)
    }

    /// Returns whether the keys are on several servers, of which one can fail alone.
    fn is_partitioned(&self) -> bool {
        false
    }

    /// Reads the statistics of the server.
    async fn info(&self) -> Result<Info>;
}

/// Opens connections.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Opens a connection. All its keys begin with `prefix`.
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn SecondTier>>;
}
