//! The cache: serves frequent reads from memory and Redis, never older than the last write.
//!
//! - `namespaces`: the cached values, their keys and times to live;
//! - `effects`: the keys that each write invalidates;
//! - `outbox`: invalidation of changes by others;
//! - `warming`: loading values at the start;
//! - `store`: the cached store. Features have no other access to the database, so no read and no write can bypass the
//!   cache.
//!
//! The library keeps values coherent between processes: see `readthrough::coherence`.

mod effects;
mod namespaces;
mod outbox;
mod settings;
mod store;
mod warming;

pub(crate) use outbox::spawn as spawn_outbox;
pub use settings::CacheSettings;
pub use store::{CachedStore, PageSizes};
pub(crate) use warming::spawn as spawn_warming;
