//! Rate limits: how many requests of one kind a subject may make.
//!
//! A sliding-window counter: the count of the present window plus that of the one before, weighted by
//! how much of it the sliding window still covers (Cloudflare, "How we built rate limiting capable of
//! scaling to millions of domains", 2017). It needs two numbers a subject instead of a log, and errs by
//! at most the unevenness of the previous window.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tutord_store::model::Role;

use crate::config::RateLimitConfig;
use crate::error::ApiError;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The most subjects that are remembered; the least used are forgotten first. Some 200 bytes each.
const MAX_SUBJECTS: u64 = 200_000;

/// A kind of request that has limits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Registrations of one address.
    Register,
    /// Log-ins from one address.
    Login,
    /// Failed log-ins to one account.
    LoginFailures,
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
    /// Everything else.
    Other,
}

impl Rule {
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
    /// An account by its address, whether it exists or not.
    Account(String),
}

/// The windows of one rule, written `10/min,100/h`; empty text means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows(Vec<(u32, Duration)>);

impl FromStr for Windows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: must look like 10/min,100/h,200/day");
        let window = |part: &str| {
            let (count, unit) = part.trim().split_once('/')?;
            let length = match unit {
                "min" => MINUTE,
                "h" => HOUR,
                "day" => DAY,
                _ => return None,
            };
            Some((count.parse().ok().filter(|count| *count > 0)?, length))
        };
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| window(part).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, length)) in self.0.iter().enumerate() {
            let unit = match *length {
                MINUTE => "min",
                HOUR => "h",
                _ => "day",
            };
            write!(f, "{}{count}/{unit}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Two neighbouring windows of one subject.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    window: u64,
    current: u32,
    previous: u32,
}

impl Counter {
    /// Moves on to the window that `now` falls into and says how far into it `now` is (0 to 1).
    fn advance(&mut self, now: Duration, length: Duration) -> f64 {
        let position = now.as_secs_f64() / length.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "time since start is positive and small"
        )]
        let window = position as u64;
        if window > self.window {
            self.previous = if window == self.window + 1 { self.current } else { 0 };
            self.current = 0;
            self.window = window;
        }
        position.fract()
    }

    /// How long until one more request fits; `None` when it fits now.
    fn wait(&self, into: f64, limit: u32, length: Duration) -> Option<Duration> {
        let (limit, current, previous) = (f64::from(limit), f64::from(self.current), f64::from(self.previous));
        if previous * (1.0 - into) + current + 1.0 <= limit {
            return None;
        }
        let windows = if current + 1.0 <= limit {
            // The previous window has to slide out far enough.
            1.0 - (limit - current - 1.0) / previous - into
        } else {
            // This window becomes the previous one first.
            (1.0 - into) + (1.0 - (limit - 1.0) / current)
        };
        Some(length.mul_f64(windows.clamp(0.0, 2.0)))
    }
}

/// All rules and the counts of their subjects, in this process.
pub struct RateLimits {
    config: RateLimitConfig,
    started: Instant,
    counters: Cache<(Rule, usize, Subject), Arc<Mutex<Counter>>>,
}

impl RateLimits {
    /// Begins with empty counters.
    pub fn new(config: RateLimitConfig) -> Self {
        let counters = Cache::builder().max_capacity(MAX_SUBJECTS).time_to_idle(2 * DAY).build();
        Self { config, started: Instant::now(), counters }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// 429 when it is one too many; it is not counted then.
    pub fn check(&self, rule: Rule, subject: &Subject) -> Result<(), ApiError> {
        self.check_at(rule, subject, self.started.elapsed(), true)
    }

    /// Whether a request would pass, without counting it.
    ///
    /// # Errors
    /// 429 when it would not.
    pub fn peek(&self, rule: Rule, subject: &Subject) -> Result<(), ApiError> {
        self.check_at(rule, subject, self.started.elapsed(), false)
    }

    fn check_at(&self, rule: Rule, subject: &Subject, now: Duration, count: bool) -> Result<(), ApiError> {
        if !self.config.enabled {
            return Ok(());
        }
        let windows = &self.config.windows(rule).0;
        let counters: Vec<_> = (0..windows.len())
            .map(|index| self.counters.get_with((rule, index, subject.clone()), Arc::default))
            .collect();
        // All windows are locked in the same order, so that a request is counted by all of them or by none.
        let mut locked: Vec<_> =
            counters.iter().map(|counter| counter.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        for (counter, (limit, length)) in locked.iter_mut().zip(windows) {
            let into = counter.advance(now, *length);
            if let Some(wait) = counter.wait(into, *limit, *length) {
                return Err(ApiError::rate_limited(*limit, wait));
            }
        }
        if count {
            for counter in &mut locked {
                counter.current = counter.current.saturating_add(1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> RateLimits {
        RateLimits::new(RateLimitConfig { register: "5/min,20/h".parse().unwrap(), ..RateLimitConfig::default() })
    }

    fn allowed(limits: &RateLimits, from: u64, step_ms: u64, requests: u32) -> u32 {
        let subject = Subject::User(1);
        let pass = |request: &u32| {
            let now = Duration::from_secs(from) + Duration::from_millis(step_ms) * *request;
            limits.check_at(Rule::Register, &subject, now, true).is_ok()
        };
        (0..requests).filter(pass).count().try_into().unwrap()
    }

    #[test]
    fn every_window_of_a_rule_counts() {
        let limits = limits();
        assert_eq!(allowed(&limits, 0, 1, 10), 5, "five in the first minute");
        assert_eq!(allowed(&limits, 90, 1, 10), 2, "half of the previous minute still counts");
        assert_eq!(allowed(&limits, 3600, 30_000, 100), 18, "the hour's limit, less what slides out");
        let other = Subject::User(2);
        assert!(limits.check_at(Rule::Register, &other, Duration::from_secs(1), true).is_ok());
    }

    proptest! {
        #[test]
        fn waiting_as_told_is_enough(times in prop::collection::vec(0_u64..200_000, 1..60)) {
            let mut times = times;
            times.sort_unstable();
            let mut counter = Counter::default();
            for millis in times {
                let now = Duration::from_millis(millis);
                let into = counter.advance(now, MINUTE);
                match counter.wait(into, 5, MINUTE) {
                    None => counter.current += 1,
                    Some(wait) => {
                        let mut later = counter;
                        let into = later.advance(now + wait + Duration::from_millis(1), MINUTE);
                        prop_assert_eq!(later.wait(into, 5, MINUTE), None);
                    }
                }
            }
        }
    }

    #[test]
    fn windows_are_read_as_they_are_written() {
        for text in ["10/min,100/h", "10/day", ""] {
            assert_eq!(text.parse::<Windows>().unwrap().to_string(), text);
        }
        for text in ["10", "0/min", "x/min", "10/week", "10/min;5/h"] {
            assert!(text.parse::<Windows>().is_err(), "{text}");
        }
    }
}
