//! A pooled connection for the duration of a call.

use std::sync::Arc;

use diesel_async::pooled_connection::deadpool::{Object, Pool};

use super::connect::Connector;
use super::overflow::Overflow;
use super::sqlcommenter::Connection;

/// A leased connection of the pool.
///
/// A completed call returns the connection with [`finish`](Self::finish). A dropped call (its client disconnected, or
/// its deadline passed) leaves the server at work on a statement whose result nobody reads, and the next user of the
/// connection would wait for it. So dropping an unfinished lease cancels the statement and closes the connection.
pub(super) struct Lease {
    connection: Option<Object<Connection>>,
    connector: Connector,
    pool: Pool<Connection>,
    overflow: Arc<Overflow>,
}

impl Lease {
    pub(super) fn new(
        connection: Object<Connection>,
        connector: Connector,
        pool: Pool<Connection>,
        overflow: Arc<Overflow>,
    ) -> Self {
        overflow.taken(&pool.status());
        Self { connection: Some(connection), connector, pool, overflow }
    }

    #[expect(clippy::expect_used, reason = "`finish` consumes the lease, so the connection is here until then")]
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a lease holds its connection until it is finished")
    }

    pub(super) fn finish(mut self) {
        let Some(connection) = self.connection.take() else { return };
        if self.overflow.closes(&self.pool.status()) {
            drop(Object::take(connection));
        }
    }

    /// Closes an unusable connection on which no statement runs.
    pub(super) fn discard(mut self) {
        drop(self.connection.take().map(Object::take));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let connection = Object::take(connection);
        let token = connection.inner().cancel_token();
        let connector = self.connector.clone();
        // Without a runtime the process is ending, and the server notices the closed connection.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = connector.cancel(token).await {
                    tracing::warn!(%error, "could not cancel an abandoned statement; its timeout ends it");
                }
            });
        }
    }
}
