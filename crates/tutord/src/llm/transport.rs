//! Sends requests to the endpoint, retries them, and reads the responses.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use super::endpoint_error::EndpointError;
use super::lenient_json;
use super::sse::{Event, EventReader};
use super::usage::RetryCause;
use super::{LlmError, Usage};

/// The first back-off. It doubles with each attempt, and a random jitter of up to half is added.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest back-off. If the endpoint requests a longer one, the request fails.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// The maximum size of an error response, in bytes.
const MAX_ERROR_BYTES: usize = 8 * 1_024;
/// The maximum ratio of a reply's JSON to its text, because each character may be escaped.
const JSON_FACTOR: usize = 2;
/// The size of the JSON around the text, in bytes.
const JSON_OVERHEAD: usize = 32 * 1_024;

/// A failed request.
#[derive(Debug)]
pub(super) enum SendError {
    /// The endpoint refuses this request, and may accept a changed one.
    Refused(EndpointRefusal),
    Other(LlmError),
}

/// A 4xx response, or a response of any status that refuses the length of a prompt.
#[derive(Debug)]
pub(super) struct EndpointRefusal {
    pub(super) status: u16,
    pub(super) error: EndpointError,
    /// Whether the prompt is too long.
    pub(super) is_too_long: bool,
    summary: String,
}

impl From<EndpointRefusal> for LlmError {
    fn from(refusal: EndpointRefusal) -> Self {
        if refusal.error.is_content_refusal() {
            return Self::Declined(refusal.summary);
        }
        Self::Rejected { status: refusal.status, cause: refusal.summary }
    }
}

/// Sends requests. Retries 429, 5xx and connection failures, no earlier than `Retry-After` allows.
#[derive(Debug)]
pub(super) struct HttpTransport {
    pub(super) http: reqwest::Client,
    pub(super) url: Url,
    pub(super) api_key: Option<String>,
    pub(super) max_retries: u32,
    pub(super) usage: Arc<Usage>,
}

impl HttpTransport {
    /// Returns the response as soon as its head reports success.
    pub(super) async fn send(&self, body: &Value) -> Result<Response, SendError> {
        let mut attempt = 0;
        loop {
            let mut request = self.http.post(self.url.clone()).json(body);
            if let Some(key) = &self.api_key {
                request = request.bearer_auth(key);
            }
            let (error, retry) = match request.send().await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let limited = response.status() == StatusCode::TOO_MANY_REQUESTS;
                    let retry = if limited { RetryCause::RateLimited } else { RetryCause::ServerError };
                    (read_error(response).await?, retry)
                }
                Err(error) => (connection_error(&error), RetryCause::Connection),
            };
            let (LlmError::Unavailable { cause, retry_after } | LlmError::RateLimited { cause, retry_after }) = &error
            else {
                return Err(SendError::Other(error));
            };
            let pause = backoff(attempt).max(retry_after.unwrap_or_default());
            if attempt == self.max_retries || pause > MAX_PAUSE {
                return Err(SendError::Other(error));
            }
            tracing::warn!(cause, attempt, ?pause, "retrying the request to the model endpoint");
            self.usage.record_retry(retry);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// Reads an error response. Returns a retriable error, or fails with a refusal.
async fn read_error(response: Response) -> Result<LlmError, SendError> {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let content_type = media_type(&response);
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        let room = MAX_ERROR_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ERROR_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let error = lenient_json::parse(&text)
        .map_or_else(|| EndpointError::from_text(&text), |value| EndpointError::parse(&value));
    let summary = format!("{status}, {error}, {} bytes of {content_type}", body.len());
    let is_too_long = match status {
        StatusCode::PAYLOAD_TOO_LARGE => true,
        // A retry helps against the limit of a minute, except if one prompt exceeds the limit alone.
        StatusCode::TOO_MANY_REQUESTS => error.exceeds_a_quota(),
        // The key or the model is invalid, whatever the message says about contexts.
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            false
        }
        _ => error.is_too_long(),
    };
    if is_too_long {
        return Err(SendError::Refused(EndpointRefusal { status: status.as_u16(), error, is_too_long, summary }));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(LlmError::RateLimited { cause: summary, retry_after });
    }
    if status.is_server_error() {
        return Ok(LlmError::Unavailable { cause: summary, retry_after });
    }
    if status.is_redirection() {
        let cause =
            format!("{status}: tutord does not follow redirects; set LLM_BASE_URL to the target of the redirect");
        return Ok(LlmError::Rejected { status: status.as_u16(), cause });
    }
    Err(SendError::Refused(EndpointRefusal { status: status.as_u16(), error, is_too_long, summary }))
}

/// Returns the media type of a response, without parameters.
fn media_type(response: &Response) -> String {
    let text = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
    text.split(';').next().unwrap_or_default().chars().take(64).collect()
}

/// Joins the sources of an error, which name its cause. Omits the URL, which may contain a key.
pub(super) fn connection_error(error: &reqwest::Error) -> LlmError {
    let mut cause = String::from("the request failed");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    LlmError::Unavailable { cause, retry_after: None }
}

fn backoff(attempt: u32) -> Duration {
    let pause = FIRST_PAUSE * 2_u32.saturating_pow(attempt);
    pause + pause.mul_f64(rand::random_range(0.0..0.5))
}

/// Parses `Retry-After` in either form: seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

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

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_parsed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let read = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 09 Sep 2001 01:46:30 GMT"), None, "a date that has passed");
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
