//! A proxy in front of PostgreSQL that cuts connections between two messages of the protocol.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// The number of further messages in a direction before the connection is cut.
type Cut = Arc<Mutex<Option<(Direction, usize)>>>;

/// A proxy for connections without TLS. It ends with its runtime.
#[derive(Debug)]
pub struct PostgresProxy {
    port: u16,
    cut: Cut,
}

impl PostgresProxy {
    /// Starts a proxy for the server at this port of 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub async fn start(server: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let cut = Cut::default();
        let own = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cut = Arc::clone(&own);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        serve(client, server, &cut).await;
                    }
                });
            }
        });
        Ok(Self { port, cut })
    }

    /// Returns the port of the proxy.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection in use after this number of further messages in a direction, once.
    pub fn cut_after(&self, direction: Direction, messages: usize) {
        *self.lock() = Some((direction, messages));
    }

    /// Cancels a cut. Returns `true` if it has not happened.
    pub fn cancel_cut(&self) -> bool {
        self.lock().take().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Direction, usize)>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forwards messages until either side ends, or the connection is cut.
async fn serve(client: TcpStream, server: TcpStream, cut: &Cut) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // A cut in one direction ends both.
    let upstream = forward(from_client, to_server, Direction::ToServer, cut);
    let downstream = forward(from_server, to_client, Direction::ToClient, cut);
    tokio::select! {
        _ = upstream => {}
        _ = downstream => {}
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    cut: &Cut,
) -> io::Result<()> {
    // The first message of a client has no type.
    let mut has_type = direction == Direction::ToClient;
    loop {
        let message = read_message(&mut from, has_type).await?;
        has_type = true;
        if is_cut(cut, direction) {
            return Ok(());
        }
        to.write_all(&message).await?;
        to.flush().await?;
    }
}

/// Counts a message. Returns `true` if the connection is cut in front of it.
fn is_cut(cut: &Cut, direction: Direction) -> bool {
    let mut cut = cut.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *cut {
        Some((of, 0)) if *of == direction => {
            *cut = None;
            true
        }
        Some((of, remaining)) if *of == direction => {
            *remaining -= 1;
            false
        }
        _ => false,
    }
}

/// Reads a message: its type if it has one, its length, and its body.
async fn read_message(from: &mut (impl AsyncRead + Unpin), has_type: bool) -> io::Result<Vec<u8>> {
    let mut message = vec![0; if has_type { 5 } else { 4 }];
    from.read_exact(&mut message).await?;
    let length = message[message.len() - 4..].try_into().map_or(0, u32::from_be_bytes);
    let body = usize::try_from(length).unwrap_or(0).saturating_sub(4);
    let start = message.len();
    message.resize(start + body, 0);
    from.read_exact(&mut message[start..]).await?;
    Ok(message)
}
