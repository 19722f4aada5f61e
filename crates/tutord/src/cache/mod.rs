//! What is read often is served from memory and Redis, and is never older than the last write.
//!
//! - `namespaces`: what is cached, under which keys, for how long;
//! - `writes`: the one table of what each write makes unusable;
//! - `store`: the database with both before it. It is the only way to the database that the features have,
//!   so that no read and no write can forget the cache.
//!
//! How values stay coherent between processes is the library's matter: see `readthrough::coherence`.

mod namespaces;
mod store;
mod writes;

pub use store::CachedStore;
