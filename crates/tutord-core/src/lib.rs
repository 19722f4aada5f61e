//! tutord's models and rules, and the traits of its database.
//!
//! The modules, in reading order:
//!
//! 1. [`time`]: [`Timestamp`] and [`LocalDate`].
//! 2. [`page`]: every list is a bounded [`Page`], by offset or by an opaque [`Cursor`].
//! 3. [`model`]: the data types and the enumerations of the API. Their diesel derives refer to the tables of [`schema`].
//! 4. [`rules`]: the rules of points, streaks, levels and achievements.
//! 5. [`text`]: truncation of texts.
//! 6. [`store`]: the [`Store`] trait, with a sub-trait for each aggregate. Callers hold an `Arc<dyn Store>`.
//! 7. [`operations`]: the calls for operators and background tasks.
//!
//! The crate `tutord-db` implements the traits for PostgreSQL and SQLite.
#![forbid(unsafe_code)]

mod database;
mod error;
pub mod model;
pub mod operations;
pub mod page;
pub mod rules;
pub mod schema;
pub mod sql_types;
pub mod store;
pub mod text;
pub mod time;

pub use database::Database;
pub use error::{Error, Refusal, Result};
pub use operations::Operations;
pub use page::{Cursor, CursorError, List, Page, PageRequest, Position};
pub use store::Store;
pub use time::{LocalDate, Timestamp};
