//! The client for endpoints that speak OpenAI's chat completions.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use reqwest::redirect::Policy;
use reqwest::{Response, Url};
use serde_json::{Map, Value};
use tutord_core::model::BROKEN_OFF;

use super::dialect::{Dialect, SystemRole};
use super::endpoint_error::EndpointError;
use super::lengths::{prompt_tokens, shorten};
use super::lenient;
use super::shapes::Piece;
use super::transport::{AnswerReader, Failure, Transport, unreachable};
use super::{ChatRequest, Chunk, LlmError, Provider, Reply, Usage, estimate_tokens};

/// How long an endpoint that is checked may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of the list of models is read.
const MAX_MODELS_BYTES: usize = 1_024 * 1_024;
/// How long a stream is read after the model has given its reason to end: the count of tokens may follow.
const AFTER_THE_END: Duration = Duration::from_secs(1);
/// How many shorter prompts are sent after one that was too long.
const MAX_SHORTENINGS: u32 = 3;
/// How many times a request is sent with other parameters.
const MAX_CHANGES: u32 = 10;
/// How many times `LLM_TIMEOUT_SECONDS` a stream may bring comments and no text.
const SILENCE: u32 = 10;

/// Where the model is and how long it may take.
#[derive(Clone)]
pub struct OpenAiConfig {
    /// Such as `https://api.openai.com/v1`.
    pub base_url: Url,
    /// The key, where the endpoint wants one.
    pub api_key: Option<String>,
    /// The model's name at the endpoint.
    pub model: String,
    /// The longest that a whole reply may take, retries included; of a stream, its first byte and the wait for each next one.
    pub timeout: Duration,
    /// How often a failed request is repeated.
    pub max_retries: u32,
    /// The longest text of a reply, in bytes.
    pub max_reply_bytes: usize,
    /// Who speaks the instructions.
    pub system_role: SystemRole,
    /// Fields that are added to each request.
    pub extra_body: Map<String, Value>,
}

/// A [`Provider`] by any OpenAI-compatible endpoint.
pub struct OpenAi {
    transport: Transport,
    dialect: Arc<Dialect>,
    config: OpenAiConfig,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        f.debug_struct("OpenAi").field("model", &self.config.model).finish_non_exhaustive()
    }
}

/// What a tiny request has shown of an endpoint.
#[derive(Debug)]
pub struct Check {
    /// Whether the endpoint lists the model; `None` when it has no list.
    pub is_listed: Option<bool>,
    /// From the request to the first text.
    pub first_token: Duration,
    /// Tokens of the reply a second.
    pub tokens_per_second: f64,
    /// What is sent otherwise than to OpenAI, as the endpoint refused it.
    pub differences: Vec<String>,
}

impl OpenAi {
    /// Makes the client; nothing is contacted. Retries are counted in `usage`.
    ///
    /// # Errors
    /// When the TLS roots of the system can't be read.
    pub fn new(config: OpenAiConfig, usage: Arc<Usage>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(config.timeout.min(Duration::from_secs(5)))
            .redirect(Policy::none())
            .user_agent(concat!("tutord/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let transport = Transport {
            http,
            url: endpoint(&config.base_url, "chat/completions"),
            api_key: config.api_key.clone(),
            max_retries: config.max_retries,
            usage,
        };
        let dialect = Arc::new(Dialect::new(config.system_role, config.extra_body.clone()));
        Ok(Self { transport, dialect, config })
    }

    /// Sends a request, in other words where the endpoint refuses some of it. Returns the answer and the estimated tokens of
    /// the prompt that was accepted.
    async fn send(&self, request: &ChatRequest, stream: bool) -> Result<(Response, u32), LlmError> {
        let mut messages = Cow::Borrowed(request.messages.as_slice());
        let (mut changes, mut shortenings) = (0, 0);
        loop {
            let estimated = prompt_tokens(&messages);
            let body = self.dialect.body(&self.config.model, request, &messages, stream);
            let refusal = match self.transport.send(&body).await {
                Ok(response) => {
                    self.dialect.accept(estimated);
                    return Ok((response, estimated));
                }
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Refused(refusal)) => refusal,
            };
            if changes < MAX_CHANGES && self.dialect.learn(&refusal, &body) {
                changes += 1;
                continue;
            }
            if !refusal.is_too_long {
                return Err(refusal.into());
            }
            let (limit, is_reply_shorter) = self.dialect.refuse(estimated, request.max_tokens, &refusal.error);
            if shortenings == MAX_SHORTENINGS {
                return Err(refusal.into());
            }
            shortenings += 1;
            match shorten(request, limit, estimated, shortenings == MAX_SHORTENINGS) {
                Some(shorter) => messages = Cow::Owned(shorter),
                None if is_reply_shorter => {}
                None => return Err(refusal.into()),
            }
        }
    }

    async fn open(&self, request: &ChatRequest, stream: bool) -> Result<Reading, LlmError> {
        let began = Instant::now();
        let sent = tokio::time::timeout(self.config.timeout, self.send(request, stream)).await;
        let (response, estimated) = sent.map_err(|_| LlmError::Timeout(self.config.timeout))??;
        Ok(Reading {
            answer: AnswerReader::new(response, self.config.timeout, self.config.max_reply_bytes),
            dialect: Arc::clone(&self.dialect),
            usage: Arc::clone(&self.transport.usage),
            began,
            first_token: None,
            silent_until: Instant::now() + self.config.timeout.saturating_mul(SILENCE),
            timeout: self.config.timeout,
            room: self.config.max_reply_bytes,
            model: self.config.model.clone(),
            counted: None,
            estimated,
            max_tokens: request.max_tokens,
            reply_tokens: 0,
            has_text: false,
            reasons: false,
            finish_reason: None,
            finished_at: None,
            is_damaged: false,
            ended: false,
        })
    }

    /// Whether the endpoint lists the model; `None` when it has no list.
    async fn is_listed(&self) -> Option<bool> {
        let response = self.models().await.ok()?;
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.ok()?);
            if body.len() > MAX_MODELS_BYTES {
                return None;
            }
        }
        let body: Value = serde_json::from_slice(&body).ok()?;
        let models = body["data"].as_array().filter(|models| !models.is_empty())?;
        Some(models.iter().any(|model| model["id"] == self.config.model.as_str()))
    }

    async fn models(&self) -> Result<Response, LlmError> {
        let url = endpoint(&self.config.base_url, "models");
        let mut request = self.transport.http.get(url).timeout(PING_TIMEOUT);
        if let Some(key) = &self.config.api_key {
            request = request.bearer_auth(key);
        }
        request.send().await.map_err(|error| unreachable(&error))
    }

    /// Asks for a tiny reply, streamed, and tells what the endpoint made of it.
    ///
    /// # Errors
    /// When no reply comes.
    pub async fn check(&self) -> Result<Check, LlmError> {
        let is_listed = self.is_listed().await;
        let message = super::ChatMessage { role: super::Role::User, content: "Say: ready".to_owned() };
        // Models that reason spend tokens before they say something.
        let request = ChatRequest {
            messages: vec![message],
            max_tokens: 256,
            temperature: 0.0,
            student: None,
            question_starts: Vec::new(),
        };
        let began = Instant::now();
        let mut chunks = self.stream(request).await?;
        let (mut first_token, mut tokens) = (None, 0);
        while let Some(chunk) = chunks.next().await {
            if let Chunk::Delta(text) = chunk? {
                first_token.get_or_insert_with(|| began.elapsed());
                tokens += estimate_tokens(&text);
            }
        }
        let first_token = first_token.unwrap_or_default();
        let rest = began.elapsed().saturating_sub(first_token).max(Duration::from_millis(1));
        let tokens_per_second = f64::from(tokens) / rest.as_secs_f64();
        Ok(Check { is_listed, first_token, tokens_per_second, differences: self.dialect.differences() })
    }
}

/// An address below the base, whose query stays: Azure has the version there.
fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "openai-compatible"
    }

    fn model(&self) -> &str {
        &self.config.model
    }

    fn parameters(&self) -> Value {
        Value::Object(self.config.extra_body.clone())
    }

    fn prompt_tokens(&self, tokens: u32) -> u32 {
        self.dialect.prompt_tokens(tokens)
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let began = Instant::now();
        let work = async {
            let mut reading = self.open(&request, false).await?;
            let mut content = String::new();
            loop {
                match reading.chunk().await? {
                    Chunk::Delta(text) => content.push_str(&text),
                    Chunk::Done { model, tokens_used, finish_reason, cached } => {
                        let response_time = began.elapsed();
                        return Ok(Reply { content, model, tokens_used, finish_reason, response_time, cached });
                    }
                }
            }
        };
        let outcome = tokio::time::timeout(self.config.timeout, work).await;
        outcome.unwrap_or(Err(LlmError::Timeout(self.config.timeout)))
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let reading = self.open(&request, true).await?;
        let chunks = unfold(reading, async |mut reading| {
            if reading.ended {
                return None;
            }
            let chunk = reading.chunk().await;
            reading.ended = !matches!(chunk, Ok(Chunk::Delta(_)));
            Some((chunk, reading))
        });
        Ok(chunks.boxed())
    }

    async fn ping(&self) -> Result<(), LlmError> {
        match self.models().await?.status() {
            status if status.is_success() => Ok(()),
            status => Err(LlmError::Rejected { status: status.as_u16(), cause: "GET /models".to_owned() }),
        }
    }
}

/// An answer in the middle of being read.
struct Reading {
    answer: AnswerReader,
    dialect: Arc<Dialect>,
    usage: Arc<Usage>,
    began: Instant,
    /// From the request to the first text.
    first_token: Option<Duration>,
    /// When comments alone are no sign of life any more.
    silent_until: Instant,
    timeout: Duration,
    /// Bytes that the reply may still have.
    room: usize,
    model: String,
    /// Tokens of prompt and reply by the endpoint's count.
    counted: Option<u32>,
    /// Tokens of the prompt by the estimate.
    estimated: u32,
    /// The most tokens that were wanted of the reply.
    max_tokens: u32,
    reply_tokens: u32,
    has_text: bool,
    reasons: bool,
    finish_reason: Option<String>,
    /// When the model gave its reason to end.
    finished_at: Option<Instant>,
    /// Whether a part of the reply could not be read.
    is_damaged: bool,
    ended: bool,
}

impl Reading {
    /// Returns the next text, or the end.
    async fn chunk(&mut self) -> Result<Chunk, LlmError> {
        loop {
            if self.room == 0 {
                return self.done();
            }
            let event = match self.event().await {
                Ok(Some(event)) => event,
                Ok(None) => return self.done(),
                // The reply is whole: only the count of its tokens is missing.
                Err(_) if self.finish_reason.is_some() => return self.done(),
                Err(error) => return Err(error),
            };
            let data = event.data.trim();
            if data == "[DONE]" {
                return self.done();
            }
            let Some(value) = lenient::parse(data) else {
                if data.contains('\n') {
                    self.answer.split(&event);
                    continue;
                }
                // What is meant as no JSON keeps the connection open.
                if data.starts_with('{') && !std::mem::replace(&mut self.is_damaged, true) {
                    tracing::warn!(bytes = data.len(), "a part of a reply is no JSON; the reply counts as incomplete");
                }
                continue;
            };
            let error = if event.is_error { Some(EndpointError::read(&value)) } else { EndpointError::within(&value) };
            if let Some(error) = error {
                let cause = format!("an error instead of the reply's end: {error}");
                if error.declines() {
                    return Err(LlmError::Declined(cause));
                }
                if error.is_too_long() && !self.has_text {
                    // A retry sends a shorter prompt.
                    self.dialect.refuse(self.estimated, self.max_tokens, &error);
                    return Err(LlmError::Rejected { status: 200, cause });
                }
                return Err(LlmError::Unavailable { cause, retry_after: None });
            }
            if let Some(text) = self.take(Piece::read(&value)) {
                return Ok(Chunk::Delta(text));
            }
        }
    }

    async fn event(&mut self) -> Result<Option<super::sse::Event>, LlmError> {
        let until = self.finished_at.map_or(self.silent_until, |finished_at| finished_at + AFTER_THE_END);
        let event = tokio::time::timeout_at(until.into(), self.answer.next()).await;
        event.unwrap_or(Err(LlmError::Timeout(self.timeout.saturating_mul(SILENCE))))
    }

    /// Takes over what a piece says; returns its text.
    fn take(&mut self, piece: Piece) -> Option<String> {
        if let Some(model) = piece.model {
            self.model = model;
        }
        if let Some(counted) = piece.prompt_tokens {
            self.dialect.observe(self.estimated, counted);
        }
        self.counted = piece.total_tokens.filter(|total| *total > 0).or(self.counted);
        self.reasons |= piece.reasons;
        self.finish_reason = piece.finish_reason.or_else(|| self.finish_reason.take());
        if self.finish_reason.is_some() {
            self.finished_at.get_or_insert_with(Instant::now);
        }
        if piece.reasons || piece.text.is_some() {
            self.silent_until = Instant::now() + self.timeout.saturating_mul(SILENCE);
        }
        let mut text = piece.text?;
        if text.len() > self.room {
            text.truncate(text.floor_char_boundary(self.room));
            self.room = 0;
            self.finish_reason = Some("length".to_owned());
            tracing::warn!("a reply was cut at LLM_MAX_REPLY_BYTES");
        } else {
            self.room -= text.len();
        }
        self.first_token.get_or_insert_with(|| self.began.elapsed());
        self.has_text |= !text.trim().is_empty();
        self.reply_tokens = self.reply_tokens.saturating_add(estimate_tokens(&text));
        Some(text)
    }

    fn done(&mut self) -> Result<Chunk, LlmError> {
        if !self.has_text {
            if self.finish_reason.as_deref() == Some("content_filter") {
                return Err(LlmError::Declined("a filter held the reply back".to_owned()));
            }
            let cause = if self.reasons {
                "the model reasoned until its tokens were used up; raise LLM_MAX_REPLY_TOKENS, or lower the effort by \
                 LLM_EXTRA_BODY"
            } else if self.is_damaged {
                "no JSON in the answer"
            } else {
                "no text in the answer"
            };
            return Err(LlmError::Protocol(cause.to_owned()));
        }
        if let Some(first_token) = self.first_token {
            self.usage.replied(first_token, self.began.elapsed(), self.reply_tokens);
        }
        Ok(Chunk::Done {
            model: std::mem::take(&mut self.model),
            tokens_used: self.counted.unwrap_or_else(|| self.estimated.saturating_add(self.reply_tokens)),
            // A retry replaces what lacks some of its words.
            finish_reason: if self.is_damaged {
                BROKEN_OFF.to_owned()
            } else {
                self.finish_reason.take().unwrap_or_else(|| "stop".to_owned())
            },
            cached: false,
        })
    }
}
