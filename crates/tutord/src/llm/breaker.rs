//! ResponseCache at once while the endpoint is down.
//!
//! A circuit breaker as Nygard describes it ("Release It!", 2007): closed, open after failures in a row, half-open while
//! one request probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::{ChatRequest, Chunk, LlmError, Provider, Reply, Usage};

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// How long it stays open at first, and at most: the time doubles with each probe that fails.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// When a probe is due, while the breaker is open.
    probe_at: Option<Instant>,
    pause: Duration,
    probing: bool,
}

/// A [`Provider`] behind a circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    provider: Arc<dyn Provider>,
    state: Arc<Mutex<State>>,
    usage: Arc<Usage>,
}

/// A request that was let through. Dropped without an outcome, it makes room for the next probe.
struct Passed {
    state: Arc<Mutex<State>>,
    usage: Arc<Usage>,
    probes: bool,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passed {
    fn answered(&self) {
        let mut state = lock(&self.state);
        if state.probe_at.take().is_some() {
            tracing::info!("the model endpoint answers again");
            self.usage.set_open(false);
        }
        state.failures = 0;
        state.pause = Duration::ZERO;
    }

    fn failed(&self, error: &LlmError) {
        // A request that is refused was answered, as was one beyond a quota: the endpoint is there.
        if !matches!(error, LlmError::Unavailable { .. } | LlmError::Timeout(_)) {
            return self.answered();
        }
        let mut state = lock(&self.state);
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES && (state.probe_at.is_none() || self.probes) {
            let wanted = error.retry_after().unwrap_or_default();
            state.pause = (state.pause * 2).max(wanted).clamp(SHORTEST, LONGEST);
            state.probe_at = Some(Instant::now() + state.pause);
            self.usage.set_open(true);
            tracing::warn!(%error, failures = state.failures, pause = ?state.pause, "the model endpoint is down; it is probed after the pause");
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.probes {
            lock(&self.state).probing = false;
        }
    }
}

impl Breaker {
    /// Guards a provider.
    pub fn new(provider: Arc<dyn Provider>, usage: Arc<Usage>) -> Self {
        Self { provider, state: Arc::default(), usage }
    }

    fn pass(&self) -> Result<Passed, LlmError> {
        let mut state = lock(&self.state);
        let mut probes = false;
        if let Some(probe_at) = state.probe_at {
            let left = probe_at.saturating_duration_since(Instant::now());
            if state.probing || !left.is_zero() {
                let cause = format!("it failed {} times in a row", state.failures);
                return Err(LlmError::Unavailable { cause, retry_after: Some(left.max(Duration::from_secs(1))) });
            }
            state.probing = true;
            probes = true;
        }
        Ok(Passed { state: Arc::clone(&self.state), usage: Arc::clone(&self.usage), probes })
    }
}

#[async_trait]
impl Provider for Breaker {
    fn name(&self) -> &str {
        self.provider.name()
    }

    fn model(&self) -> &str {
        self.provider.model()
    }

    fn parameters(&self) -> Value {
        self.provider.parameters()
    }

    fn prompt_tokens(&self, tokens: u32) -> u32 {
        self.provider.prompt_tokens(tokens)
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let passed = self.pass()?;
        let outcome = self.provider.complete(request).await;
        match &outcome {
            Ok(_) => passed.answered(),
            Err(error) => passed.failed(error),
        }
        outcome
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let passed = self.pass()?;
        let chunks = self.provider.stream(request).await.inspect_err(|error| passed.failed(error))?;
        let watched = chunks.inspect(move |chunk| match chunk {
            // It is there, even if the reply breaks off later.
            Ok(_) => passed.answered(),
            Err(error) => passed.failed(error),
        });
        Ok(watched.boxed())
    }

    async fn ping(&self) -> Result<(), LlmError> {
        self.provider.ping().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::iter;

    use super::*;
    use crate::llm::{ChatMessage, Role};

    /// Fails while it is down; counts the requests.
    #[derive(Debug, Default)]
    struct Endpoint {
        down: std::sync::atomic::AtomicBool,
        limits: std::sync::atomic::AtomicBool,
        requests: std::sync::atomic::AtomicU32,
    }

    impl Endpoint {
        fn answer(&self) -> Result<(), LlmError> {
            self.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if self.limits.load(std::sync::atomic::Ordering::Relaxed) {
                let retry_after = Some(Duration::from_secs(7));
                return Err(LlmError::RateLimited { cause: "as scripted".to_owned(), retry_after });
            }
            if self.down.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(LlmError::Timeout(Duration::from_secs(1)));
            }
            Ok(())
        }
    }

    #[async_trait]
    impl Provider for Endpoint {
        fn name(&self) -> &'static str {
            "endpoint"
        }

        fn model(&self) -> &'static str {
            "m"
        }

        async fn complete(&self, _: ChatRequest) -> Result<Reply, LlmError> {
            self.answer()?;
            Err(LlmError::Rejected { status: 400, cause: "as every request".to_owned() })
        }

        async fn stream(&self, _: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
            self.answer()?;
            Ok(iter([Ok(Chunk::Delta("hi".to_owned()))]).boxed())
        }

        async fn ping(&self) -> Result<(), LlmError> {
            Ok(())
        }
    }

    fn request() -> ChatRequest {
        let message = ChatMessage { role: Role::User, content: "hello".to_owned() };
        ChatRequest {
            messages: vec![message],
            max_tokens: 1,
            temperature: 0.0,
            student: None,
            question_starts: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_down_is_probed_by_one_request_at_a_time() {
        let endpoint = Arc::new(Endpoint::default());
        let usage = Arc::<Usage>::default();
        let breaker = Breaker::new(Arc::clone(&endpoint) as Arc<dyn Provider>, Arc::clone(&usage));
        let requests = || endpoint.requests.load(std::sync::atomic::Ordering::Relaxed);
        let down = |down| endpoint.down.store(down, std::sync::atomic::Ordering::Relaxed);
        down(true);
        for _ in 0..FAILURES + 3 {
            breaker.complete(request()).await.unwrap_err();
        }
        assert_eq!((requests(), usage.is_open()), (FAILURES, true));
        let Err(LlmError::Unavailable { retry_after: Some(left), .. }) = breaker.complete(request()).await else {
            panic!("it is open")
        };
        assert_eq!(left, SHORTEST);
        // The probe fails: the pause doubles.
        tokio::time::advance(SHORTEST).await;
        breaker.complete(request()).await.unwrap_err();
        breaker.complete(request()).await.unwrap_err();
        assert_eq!(requests(), FAILURES + 1);
        tokio::time::advance(SHORTEST).await;
        assert!(breaker.stream(request()).await.is_err());
        assert_eq!(requests(), FAILURES + 1);
        // A probe that is given up makes room for the next.
        tokio::time::advance(SHORTEST).await;
        down(false);
        let probe = breaker.stream(request()).await.unwrap();
        assert!(breaker.stream(request()).await.is_err(), "one at a time");
        drop(probe);
        let mut probe = breaker.stream(request()).await.unwrap();
        assert!(probe.next().await.unwrap().is_ok());
        assert!(!usage.is_open());
        // A refusal is an answer, too.
        for _ in 0..9 {
            assert!(matches!(breaker.complete(request()).await, Err(LlmError::Rejected { .. })));
        }
        assert!(!usage.is_open());
        // So is a quota that is used up.
        endpoint.limits.store(true, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..9 {
            let error = breaker.complete(request()).await.unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)), "{error}");
        }
        assert!(!usage.is_open());
    }
}
