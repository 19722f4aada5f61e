//! A proxy between tutord and PostgreSQL, which records the statements of a request, their values and round trips.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tutord_core::Timestamp;

use crate::system::System;

/// A statement that tutord sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedStatement {
    /// The text, with `$1`, `$2`, … for the values.
    pub(crate) sql: String,
    /// `None` is NULL.
    pub(crate) values: Vec<Option<String>>,
    /// Set if tutord did not wait for the response to the statement before.
    pub(crate) pipelined: bool,
}

impl IssuedStatement {
    /// Returns the text before each value with the value's number, and the text after the last value.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        let mut rest = self.sql.as_str();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let Some((text, after)) = rest.split_once('$') else { return Some((std::mem::take(&mut rest), None)) };
            let digits = after.find(|character: char| !character.is_ascii_digit()).unwrap_or(after.len());
            rest = &after[digits..];
            Some((text, after[..digits].parse().ok()))
        })
    }
}

/// The delay of responses: a statement that tutord sends within it does not wait for the response.
pub(crate) const RESPONSE_DELAY: Duration = Duration::from_millis(5);

/// Forwards all bytes and records the statements.
pub(crate) struct StatementProxy {
    pub(crate) address: String,
    issued: Arc<Mutex<Vec<anyhow::Result<IssuedStatement>>>>,
}

impl StatementProxy {
    /// Listens in front of the system's PostgreSQL and delays its responses; ends with the runtime.
    pub(crate) async fn start(system: &System, pause: Duration) -> anyhow::Result<Self> {
        let server = system.postgres_address()?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let wire = Self { address: listener.local_addr()?.to_string(), issued: Arc::default() };
        let issued = Arc::clone(&wire.issued);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await?;
                server.set_nodelay(true)?;
                client.set_nodelay(true)?;
                let session = Arc::new(Mutex::new(ClientSession::new(Arc::clone(&issued))));
                let ((client_reads, client_writes), (server_reads, server_writes)) =
                    (client.into_split(), server.into_split());
                let heard = Arc::clone(&session);
                // The first message of a client has no kind.
                tokio::spawn(pass(
                    client_reads,
                    server_writes,
                    Messages::after_start(),
                    Duration::ZERO,
                    move |kind, body| heard.lock().unwrap_or_else(PoisonError::into_inner).handle_request(kind, body),
                ));
                tokio::spawn(pass(server_reads, client_writes, Messages::default(), pause, move |kind, _| {
                    session.lock().unwrap_or_else(PoisonError::into_inner).handle_response(kind);
                    Ok(())
                }));
            }
            anyhow::Ok(())
        });
        Ok(wire)
    }

    /// Returns the URL of the main database through the proxy.
    pub(crate) fn url(&self, system: &System) -> anyhow::Result<String> {
        Ok(system.url.replace(system.postgres_address()?, &self.address))
    }

    /// Returns the statements since the last call, or an error for a value of an unknown type.
    pub(crate) fn take(&self) -> anyhow::Result<Vec<IssuedStatement>> {
        std::mem::take(&mut *self.issued.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut messages: Messages,
    pause: Duration,
    mut heard: impl FnMut(u8, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        // Record the request before the forwarding, so that the response can't come first.
        messages.split(&bytes[..length], &mut heard)?;
        to.write_all(&bytes[..length]).await?;
    }
}

/// Cuts a stream into messages: a byte for the kind, four for the length, which counts itself.
#[derive(Default)]
struct Messages {
    rest: Vec<u8>,
    start: bool,
}

impl Messages {
    const fn after_start() -> Self {
        Self { rest: Vec::new(), start: true }
    }

    fn split(&mut self, bytes: &[u8], heard: &mut impl FnMut(u8, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let head = usize::from(!self.start);
            let Some(length) = self.rest.get(at + head..at + head + 4) else { break };
            let end = at + head + u32::from_be_bytes(length.try_into()?) as usize;
            let Some(message) = self.rest.get(at..end) else { break };
            if !self.start {
                heard(message[0], &message[5..])?;
            }
            self.start = false;
            at = end;
        }
        self.rest.drain(..at);
        Ok(())
    }
}

/// The statements of one connection.
struct ClientSession {
    /// The text and the types of the values of each prepared statement, by name.
    prepared: HashMap<String, (String, Vec<u32>)>,
    /// The number of requests without a response.
    unanswered: u32,
    issued: Arc<Mutex<Vec<anyhow::Result<IssuedStatement>>>>,
}

impl ClientSession {
    fn new(issued: Arc<Mutex<Vec<anyhow::Result<IssuedStatement>>>>) -> Self {
        Self { prepared: HashMap::new(), unanswered: 0, issued }
    }

    fn handle_request(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        let mut body = Body(body);
        match kind {
            b'P' => {
                let (name, sql) = (body.text()?, body.text()?);
                let types = (0..body.number(2)?).map(|_| body.number(4)).collect::<anyhow::Result<_>>()?;
                self.prepared.insert(name, (sql, types));
            }
            b'B' => self.record(self.bound(body)),
            b'Q' => {
                self.record(Ok((body.text()?, Vec::new())));
                self.unanswered += 1;
            }
            b'S' => self.unanswered += 1,
            _ => {}
        }
        Ok(())
    }

    /// Returns the text of a prepared statement, and its values.
    fn bound(&self, mut body: Body<'_>) -> anyhow::Result<(String, Vec<Option<String>>)> {
        let (_portal, name) = (body.text()?, body.text()?);
        let (sql, types) = self.prepared.get(&name).with_context(|| format!("{name} was not prepared"))?;
        let formats = body.number(2)?;
        body.bytes(formats as usize * 2)?;
        let mut values = Vec::new();
        for index in 0..body.number(2)? as usize {
            let length = body.number(4)?;
            // A length of -1.
            if length == u32::MAX {
                values.push(None);
                continue;
            }
            values.push(Some(value(types.get(index).copied().unwrap_or_default(), body.bytes(length as usize)?)?));
        }
        Ok((sql.clone(), values))
    }

    fn record(&self, statement: anyhow::Result<(String, Vec<Option<String>>)>) {
        let pipelined = self.unanswered > 0;
        let issued = statement.map(|(sql, values)| IssuedStatement { sql, values, pipelined });
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).push(issued);
    }

    /// Counts a `Z` message: ready for the next request.
    const fn handle_response(&mut self, kind: u8) {
        if kind == b'Z' {
            // The start of a session sends one without a request.
            self.unanswered = self.unanswered.saturating_sub(1);
        }
    }
}

/// The unread rest of a message.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes(&mut self, length: usize) -> anyhow::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).context("a message that is too short")?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads a number of this many bytes.
    fn number(&mut self, bytes: usize) -> anyhow::Result<u32> {
        Ok(self.bytes(bytes)?.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    /// Reads a text up to a zero.
    fn text(&mut self) -> anyhow::Result<String> {
        let length = self.0.iter().position(|&byte| byte == 0).context("a text without an end")?;
        let text = String::from_utf8(self.bytes(length)?.to_vec())?;
        self.bytes(1)?;
        Ok(text)
    }
}

/// A value in PostgreSQL's binary format as text, by the number of its type.
fn value(kind: u32, bytes: &[u8]) -> anyhow::Result<String> {
    let since_2000 = |micros: i64| Timestamp::from_micros(946_684_800_000_000 + micros).to_string();
    let integer =
        || bytes.iter().fold(if bytes[0] < 128 { 0_i64 } else { -1 }, |number, &byte| number << 8 | i64::from(byte));
    Ok(match kind {
        16 => (bytes == [1]).to_string(),
        17 => bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
        20 | 21 | 23 => integer().to_string(),
        25 | 1043 => String::from_utf8(bytes.to_vec())?,
        // Days and microseconds since the year 2000.
        1082 => since_2000(integer() * 86_400_000_000)[..10].to_owned(),
        1184 => since_2000(integer()),
        701 => f64::from_be_bytes(bytes.try_into()?).to_string(),
        1005 | 1007 | 1009 | 1015 | 1016 => array(Body(bytes))?,
        other => bail!("a value of the type {other}"),
    })
}

/// A one-dimensional array in PostgreSQL's binary format as text.
fn array(mut body: Body<'_>) -> anyhow::Result<String> {
    let (dimensions, _has_nulls, kind) = (body.number(4)?, body.number(4)?, body.number(4)?);
    let mut elements = Vec::new();
    if dimensions > 0 {
        let (count, _first_index) = (body.number(4)?, body.number(4)?);
        for _ in 0..count {
            let length = body.number(4)?;
            elements.push(if length == u32::MAX {
                "NULL".to_owned()
            } else {
                let element = value(kind, body.bytes(length as usize)?)?;
                format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""))
            });
        }
    }
    Ok(format!("{{{}}}", elements.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_becomes_text() {
        let numbers = |numbers: &[i32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
        // Dimensions, nulls, type, count, first index; then length and element.
        let array = numbers(&[1, 0, 23, 3, 1, 4, 5, 4, -6, -1]);
        assert_eq!(value(1007, &array).unwrap(), r#"{"5","-6",NULL}"#);
        assert_eq!(value(1016, &numbers(&[0, 0, 20])).unwrap(), "{}");
    }
}
