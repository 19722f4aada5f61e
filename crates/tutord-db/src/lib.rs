//! tutord's database: the traits of [`tutord_core`] for PostgreSQL and SQLite.
//!
//! The modules, in reading order:
//!
//! 1. `options` and `open`: [`open`] opens a database by its URL.
//! 2. `queries`: the typed queries, written once and compiled for each database.
//! 3. [`postgres`] and [`sqlite`]: pools, deadlines, migrations, and features of one database.
//! 4. `seed`: generated rows for benchmarks.
//!
//! The [`querywatch::Watch`] of the [`DatabaseOptions`] observes every statement.
//!
//! ```no_run
//! # async fn example() -> tutord_core::Result<()> {
//! use tutord_core::PageRequest;
//! use tutord_db::DatabaseOptions;
//!
//! let database = tutord_db::open("sqlite://data/tutord.db", &DatabaseOptions::default()).await?;
//! database.migrate().await?;
//! let page = database.list_conversations(1, &PageRequest::first(20)).await?;
//! println!("{} of {} conversations", page.items.len(), page.total);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::duplicate_mod, reason = "`queries` is compiled for each database; see its README")]

mod cached_statement;
mod explain;
mod migrations;
mod open;
mod options;
mod pool_metrics;
pub mod postgres;
mod probe;
mod seed;
pub mod sqlite;

pub use open::open;
pub use options::DatabaseOptions;
