//! Reading of the identity of the database, by connections and by the poll of the [`Monitor`].

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};
use tutord_core::operations::DatabaseIdentity;

use super::connect::Connector;
use super::monitor::Monitor;

/// The parts of the identity, which any role may read: the cluster, the database, the table that everything refers to
/// (a restore in place recreates it, and each schema has its own), and the timeline (a promotion or a point-in-time
/// recovery begins a new one). A server in recovery has no timeline that ordinary roles may read. Unknown parts are
/// NULL.
pub(super) const READ: &str = "SELECT system_identifier, \
    (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()), to_regclass('users')::oid, \
    CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END \
    FROM pg_control_system()";

/// The interval of the poll, the same after which a silent Redis disables the in-process cache.
const POLL: Duration = Duration::from_millis(250);
/// The timeouts of the poll for a response and for a connection. They ensure that all processes detect a new identity
/// within the second in which the cache reads nothing of it.
const ANSWER: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(1);

/// Returns the identity in the result of [`READ`].
pub(super) fn parse(answer: &[SimpleQueryMessage]) -> Option<DatabaseIdentity> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    Some(DatabaseIdentity::of(&[row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?))
}

/// A guard that ends the poll on drop.
pub(super) struct Poll(JoinHandle<()>);

impl Drop for Poll {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Poll {
    /// Starts the poll, on a separate connection.
    pub(super) fn start(connector: Connector, monitor: Arc<Monitor>) -> Self {
        Self(tokio::spawn(async move {
            let mut connection = None;
            loop {
                connection = poll(&connector, &monitor, connection).await;
                sleep(POLL).await;
            }
        }))
    }
}

/// Reads the identity once, and returns the connection if it is reusable.
async fn poll(connector: &Connector, monitor: &Monitor, connection: Option<(Client, u64)>) -> Option<(Client, u64)> {
    let term = monitor.term();
    // One of an earlier term may lead to what the address led to then.
    let client = match connection.filter(|(_, of)| *of == term) {
        Some((client, _)) => client,
        None => timeout(CONNECT, connector.client()).await.ok()?.ok()?,
    };
    let found = match timeout(ANSWER, client.simple_query(READ)).await.ok()? {
        Ok(answer) => parse(&answer),
        // It was refused, and will be.
        Err(error) if is_refused(&error) => None,
        Err(_) => return None,
    };
    monitor.observe(found, term);
    Some((client, term))
}

/// Returns `true` if the server can't or may not return the identity.
pub(super) fn is_refused(error: &tokio_postgres::Error) -> bool {
    // Class 42: syntax errors and access rule violations.
    error.code().is_some_and(|state| state.code().starts_with("42"))
}
