#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
pub mod coherence;
mod entry;
mod flight;
mod identity;
mod key;
#[cfg(test)]
mod model;
mod namespace;
mod remote;
mod stamps;
mod stats;

pub use cache::{Cache, CacheBuilder, ConfigError, Invalidation, LinkStats, RedisStats, Target};
pub use identity::Identity;
pub use key::Key;
pub use namespace::{Before, Namespace, NamespaceOptions};
pub use remote::fault::RedisFault;
pub use stats::NamespaceStats;
