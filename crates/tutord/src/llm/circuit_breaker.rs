//! A circuit breaker around a provider.
//!
//! It follows Nygard ("Release It!", 2007): closed, open after consecutive failures, half-open while one request
//! probes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use tokio::time::Instant;

use super::{ChatRequest, Chunk, LlmError, ModelEndpoint, Provider, Reply, Usage};

/// Consecutive failures that open the breaker.
const FAILURE_THRESHOLD: u32 = 5;
/// The shortest time that the breaker stays open. The time doubles with each failed probe.
const MIN_PAUSE: Duration = Duration::from_secs(5);
/// The longest time that the breaker stays open.
const MAX_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct BreakerState {
    /// Consecutive failures.
    failures: u32,
    /// The time of the next probe; `Some` while the breaker is open.
    probe_at: Option<Instant>,
    pause: Duration,
    is_probing: bool,
}

/// A [`Provider`] with a circuit breaker.
#[derive(Debug)]
pub struct CircuitBreaker {
    provider: Arc<dyn Provider>,
    state: Arc<Mutex<BreakerState>>,
    usage: Arc<Usage>,
}

/// Permission to send one request. Dropping it without an outcome lets another request probe.
struct RequestPermit {
    state: Arc<Mutex<BreakerState>>,
    usage: Arc<Usage>,
    is_probe: bool,
}

fn lock(state: &Mutex<BreakerState>) -> MutexGuard<'_, BreakerState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RequestPermit {
    fn record_success(&self) {
        let mut state = lock(&self.state);
        if state.probe_at.take().is_some() {
            tracing::info!("the model endpoint is reachable again");
            self.usage.set_open(false);
        }
        state.failures = 0;
        state.pause = Duration::ZERO;
    }

    fn record_failure(&self, error: &LlmError) {
        // A refusal or an exhausted quota proves that the endpoint is reachable.
        if !matches!(error, LlmError::Unavailable { .. } | LlmError::Timeout(_)) {
            return self.record_success();
        }
        let mut state = lock(&self.state);
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURE_THRESHOLD && (state.probe_at.is_none() || self.is_probe) {
            let requested = error.retry_after().unwrap_or_default();
            state.pause = (state.pause * 2).max(requested).clamp(MIN_PAUSE, MAX_PAUSE);
            state.probe_at = Some(Instant::now() + state.pause);
            self.usage.set_open(true);
            tracing::warn!(%error, failures = state.failures, pause = ?state.pause, "the model endpoint is down; requests fail at once until a probe succeeds");
        }
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.is_probe {
            lock(&self.state).is_probing = false;
        }
    }
}

impl CircuitBreaker {
    /// Creates a closed circuit breaker around `provider`.
    pub fn new(provider: Arc<dyn Provider>, usage: Arc<Usage>) -> Self {
        Self { provider, state: Arc::default(), usage }
    }

    fn acquire_permit(&self) -> Result<RequestPermit, LlmError> {
        let mut state = lock(&self.state);
        let mut is_probe = false;
        if let Some(probe_at) = state.probe_at {
            let left = probe_at.saturating_duration_since(Instant::now());
            if state.is_probing || !left.is_zero() {
                let cause = format!("{} consecutive failures", state.failures);
                return Err(LlmError::Unavailable { cause, retry_after: Some(left.max(Duration::from_secs(1))) });
            }
            state.is_probing = true;
            is_probe = true;
        }
        Ok(RequestPermit { state: Arc::clone(&self.state), usage: Arc::clone(&self.usage), is_probe })
    }
}

#[async_trait]
impl Provider for CircuitBreaker {
    fn endpoint(&self) -> &dyn ModelEndpoint {
        self.provider.endpoint()
    }

    async fn complete(&self, request: ChatRequest) -> Result<Reply, LlmError> {
        let permit = self.acquire_permit()?;
        let outcome = self.provider.complete(request).await;
        match &outcome {
            Ok(_) => permit.record_success(),
            Err(error) => permit.record_failure(error),
        }
        outcome
    }

    async fn stream(&self, request: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
        let permit = self.acquire_permit()?;
        let chunks = self.provider.stream(request).await.inspect_err(|error| permit.record_failure(error))?;
        let watched = chunks.inspect(move |chunk| match chunk {
            // The first chunk proves that the endpoint is reachable, even if the reply breaks off later.
            Ok(_) => permit.record_success(),
            Err(error) => permit.record_failure(error),
        });
        Ok(watched.boxed())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::iter;

    use super::*;
    use crate::llm::{ChatMessage, PromptRole};

    /// Counts requests, and fails while `down` or `limits` is set.
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

    impl ModelEndpoint for Endpoint {
        fn name(&self) -> &'static str {
            "endpoint"
        }

        fn model(&self) -> &'static str {
            "m"
        }
    }

    #[async_trait]
    impl Provider for Endpoint {
        fn endpoint(&self) -> &dyn ModelEndpoint {
            self
        }

        async fn complete(&self, _: ChatRequest) -> Result<Reply, LlmError> {
            self.answer()?;
            Err(LlmError::Rejected { status: 400, cause: "as every request".to_owned() })
        }

        async fn stream(&self, _: ChatRequest) -> Result<BoxStream<'static, Result<Chunk, LlmError>>, LlmError> {
            self.answer()?;
            Ok(iter([Ok(Chunk::Delta("hi".to_owned()))]).boxed())
        }
    }

    fn request() -> ChatRequest {
        let message = ChatMessage { role: PromptRole::User, content: "hello".to_owned() };
        ChatRequest {
            messages: vec![message],
            max_tokens: 1,
            temperature: 0.0,
            student: None,
            question_starts: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_at_a_time_probes_an_endpoint_that_is_down() {
        let endpoint = Arc::new(Endpoint::default());
        let usage = Arc::<Usage>::default();
        let breaker = CircuitBreaker::new(Arc::clone(&endpoint) as Arc<dyn Provider>, Arc::clone(&usage));
        let requests = || endpoint.requests.load(std::sync::atomic::Ordering::Relaxed);
        let down = |down| endpoint.down.store(down, std::sync::atomic::Ordering::Relaxed);
        down(true);
        for _ in 0..FAILURE_THRESHOLD + 3 {
            breaker.complete(request()).await.unwrap_err();
        }
        assert_eq!((requests(), usage.is_open()), (FAILURE_THRESHOLD, true));
        let Err(LlmError::Unavailable { retry_after: Some(left), .. }) = breaker.complete(request()).await else {
            panic!("the breaker is not open")
        };
        assert_eq!(left, MIN_PAUSE);
        // The probe fails and doubles the pause.
        tokio::time::advance(MIN_PAUSE).await;
        breaker.complete(request()).await.unwrap_err();
        breaker.complete(request()).await.unwrap_err();
        assert_eq!(requests(), FAILURE_THRESHOLD + 1);
        tokio::time::advance(MIN_PAUSE).await;
        assert!(breaker.stream(request()).await.is_err());
        assert_eq!(requests(), FAILURE_THRESHOLD + 1);
        // Dropping a probe lets the next request probe.
        tokio::time::advance(MIN_PAUSE).await;
        down(false);
        let probe = breaker.stream(request()).await.unwrap();
        assert!(breaker.stream(request()).await.is_err(), "one at a time");
        drop(probe);
        let mut probe = breaker.stream(request()).await.unwrap();
        assert!(probe.next().await.unwrap().is_ok());
        assert!(!usage.is_open());
        // A refusal is a response.
        for _ in 0..9 {
            assert!(matches!(breaker.complete(request()).await, Err(LlmError::Rejected { .. })));
        }
        assert!(!usage.is_open());
        // An exhausted quota is a response.
        endpoint.limits.store(true, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..9 {
            let error = breaker.complete(request()).await.unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)), "{error}");
        }
        assert!(!usage.is_open());
    }
}
