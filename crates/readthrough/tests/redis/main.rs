//! The cache on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failover;
mod faults;
mod namespaces;
mod soak;
