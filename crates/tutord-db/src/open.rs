//! Opening a database by its URL.

use std::path::Path;
use std::sync::Arc;

use tutord_core::{Database, Error, Result};

use crate::options::DatabaseOptions;
use crate::postgres::Postgres;
use crate::sqlite::Sqlite;

/// Opens the database at `url`: `postgres://…` (or `postgresql://…`), or `sqlite://PATH`.
///
/// # Errors
/// Returns [`Error::InvalidUrl`] for any other URL, and for a SQLite file without a directory; [`Error::Unavailable`]
/// if a SQLite file can't be opened, or is served by another process. A PostgreSQL server is not contacted before the
/// first call.
pub async fn open(url: &str, options: &DatabaseOptions) -> Result<Arc<dyn Database>> {
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
