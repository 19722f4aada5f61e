//! Counts what the model is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};

use crate::http::admission::without_load;

use super::{ChatRequest, Chunk, LlmError, Provider, Reply};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Usage {
    answered: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
    tokens: AtomicU64,
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
