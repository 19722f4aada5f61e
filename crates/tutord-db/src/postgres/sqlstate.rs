//! SQLSTATEs, read from the server's messages as they arrive.
//!
//! diesel distinguishes a few kinds of errors and hides the code of all others. Their texts can't be matched, because
//! the server writes them in its own language (`lc_messages`, which an ordinary role can't set). So each connection's
//! stream is scanned for `ErrorResponse` messages ([message
//! formats](https://www.postgresql.org/docs/current/protocol-message-formats.html)).

use std::future::Future;
use std::io::{IoSlice, Result as IoResult};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The maximum number of searched bytes of an `ErrorResponse`; the code is its second or third field.
const SEARCHED: usize = 1_024;
/// `in_failed_sql_transaction`: the consequence of an earlier error, never the cause.
const FAILED_TRANSACTION: &[u8] = b"25P02";

/// The latest SQLSTATE of a connection.
#[derive(Debug, Default, Clone)]
pub(super) struct SqlState(Arc<AtomicU64>);

impl SqlState {
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Returns the code since the last [`clear`](Self::clear).
    pub(super) fn get(&self) -> Option<String> {
        let code = self.0.load(Ordering::Acquire).to_be_bytes();
        (code[0] == 0 && code[7] != 0).then(|| code[3..].iter().map(|byte| char::from(*byte)).collect())
    }

    fn set(&self, code: [u8; 5]) {
        if code != *FAILED_TRANSACTION {
            let mut bytes = [0; 8];
            bytes[3..].copy_from_slice(&code);
            self.0.store(u64::from_be_bytes(bytes), Ordering::Release);
        }
    }
}

/// A parser that finds errors in a stream of messages, which arrive in pieces of any length.
#[derive(Debug, Default)]
struct Scanner {
    /// The type of the message and its length.
    header: [u8; 5],
    header_length: usize,
    remaining: usize,
    error: Vec<u8>,
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut([u8; 5])) {
        while !bytes.is_empty() {
            if self.header_length < self.header.len() {
                let (piece, rest) = bytes.split_at(bytes.len().min(self.header.len() - self.header_length));
                self.header[self.header_length..][..piece.len()].copy_from_slice(piece);
                self.header_length += piece.len();
                bytes = rest;
                if self.header_length < self.header.len() {
                    return;
                }
                let [_, length @ ..] = self.header;
                // The length counts itself.
                self.remaining = usize::try_from(u32::from_be_bytes(length)).unwrap_or(0).saturating_sub(4);
                self.error.clear();
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(self.remaining));
            if self.header[0] == b'E' {
                self.error.extend_from_slice(&piece[..piece.len().min(SEARCHED - self.error.len())]);
            }
            self.remaining -= piece.len();
            bytes = rest;
            if self.remaining == 0 {
                self.header_length = 0;
                if self.header[0] == b'E'
                    && let Some(code) = code(&self.error)
                {
                    found(code);
                }
            }
        }
    }
}

/// Returns the field `C` of an `ErrorResponse`; each field is a letter and a zero-terminated text.
fn code(fields: &[u8]) -> Option<[u8; 5]> {
    fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C")?.try_into().ok())
}

/// A connection's stream, scanned while it is read.
pub(super) struct Scanned<S> {
    stream: S,
    scanner: Scanner,
    state: SqlState,
    channel_binding: fn(&S) -> ChannelBinding,
}

impl<S: AsyncRead + Unpin> AsyncRead for Scanned<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.scanner.scan(&buffer.filled()[before..], |code| this.state.set(code));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Scanned<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Scanned<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.channel_binding)(&self.stream)
    }
}

/// A connector for scanned connections without TLS. tokio-postgres treats it as TLS without a handshake, which requires
/// `SslMode::Require` and `SslNegotiation::Direct` in its configuration; it offers no other way to wrap the stream.
#[derive(Clone, Default)]
pub(super) struct ScannedPlain(pub(super) SqlState);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for ScannedPlain {
    type Stream = Scanned<S>;
    type TlsConnect = Self;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, _domain: &str) -> IoResult<Self> {
        Ok(self.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ScannedPlain {
    type Stream = Scanned<S>;
    type Error = std::io::Error;
    type Future = std::future::Ready<IoResult<Scanned<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        let scanner = Scanner::default();
        std::future::ready(Ok(Scanned { stream, scanner, state: self.0, channel_binding: |_| ChannelBinding::none() }))
    }
}

/// A connector for scanned TLS connections.
#[derive(Clone)]
pub(super) struct ScannedTls(pub(super) MakeRustlsConnect, pub(super) SqlState);

/// The connector of [`ScannedTls`] for one host.
pub(super) struct ScannedHandshake<T>(T, SqlState);

impl<S> MakeTlsConnect<S> for ScannedTls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect: Send + 'static,
    <<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect as TlsConnect<S>>::Future: Send + 'static,
{
    type Stream = Scanned<<MakeRustlsConnect as MakeTlsConnect<S>>::Stream>;
    type TlsConnect = ScannedHandshake<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        let connect = <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.0, domain)?;
        Ok(ScannedHandshake(connect, self.1.clone()))
    }
}

impl<S, T> TlsConnect<S> for ScannedHandshake<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = Scanned<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let Self(connect, state) = self;
        let handshake = connect.connect(stream);
        Box::pin(async move {
            let stream = handshake.await?;
            Ok(Scanned {
                stream,
                scanner: Scanner::default(),
                state,
                channel_binding: <T::Stream as TlsStream>::channel_binding,
            })
        })
    }
}
