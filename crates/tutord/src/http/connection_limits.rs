//! The limits of client connections.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connections::Limits;
use super::settings::HttpSettings;

/// The maximum number of connections without `MAX_CONNECTIONS`, which bounds their memory.
const MAX_CONNECTIONS: u64 = 10_000;
/// File descriptors reserved for Redis, files, mails and the log.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Returns the limits of connections: as configured, or derived from the limit of file descriptors.
pub(crate) fn limits(http: &HttpSettings, database_connections: usize) -> Limits {
    // A SQLite connection opens three files. One client in eight may hold a connection to the model.
    let reserved = RESERVED_DESCRIPTORS + 3 * u64::try_from(database_connections).unwrap_or(u64::MAX / 4);
    let descriptors = raised_descriptors();
    let left = descriptors.saturating_sub(reserved) / 8 * 7;
    let connections = http.max_connections.map_or(left.clamp(16, MAX_CONNECTIONS), u64::from);
    if connections > left {
        tracing::warn!(
            connections,
            descriptors,
            reserved,
            "the limit of file descriptors allows fewer connections than configured; raise it (ulimit -n, \
             LimitNOFILE) or lower MAX_CONNECTIONS"
        );
    }
    Limits {
        connections: usize::try_from(connections).unwrap_or(usize::MAX),
        idle: Duration::from_secs(http.idle_timeout_seconds),
    }
}

/// Raises the limit of file descriptors to the hard limit and returns it.
fn raised_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "could not raise the limit of file descriptors");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
