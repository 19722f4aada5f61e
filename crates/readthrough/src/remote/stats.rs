//! Statistics of the connection and of the Redis server.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use super::fault::RedisFault;

/// Counters of the commands that requests wait for.
#[derive(Debug, Default)]
pub(crate) struct CommandCounters {
    pub(crate) commands: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) breaks: AtomicU64,
}

/// The state of this process's connection to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Set if reads use Redis.
    #[cfg_attr(feature = "serde", serde(rename = "up"))]
    pub is_available: bool,
    /// Set if reads use the copies in this process.
    #[cfg_attr(feature = "serde", serde(rename = "l1_trusted"))]
    pub is_l1_fresh: bool,
    /// Commands that requests waited for.
    pub commands: u64,
    /// Commands that failed or exceeded the time limit.
    pub failures: u64,
    /// Number of times the circuit breaker opened.
    pub breaks: u64,
    /// Names whose invalidation Redis has not received yet.
    #[cfg_attr(feature = "serde", serde(rename = "owed"))]
    pub pending: usize,
    /// The reason why reads do not use Redis; `None` while they do.
    pub fault: Option<RedisFault>,
}

/// Statistics that the Redis server reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RedisStats {
    /// The version of the server.
    pub version: String,
    /// Memory in use, in bytes.
    pub used_memory: u64,
    /// The memory limit in bytes; 0 if there is none.
    pub maxmemory: u64,
    /// The eviction policy.
    pub maxmemory_policy: String,
    /// Keys that the server evicted to free memory.
    pub evicted_keys: u64,
    /// Keys that expired.
    pub expired_keys: u64,
    /// Settings that the operator should change.
    pub warnings: Vec<String>,
}

impl RedisStats {
    pub(crate) fn from_info(info: &HashMap<String, String>) -> Self {
        let text = |name: &str| info.get(name).cloned().unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let mut stats = Self {
            version: text("redis_version"),
            used_memory: number("used_memory"),
            maxmemory: number("maxmemory"),
            maxmemory_policy: text("maxmemory_policy"),
            evicted_keys: number("evicted_keys"),
            expired_keys: number("expired_keys"),
            warnings: Vec::new(),
        };
        if stats.maxmemory == 0 {
            stats.warnings.push("maxmemory is not set: Redis can use all memory of the machine".to_owned());
        }
        if !matches!(stats.maxmemory_policy.as_str(), "allkeys-lru" | "allkeys-lfu") {
            let policy = &stats.maxmemory_policy;
            stats.warnings.push(format!("maxmemory-policy is {policy}: set allkeys-lru or allkeys-lfu for a cache"));
        }
        // Redis reports the number of good replicas only if the setting is above 0.
        if number("connected_slaves") > 0 && !info.contains_key("min_slaves_good_slaves") {
            stats.warnings.push("min-replicas-to-write is 0: an isolated master serves old values".to_owned());
        }
        stats
    }
}
