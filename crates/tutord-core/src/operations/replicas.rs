//! Replicas of the database.

use std::time::Duration;

/// The maximum number of replicas that are read.
pub const MAX_REPLICAS: i64 = 50;

/// A streaming replica that is connected to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The `application_name` of the connection, at most 63 bytes; by default the `cluster_name`, or `walreceiver`.
    /// Several replicas can share a name.
    pub name: String,
    /// The IP address of the replica; `None` for a socket, or if `progress` is `None`.
    pub address: Option<String>,
    /// The progress; `None` if the database user lacks the role `pg_read_all_stats`.
    pub progress: Option<ReplicaProgress>,
}

/// The progress of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The state: `streaming`, `catchup` after a disconnect, `backup` during a copy, …
    pub state: String,
    /// The synchronous state: `async` (commits do not wait for this replica), `sync`, `quorum`, or `potential`.
    pub sync_state: String,
    /// The bytes of the write-ahead log that the replica has not replayed; `None` if it replays nothing, as during a
    /// copy.
    pub lag_bytes: Option<u64>,
    /// The last measured time between a write and its replay; zero if nothing is left to replay, `None` if not
    /// measured.
    pub lag: Option<Duration>,
}
