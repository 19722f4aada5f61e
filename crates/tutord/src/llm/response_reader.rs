//! Reads a response as events, in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use reqwest::Response;

use super::LlmError;
use super::sse::{Event, EventReader};
use super::transport::connection_error;

/// The maximum ratio of a reply's JSON to its text, because each character may be escaped.
const JSON_FACTOR: usize = 2;
/// The size of the JSON around the text, in bytes.
const JSON_OVERHEAD: usize = 32 * 1_024;
/// The number of bytes that are parsed at a time, which bounds the number of buffered events.
const PARSE_BATCH_BYTES: usize = 16 * 1_024;

/// The format of a response. It is detected from the first bytes, because gateways send wrong content types.
#[derive(Debug)]
enum BodyFormat {
    Unknown,
    /// One JSON object, up to the bytes received.
    Json(Vec<u8>),
    EventStream(EventReader),
}

/// Reads a response as events; a whole JSON object counts as one event. Buffers no more than the longest event.
pub(super) struct ResponseReader {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    /// The maximum pause between two pieces of any content, including comments.
    idle_timeout: Duration,
    max_bytes: usize,
    form: BodyFormat,
    /// Received bytes that are not parsed yet.
    received: Bytes,
    events: VecDeque<Event>,
    ended: bool,
}

impl ResponseReader {
    /// Creates a reader of a response whose text has at most `max_reply_bytes`.
    pub(super) fn new(response: Response, idle_timeout: Duration, max_reply_bytes: usize) -> Self {
        Self {
            bytes: response.bytes_stream().boxed(),
            idle_timeout,
            max_bytes: max_reply_bytes.saturating_mul(JSON_FACTOR).saturating_add(JSON_OVERHEAD),
            form: BodyFormat::Unknown,
            received: Bytes::new(),
            events: VecDeque::new(),
            ended: false,
        }
    }

    /// Returns the next event, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, LlmError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.received.is_empty() {
                let piece = self.received.split_to(self.received.len().min(PARSE_BATCH_BYTES));
                self.push(&piece)?;
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            match tokio::time::timeout(self.idle_timeout, self.bytes.next()).await {
                Ok(Some(Ok(bytes))) => self.received = bytes,
                Ok(Some(Err(error))) => return Err(connection_error(&error)),
                Ok(None) => self.end(),
                Err(_) => return Err(LlmError::Timeout(self.idle_timeout)),
            }
        }
    }

    /// Splits the lines of an event into events, for endpoints that omit the blank lines between events.
    pub(super) fn split_lines(&mut self, event: &Event) {
        for line in event.data.lines().rev() {
            self.events.push_front(Event { is_error: event.is_error, data: line.to_owned() });
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), LlmError> {
        if let BodyFormat::Unknown = self.form {
            let space = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            match bytes.iter().find(|byte| !space(byte)) {
                // Both formats may begin with blank lines.
                None => return Ok(()),
                // Allocates the maximum size once: a growing vector would leave freed blocks behind. Pages that are not
                // written to use no memory.
                Some(b'{' | b'[') => self.form = BodyFormat::Json(Vec::with_capacity(self.max_bytes)),
                Some(b'<') => {
                    return Err(LlmError::Protocol(
                        "an HTML page; check that LLM_BASE_URL is the URL of an API".to_owned(),
                    ));
                }
                Some(_) => self.form = BodyFormat::EventStream(EventReader::new(self.max_bytes)),
            }
        }
        let fits = match &mut self.form {
            BodyFormat::EventStream(reader) => reader.push(bytes, &mut self.events).is_ok(),
            BodyFormat::Json(body) => {
                let fits = body.len() + bytes.len() <= self.max_bytes;
                if fits {
                    body.extend_from_slice(bytes);
                }
                fits
            }
            BodyFormat::Unknown => true,
        };
        if fits { Ok(()) } else { Err(LlmError::Protocol(format!("longer than {} bytes", self.max_bytes))) }
    }

    fn end(&mut self) {
        self.ended = true;
        match &mut self.form {
            BodyFormat::Unknown => {}
            BodyFormat::Json(body) => {
                let text = String::from_utf8_lossy(&std::mem::take(body)).into_owned();
                self.events.push_back(Event { is_error: false, data: text.trim_start_matches('\u{feff}').to_owned() });
            }
            BodyFormat::EventStream(reader) => self.events.extend(reader.end()),
        }
    }
}
