//! A provider that counts requests.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};

use crate::http::admission::without_load;

use super::{ChatRequest, Chunk, LlmError, ModelEndpoint, Provider, Reply, Usage};

/// A [`Provider`] that counts requests.
#[derive(Debug)]
pub struct CountingProvider {
    provider: Arc<dyn Provider>,
    usage: Arc<Usage>,
}

impl CountingProvider {
    /// Creates a provider that counts the requests to `provider` in `usage`.
    pub fn new(provider: Arc<dyn Provider>, usage: Arc<Usage>) -> Self {
        Self { provider, usage }
    }
}

#[async_trait]
impl Provider for CountingProvider {
    fn endpoint(&self) -> &dyn ModelEndpoint {
        self.provider.endpoint()
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let outcome = without_load(self.provider.complete(request)).await;
        match &outcome {
            Ok(reply) => self.usage.record_success(reply.cached, reply.tokens_used),
            Err(_) => self.usage.record_failure(),
        }
        outcome
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let chunks = without_load(self.provider.stream(request)).await.inspect_err(|_| self.usage.record_failure())?;
        let usage = Arc::clone(&self.usage);
        let counted = chunks.inspect(move |chunk| match chunk {
            Ok(Chunk::Delta(_)) => {}
            Ok(Chunk::Done { tokens_used, cached, .. }) => usage.record_success(*cached, *tokens_used),
            Err(_) => usage.record_failure(),
        });
        Ok(counted.boxed())
    }
}
