//! Opening a store by its URL.

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

/// The options of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The number of connections that stay open (≥ 1); on SQLite, of read connections.
    pub pool_size: usize,
    /// The maximum number of additional connections under load. PostgreSQL only.
    pub max_overflow: usize,
    /// The maximum wait for a connection.
    pub acquire_timeout: Duration,
    /// The timeout of a statement on PostgreSQL; on SQLite, the maximum wait for another process's lock.
    pub statement_timeout: Duration,
    /// The id of this process in the [outbox](crate::store::Outbox), if the process invalidates and acknowledges its
    /// own writes. PostgreSQL only.
    pub node: Option<u64>,
    /// Set if this process serves. On SQLite it is then the only serving process of the file, and
    /// [follows](crate::store::Outbox) writes by others.
    pub serves: bool,
    /// Create the missing directory of a SQLite file.
    pub creates_directory: bool,
    /// The watch, which observes every statement.
    pub watch: Watch,
    /// Append [`querywatch::comment`] to statements. This disables the reuse of prepared statements, which costs one
    /// more round trip for each statement. PostgreSQL only.
    pub comments: bool,
}

impl Default for StoreOptions {
    /// Returns the defaults: 10 connections and 10 more under load, a wait of 3 s for a connection, 5 s for a
    /// statement, a new watch, no comments; the process does not serve, and creates no directory.
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
/// Returns [`Error::InvalidUrl`] for any other URL, and for a SQLite file without a directory; [`Error::Unavailable`]
/// if a SQLite file can't be opened, or is served by another process. A PostgreSQL server is not contacted before the
/// first call.
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
            return Err(Error::InvalidUrl(format!("{url} has options after the file name; options are not supported")));
        }
        if path.ends_with('/') || Path::new(path).is_dir() {
            let file = path.trim_end_matches('/');
            return Err(Error::InvalidUrl(format!(
                "{url} is a directory; use a file such as sqlite://{file}/tutord.db"
            )));
        }
        Ok(Arc::new(Sqlite::open(path, options).await?))
    } else {
        Err(Error::InvalidUrl("must begin with postgres://, postgresql:// or sqlite://".to_owned()))
    }
}

/// Returns the names of the embedded migrations that are not in `applied`.
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
