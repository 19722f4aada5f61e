//! The interface of a second tier, for others than Redis.
//!
//! [`CacheBuilder::second_tier`](crate::CacheBuilder::second_tier) takes a [`Connector`]. The cache opens two connections by
//! it, supervises them, and opens others after an error.
//!
//! Each operation of a [`SecondTier`] is atomic. A tier with only *get*, *set* and *delete* would lose the guarantee of
//! [`coherence`](crate::coherence): a reader loads an old value; a writer commits and deletes the entry; then the reader
//! sets the old value, which stays until it expires. *Fill* therefore compares the token of the lease and stores in one
//! step, and *invalidate* removes the entry and the lease in one step. A tier that checks first and stores afterwards has
//! the same race in between.
//!
//! With the feature `conformance`, `readthrough::conformance::check` tests an implementation, races included.
//! [`MemoryTier`] is an implementation in memory, for tests of programs that use the cache.

#[cfg(feature = "redis")]
use crate::error::ConfigError;
pub use crate::remote::memory::MemoryTier;
#[cfg(feature = "redis")]
use crate::remote::redis::Endpoint;
pub use crate::remote::tier::{
    Connector, Epochs, Event, Fill, Info, Keys, LeaseRequest, LeaseResponse, Names, Poll, Replacement, Result,
    SecondTier, ServerState, StreamPosition, TierError, keys_of,
};

/// Returns the second tier at a Redis URL: what [`CacheBuilder::redis`](crate::CacheBuilder::redis) uses, for a program
/// that wraps it.
///
/// # Errors
/// Returns an error if the URL cannot be parsed.
#[cfg(feature = "redis")]
pub fn redis(url: &str) -> std::result::Result<impl Connector + use<>, ConfigError> {
    Endpoint::parse(url).map_err(|error| ConfigError(error.to_string()))
}
