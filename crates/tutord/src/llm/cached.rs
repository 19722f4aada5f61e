//! Replies that were given before.
//!
//! A request that a student has made before, word for word (the prompt holds their profile and the conversation), to
//! the same model with the same parameters, is answered with the reply of then. Replies are kept by student: what is
//! made of one student's words is never shown to another.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt, iter};
use readthrough::{Cache, Key, Namespace, NamespaceOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ChatMessage, ChatRequest, Chunk, LlmError, Provider, Reply};

/// How long a request goes on waiting for the same one of another process that was killed meanwhile.
const LEASE: Duration = Duration::from_millis(1_500);

/// Which replies are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ReplyCacheOptions {
    /// How long a reply is kept.
    pub ttl: Duration,
    /// Requests that ask for more variety than this are answered anew.
    pub max_temperature: f64,
    /// The longest that the model takes.
    pub timeout: Duration,
}

/// A [`Provider`] with a cache before it.
pub struct Cached {
    provider: Arc<dyn Provider>,
    replies: Namespace<Kept>,
    max_temperature: f64,
}

/// What is kept of a reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    content: String,
    model: String,
}

/// Why a request was not answered by what is kept, nor its answer kept.
enum Unkept {
    Failed(LlmError),
    /// A reply that ended early.
    Partial(Reply),
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cached").field(&self.provider).finish()
    }
}

impl Cached {
    /// Keeps the replies of a provider in a cache.
    pub fn new(provider: Arc<dyn Provider>, cache: &Cache, options: ReplyCacheOptions) -> Self {
        let namespace = NamespaceOptions::new("llm:reply").ttl(options.ttl).lease(LEASE).lease_wait(options.timeout);
        Self { provider, replies: cache.namespace(namespace), max_temperature: options.max_temperature }
    }

    /// The key of a request that may be answered by an earlier reply.
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
        let identity = Identity {
            model: self.provider.model(),
            messages: &request.messages,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            parameters: self.provider.parameters(),
        };
        let hash = Sha256::digest(serde_json::to_vec(&identity).ok()?);
        let hash = hash.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"));
        Some(Key::new(format_args!("{student}:{hash}")))
    }
}

/// Whether a model said all that it wanted to.
fn is_whole(finish_reason: &str) -> bool {
    finish_reason == "stop"
}

#[async_trait]
impl Provider for Cached {
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
        let Some(key) = self.key(&request) else { return self.provider.complete(request).await };
        let began = Instant::now();
        // What the model was paid for, where it was this request that asked it.
        let asked = AtomicBool::new(false);
        let fresh = std::sync::Mutex::new(None);
        let load = async || {
            asked.store(true, Ordering::Relaxed);
            let reply = self.provider.complete(request).await.map_err(Unkept::Failed)?;
            if !is_whole(&reply.finish_reason) {
                return Err(Unkept::Partial(reply));
            }
            let kept = Kept { content: reply.content.clone(), model: reply.model.clone() };
            *fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reply);
            Ok(Some(kept))
        };
        let found = self.replies.get_or_load(&key, load).await;
        if let Some(reply) = fresh.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Ok(reply);
        }
        match found {
            Ok(Some(kept)) => Ok(Reply {
                content: kept.content.clone(),
                model: kept.model.clone(),
                tokens_used: 0,
                finish_reason: "stop".to_owned(),
                response_time: began.elapsed(),
                cached: true,
            }),
            // The loader never finds nothing.
            Ok(None) => Err(LlmError::Protocol("no reply".to_owned())),
            Err(Unkept::Partial(reply)) => Ok(reply),
            Err(Unkept::Failed(error)) => Err(error),
        }
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let Some(key) = self.key(&request) else { return self.provider.stream(request).await };
        if let Some(Some(kept)) = self.replies.get(&key).await {
            let done = Chunk::Done {
                model: kept.model.clone(),
                tokens_used: 0,
                finish_reason: "stop".to_owned(),
                cached: true,
            };
            return Ok(iter([Ok(Chunk::Delta(kept.content.clone())), Ok(done)]).boxed());
        }
        let replies = self.replies.clone();
        let mut content = String::new();
        let chunks = self.provider.stream(request).await?;
        let kept = chunks.then(move |chunk| {
            let whole = match &chunk {
                Ok(Chunk::Delta(more)) => {
                    content.push_str(more);
                    None
                }
                Ok(Chunk::Done { model, finish_reason, .. }) if is_whole(finish_reason) => {
                    Some(Kept { content: std::mem::take(&mut content), model: model.clone() })
                }
                _ => None,
            };
            let (replies, key) = (replies.clone(), key.clone());
            async move {
                if let Some(kept) = whole {
                    let keep = async || Ok::<_, std::convert::Infallible>(Some(kept));
                    let Ok(_) = replies.get_or_load(&key, keep).await;
                }
                chunk
            }
        });
        Ok(kept.boxed())
    }

    async fn ping(&self) -> Result<(), LlmError> {
        self.provider.ping().await
    }
}
