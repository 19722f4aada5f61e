//! Which server the Sentinels name as the master.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, cmd};
use tokio::sync::Mutex;

use crate::remote::tier::Result;

/// Sentinels, of which one is queried at a time.
pub(crate) struct Sentinels {
    clients: Vec<Client>,
    master: String,
    /// The connection to the Sentinel that answered last, and its index.
    connection: Mutex<(usize, Option<MultiplexedConnection>)>,
}

impl Sentinels {
    pub(super) fn new(clients: Vec<Client>, master: &str) -> Self {
        Self { clients, master: master.to_owned(), connection: Mutex::new((0, None)) }
    }

    /// Queries one Sentinel for the address of the master. After an error the next query uses another one.
    async fn master(&self) -> Result<Option<(String, u16)>> {
        let mut guard = self.connection.lock().await;
        let (index, connection) = &mut *guard;
        // Taken out: a call that fails or is dropped goes on with the next Sentinel.
        let current = *index;
        *index = (current + 1) % self.clients.len();
        let mut used = match connection.take() {
            Some(connection) => connection,
            None => self.clients[current].get_multiplexed_async_connection().await?,
        };
        let mut query = cmd("SENTINEL");
        query.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let address = query.query_async(&mut used).await?;
        *index = current;
        *connection = Some(used);
        Ok(address)
    }
}

/// A connection's server and the Sentinels that named it.
pub(super) struct SentinelWatch {
    sentinels: Arc<Sentinels>,
    server: (String, u16),
}

impl SentinelWatch {
    /// Returns `None` if the server is not reached by TCP.
    pub(super) fn new(sentinels: Arc<Sentinels>, server: &ConnectionAddr) -> Option<Self> {
        let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = server else { return None };
        Some(Self { sentinels, server: (host.clone(), *port) })
    }

    /// Returns whether a Sentinel still names this server.
    pub(super) async fn is_current(&self) -> Result<bool> {
        Ok(self.sentinels.master().await?.is_none_or(|master| master == self.server))
    }
}
