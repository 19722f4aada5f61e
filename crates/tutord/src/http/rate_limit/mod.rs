//! Rate limits: how many requests of one kind a subject may make.
//!
//! A sliding-window counter: the count of the present window plus that of the one before, weighted by
//! how much of it the sliding window still covers (Cloudflare, "How we built rate limiting capable of
//! scaling to millions of domains", 2017). It needs two numbers a subject instead of a log, and errs by
//! at most the unevenness of the previous window.
//!
//! With Redis, all processes count together. Rules that guard accounts and the model ask it for each request;
//! [`Rule::Other`], which concerns every request, decides by what this process knows, and tells and asks Redis once
//! a second for each subject: behind N processes a client may get what N processes let through in one second more.
//! While Redis is not used each process goes on with what it knows.

mod shared;
mod window;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use tutord_store::model::Role;

use crate::config::RateLimitConfig;
use crate::error::ApiError;
use window::Counter;
pub use window::Windows;

/// The most subjects that are remembered; the least used are forgotten first. Some 200 bytes each.
const MAX_SUBJECTS: u64 = 200_000;

/// A kind of request that has limits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Registrations of one address.
    Register,
    /// Log-ins from one address.
    Login,
    /// Failed log-ins to one account from one trusted browser, or from one other address.
    LoginFailures,
    /// Failed log-ins to one account from all but trusted browsers together.
    LoginFailuresUntrusted,
    /// Requests for a password reset.
    ResetRequest,
    /// Attempts to confirm one.
    ResetConfirm,
    /// Requests for another verification mail.
    ResendVerification,
    /// Messages to the tutor.
    Chat,
    /// Messages to the tutor by admins.
    ChatAdmin,
    /// Hints for exercises.
    Hint,
    /// Exercises that the model writes.
    Generate,
    /// Exercises that the model writes for admins.
    GenerateAdmin,
    /// Solutions that are handed in.
    Submit,
    /// Downloads of a whole history.
    Export,
    /// Steps of a log-in by another service, of one address.
    OAuth,
    /// Everything else.
    Other,
}

impl Rule {
    /// What the rule is called in Redis.
    const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Login => "login",
            Self::LoginFailures => "login-failures",
            Self::LoginFailuresUntrusted => "login-failures-untrusted",
            Self::ResetRequest => "reset-request",
            Self::ResetConfirm => "reset-confirm",
            Self::ResendVerification => "resend-verification",
            Self::Chat => "chat",
            Self::ChatAdmin => "chat-admin",
            Self::Hint => "hint",
            Self::Generate => "generate",
            Self::GenerateAdmin => "generate-admin",
            Self::Submit => "submit",
            Self::Export => "export",
            Self::OAuth => "oauth",
            Self::Other => "other",
        }
    }

    /// The chat rule of a role.
    pub const fn chat(role: Role) -> Self {
        match role {
            Role::Admin => Self::ChatAdmin,
            Role::Student | Role::Mentor | Role::Moderator => Self::Chat,
        }
    }

    /// The rule of a role for exercises that the model writes.
    pub const fn generate(role: Role) -> Self {
        match role {
            Role::Admin => Self::GenerateAdmin,
            Role::Student | Role::Mentor | Role::Moderator => Self::Generate,
        }
    }
}

/// Whom a limit counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An address, before log-in.
    Ip(IpAddr),
    /// A user, after it.
    User(i64),
    /// An account that somebody tries to log in to, by a hash: see [`Subject::account`].
    Account(u128),
}

impl Subject {
    /// An account by what tells it from others, whether it exists or not. Only a hash is counted by: addresses of people are
    /// not for everybody who may look into Redis.
    pub fn account(parts: &[&[u8]]) -> Self {
        let hash = parts
            .iter()
            .fold(Sha256::new(), |hash, part| hash.chain_update(part.len().to_be_bytes()).chain_update(part));
        Self::Account(hash.finalize()[..16].iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }

    /// Who is counted.
    fn counted(&self) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(network(*address)),
            other => other.clone(),
        }
    }
}

/// The addresses that count as one: of IPv6, the network of 64 bits, which is one customer's.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

/// What is known of one subject under one rule.
#[derive(Debug, Default)]
struct Counts {
    /// One for each window of the rule.
    counters: Vec<Counter>,
    /// Requests that Redis has not been told of, where it is told now and then.
    untold: u32,
    /// When it was told last, since 1970, and whether it is about to be.
    told: Duration,
    telling: bool,
}

impl Counts {
    /// Counts requests, unless one more does not fit: then, how long until it does, and the limit that says so.
    fn count(&mut self, windows: &Windows, now: Duration, requests: u32) -> Result<(), (u32, Duration)> {
        self.counters.resize_with(windows.0.len(), Counter::default);
        let mut longest = None;
        for (counter, (limit, length)) in self.counters.iter_mut().zip(&windows.0) {
            let into = counter.advance(now, *length);
            let wait = counter.wait(into, *limit, *length).map(|wait| (wait, *limit));
            longest = longest.max(wait);
        }
        if let Some((wait, limit)) = longest {
            return Err((limit, wait));
        }
        for counter in &mut self.counters {
            counter.current = counter.current.saturating_add(requests);
        }
        Ok(())
    }
}

type Shared = Arc<Mutex<Counts>>;

/// All rules and the counts of their subjects.
pub struct RateLimits {
    config: RateLimitConfig,
    counts: Cache<(Rule, Subject), Shared>,
    /// Whose Redis all processes count in.
    cache: readthrough::Cache,
    is_shared: bool,
}

impl RateLimits {
    /// Begins with empty counters, or with those in the cache's Redis.
    pub fn new(config: RateLimitConfig, cache: readthrough::Cache) -> Self {
        let counts = Cache::builder().max_capacity(MAX_SUBJECTS).time_to_idle(2 * window::DAY).build();
        Self { config, counts, is_shared: cache.link().is_some(), cache }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// 429 when it is one too many; it is not counted then.
    pub async fn check(&self, rule: Rule, subject: &Subject) -> Result<(), ApiError> {
        self.decide(rule, subject, 1).await
    }

    /// Whether a request would pass, without counting it.
    ///
    /// # Errors
    /// 429 when it would not.
    pub async fn peek(&self, rule: Rule, subject: &Subject) -> Result<(), ApiError> {
        self.decide(rule, subject, 0).await
    }

    async fn decide(&self, rule: Rule, subject: &Subject, requests: u32) -> Result<(), ApiError> {
        let windows = self.config.windows(rule);
        let subject = &subject.counted();
        if !self.config.enabled || windows.0.is_empty() {
            return Ok(());
        }
        let counts = self.counts.get_with((rule, subject.clone()), Arc::default);
        let verdict = if self.is_shared && rule != Rule::Other {
            match shared::ask(&self.cache, rule, subject, windows, requests).await {
                Some(answer) => {
                    lock(&counts).counters = answer.counters;
                    answer.verdict
                }
                None => lock(&counts).count(windows, unix_time(), requests),
            }
        } else {
            let mut counts = lock(&counts);
            let verdict = counts.count(windows, unix_time(), requests);
            counts.untold = counts.untold.saturating_add(if verdict.is_ok() { requests } else { 0 });
            verdict
        };
        if self.is_shared && rule == Rule::Other {
            shared::tell(&self.cache, rule, subject, windows, &counts);
        }
        verdict.map_err(|(limit, wait)| ApiError::rate_limited(limit, wait))
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Since 1970: all processes cut time into the same windows.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(counts: &mut Counts, from: u64, step_ms: u64, requests: u32) -> u32 {
        let windows = "5/min,20/h".parse().unwrap();
        let pass = |request: &u32| {
            let now = Duration::from_secs(from) + Duration::from_millis(step_ms) * *request;
            counts.count(&windows, now, 1).is_ok()
        };
        (0..requests).filter(pass).count().try_into().unwrap()
    }

    #[test]
    fn every_window_of_a_rule_counts() {
        let mut counts = Counts::default();
        assert_eq!(allowed(&mut counts, 0, 1, 10), 5, "five in the first minute");
        assert_eq!(allowed(&mut counts, 90, 1, 10), 2, "half of the previous minute still counts");
        assert_eq!(allowed(&mut counts, 3600, 30_000, 100), 18, "the hour's limit, less what slides out");
    }

    #[test]
    fn the_longest_wait_is_told() {
        let (mut counts, windows) = (Counts::default(), "1/min,1/h".parse().unwrap());
        counts.count(&windows, Duration::ZERO, 1).unwrap();
        let (_, wait) = counts.count(&windows, Duration::from_secs(1), 1).unwrap_err();
        assert!(wait > Duration::from_secs(60), "{wait:?}");
    }

    #[test]
    fn an_ipv6_network_is_one_subject() {
        let subject = |address: &str| Subject::Ip(address.parse().unwrap()).counted();
        assert_eq!(subject("2001:db8::1"), subject("2001:db8::ffff:1"));
        assert_ne!(subject("2001:db8::1"), subject("2001:db8:0:1::1"));
        assert_ne!(subject("192.0.2.1"), subject("192.0.2.2"));
    }
}
