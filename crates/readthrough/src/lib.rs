#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "only log events use some values"))]

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
mod reading;
mod single_flight;
mod stats;
mod trace;
mod version_table;

pub mod coherence;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(test)]
mod simulation;

pub use crate::core::{Invalidation, Target};
#[cfg(feature = "redis")]
pub use ::redis;
pub use builder::CacheBuilder;
pub use cache::Cache;
pub use error::ConfigError;
pub use identity::Identity;
pub use key::{Key, KeyPart};
pub use namespace::{Namespace, NamespaceOptions, Snapshot};
pub use reading::{Loaded, Reading};
pub use remote::fault::RedisFault;
#[cfg(feature = "redis")]
pub use remote::redis::RedisConnection;
pub use remote::stats::{ConnectionStats, RedisStats};
pub use single_flight::LoadError;
pub use stats::NamespaceStats;
