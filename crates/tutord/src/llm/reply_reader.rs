//! Reads a reply: parses its chunks, bounds its size, and counts its tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Response;
use tutord_core::model::BROKEN_OFF;

use super::completion::CompletionChunk;
use super::dialect::Dialect;
use super::endpoint_error::EndpointError;
use super::openai::OpenAiConfig;
use super::response_reader::ResponseReader;
use super::{Chunk, LlmError, Usage, estimate_tokens, lenient_json};

/// How long a stream is read after its finish reason, because the token count may follow.
const MAX_WAIT_FOR_USAGE: Duration = Duration::from_secs(1);
/// The time limit of a stream that sends comments and no text, as a multiple of `LLM_TIMEOUT_SECONDS`.
const SILENT_TIMEOUTS: u32 = 10;

/// A request that the endpoint accepted.
pub(super) struct SentRequest {
    pub(super) response: Response,
    /// The time of the first attempt.
    pub(super) began: Instant,
    /// Estimated tokens of the prompt.
    pub(super) estimated_tokens: u32,
    /// The requested maximum length of the reply, in tokens.
    pub(super) max_tokens: u32,
}

/// A reply that is being read.
pub(super) struct ReplyReader {
    response: ResponseReader,
    dialect: Arc<Dialect>,
    usage: Arc<Usage>,
    began: Instant,
    /// The time from the request to the first text.
    first_token: Option<Duration>,
    /// The time after which a stream of comments alone fails.
    silent_until: Instant,
    timeout: Duration,
    /// The remaining size of the reply, in bytes.
    remaining_bytes: usize,
    model: String,
    /// Tokens of prompt and reply, as counted by the endpoint.
    reported_tokens: Option<u32>,
    /// Estimated tokens of the prompt.
    estimated_tokens: u32,
    /// The requested maximum length of the reply, in tokens.
    max_tokens: u32,
    reply_tokens: u32,
    has_text: bool,
    has_reasoning: bool,
    finish_reason: Option<String>,
    /// The time at which the finish reason arrived.
    finished_at: Option<Instant>,
    /// Whether a part of the reply could not be parsed.
    is_damaged: bool,
    pub(super) is_finished: bool,
}

impl ReplyReader {
    /// Creates a reader of the response to `sent`.
    pub(super) fn new(sent: SentRequest, config: &OpenAiConfig, dialect: Arc<Dialect>, usage: Arc<Usage>) -> Self {
        Self {
            response: ResponseReader::new(sent.response, config.timeout, config.max_reply_bytes),
            dialect,
            usage,
            began: sent.began,
            first_token: None,
            silent_until: Instant::now() + config.timeout.saturating_mul(SILENT_TIMEOUTS),
            timeout: config.timeout,
            remaining_bytes: config.max_reply_bytes,
            model: config.model.clone(),
            reported_tokens: None,
            estimated_tokens: sent.estimated_tokens,
            max_tokens: sent.max_tokens,
            reply_tokens: 0,
            has_text: false,
            has_reasoning: false,
            finish_reason: None,
            finished_at: None,
            is_damaged: false,
            is_finished: false,
        }
    }

    /// Returns the next text, or the end of the reply.
    pub(super) async fn next_chunk(&mut self) -> Result<Chunk, LlmError> {
        loop {
            if self.remaining_bytes == 0 {
                return self.finish();
            }
            let event = match self.next_event().await {
                Ok(Some(event)) => event,
                Ok(None) => return self.finish(),
                // The reply is complete; only its token count is missing.
                Err(_) if self.finish_reason.is_some() => return self.finish(),
                Err(error) => return Err(error),
            };
            let data = event.data.trim();
            if data == "[DONE]" {
                return self.finish();
            }
            let Some(value) = lenient_json::parse(data) else {
                if data.contains('\n') {
                    self.response.split_lines(&event);
                    continue;
                }
                // Some endpoints send plain text to keep the connection open.
                if data.starts_with('{') && !std::mem::replace(&mut self.is_damaged, true) {
                    tracing::warn!(
                        bytes = data.len(),
                        "a part of a reply is not JSON; marking the reply as incomplete"
                    );
                }
                continue;
            };
            let error =
                if event.is_error { Some(EndpointError::parse(&value)) } else { EndpointError::find_in(&value) };
            if let Some(error) = error {
                let cause = format!("an error instead of the end of the reply: {error}");
                if error.is_content_refusal() {
                    return Err(LlmError::Declined(cause));
                }
                if error.is_too_long() && !self.has_text {
                    // The next request sends a shorter prompt.
                    self.dialect.record_refused(self.estimated_tokens, self.max_tokens, &error);
                    return Err(LlmError::Rejected { status: 200, cause });
                }
                return Err(LlmError::Unavailable { cause, retry_after: None });
            }
            if let Some(text) = self.apply(CompletionChunk::parse(&value)) {
                return Ok(Chunk::Delta(text));
            }
        }
    }

    async fn next_event(&mut self) -> Result<Option<super::sse::Event>, LlmError> {
        let until = self.finished_at.map_or(self.silent_until, |finished_at| finished_at + MAX_WAIT_FOR_USAGE);
        let event = tokio::time::timeout_at(until.into(), self.response.next()).await;
        event.unwrap_or(Err(LlmError::Timeout(self.timeout.saturating_mul(SILENT_TIMEOUTS))))
    }

    /// Applies a chunk to the state of the reply; returns its text.
    fn apply(&mut self, chunk: CompletionChunk) -> Option<String> {
        if let Some(model) = chunk.model {
            self.model = model;
        }
        if let Some(reported_tokens) = chunk.prompt_tokens {
            self.dialect.observe(self.estimated_tokens, reported_tokens);
        }
        self.reported_tokens = chunk.total_tokens.filter(|total| *total > 0).or(self.reported_tokens);
        self.has_reasoning |= chunk.has_reasoning;
        self.finish_reason = chunk.finish_reason.or_else(|| self.finish_reason.take());
        if self.finish_reason.is_some() {
            self.finished_at.get_or_insert_with(Instant::now);
        }
        if chunk.has_reasoning || chunk.text.is_some() {
            self.silent_until = Instant::now() + self.timeout.saturating_mul(SILENT_TIMEOUTS);
        }
        let mut text = chunk.text?;
        if text.len() > self.remaining_bytes {
            text.truncate(text.floor_char_boundary(self.remaining_bytes));
            self.remaining_bytes = 0;
            self.finish_reason = Some("length".to_owned());
            tracing::warn!("truncated a reply at LLM_MAX_REPLY_BYTES");
        } else {
            self.remaining_bytes -= text.len();
        }
        self.first_token.get_or_insert_with(|| self.began.elapsed());
        self.has_text |= !text.trim().is_empty();
        self.reply_tokens = self.reply_tokens.saturating_add(estimate_tokens(&text));
        Some(text)
    }

    fn finish(&mut self) -> Result<Chunk, LlmError> {
        if !self.has_text {
            if self.finish_reason.as_deref() == Some("content_filter") {
                return Err(LlmError::Declined("a content filter withheld the reply".to_owned()));
            }
            let cause = if self.has_reasoning {
                "the model used all tokens for reasoning; raise LLM_MAX_REPLY_TOKENS, or lower the effort in \
                 LLM_EXTRA_BODY"
            } else if self.is_damaged {
                "no JSON in the response"
            } else {
                "no text in the response"
            };
            return Err(LlmError::Protocol(cause.to_owned()));
        }
        if let Some(first_token) = self.first_token {
            self.usage.record_reply(first_token, self.began.elapsed(), self.reply_tokens);
        }
        Ok(Chunk::Done {
            model: std::mem::take(&mut self.model),
            tokens_used: self
                .reported_tokens
                .unwrap_or_else(|| self.estimated_tokens.saturating_add(self.reply_tokens)),
            // Marks a damaged reply as incomplete, so that the client can retry it.
            finish_reason: if self.is_damaged {
                BROKEN_OFF.to_owned()
            } else {
                self.finish_reason.take().unwrap_or_else(|| "stop".to_owned())
            },
            cached: false,
        })
    }
}
