//! The client for endpoints that speak OpenAI's chat completions.

use std::fmt;
use std::time::{Duration, Instant};

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use serde::{Deserialize, Serialize};

use super::transport::{Transport, unreachable};
use super::{ChatMessage, ChatRequest, Chunk, LlmError, Provider, Reply, estimate_tokens};

/// Where the model is and how long it may take.
#[derive(Clone)]
pub struct OpenAiConfig {
    /// Such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The key, where the endpoint wants one.
    pub api_key: Option<String>,
    /// The model's name at the endpoint.
    pub model: String,
    /// The longest that a whole reply may take, retries included; of a stream, its first piece and the wait for each next one.
    pub timeout: Duration,
    /// How often a failed request is repeated.
    pub max_retries: u32,
}

/// A [`Provider`] by any OpenAI-compatible endpoint.
pub struct OpenAi {
    client: Client<OpenAIConfig>,
    http: reqwest::Client,
    config: OpenAiConfig,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        f.debug_struct("OpenAi").field("base_url", &self.config.base_url).field("model", &self.config.model).finish()
    }
}

// Own shapes instead of async-openai's: those demand fields (`id`, `created`, known finish reasons)
// that compatible servers leave out or extend.

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: &'a [ChatMessage],
    max_tokens: u32,
    temperature: f32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Deserialize)]
struct Response {
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    /// Of a whole reply.
    message: Option<Content>,
    /// Of a piece of one.
    delta: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: u32,
}

impl OpenAi {
    /// Makes the client; nothing is contacted.
    ///
    /// # Errors
    /// When the TLS roots of the system can't be read.
    pub fn new(config: OpenAiConfig) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(config.timeout.min(Duration::from_secs(5)))
            .user_agent(concat!("tutord/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let openai = OpenAIConfig::new()
            .with_api_base(config.base_url.trim_end_matches('/'))
            .with_api_key(config.api_key.clone().unwrap_or_default());
        let transport = Transport { http: http.clone(), max_retries: config.max_retries };
        let client = Client::build(http.clone(), openai).with_http_service(transport);
        Ok(Self { client, http, config })
    }

    fn request<'a>(&'a self, request: &'a ChatRequest, stream: bool) -> Request<'a> {
        Request {
            model: &self.config.model,
            messages: &request.messages,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            stream,
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, OpenAIError>>) -> Result<T, LlmError> {
        match tokio::time::timeout(self.config.timeout, work).await {
            Ok(outcome) => outcome.map_err(explain),
            Err(_) => Err(LlmError::Timeout(self.config.timeout)),
        }
    }
}

fn explain(error: OpenAIError) -> LlmError {
    match error {
        OpenAIError::Boxed(error) => match error.downcast::<LlmError>() {
            Ok(error) => *error,
            Err(error) => LlmError::Protocol(error.to_string()),
        },
        OpenAIError::Reqwest(error) => unreachable(&error),
        OpenAIError::StreamError(error) => {
            LlmError::Unavailable { cause: format!("the stream broke: {error}"), retry_after: None }
        }
        // Without the answer's text: it may repeat what the student wrote.
        OpenAIError::JSONDeserialize(error, _) => LlmError::Protocol(error.to_string()),
        other => LlmError::Protocol(other.to_string()),
    }
}

fn prompt_tokens(request: &ChatRequest) -> u32 {
    request.messages.iter().map(|message| estimate_tokens(&message.content)).sum()
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "openai-compatible"
    }

    fn model(&self) -> &str {
        &self.config.model
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let began = Instant::now();
        let chat = self.client.chat();
        let response: Response = self.within(chat.create_byot(self.request(&request, false))).await?;
        let choice = response.choices.into_iter().next();
        let (content, finish_reason) = choice
            .and_then(|choice| Some((choice.message?.content?, choice.finish_reason)))
            .filter(|(content, _)| !content.trim().is_empty())
            .ok_or_else(|| LlmError::Protocol("no text in the first choice".to_owned()))?;
        let counted = response.usage.map(|usage| usage.total_tokens);
        Ok(Reply {
            tokens_used: counted.unwrap_or_else(|| prompt_tokens(&request) + estimate_tokens(&content)),
            model: response.model.unwrap_or_else(|| self.config.model.clone()),
            finish_reason: finish_reason.unwrap_or_else(|| "stop".to_owned()),
            response_time: began.elapsed(),
            cached: false,
            content,
        })
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let chat = self.client.chat();
        let events = self.within(chat.create_stream_byot(self.request(&request, true))).await?;
        let reading = Reading {
            events,
            timeout: self.config.timeout,
            model: self.config.model.clone(),
            counted: None,
            asked: prompt_tokens(&request),
            reply: String::new(),
            finish_reason: None,
            ended: false,
        };
        Ok(unfold(reading, Reading::next).boxed())
    }

    async fn ping(&self) -> Result<(), LlmError> {
        let url = format!("{}/models", self.config.base_url.trim_end_matches('/'));
        let mut request = self.http.get(url).timeout(Duration::from_secs(5));
        if let Some(key) = &self.config.api_key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(LlmError::Rejected { status: status.as_u16(), cause: "GET /models".to_owned() }),
        }
    }
}

/// A stream in the middle of being read.
struct Reading {
    events: std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Response, OpenAIError>> + Send>>,
    timeout: Duration,
    model: String,
    counted: Option<u32>,
    asked: u32,
    /// The text so far, for an estimate of its tokens.
    reply: String,
    finish_reason: Option<String>,
    ended: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Chunk, LlmError>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            let event = match tokio::time::timeout(self.timeout, self.events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return Some(self.end(Err(explain(error)))),
                Ok(None) => {
                    let chunk = self.done();
                    return Some(self.end(chunk));
                }
                Err(_) => {
                    let error = LlmError::Timeout(self.timeout);
                    return Some(self.end(Err(error)));
                }
            };
            if let Some(model) = event.model {
                self.model = model;
            }
            if let Some(usage) = event.usage {
                self.counted = Some(usage.total_tokens);
            }
            let Some(choice) = event.choices.into_iter().next() else { continue };
            if choice.finish_reason.is_some() {
                self.finish_reason = choice.finish_reason;
            }
            match choice.delta.and_then(|delta| delta.content) {
                Some(content) if !content.is_empty() => {
                    self.reply.push_str(&content);
                    return Some((Ok(Chunk::Delta(content)), self));
                }
                _ => {}
            }
        }
    }

    fn done(&mut self) -> Result<Chunk, LlmError> {
        // A connection that closes early looks like an end, but a model that ends says why.
        let finish_reason = self.finish_reason.take().ok_or_else(|| LlmError::Unavailable {
            cause: "the stream ended before the reply did".to_owned(),
            retry_after: None,
        })?;
        if self.reply.trim().is_empty() {
            return Err(LlmError::Protocol("no text in the stream".to_owned()));
        }
        Ok(Chunk::Done {
            model: std::mem::take(&mut self.model),
            tokens_used: self.counted.unwrap_or_else(|| self.asked + estimate_tokens(&self.reply)),
            finish_reason,
            cached: false,
        })
    }

    fn end(mut self, chunk: Result<Chunk, LlmError>) -> (Result<Chunk, LlmError>, Self) {
        self.ended = true;
        (chunk, self)
    }
}
