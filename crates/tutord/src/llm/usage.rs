//! Counts of requests to the model.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The cause of a retry.
#[derive(Debug, Clone, Copy)]
pub(super) enum RetryCause {
    RateLimited,
    ServerError,
    Connection,
}

impl RetryCause {
    const NAMES: [&str; 3] = ["rate_limited", "server_error", "connection"];
}

/// Counts of requests, retries and tokens since the process started.
#[derive(Debug, Default)]
pub struct Usage {
    answered: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
    tokens: AtomicU64,
    /// Retries by cause.
    retries: [AtomicU64; 3],
    is_open: AtomicBool,
    replies: AtomicU64,
    first_token_micros: AtomicU64,
    reply_micros: AtomicU64,
    reply_tokens: AtomicU64,
}

/// The total time and tokens of the replies that the model generated.
#[derive(Debug, Clone, Copy)]
pub struct ReplySpeed {
    /// Replies that the model completed.
    pub replies: u64,
    /// The sum of the times from a request to the first text.
    pub first_token: Duration,
    /// The sum of the times from the first text to the end.
    pub writing: Duration,
    /// Estimated tokens of the replies.
    pub tokens: u64,
}

impl ReplySpeed {
    /// Returns the mean time to the first text, in milliseconds, and the mean tokens per second; `None` without a
    /// reply.
    #[expect(clippy::cast_precision_loss, reason = "means")]
    pub fn means(&self) -> Option<(f64, f64)> {
        (self.replies > 0).then(|| {
            let first_token = self.first_token.as_secs_f64() * 1e3 / self.replies as f64;
            (first_token, self.tokens as f64 / self.writing.as_secs_f64().max(1e-3))
        })
    }
}

impl Usage {
    /// Returns the number of requests by outcome. A stream that is dropped before its end is not counted.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("answered", &self.answered), ("cached", &self.cached), ("failed", &self.failed)]
            .into_iter()
            .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// Returns the tokens of prompts and replies.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Returns the number of retries by cause.
    pub fn retries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RetryCause::NAMES.into_iter().zip(self.retries.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns whether the circuit breaker is open.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Returns the total time and tokens of the replies.
    pub fn speed(&self) -> ReplySpeed {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReplySpeed {
            replies: count(&self.replies),
            first_token: Duration::from_micros(count(&self.first_token_micros)),
            writing: Duration::from_micros(count(&self.reply_micros)),
            tokens: count(&self.reply_tokens),
        }
    }

    pub(super) fn record_retry(&self, cause: RetryCause) {
        self.retries[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Records a reply that was read to its end, `whole` after its request.
    pub(super) fn record_reply(&self, first_token: Duration, whole: Duration, tokens: u32) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.replies.fetch_add(1, Ordering::Relaxed);
        self.first_token_micros.fetch_add(micros(first_token), Ordering::Relaxed);
        self.reply_micros.fetch_add(micros(whole.saturating_sub(first_token)), Ordering::Relaxed);
        self.reply_tokens.fetch_add(tokens.into(), Ordering::Relaxed);
    }

    pub(super) fn record_success(&self, cached: bool, tokens: u32) {
        let counter = if cached { &self.cached } else { &self.answered };
        counter.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens.into(), Ordering::Relaxed);
    }

    pub(super) fn record_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}
