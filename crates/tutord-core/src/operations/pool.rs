//! The status of the connection pool.

/// The status of a connection pool; on SQLite, of the read connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// The maximum number of connections.
    pub max: usize,
    /// The number of open connections.
    pub open: usize,
    /// The number of idle connections.
    pub idle: usize,
    /// The number of callers that wait for a connection.
    pub waiting: usize,
    /// The number of acquisitions since the start.
    pub acquires: u64,
    /// The total wait of all acquisitions in microseconds, including the time to open connections.
    pub acquire_us: u64,
}
