//! The cache of replies.
//!
//! The key of a reply consists of the student, the whole prompt (which contains the student's profile and the
//! conversation), the model, and all parameters. A reply to one student is never served to another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt, iter};
use readthrough::{Cache, Key, LoadError, Namespace, NamespaceOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ChatMessage, ChatRequest, Chunk, LlmError, ModelEndpoint, Provider, Reply};

/// The lease of a reply that is being generated. If the process that holds it is killed, waiting requests continue
/// after this time.
const LEASE_TTL: Duration = Duration::from_millis(1_500);

/// Options of the reply cache.
#[derive(Debug, Clone, Copy)]
pub struct ReplyCacheOptions {
    /// The time to live of a reply.
    pub ttl: Duration,
    /// The highest temperature of a request whose reply is cached.
    pub max_temperature: f64,
    /// The time limit of a request to the model.
    pub timeout: Duration,
}

/// A [`Provider`] with a cache in front of it.
pub struct CachingProvider {
    provider: Arc<dyn Provider>,
    replies: Namespace<CachedReply>,
    max_temperature: f64,
}

/// The cached part of a reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CachedReply {
    content: String,
    model: String,
}

/// A load whose result is not cached.
enum Uncached {
    Failed(LlmError),
    /// A reply that the model did not finish.
    Partial(Reply),
}

impl fmt::Debug for CachingProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CachingProvider").field(&self.provider).finish()
    }
}

impl CachingProvider {
    /// Creates the cache of a provider's replies.
    ///
    /// # Errors
    /// Returns an error if the cache has such a namespace with other options.
    pub fn new(
        provider: Arc<dyn Provider>,
        cache: &Cache,
        options: ReplyCacheOptions,
    ) -> Result<Self, readthrough::ConfigError> {
        // The provider ends a request after its time limit, before the cache does.
        let limit = options.timeout * 2;
        let namespace = NamespaceOptions::new("llm:reply")
            .ttl(options.ttl)
            .lease(LEASE_TTL)
            .lease_wait(options.timeout)
            .soft_timeout(limit)
            .hard_timeout(limit);
        Ok(Self { provider, replies: cache.namespace(namespace)?, max_temperature: options.max_temperature })
    }

    /// Returns the cache key of a request, or `None` if its reply must not be cached.
    fn key(&self, request: &ChatRequest) -> Option<Key> {
        #[derive(Serialize)]
        struct Identity<'a> {
            model: &'a str,
            messages: &'a [ChatMessage],
            max_tokens: u32,
            temperature: f64,
            parameters: serde_json::Value,
        }
        let student = request.student.filter(|_| request.temperature <= self.max_temperature)?;
        let endpoint = self.provider.endpoint();
        let identity = Identity {
            model: endpoint.model(),
            messages: &request.messages,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            parameters: endpoint.parameters(),
        };
        let hash = Sha256::digest(serde_json::to_vec(&identity).ok()?);
        let hash = hash.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"));
        Some(Key::new(format_args!("{student}:{hash}")))
    }
}

/// Returns whether the model finished its reply.
fn is_finished(finish_reason: &str) -> bool {
    finish_reason == "stop"
}

#[async_trait]
impl Provider for CachingProvider {
    fn endpoint(&self) -> &dyn ModelEndpoint {
        self.provider.endpoint()
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let Some(key) = self.key(&request) else { return self.provider.complete(request).await };
        let began = Instant::now();
        // The reply with its token count, if this request ran the loader.
        let fresh = std::sync::Mutex::new(None);
        let load = async || {
            let reply = self.provider.complete(request).await.map_err(Uncached::Failed)?;
            *fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reply.clone());
            if !is_finished(&reply.finish_reason) {
                return Err(Uncached::Partial(reply));
            }
            Ok(Some(CachedReply { content: reply.content, model: reply.model }))
        };
        let outcome = self.replies.get_or_load(&key, load).await;
        if let Some(reply) = fresh.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Ok(reply);
        }
        match outcome {
            Ok(Some(cached)) => Ok(Reply {
                content: cached.content.clone(),
                model: cached.model.clone(),
                tokens_used: 0,
                finish_reason: "stop".to_owned(),
                response_time: began.elapsed(),
                cached: true,
            }),
            // The loader always returns a reply.
            Ok(None) => Err(LlmError::Protocol("no reply".to_owned())),
            Err(LoadError::Failed(uncached)) => match uncached.as_ref() {
                // Another request ran the loader and counts the tokens.
                Uncached::Partial(reply) => Ok(Reply { tokens_used: 0, cached: true, ..reply.clone() }),
                Uncached::Failed(error) => Err(error.clone()),
            },
            Err(_) => Err(LlmError::Timeout(began.elapsed())),
        }
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let Some(key) = self.key(&request) else { return self.provider.stream(request).await };
        if let Some(Some(cached)) = self.replies.get(&key).await {
            let done = Chunk::Done {
                model: cached.model.clone(),
                tokens_used: 0,
                finish_reason: "stop".to_owned(),
                cached: true,
            };
            return Ok(iter([Ok(Chunk::Delta(cached.content.clone())), Ok(done)]).boxed());
        }
        let replies = self.replies.clone();
        let mut content = String::new();
        let chunks = self.provider.stream(request).await?;
        let chunks = chunks.then(move |chunk| {
            let whole = match &chunk {
                Ok(Chunk::Delta(more)) => {
                    content.push_str(more);
                    None
                }
                Ok(Chunk::Done { model, finish_reason, .. }) if is_finished(finish_reason) => {
                    Some(CachedReply { content: std::mem::take(&mut content), model: model.clone() })
                }
                _ => None,
            };
            let (replies, key) = (replies.clone(), key.clone());
            async move {
                if let Some(reply) = whole {
                    let load = async || Ok::<_, std::convert::Infallible>(Some(reply));
                    // This loader neither fails nor waits.
                    let _ = replies.get_or_load(&key, load).await;
                }
                chunk
            }
        });
        Ok(chunks.boxed())
    }
}
