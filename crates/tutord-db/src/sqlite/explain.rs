//! Plans of statements, taken without running them.

use std::path::Path;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::Text;
use tutord_core::{Error, Result};

use crate::explain::is_plannable;

/// A step of a plan.
#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// Returns the plan of a shape. Uses a separate connection, which the watch does not observe.
pub(super) fn explain(path: &Path, shape: &str) -> Result<Option<String>> {
    if !is_plannable(shape) {
        return Ok(None);
    }
    let mut conn =
        SqliteConnection::establish(&path.to_string_lossy()).map_err(|error| Error::Unavailable(error.to_string()))?;
    conn.batch_execute("PRAGMA query_only = ON; PRAGMA busy_timeout = 1000")?;
    match diesel::sql_query(format!("EXPLAIN QUERY PLAN {shape}")).load::<Step>(&mut conn) {
        // An insert has no steps.
        Ok(steps) if steps.is_empty() => Ok(None),
        Ok(steps) => Ok(Some(steps.into_iter().map(|step| step.detail).collect::<Vec<_>>().join("\n"))),
        Err(error @ diesel::result::Error::DatabaseError(..)) => {
            tracing::debug!(%error, shape, "a statement can't be planned without its values");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
