//! Between tutord and PostgreSQL: which statements a request really issues, with which values, in how many round trips.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tutord_core::Timestamp;

use crate::system::System;

/// A statement as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issued {
    /// With `$1`, `$2`, … for the values.
    pub(crate) sql: String,
    pub(crate) values: Vec<String>,
    /// Sent without waiting for the answer to the one before.
    pub(crate) pipelined: bool,
}

impl Issued {
    /// The text before each value, with the value's number, and the text after the last.
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

/// How long answers are held back so that whatever does not wait for them must have been sent.
pub(crate) const HEARD: Duration = Duration::from_millis(5);

/// Passes everything on and remembers the statements.
pub(crate) struct Wire {
    pub(crate) address: String,
    issued: Arc<Mutex<Vec<anyhow::Result<Issued>>>>,
}

impl Wire {
    /// Listens on a port of its own, in front of the system's PostgreSQL, and holds its answers back for a while; ends with
    /// the runtime.
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
                let conversation = Arc::new(Mutex::new(Conversation::new(Arc::clone(&issued))));
                let ((client_reads, client_writes), (server_reads, server_writes)) =
                    (client.into_split(), server.into_split());
                let heard = Arc::clone(&conversation);
                // The first message of a client has no kind.
                tokio::spawn(pass(
                    client_reads,
                    server_writes,
                    Messages::after_start(),
                    Duration::ZERO,
                    move |kind, body| heard.lock().unwrap_or_else(PoisonError::into_inner).asked(kind, body),
                ));
                tokio::spawn(pass(server_reads, client_writes, Messages::default(), pause, move |kind, _| {
                    conversation.lock().unwrap_or_else(PoisonError::into_inner).answered(kind);
                    Ok(())
                }));
            }
            anyhow::Ok(())
        });
        Ok(wire)
    }

    /// The address of the main database by way of this.
    pub(crate) fn url(&self, system: &System) -> anyhow::Result<String> {
        Ok(system.url.replace(system.postgres_address()?, &self.address))
    }

    /// What was issued since the last time; an error when one of the values can't be read.
    pub(crate) fn take(&self) -> anyhow::Result<Vec<Issued>> {
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
        // Heard before it is passed on: the answer can't come first.
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

/// One connection's statements.
struct Conversation {
    /// By name: the text, and the types of the values.
    prepared: HashMap<String, (String, Vec<u32>)>,
    /// What was sent and not answered yet.
    unanswered: u32,
    issued: Arc<Mutex<Vec<anyhow::Result<Issued>>>>,
}

impl Conversation {
    fn new(issued: Arc<Mutex<Vec<anyhow::Result<Issued>>>>) -> Self {
        Self { prepared: HashMap::new(), unanswered: 0, issued }
    }

    fn asked(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        let mut body = Body(body);
        match kind {
            b'P' => {
                let (name, sql) = (body.text()?, body.text()?);
                let types = (0..body.number(2)?).map(|_| body.number(4)).collect::<anyhow::Result<_>>()?;
                self.prepared.insert(name, (sql, types));
            }
            b'B' => self.note(self.bound(body)),
            b'Q' => {
                self.note(Ok((body.text()?, Vec::new())));
                self.unanswered += 1;
            }
            b'S' => self.unanswered += 1,
            _ => {}
        }
        Ok(())
    }

    /// A prepared statement's text, and its values.
    fn bound(&self, mut body: Body<'_>) -> anyhow::Result<(String, Vec<String>)> {
        let (_portal, name) = (body.text()?, body.text()?);
        let (sql, types) = self.prepared.get(&name).with_context(|| format!("{name} was not prepared"))?;
        let formats = body.number(2)?;
        body.bytes(formats as usize * 2)?;
        let mut values = Vec::new();
        for index in 0..body.number(2)? as usize {
            let length = body.number(4)? as usize;
            values.push(value(types.get(index).copied().unwrap_or_default(), body.bytes(length)?)?);
        }
        Ok((sql.clone(), values))
    }

    fn note(&self, statement: anyhow::Result<(String, Vec<String>)>) {
        let pipelined = self.unanswered > 0;
        let issued = statement.map(|(sql, values)| Issued { sql, values, pipelined });
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).push(issued);
    }

    /// `Z`: ready for the next.
    const fn answered(&mut self, kind: u8) {
        if kind == b'Z' {
            // One more than asked for comes at the start.
            self.unanswered = self.unanswered.saturating_sub(1);
        }
    }
}

/// What is left to read of a message.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes(&mut self, length: usize) -> anyhow::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).context("a message that is too short")?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> anyhow::Result<u32> {
        Ok(self.bytes(bytes)?.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    /// Up to a zero.
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
        other => bail!("a value of the type {other}"),
    })
}
