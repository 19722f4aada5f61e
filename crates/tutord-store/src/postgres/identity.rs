//! The identity of the database behind the connections of the pool.
//!
//! A URL can suddenly lead to another database: a standby was promoted, or a dump was restored. Each connection reads
//! the identity when it is opened. An identity that differs from the pool's begins a new term: listeners are notified
//! before the connection is used, and connections of earlier terms are closed instead of used. A poll detects changes
//! behind open connections, as after a restore in place or behind a pooler.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::connect::Connector;
use crate::identity::{DatabaseIdentity, IdentityListener};

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

/// The identity of the database behind the pool.
#[derive(Default)]
pub(super) struct Monitor {
    /// The current term, which increases with each change of the identity.
    term: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    identity: Option<DatabaseIdentity>,
    listener: Option<IdentityListener>,
}

impl Monitor {
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Adopts the identity read by a connection that was begun in term `since`, and returns the term of the connection.
    /// Returns `None` if another identity was found meanwhile, because the order of the two is unknown.
    pub(super) fn observe(&self, found: Option<DatabaseIdentity>, since: u64) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if found == seen.identity {
            return Some(self.term());
        }
        if since != self.term() {
            return None;
        }
        match (&seen.identity, &found) {
            (Some(_), Some(_)) => {
                tracing::warn!("the database has a new identity; values cached from the old database are not used");
            }
            (Some(_), None) => {
                tracing::warn!(
                    "the identity of the database is unknown, as on a server in recovery or without tutord's tables: \
                     nothing is cached"
                );
            }
            (None, _) => {}
        }
        seen.identity = found;
        let term = self.term.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(listener) = &seen.listener {
            listener(seen.identity.as_ref());
        }
        Some(term)
    }

    pub(super) fn listen(&self, listener: IdentityListener) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        listener(seen.identity.as_ref());
        seen.listener = Some(listener);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_told_of_each_change_and_a_late_answer_changes_nothing() {
        let [a, b] = ["a", "b"].map(|timeline| Some(DatabaseIdentity::of(&["1", "2", "3"], timeline)));
        assert_eq!(a.as_ref().map(|a| &a.lineage), b.as_ref().map(|b| &b.lineage));
        let (monitor, told) = (Monitor::default(), Arc::<Mutex<Vec<_>>>::default());
        let telling = Arc::clone(&told);
        monitor.listen(Arc::new(move |identity| telling.lock().unwrap().push(identity.cloned())));
        let first = monitor.observe(a.clone(), monitor.term()).unwrap();
        assert_eq!(monitor.observe(a.clone(), 0), Some(first), "a connection that was begun before leads there, too");
        let second = monitor.observe(b.clone(), first).unwrap();
        assert_eq!(monitor.observe(a.clone(), first), None);
        let third = monitor.observe(a.clone(), second).unwrap();
        assert!(first < second && second < third && third == monitor.term());
        assert_eq!(*told.lock().unwrap(), [None, a.clone(), b, a]);
    }
}
