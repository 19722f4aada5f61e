//! Opens the store that an address names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::backend::Backend;
use diesel::migration::{Migration, MigrationSource};
use diesel_migrations::EmbeddedMigrations;
use querywatch::Watch;

use crate::error::{Error, Result};
use crate::postgres::Postgres;
use crate::sqlite::Sqlite;
use crate::store::Store;

/// How a store treats its connections.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Connections that are kept open (≥ 1); on SQLite, connections that read.
    pub pool_size: usize,
    /// Connections that may be opened beyond that for a while. PostgreSQL only.
    pub max_overflow: usize,
    /// The longest wait for a connection.
    pub acquire_timeout: Duration,
    /// The longest that a statement may run. PostgreSQL; on SQLite, the longest wait for another process's lock.
    pub statement_timeout: Duration,
    /// This process's name in the [outbox](crate::store::Outbox), if it makes unusable by itself what its writes change
    /// and then acknowledges that. PostgreSQL only.
    pub node: Option<u64>,
    /// Whether this process serves. Of SQLite's file it is the only one then, and [follows](crate::store::Outbox) what
    /// others write.
    pub serves: bool,
    /// Whether a missing directory of SQLite's file is made.
    pub creates_directory: bool,
    /// What sees every statement.
    pub watch: Watch,
    /// Whether statements end with [`querywatch::comment`]. Then none is prepared to be used again, which costs a round trip
    /// each. PostgreSQL only.
    pub comments: bool,
}

impl Default for StoreOptions {
    /// 10 connections and 10 more, 3 s for a connection, 5 s for a statement, a watch of its own, no comments; serves
    /// nothing and makes no directory.
    fn default() -> Self {
        Self {
            pool_size: 10,
            max_overflow: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            node: None,
            serves: false,
            creates_directory: false,
            watch: Watch::builder().build(),
            comments: false,
        }
    }
}

/// Opens the store at `url`: `postgres://…` (or `postgresql://…`), or `sqlite://PATH`.
///
/// # Errors
/// [`Error::InvalidUrl`] for any other address, and for a SQLite file without a directory; [`Error::Unavailable`] when a
/// SQLite file can't be opened, or is served by another process. A
/// PostgreSQL server is not contacted before the first call.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Arc::new(Postgres::new(url, options)?))
    } else if let Some(path) = url.strip_prefix("sqlite://") {
        // SQLite would make a private database in memory of each, a different one for every connection.
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(Error::InvalidUrl("sqlite:// must name a file, such as sqlite://data/tutord.db".to_owned()));
        }
        // Such options would become a part of the file's name.
        if path.contains('?') {
            return Err(Error::InvalidUrl(format!("{url} has options after the file's name, which are not supported")));
        }
        if path.ends_with('/') || Path::new(path).is_dir() {
            let file = path.trim_end_matches('/');
            return Err(Error::InvalidUrl(format!("{url} names a directory, not a file: sqlite://{file}/tutord.db?")));
        }
        Ok(Arc::new(Sqlite::open(path, options).await?))
    } else {
        Err(Error::InvalidUrl("must begin with postgres://, postgresql:// or sqlite://".to_owned()))
    }
}

/// Names of the embedded migrations that are not among `applied`.
pub(crate) fn pending<DB: Backend>(embedded: &EmbeddedMigrations, applied: &[String]) -> Result<Vec<String>> {
    let migrations: Vec<Box<dyn Migration<DB>>> =
        embedded.migrations().map_err(|error| Error::Migration(error.to_string()))?;
    let mut names: Vec<String> = migrations
        .iter()
        .filter(|migration| !applied.contains(&migration.name().version().to_string()))
        .map(|migration| migration.name().to_string())
        .collect();
    names.sort();
    Ok(names)
}
