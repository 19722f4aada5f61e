//! What is read often is served from memory and Redis, and is never older than the last write.
//!
//! - `namespaces`: what is cached, under which keys, for how long;
//! - `writes`: the one table of what each write makes unusable;
//! - `outbox`: what others change in the database;
//! - `warming`: what is read ahead at the start;
//! - `store`: the database with both before it. It is the only way to the database that the features have,
//!   so that no read and no write can forget the cache.
//!
//! How values stay coherent between processes is the library's matter: see `readthrough::coherence`.

mod namespaces;
mod outbox;
mod store;
mod warming;
mod writes;

pub(crate) use outbox::spawn as spawn_outbox;
pub use store::CachedStore;
pub(crate) use warming::spawn as spawn_warming;
