//! The poll of the identity of the database, which detects changes behind open connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::connect::Connector;
use super::identity::{READ, is_refused, parse};
use super::monitor::Monitor;

/// The interval of the poll, the same after which a silent Redis disables the in-process cache.
const POLL: Duration = Duration::from_millis(250);
/// The timeouts of the poll for a response and for a connection. They ensure that all processes detect a new identity
/// within the second in which the cache reads nothing of it.
const ANSWER: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(1);

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
