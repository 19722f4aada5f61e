#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

// Each module imports only modules below it.
mod builder;
mod cache;
mod namespace;

mod core;
mod remote;

mod entry;
mod error;
mod identity;
mod key;
mod single_flight;
mod stats;
mod version_table;

pub mod coherence;
#[cfg(test)]
mod simulation;

pub use crate::core::{Invalidation, Target};
pub use builder::CacheBuilder;
pub use cache::Cache;
pub use error::ConfigError;
pub use identity::Identity;
pub use key::Key;
pub use namespace::{Namespace, NamespaceOptions, Snapshot};
pub use remote::fault::RedisFault;
pub use remote::stats::{ConnectionStats, RedisStats};
pub use stats::NamespaceStats;
