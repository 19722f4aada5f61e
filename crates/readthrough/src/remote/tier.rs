//! The operations that the protocol needs of a second tier.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::key::Names;

/// Why a command failed. The server may have executed it all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RemoteError(pub(crate) String);

pub(crate) type Result<T> = std::result::Result<T, RemoteError>;

/// The state of the server at the beginning of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerState {
    /// The identity of the server. A restart or a failover, which may lose invalidations, changes it.
    pub(crate) identity: String,
    /// A number for each namespace that was flushed, and one for all namespaces under `*`.
    pub(crate) epochs: HashMap<String, String>,
    /// The position of the newest event.
    pub(crate) newest: StreamPosition,
}

/// A position in the stream of invalidations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// The id of the stream entry, which increases even if the stream is created again.
    pub(crate) id: String,
    /// The sequence number of the event. The first event has 1, each later one the next number.
    pub(crate) sequence: u64,
}

impl Default for StreamPosition {
    fn default() -> Self {
        Self { id: "0-0".to_owned(), sequence: 0 }
    }
}

/// An invalidation in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) position: StreamPosition,
    /// The process that invalidated.
    pub(crate) node: u64,
    /// Names of entries and groups; empty if epochs changed.
    pub(crate) names: Vec<String>,
}

/// The response to a request for a lease.
#[derive(Debug)]
pub(crate) struct LeaseResponse {
    /// Whether the lease was granted.
    pub(crate) is_granted: bool,
    /// The generation of the group; 0 for a single entry.
    pub(crate) generation: u64,
    /// The stored entry.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A request for the permission to store an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseRequest {
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
    /// The generation that the group gets if it has none.
    pub(crate) generation: u64,
    pub(crate) generation_ttl: Duration,
}

/// An entry to store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fill<'a> {
    /// The token of the lease.
    pub(crate) token: u64,
    /// The generation of the group when the lease was granted.
    pub(crate) generation: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) ttl: Duration,
    pub(crate) generation_ttl: Duration,
}

/// An entry that replaces another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replacement<'a> {
    /// The first bytes of the stored entry.
    pub(crate) expected: &'a [u8],
    /// The expected generation of the group, and its new one.
    pub(crate) generations: (u64, u64),
    pub(crate) bytes: &'a [u8],
    pub(crate) ttl: Duration,
    pub(crate) generation_ttl: Duration,
}

/// The fields of the server's `INFO`.
pub(crate) type Info = HashMap<String, String>;

/// One connection to the second tier.
#[async_trait]
pub(crate) trait RemoteTier: Any + Send + Sync {
    /// Reads the state of the server, after a test of the commands that the protocol needs.
    async fn state(&self) -> Result<ServerState>;

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

    /// Gives a namespace, or all with `*`, a new epoch; then appends an event without names.
    async fn flush(&self, namespace: &str, node: u64) -> Result<()>;

    /// Reads all events after a position, in order. Waits up to `wait` for the first one.
    async fn events(&self, after: &StreamPosition, wait: Duration) -> Result<Vec<Event>>;

    /// Reads the statistics of the server.
    async fn info(&self) -> Result<Info>;

    /// Returns whether the identity of the server can change while the connection stays open.
    fn survives_failover(&self) -> bool {
        false
    }
}

/// Opens connections.
#[async_trait]
pub(crate) trait Connector: Send + Sync {
    /// Opens a connection. All its keys begin with `prefix`.
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn RemoteTier>>;
}
