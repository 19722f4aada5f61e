//! Counts what the model is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};

use crate::http::admission::without_load;

use super::{ChatRequest, Chunk, LlmError, Provider, Reply};

/// Why a request was sent again.
#[derive(Debug, Clone, Copy)]
pub(super) enum RetryCause {
    RateLimited,
    ServerError,
    Connection,
}

impl RetryCause {
    const NAMES: [&str; 3] = ["rate_limited", "server_error", "connection"];
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Usage {
    answered: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
    tokens: AtomicU64,
    /// By cause.
    retries: [AtomicU64; 3],
    is_open: AtomicBool,
    replies: AtomicU64,
    first_token_micros: AtomicU64,
    reply_micros: AtomicU64,
    reply_tokens: AtomicU64,
}

/// How fast the model wrote its replies, in all.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Replies that the model wrote to their end.
    pub replies: u64,
    /// From a request to the first text.
    pub first_token: Duration,
    /// From the first text to the end.
    pub writing: Duration,
    /// Tokens of the replies, estimated.
    pub tokens: u64,
}

impl Speed {
    /// The mean time to the first text in milliseconds, and the mean of tokens a second; `None` without a reply.
    #[expect(clippy::cast_precision_loss, reason = "means")]
    pub fn means(&self) -> Option<(f64, f64)> {
        (self.replies > 0).then(|| {
            let first_token = self.first_token.as_secs_f64() * 1e3 / self.replies as f64;
            (first_token, self.tokens as f64 / self.writing.as_secs_f64().max(1e-3))
        })
    }
}

impl Usage {
    /// How many requests had which outcome. A stream that is left before its end has none.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("answered", &self.answered), ("cached", &self.cached), ("failed", &self.failed)]
            .into_iter()
            .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// Tokens of prompts and replies.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Requests that were sent again, by cause.
    pub fn retries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RetryCause::NAMES.into_iter().zip(self.retries.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Whether requests are refused because the endpoint is down.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// How fast the model wrote.
    pub fn speed(&self) -> Speed {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Speed {
            replies: count(&self.replies),
            first_token: Duration::from_micros(count(&self.first_token_micros)),
            writing: Duration::from_micros(count(&self.reply_micros)),
            tokens: count(&self.reply_tokens),
        }
    }

    pub(super) fn retried(&self, cause: RetryCause) {
        self.retries[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// A reply was read to its end, `whole` after its request.
    pub(super) fn replied(&self, first_token: Duration, whole: Duration, tokens: u32) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.replies.fetch_add(1, Ordering::Relaxed);
        self.first_token_micros.fetch_add(micros(first_token), Ordering::Relaxed);
        self.reply_micros.fetch_add(micros(whole.saturating_sub(first_token)), Ordering::Relaxed);
        self.reply_tokens.fetch_add(tokens.into(), Ordering::Relaxed);
    }

    fn ended(&self, cached: bool, tokens: u32) {
        let outcome = if cached { &self.cached } else { &self.answered };
        outcome.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens.into(), Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A [`Provider`] whose requests are counted.
#[derive(Debug)]
pub struct Counted {
    provider: Arc<dyn Provider>,
    usage: Arc<Usage>,
}

impl Counted {
    /// Counts the requests of a provider.
    pub fn new(provider: Arc<dyn Provider>, usage: Arc<Usage>) -> Self {
        Self { provider, usage }
    }
}

#[async_trait]
impl Provider for Counted {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn model(&self) -> &str {
        self.provider.model()
    }

    fn parameters(&self) -> serde_json::Value {
        self.provider.parameters()
    }

    fn prompt_tokens(&self, tokens: u32) -> u32 {
        self.provider.prompt_tokens(tokens)
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let outcome = without_load(self.provider.complete(request)).await;
        match &outcome {
            Ok(reply) => self.usage.ended(reply.cached, reply.tokens_used),
            Err(_) => self.usage.failed(),
        }
        outcome
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let chunks = without_load(self.provider.stream(request)).await.inspect_err(|_| self.usage.failed())?;
        let usage = Arc::clone(&self.usage);
        let counted = chunks.inspect(move |chunk| match chunk {
            Ok(Chunk::Delta(_)) => {}
            Ok(Chunk::Done { tokens_used, cached, .. }) => usage.ended(*cached, *tokens_used),
            Err(_) => usage.failed(),
        });
        Ok(counted.boxed())
    }

    async fn ping(&self) -> Result<(), LlmError> {
        self.provider.ping().await
    }
}
