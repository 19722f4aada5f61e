//! Calls for operators and background tasks.

mod administration;
mod identity;
mod metadata;
mod outbox;
mod pool;
mod replicas;
mod seed;
mod statements;

pub use administration::Administration;
pub use identity::{DatabaseIdentity, IdentityListener};
pub use metadata::{CATALOGUE_KEY, SchemaState};
pub use outbox::{ChangeFeed, Outbox};
pub use pool::PoolStatus;
pub use replicas::{MAX_REPLICAS, Replica, ReplicaProgress};
pub use seed::SeedPlan;
pub use statements::ServerStatement;

/// The calls that are not about one aggregate. A cache in front of the store does not pass them through.
pub trait Operations: Administration + Outbox {}
impl<T: Administration + Outbox> Operations for T {}
