//! The second tier.
//!
//! - [`tier`]: the operations that the protocol needs, which a test server can implement.
//! - [`memory`]: the operations in memory, for tests.
//! - `redis`: the operations on Redis: single server, Sentinel, Cluster.
//! - [`supervisor`]: connects, watches the connection, reconnects.
//! - [`task`]: the parts of the supervision task.
//! - [`connection`]: the state of the connection, and the circuit breaker.
//! - [`latency`]: when slow commands are an outage.
//! - [`pending`]: invalidations that Redis has not received.
//! - [`recent`]: invalidations that are replayed to a new master.
//! - [`events`]: the invalidations of other processes.

pub(crate) mod connection;
pub(crate) mod events;
pub(crate) mod fault;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod pending;
pub(crate) mod recent;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod stats;
pub(crate) mod supervisor;
pub(crate) mod task;
pub(crate) mod tier;
