//! The second tier.
//!
//! - [`tier`]: the operations that the protocol needs, which a test server can implement.
//! - [`redis`]: the operations on Redis: single server, Sentinel, Cluster.
//! - [`supervisor`]: connects, watches the connection, reconnects.
//! - [`connection`]: the state of the connection, and the circuit breaker.
//! - [`pending`]: invalidations that Redis has not received.
//! - [`events`]: the invalidations of other processes.

pub(crate) mod connection;
pub(crate) mod events;
pub(crate) mod fault;
pub(crate) mod pending;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod stats;
pub(crate) mod supervisor;
pub(crate) mod tier;
