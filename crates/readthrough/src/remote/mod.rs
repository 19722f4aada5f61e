//! The second tier.
//!
//! - [`wire`]: the few commands that the protocol needs of a server; what a test can put its own server behind.
//! - [`redis`]: these commands for Redis: single, Sentinel, Cluster.
//! - [`link`]: when the second tier may be used at all: time-outs, reconnects, invalidations that are still owed.
//! - [`follow`]: what other processes invalidate.

pub(crate) mod fault;
pub(crate) mod follow;
pub(crate) mod link;
pub(crate) mod redis;
pub(crate) mod wire;
