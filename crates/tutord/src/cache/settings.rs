//! The settings of the cache.

use std::time::Duration;

use clap::Args;
use readthrough::Identity;
use tutord_core::operations::DatabaseIdentity;

use crate::values::{Secret, SecretUrl};

/// Cache backends and times to live.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheSettings {
    /// URL of the Redis that the processes share as a cache: redis://, rediss://, redis+sentinel://host,host/master or
    /// redis+cluster://host,host. `doctor` and the readiness route check it. Without it, tutord caches in the memory of
    /// the process on SQLite, and caches nothing on PostgreSQL, where other processes can change the rows.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_parser = REDIS_URL)]
    pub redis_url: Option<Secret>,
    /// Enable the cache.
    #[arg(long, env = "CACHE_ENABLED", default_value_t = true, action = clap::ArgAction::Set)]
    pub cache_enabled: bool,
    /// Enable the in-process cache (L1) in front of Redis. Without it each read goes to Redis, and never returns a
    /// value that another process replaced a moment ago.
    #[arg(long, env = "CACHE_L1", default_value_t = true, action = clap::ArgAction::Set)]
    pub cache_l1: bool,
    /// Prefix of all keys in Redis; needed if databases that share a Redis have the same identity, such as two copies
    /// of one data directory. At most 32 ASCII letters, digits, '-', '_' and '.'.
    #[arg(long, env = "CACHE_PREFIX", default_value = "", value_parser = cache_prefix)]
    pub cache_prefix: String,
    /// Timeout of a Redis command in milliseconds, after which tutord continues without Redis.
    #[arg(long, env = "REDIS_TIMEOUT_MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub redis_timeout_ms: u64,
    /// Time to live of cached profiles, in seconds.
    #[arg(long = "user-profile-cache-ttl", env = "USER_PROFILE_CACHE_TTL", default_value_t = 300, value_parser = ttl())]
    pub user_profile_ttl: u64,
    /// Time to live of cached sessions, in seconds.
    #[arg(long = "session-cache-ttl", env = "SESSION_CACHE_TTL", default_value_t = 300, value_parser = ttl())]
    pub session_ttl: u64,
    /// Time to live of cached exercises, in seconds.
    #[arg(long = "exercise-cache-ttl", env = "EXERCISE_CACHE_TTL", default_value_t = 3_600, value_parser = ttl())]
    pub exercise_ttl: u64,
    /// Time to live of cached lists of a student's exercises, in seconds.
    #[arg(long = "exercise-list-cache-ttl", env = "EXERCISE_LIST_CACHE_TTL", default_value_t = 120, value_parser = ttl())]
    pub exercise_list_ttl: u64,
    /// Time to live of cached conversation lists and of the newest messages of conversations, in seconds.
    #[arg(long = "conversation-cache-ttl", env = "CONVERSATION_CACHE_TTL", default_value_t = 120, value_parser = ttl())]
    pub conversation_ttl: u64,
    /// Time to live of a student's cached statistics and achievements, in seconds.
    #[arg(long = "progress-cache-ttl", env = "PROGRESS_CACHE_TTL", default_value_t = 300, value_parser = ttl())]
    pub progress_ttl: u64,
    /// Time to live of cached leaderboard pages, in seconds.
    #[arg(long = "leaderboard-cache-ttl", env = "LEADERBOARD_CACHE_TTL", default_value_t = 60, value_parser = ttl())]
    pub leaderboard_ttl: u64,
}

/// Returns a parser of seconds, from one second to one week.
fn ttl() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=604_800)
}

impl CacheSettings {
    /// Returns `true` if values are kept in the memory of the process. Without Redis, L1 is the only tier.
    pub(super) fn has_l1(&self) -> bool {
        self.cache_l1 || self.redis_url.is_none()
    }

    /// Returns the longest configured time to live, in seconds.
    pub(crate) fn longest_ttl(&self) -> u64 {
        [
            self.user_profile_ttl,
            self.session_ttl,
            self.exercise_ttl,
            self.exercise_list_ttl,
            self.conversation_ttl,
            self.progress_ttl,
            self.leaderboard_ttl,
        ]
        .into_iter()
        .max()
        .unwrap_or_default()
    }

    /// Builds the cache for a database of this kind. Without an identity the cache stays empty until one is set.
    ///
    /// # Errors
    /// Returns an error if the Redis URL is invalid.
    pub fn build(
        &self,
        backend: &str,
        identity: Option<&DatabaseIdentity>,
    ) -> Result<readthrough::Cache, readthrough::ConfigError> {
        let mut builder = readthrough::Cache::builder()
            .prefix(&self.cache_prefix)
            .identity(identity.map(|identity| Identity::new(&identity.state, &identity.lineage)).transpose()?)
            .enabled(self.cache_enabled && (self.redis_url.is_some() || backend == "sqlite"))
            .redis_timeout(Duration::from_millis(self.redis_timeout_ms));
        if let Some(url) = &self.redis_url {
            builder = builder.redis(url.reveal());
        }
        builder.build()
    }
}

const REDIS_URL: SecretUrl = SecretUrl {
    is_valid: |text| readthrough::Cache::builder().redis(text).check().is_ok(),
    expected: "redis://HOST:PORT, rediss://, redis+sentinel://HOST,HOST/MASTER or redis+cluster://HOST,HOST",
};
fn cache_prefix(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() <= 32 && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be at most 32 ASCII letters, digits, '-', '_' and '.'".to_owned())
    }
}
