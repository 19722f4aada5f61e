//! Settings of the database.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tutord_db::DatabaseOptions;

use crate::values::{Secret, SecretUrl, size};

const DATABASE_URL: SecretUrl = SecretUrl {
    is_valid: |text| ["postgres://", "postgresql://", "sqlite://"].iter().any(|scheme| text.starts_with(scheme)),
    expected: "postgres://USER:PASSWORD@HOST/DATABASE or sqlite://PATH",
};

/// Settings of the database and its pool.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseSettings {
    /// Database URL: postgres://USER:PASSWORD@HOST/DATABASE[?sslmode=require] or sqlite://PATH; default: SQLite in
    /// DATA_DIR.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = DATABASE_URL)]
    pub database_url: Option<Secret>,
    /// Directory for the SQLite database and for mails that are written to files.
    #[arg(long, env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    /// Number of permanent database connections. On SQLite, the number of read connections, limited to the number of
    /// cores plus one.
    #[arg(long, env = "DATABASE_POOL_SIZE", default_value_t = 10, value_parser = size(1, 10_000))]
    pub database_pool_size: usize,
    /// Maximum number of additional connections under load (PostgreSQL). They are closed after a few idle seconds.
    #[arg(long, env = "DATABASE_MAX_OVERFLOW", default_value_t = 10, value_parser = size(0, 10_000))]
    pub database_max_overflow: usize,
    /// Maximum wait for a database connection in milliseconds. Requests that wait longer get a 503.
    #[arg(long, env = "DATABASE_ACQUIRE_TIMEOUT_MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub database_acquire_timeout_ms: u64,
    /// Timeout of one SQL statement in milliseconds.
    #[arg(long, env = "DATABASE_STATEMENT_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub database_statement_timeout_ms: u64,
}

impl DatabaseSettings {
    /// Returns the URL of the database.
    pub fn url(&self) -> String {
        self.database_url.as_ref().map_or_else(
            || format!("sqlite://{}", self.data_dir.join("tutord.db").display()),
            |url| url.reveal().to_owned(),
        )
    }

    /// Returns the options of the store's connections.
    pub fn options(&self) -> DatabaseOptions {
        DatabaseOptions {
            pool_size: self.database_pool_size,
            max_overflow: self.database_max_overflow,
            acquire_timeout: Duration::from_millis(self.database_acquire_timeout_ms),
            statement_timeout: Duration::from_millis(self.database_statement_timeout_ms),
            creates_directory: self.database_url.is_none(),
            ..DatabaseOptions::default()
        }
    }
}
