//! Names of embedded migrations.

use diesel::backend::Backend;
use diesel::migration::{Migration, MigrationSource};
use diesel_migrations::EmbeddedMigrations;
use tutord_core::{Error, Result};

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
