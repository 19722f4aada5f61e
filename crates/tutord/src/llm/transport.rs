//! Sends a request to the endpoint, again where that can help, and reads what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use super::counted::RetryCause;
use super::endpoint_error::EndpointError;
use super::lenient;
use super::sse::{Event, EventReader};
use super::{LlmError, Usage};

/// The first pause; it doubles with each attempt, and up to half of it again is added at random.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// An endpoint that wants a longer pause than this is reported as unavailable instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How much of the answer to a request that failed is read.
const MAX_ERROR_BYTES: usize = 8 * 1_024;
/// How much longer than its text a reply may be in JSON: each character escaped, and everything around it.
const JSON_FACTOR: usize = 2;
const JSON_OVERHEAD: usize = 32 * 1_024;

/// Why a request brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The endpoint refuses this request; another one may be taken.
    Refused(Refusal),
    Other(LlmError),
}

/// A 4xx of the endpoint's, or any status with which it refuses the length of a prompt.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: EndpointError,
    /// Whether the prompt is too long.
    pub(super) is_too_long: bool,
    summary: String,
}

impl From<Refusal> for LlmError {
    fn from(refusal: Refusal) -> Self {
        if refusal.error.declines() {
            return Self::Declined(refusal.summary);
        }
        Self::Rejected { status: refusal.status, cause: refusal.summary }
    }
}

/// Retries 429, 5xx and failed connections, as often as configured and no earlier than `Retry-After` says.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) http: reqwest::Client,
    pub(super) url: Url,
    pub(super) api_key: Option<String>,
    pub(super) max_retries: u32,
    pub(super) usage: Arc<Usage>,
}

impl Transport {
    /// Returns the answer once its head says that it is one.
    pub(super) async fn send(&self, body: &Value) -> Result<Response, Failure> {
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
                    (refused(response).await?, retry)
                }
                Err(error) => (unreachable(&error), RetryCause::Connection),
            };
            let (LlmError::Unavailable { cause, retry_after } | LlmError::RateLimited { cause, retry_after }) = &error
            else {
                return Err(Failure::Other(error));
            };
            let pause = backoff(attempt).max(retry_after.unwrap_or_default());
            if attempt == self.max_retries || pause > LONGEST_PAUSE {
                return Err(Failure::Other(error));
            }
            tracing::warn!(cause, attempt, ?pause, "retrying the request to the model endpoint");
            self.usage.retried(retry);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// Reads an answer that is no success: as something that may pass, or as a refusal.
async fn refused(response: Response) -> Result<LlmError, Failure> {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let content_type = content_type(&response);
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
    let error = lenient::parse(&text).map_or_else(|| EndpointError::text(&text), |value| EndpointError::read(&value));
    let summary = format!("{status}, {error}, {} bytes of {content_type}", body.len());
    let is_too_long = match status {
        StatusCode::PAYLOAD_TOO_LARGE => true,
        // Too many tokens in a minute are fewer after a pause, but for those of one prompt.
        StatusCode::TOO_MANY_REQUESTS => error.exceeds_a_quota(),
        // A key or a model that is refused, whatever the text says of contexts.
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            false
        }
        _ => error.is_too_long(),
    };
    if is_too_long {
        return Err(Failure::Refused(Refusal { status: status.as_u16(), error, is_too_long, summary }));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(LlmError::RateLimited { cause: summary, retry_after });
    }
    if status.is_server_error() {
        return Ok(LlmError::Unavailable { cause: summary, retry_after });
    }
    if status.is_redirection() {
        let cause = format!("{status}: redirects are not followed; set LLM_BASE_URL to the address that it leads to");
        return Ok(LlmError::Rejected { status: status.as_u16(), cause });
    }
    Err(Failure::Refused(Refusal { status: status.as_u16(), error, is_too_long, summary }))
}

/// The media type of an answer, without parameters.
fn content_type(response: &Response) -> String {
    let text = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
    text.split(';').next().unwrap_or_default().chars().take(64).collect()
}

/// reqwest tells where it failed; its sources tell why. The address is left out: it may hold a key.
pub(super) fn unreachable(error: &reqwest::Error) -> LlmError {
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

/// `Retry-After` in either of its forms: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

/// How many bytes are read at once: the events in them are held together.
const PIECE: usize = 16 * 1_024;

/// The form of an answer, by its first bytes: gateways give it the wrong content type.
#[derive(Debug)]
enum Form {
    Unknown,
    /// One JSON object, as far as it has come.
    Whole(Vec<u8>),
    Events(EventReader),
}

/// Reads an answer as events, of which a whole JSON object is one. It holds no more than the longest event.
pub(super) struct AnswerReader {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    /// The longest pause between two pieces of any content, comments included.
    idle_timeout: Duration,
    max_bytes: usize,
    form: Form,
    /// Received bytes that are not parsed yet.
    received: Bytes,
    events: VecDeque<Event>,
    ended: bool,
}

impl AnswerReader {
    /// Reads an answer whose text has at most `max_reply_bytes`.
    pub(super) fn new(response: Response, idle_timeout: Duration, max_reply_bytes: usize) -> Self {
        Self {
            bytes: response.bytes_stream().boxed(),
            idle_timeout,
            max_bytes: max_reply_bytes.saturating_mul(JSON_FACTOR).saturating_add(JSON_OVERHEAD),
            form: Form::Unknown,
            received: Bytes::new(),
            events: VecDeque::new(),
            ended: false,
        }
    }

    /// Returns the next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, LlmError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.received.is_empty() {
                let piece = self.received.split_to(self.received.len().min(PIECE));
                self.push(&piece)?;
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            match tokio::time::timeout(self.idle_timeout, self.bytes.next()).await {
                Ok(Some(Ok(bytes))) => self.received = bytes,
                Ok(Some(Err(error))) => return Err(unreachable(&error)),
                Ok(None) => self.end(),
                Err(_) => return Err(LlmError::Timeout(self.idle_timeout)),
            }
        }
    }

    /// Reads each line of an event as an event of its own, for endpoints that leave the blank lines between them out.
    pub(super) fn split(&mut self, event: &Event) {
        for line in event.data.lines().rev() {
            self.events.push_front(Event { is_error: event.is_error, data: line.to_owned() });
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), LlmError> {
        if let Form::Unknown = self.form {
            let space = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            match bytes.iter().find(|byte| !space(byte)) {
                // Blank lines may begin either.
                None => return Ok(()),
                // Once as large as it may become: a vector that grows leaves its smaller places behind. Pages that are not
                // written to take no memory.
                Some(b'{' | b'[') => self.form = Form::Whole(Vec::with_capacity(self.max_bytes)),
                Some(b'<') => return Err(LlmError::Protocol("an HTML page; is LLM_BASE_URL an API?".to_owned())),
                Some(_) => self.form = Form::Events(EventReader::new(self.max_bytes)),
            }
        }
        let fits = match &mut self.form {
            Form::Events(reader) => reader.push(bytes, &mut self.events).is_ok(),
            Form::Whole(body) => {
                let fits = body.len() + bytes.len() <= self.max_bytes;
                if fits {
                    body.extend_from_slice(bytes);
                }
                fits
            }
            Form::Unknown => true,
        };
        if fits { Ok(()) } else { Err(LlmError::Protocol(format!("longer than {} bytes", self.max_bytes))) }
    }

    fn end(&mut self) {
        self.ended = true;
        match &mut self.form {
            Form::Unknown => {}
            Form::Whole(body) => {
                let text = String::from_utf8_lossy(&std::mem::take(body)).into_owned();
                self.events.push_back(Event { is_error: false, data: text.trim_start_matches('\u{feff}').to_owned() });
            }
            Form::Events(reader) => self.events.extend(reader.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
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
