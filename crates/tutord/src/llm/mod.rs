//! The model behind the tutor.
//!
//! [`Provider`] is what the chat asks; [`OpenAi`] serves it by any endpoint that speaks OpenAI's chat
//! completions: OpenAI, Groq, Ollama, vLLM, llama.cpp. [`Cached`] answers what was asked before,
//! [`Counted`] counts.

mod cached;
mod counted;
mod openai;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;

pub use cached::{Cached, ReplyCacheOptions};
pub use counted::{Counted, Usage};
pub use openai::{OpenAi, OpenAiConfig};

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
    pub temperature: f32,
    /// Whose words the prompt is made of: the reply to the same request of the same student may be given again.
    /// `None` for a reply that has to be new.
    pub student: Option<i64>,
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

/// Why a model gave no reply. The texts are for operators: they may hold an endpoint's words.
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
    /// The endpoint refuses the request: a wrong key, an unknown model, a prompt it won't take.
    #[error("the model endpoint refused the request with {status}: {cause}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The beginning of its answer.
        cause: String,
    },
    /// The endpoint answered something that is no chat completion.
    #[error("the model endpoint's answer can't be read: {0}")]
    Protocol(String),
    /// No answer, or no further piece of one, within the time-out.
    #[error("the model did not answer within {0:?}")]
    Timeout(Duration),
}

impl LlmError {
    /// When the endpoint wants to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
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

    /// Waits for a whole reply.
    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError>;

    /// Asks for a reply in pieces; it ends with [`Chunk::Done`] or an error.
    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError>;

    /// Whether the endpoint answers and takes the key. Costs no tokens.
    async fn ping(&self) -> Result<(), LlmError>;
}

/// How many tokens a text has, roughly: a quarter of its characters, rounded up. English prose and
/// code come to three to five characters a token with the tokenizers in use; a bound needs no more.
pub fn estimate_tokens(text: &str) -> u32 {
    u32::try_from(text.chars().count().div_ceil(4)).unwrap_or(u32::MAX)
}
