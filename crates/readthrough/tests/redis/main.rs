//! The cache on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

mod entries;
mod faults;
mod keys;
mod namespaces;
mod soak;

/// The time limit of Redis commands in tests that are not about it: a busy machine must not look like a fault.
const PATIENT: Duration = Duration::from_secs(5);
