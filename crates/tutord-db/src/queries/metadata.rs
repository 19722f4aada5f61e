//! The metadata of the schema and the applied migrations.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use tutord_core::schema::metadata;
use tutord_core::{Error, Refusal, Result};

use super::Conn;
use crate::cached_statement::CachedStatement;

/// A row of diesel's table of applied migrations.
#[derive(QueryableByName)]
struct AppliedMigration {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Returns the versions of the applied migrations.
pub(super) async fn applied_migrations(conn: &mut Conn) -> Result<Vec<String>> {
    let rows =
        diesel::sql_query("SELECT version FROM __diesel_schema_migrations").load::<AppliedMigration>(conn).await?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

/// Empty if the table is missing: no migration was ever applied, and reading must not create the table.
pub(super) fn or_default_without_table<T: Default>(outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(Error::Refused(Refusal::SchemaMismatch, _)) => Ok(T::default()),
        outcome => outcome,
    }
}

/// Returns the metadata of the schema, by key.
pub(super) async fn metadata(conn: &mut Conn) -> Result<BTreeMap<String, String>> {
    let rows: Vec<(String, String)> = metadata::table.select((metadata::key, metadata::value)).load(conn).await?;
    Ok(rows.into_iter().collect())
}

/// Sets a row of the metadata.
pub(super) async fn set_metadata(conn: &mut Conn, key: &str, value: &str) -> Result<()> {
    let upsert = diesel::insert_into(metadata::table)
        .values((metadata::key.eq(key), metadata::value.eq(value)))
        .on_conflict(metadata::key)
        .do_update()
        .set(metadata::value.eq(value));
    CachedStatement(upsert).execute(conn).await?;
    Ok(())
}
