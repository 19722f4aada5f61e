//! The model behind the tutor.
//!
//! The chat and the exercises use a [`Provider`]. [`OpenAi`] implements it for any endpoint that speaks OpenAI's chat
//! completions: `transport` sends and retries, `dialect` and `lengths` adapt to what an endpoint refuses, `sse` and
//! `shapes` read what it answers. [`Breaker`] answers at once while the endpoint is down, [`Cached`] answers repeated requests, and
//! [`Counted`] counts.

mod breaker;
mod cached;
mod counted;
mod dialect;
mod endpoint_error;
mod lengths;
mod lenient;
mod objects;
mod openai;
mod settings;
mod shapes;
mod sse;
mod state;
#[cfg(test)]
mod tests;
mod tokens;
mod transport;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;

pub use breaker::Breaker;
pub use cached::{Cached, ReplyCacheOptions};
pub use counted::{Counted, Speed, Usage};
pub use dialect::{RESERVED_FIELDS, SystemRole};
pub use objects::json_objects;
pub use openai::{Check, OpenAi, OpenAiConfig};
pub use settings::{ExtraBody, LlmSettings};
pub use state::LlmState;
pub use tokens::{MESSAGE_OVERHEAD, estimate_tokens};

/// Who speaks in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The student.
    User,
    /// The tutor.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What they say.
    pub content: String,
}

/// What a model is asked.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// The prompt, oldest message first.
    pub messages: Vec<ChatMessage>,
    /// The longest reply, in tokens.
    pub max_tokens: u32,
    /// 0 (always the likeliest word) to 2.
    pub temperature: f64,
    /// Whose words the prompt is made of: the reply to the same request of the same student may be given again.
    /// `None` for a reply that has to be new.
    pub student: Option<i64>,
    /// Where the questions begin that the last message holds, in bytes: those that got no reply, then the newest one. If an
    /// endpoint refuses the length of the prompt, the old ones are left out, and the newest one is cut at last. Without any,
    /// the last message is sent whole.
    pub question_starts: Vec<usize>,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The text.
    pub content: String,
    /// The model that wrote it, as the endpoint names it.
    pub model: String,
    /// Tokens of prompt and reply, as the endpoint counted them; estimated where it does not say.
    pub tokens_used: u32,
    /// Why the model stopped, such as `stop` or `length`.
    pub finish_reason: String,
    /// From the first attempt to the last byte.
    pub response_time: Duration,
    /// Whether it was given before; it used no tokens now.
    pub cached: bool,
}

/// A piece of a streamed reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// More text.
    Delta(String),
    /// The end; nothing follows.
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

/// Why a model gave no reply. The texts are for operators; they hold no words of the prompt or of the answer.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// Overloaded, broken or unreachable, also after the retries; worth asking again later.
    #[error("the model endpoint is unavailable: {cause}")]
    Unavailable {
        /// What the last attempt met.
        cause: String,
        /// When the endpoint wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// A quota is used up, or too many requests came in too short a time.
    #[error("the model endpoint limits its requests: {cause}")]
    RateLimited {
        /// What the last attempt met.
        cause: String,
        /// When the endpoint wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The model, or a filter before it, refuses to answer; the same question is refused again.
    #[error("the model declined to answer: {0}")]
    Declined(String),
    /// The endpoint refuses the request: a wrong key, an unknown model, a prompt it won't take.
    #[error("the model endpoint refused the request with {status}: {cause}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The names that it gives to the error, and the size of its answer.
        cause: String,
    },
    /// The endpoint answered something that is no chat completion.
    #[error("the model returned an unusable response: {0}")]
    Protocol(String),
    /// No answer, or no further byte of one, within the time-out.
    #[error("the model did not answer within {0:?}")]
    Timeout(Duration),
}

impl LlmError {
    /// When the endpoint wants to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Serves a model. Dropping a future or a stream ends the call to the endpoint.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// A short name for the metadata of replies.
    fn name(&self) -> &str;

    /// The model that is asked.
    fn model(&self) -> &str;

    /// What else is sent with each request: two providers that differ in it give other replies.
    fn parameters(&self) -> Value {
        Value::Null
    }

    /// Returns the most tokens that a prompt may have by [`estimate_tokens`], where the endpoint is to count at most `tokens`.
    /// It is less after the endpoint has counted more than was estimated, or has refused a prompt because of its length.
    fn prompt_tokens(&self, tokens: u32) -> u32 {
        tokens
    }

    /// Waits for a whole reply.
    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError>;

    /// Asks for a reply in pieces; it ends with [`Chunk::Done`] or an error.
    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError>;

    /// Whether the endpoint answers and takes the key. Costs no tokens.
    async fn ping(&self) -> Result<(), LlmError>;
}
