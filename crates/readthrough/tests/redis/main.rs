//! The cache on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

mod cluster;
mod entries;
mod failover;
mod faults;
mod keys;
mod namespaces;
mod runtimes;
mod second_tier;
mod soak;

/// The time limit of Redis commands in tests that are not about it: a busy machine must not look like a fault.
const PATIENT: Duration = Duration::from_secs(5);
