//! The client of the language model.
//!
//! Chat and exercises depend on the [`Provider`] trait. [`OpenAi`] implements it for endpoints with OpenAI's chat
//! completions API: `transport` sends requests and retries them, `dialect` and `prompt_limit` adapt to the parameters
//! and prompt lengths that an endpoint refuses, and `response_reader` and `reply_reader` parse responses.
//! [`CircuitBreaker`], [`CachingProvider`] and [`CountingProvider`] wrap a provider.

mod caching_provider;
mod circuit_breaker;
mod completion;
mod counting_provider;
mod dialect;
mod endpoint_error;
mod json_objects;
mod lenient_json;
mod openai;
mod prompt_limit;
mod reply_reader;
mod response_reader;
mod settings;
mod shorten_prompt;
mod sse;
mod state;
#[cfg(test)]
mod tests;
mod tokens;
mod transport;
mod usage;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;

pub use caching_provider::{CachingProvider, ReplyCacheOptions};
pub use circuit_breaker::CircuitBreaker;
pub use counting_provider::CountingProvider;
pub use dialect::{RESERVED_FIELDS, SystemRole};
pub use json_objects::json_objects;
pub use openai::{EndpointCheck, OpenAi, OpenAiConfig};
pub use settings::{ExtraBody, LlmSettings};
pub use state::LlmState;
pub use tokens::{MESSAGE_OVERHEAD, estimate_tokens};
pub use usage::{ReplySpeed, Usage};

/// The author of a message in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptRole {
    /// The operator's instructions.
    System,
    /// The student.
    User,
    /// The tutor.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// The author.
    pub role: PromptRole,
    /// The text.
    pub content: String,
}

/// A request for a reply.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// The prompt, oldest message first.
    pub messages: Vec<ChatMessage>,
    /// The maximum length of the reply, in tokens.
    pub max_tokens: u32,
    /// The sampling temperature, from 0 (deterministic) to 2.
    pub temperature: f64,
    /// The student whose data the prompt contains. The reply may be cached for this student only; `None` disables the
    /// cache for this request.
    pub student: Option<i64>,
    /// Byte offsets at which the questions in the last message begin: unanswered questions first, the newest question
    /// last. If the endpoint refuses the prompt's length, the client drops older questions, and then truncates the
    /// newest one. If the list is empty, the last message is never truncated.
    pub question_starts: Vec<usize>,
}

/// A complete reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The text.
    pub content: String,
    /// The name of the model, as reported by the endpoint.
    pub model: String,
    /// Tokens of prompt and reply, as reported by the endpoint, or estimated if the endpoint reports none.
    pub tokens_used: u32,
    /// Why the model stopped, such as `stop` or `length`.
    pub finish_reason: String,
    /// The time from the first attempt to the last byte.
    pub response_time: Duration,
    /// Whether the reply came from the cache and used no tokens.
    pub cached: bool,
}

/// An item of a streamed reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// More text.
    Delta(String),
    /// The end of the reply; the last item of the stream.
    Done {
        /// See [`Reply::model`].
        model: String,
        /// See [`Reply::tokens_used`].
        tokens_used: u32,
        /// See [`Reply::finish_reason`].
        finish_reason: String,
        /// See [`Reply::cached`].
        cached: bool,
    },
}

/// An error of a model request. The messages are for operators, and contain no text of the prompt or the reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LlmError {
    /// The endpoint is overloaded, broken or unreachable, and all retries failed. A later request may succeed.
    #[error("the model endpoint is unavailable: {cause}")]
    Unavailable {
        /// The error of the last attempt.
        cause: String,
        /// The delay that the endpoint requests before the next attempt.
        retry_after: Option<Duration>,
    },
    /// The rate limit or the quota of the endpoint is exhausted.
    #[error("the rate limit of the model endpoint is exceeded: {cause}")]
    RateLimited {
        /// The error of the last attempt.
        cause: String,
        /// The delay that the endpoint requests before the next attempt.
        retry_after: Option<Duration>,
    },
    /// The model, or a content filter, refuses to answer. A retry of the same request fails too.
    #[error("the model declined to answer: {0}")]
    Declined(String),
    /// The endpoint refuses the request, for example because of an invalid key, an unknown model, or an invalid prompt.
    #[error("the model endpoint refused the request with {status}: {cause}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The error code, the error type and the size of the response.
        cause: String,
    },
    /// The response is not a chat completion.
    #[error("the model returned an unusable response: {0}")]
    Protocol(String),
    /// The endpoint sent no response, or no further byte of it, within the time-out.
    #[error("the model did not respond within {0:?}")]
    Timeout(Duration),
}

impl LlmError {
    /// Returns the delay that the endpoint requests before the next attempt.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The properties of an endpoint and its model.
pub trait ModelEndpoint: Send + Sync {
    /// Returns a short name for the metadata of replies.
    fn name(&self) -> &str;

    /// Returns the configured model.
    fn model(&self) -> &str;

    /// Returns the other parameters of each request. They are part of a reply's cache key.
    fn parameters(&self) -> Value {
        Value::Null
    }

    /// Returns the maximum length of a prompt, in tokens of [`estimate_tokens`], for at most `tokens` tokens by the
    /// endpoint's count. The value falls after the endpoint reported more tokens than estimated, or refused a prompt
    /// because of its length.
    fn prompt_tokens(&self, tokens: u32) -> u32 {
        tokens
    }
}

/// A service that runs a model. Dropping a future or a stream cancels the request to the endpoint.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// Returns the endpoint that receives the requests.
    fn endpoint(&self) -> &dyn ModelEndpoint;

    /// Requests a reply and waits until it is complete.
    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError>;

    /// Requests a reply as a stream, which ends with [`Chunk::Done`] or an error.
    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError>;
}
