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

use super::dialect::{Dialect, SystemRole};
use super::reply_reader::{ReplyReader, SentRequest};
use super::shorten_prompt::{prompt_tokens, shorten};
use super::transport::{HttpTransport, SendError, connection_error};
use super::{ChatRequest, Chunk, LlmError, ModelEndpoint, Provider, Reply, Usage, estimate_tokens};

/// The time limit of the request for the list of models.
const MODELS_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of the list of models, in bytes.
const MAX_MODELS_BYTES: usize = 1_024 * 1_024;
/// The maximum number of shorter prompts to try.
const MAX_SHORTENINGS: u32 = 3;
/// The maximum number of changes of a request's parameters.
const MAX_CHANGES: u32 = 10;

/// The configuration of the client.
#[derive(Clone)]
pub struct OpenAiConfig {
    /// The base URL, such as `https://api.openai.com/v1`.
    pub base_url: Url,
    /// The API key, if the endpoint requires one.
    pub api_key: Option<String>,
    /// The model's name at the endpoint.
    pub model: String,
    /// The time limit of a whole reply, including retries. For a stream, the limit of the wait for each chunk.
    pub timeout: Duration,
    /// The maximum number of retries of a failed request.
    pub max_retries: u32,
    /// The maximum size of a reply's text, in bytes.
    pub max_reply_bytes: usize,
    /// The role of the instructions.
    pub system_role: SystemRole,
    /// Additional fields of each request.
    pub extra_body: Map<String, Value>,
}

/// A [`Provider`] for OpenAI-compatible endpoints.
pub struct OpenAi {
    transport: HttpTransport,
    dialect: Arc<Dialect>,
    config: OpenAiConfig,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not appear in logs.
        f.debug_struct("OpenAi").field("model", &self.config.model).finish_non_exhaustive()
    }
}

/// The result of [`OpenAi::check`].
#[derive(Debug)]
pub struct EndpointCheck {
    /// Whether the endpoint lists the model; `None` if it has no list of models.
    pub is_listed: Option<bool>,
    /// The time from the request to the first text.
    pub first_token: Duration,
    /// Tokens of the reply per second.
    pub tokens_per_second: f64,
    /// Parameters that differ from OpenAI's, because the endpoint refused them.
    pub differences: Vec<String>,
}

impl OpenAi {
    /// Creates the client without contacting the endpoint. Retries are counted in `usage`.
    ///
    /// # Errors
    /// Returns an error if the TLS roots of the system can't be read.
    pub fn new(config: OpenAiConfig, usage: Arc<Usage>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(config.timeout.min(Duration::from_secs(5)))
            .redirect(Policy::none())
            .user_agent(concat!("tutord/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let transport = HttpTransport {
            http,
            url: endpoint(&config.base_url, "chat/completions"),
            api_key: config.api_key.clone(),
            max_retries: config.max_retries,
            usage,
        };
        let dialect = Arc::new(Dialect::new(config.system_role, config.extra_body.clone()));
        Ok(Self { transport, dialect, config })
    }

    /// Sends a request, and changes its parameters or shortens its prompt if the endpoint refuses them. Returns the
    /// response and the estimated tokens of the accepted prompt.
    async fn send(&self, request: &ChatRequest, stream: bool) -> Result<(Response, u32), LlmError> {
        let mut messages = Cow::Borrowed(request.messages.as_slice());
        let (mut changes, mut shortenings) = (0, 0);
        loop {
            let estimated_tokens = prompt_tokens(&messages);
            let body = self.dialect.body(&self.config.model, request, &messages, stream);
            let refusal = match self.transport.send(&body).await {
                Ok(response) => {
                    self.dialect.record_accepted(estimated_tokens);
                    return Ok((response, estimated_tokens));
                }
                Err(SendError::Other(error)) => return Err(error),
                Err(SendError::Refused(refusal)) => refusal,
            };
            if changes < MAX_CHANGES && self.dialect.adapt(&refusal, &body) {
                changes += 1;
                continue;
            }
            if !refusal.is_too_long {
                return Err(refusal.into());
            }
            let (limit, is_reply_shorter) =
                self.dialect.record_refused(estimated_tokens, request.max_tokens, &refusal.error);
            if shortenings == MAX_SHORTENINGS {
                return Err(refusal.into());
            }
            shortenings += 1;
            match shorten(request, limit, estimated_tokens, shortenings == MAX_SHORTENINGS) {
                Some(shorter) => messages = Cow::Owned(shorter),
                None if is_reply_shorter => {}
                None => return Err(refusal.into()),
            }
        }
    }

    async fn open(&self, request: &ChatRequest, stream: bool) -> Result<ReplyReader, LlmError> {
        let began = Instant::now();
        let sent = tokio::time::timeout(self.config.timeout, self.send(request, stream)).await;
        let (response, estimated_tokens) = sent.map_err(|_| LlmError::Timeout(self.config.timeout))??;
        let sent = SentRequest { response, began, estimated_tokens, max_tokens: request.max_tokens };
        let usage = Arc::clone(&self.transport.usage);
        Ok(ReplyReader::new(sent, &self.config, Arc::clone(&self.dialect), usage))
    }

    /// Returns whether the endpoint lists the model; `None` if it has no list of models.
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
        let mut request = self.transport.http.get(url).timeout(MODELS_TIMEOUT);
        if let Some(key) = &self.config.api_key {
            request = request.bearer_auth(key);
        }
        request.send().await.map_err(|error| connection_error(&error))
    }

    /// Streams a short reply and measures it.
    ///
    /// # Errors
    /// Returns an error if the endpoint sends no reply.
    pub async fn check(&self) -> Result<EndpointCheck, LlmError> {
        let is_listed = self.is_listed().await;
        let message = super::ChatMessage { role: super::PromptRole::User, content: "Say: ready".to_owned() };
        // Reasoning models use tokens before their first text.
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
        Ok(EndpointCheck { is_listed, first_token, tokens_per_second, differences: self.dialect.differences() })
    }
}

/// Returns an address below the base URL. Keeps its query, because Azure puts the API version there.
fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

impl ModelEndpoint for OpenAi {
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
}

#[async_trait]
impl Provider for OpenAi {
    fn endpoint(&self) -> &dyn ModelEndpoint {
        self
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let began = Instant::now();
        let work = async {
            let mut reader = self.open(&request, false).await?;
            let mut content = String::new();
            loop {
                match reader.next_chunk().await? {
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
        let reader = self.open(&request, true).await?;
        let chunks = unfold(reader, async |mut reader| {
            if reader.is_finished {
                return None;
            }
            let chunk = reader.next_chunk().await;
            reader.is_finished = !matches!(chunk, Ok(Chunk::Delta(_)));
            Some((chunk, reader))
        });
        Ok(chunks.boxed())
    }
}
