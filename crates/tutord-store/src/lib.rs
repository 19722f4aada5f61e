//! tutord's data access: the models, the [`Store`] trait, and its two adapters.
//!
//! The modules, in reading order:
//!
//! 1. [`model`]: the data types, [`Timestamp`] and the enumerations of the API.
//! 2. [`page`]: every list is a bounded [`Page`], by offset or by an opaque [`Cursor`].
//! 3. [`store`]: the [`Store`] trait, with a sub-trait for each aggregate. Callers hold an `Arc<dyn Store>`.
//! 4. `queries`: the typed queries, written once and compiled for each database.
//! 5. [`rules`]: the rules of points, streaks, levels and achievements.
//! 6. [`text`]: truncation of texts.
//! 7. [`postgres`] and [`sqlite`]: pools, deadlines, migrations, and features of one database.
//!
//! The [`querywatch::Watch`] of the [`StoreOptions`] observes every statement.
//!
//! ```no_run
//! # async fn example() -> tutord_store::Result<()> {
//! use tutord_store::{PageRequest, StoreOptions};
//!
//! let store = tutord_store::open("sqlite://data/tutord.db", &StoreOptions::default()).await?;
//! store.migrate().await?;
//! let page = store.list_conversations(1, &PageRequest::first(20)).await?;
//! println!("{} of {} conversations", page.items.len(), page.total);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    expect(clippy::duplicate_mod, reason = "`queries` is compiled for each database; see its README")
)]
#![cfg_attr(
    test,
    allow(dead_code, unused_imports, reason = "unit tests are compiled without the adapters, which take minutes")
)]

#[cfg(not(test))]
mod acquires;
mod error;
mod explain;
mod identity;
mod metadata;
pub mod model;
#[cfg(not(test))]
mod open;
pub mod page;
#[cfg(not(test))]
pub mod postgres;
mod prepared;
pub mod rules;
mod schema;
pub mod seed;
mod sql_types;
#[cfg(not(test))]
pub mod sqlite;
pub mod store;
pub mod text;

pub use error::{Error, Refusal, Result};
pub use identity::{DatabaseIdentity, IdentityListener};
pub use metadata::SchemaState;
pub use model::time::{LocalDate, Timestamp};
#[cfg(not(test))]
pub use open::{StoreOptions, open};
pub use page::{Cursor, CursorError, List, Page, PageRequest, Position};
pub use store::Store;
