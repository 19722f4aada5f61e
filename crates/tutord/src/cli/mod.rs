//! The commands of the binary, one file each.

mod arguments;
mod cache;
mod catalogue;
mod demo;
mod doctor;
mod naive;
mod rebuild_stats;
mod seed;
mod serve;
mod starting;

use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};
use tutord_core::Database;
use tutord_db::DatabaseOptions;

use crate::config::{Config, DatabaseSettings, LogFormat, LogSettings};

/// The backend of an AI coding tutor.
#[derive(Debug, Parser)]
#[command(name = "tutord", version, about)]
pub struct Cli {
    #[command(flatten)]
    log: LogSettings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API.
    Serve(Box<Config>),
    /// Serve the API with sample data, and print the address and the log-ins of a student and an admin.
    Demo(Box<demo::DemoArgs>),
    /// Apply pending migrations, and load the built-in exercises.
    Migrate(DatabaseSettings),
    /// Manage your own exercises and achievements.
    #[command(subcommand)]
    Catalogue(catalogue::CatalogueCommand),
    /// Show, warm or flush the cache in Redis.
    #[command(subcommand)]
    Cache(Box<cache::CacheCommand>),
    /// Recompute all statistics and leaderboards from the completed exercises.
    RebuildStats(DatabaseSettings),
    /// Fill the database with generated rows for benchmarks.
    Seed(seed::SeedArgs),
    /// Check the database, the clock, Redis, the model and the mail server; exit with 1 if a check fails.
    Doctor(Box<Config>),
}

impl Cli {
    /// Parses the command line and the environment. Prints a message and exits if a value is invalid.
    pub fn from_process() -> Self {
        let command = arguments::prepare(Self::command());
        let arguments = arguments::remove_empty_values(&command, std::env::args_os());
        let matches = command.clone().get_matches_from(arguments);
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command.clone()).exit())
    }

    /// Runs the command. Returns the exit code of the process.
    ///
    /// # Errors
    /// Returns the error of the command.
    pub async fn run(self) -> anyhow::Result<u8> {
        let _exporter = log_to_stderr(&self.log)?;
        match self.command {
            Command::Serve(config) => serve::run(*config).await?,
            Command::Demo(args) => demo::run(*args).await?,
            Command::Migrate(database) => {
                let store = open(&database).await?;
                let applied = store.migrate().await.context("migrating the database")?;
                match applied.len() {
                    0 => say!("The {} database is up to date: no migrations are pending.", store.backend()),
                    _ => say!("Migrated the {} database: {}", store.backend(), applied.join(", ")),
                }
                catalogue::load_built_in(store.as_ref()).await?;
            }
            Command::Catalogue(command) => catalogue::run(command).await?,
            Command::Cache(command) => cache::run(*command).await?,
            Command::RebuildStats(database) => rebuild_stats::run(database).await?,
            Command::Seed(args) => seed::run(args).await?,
            Command::Doctor(config) => return Ok(u8::from(!doctor::run(&config).await)),
        }
        Ok(0)
    }
}

async fn open(database: &DatabaseSettings) -> anyhow::Result<Arc<dyn Database>> {
    open_with(database, database.options()).await
}

async fn open_with(database: &DatabaseSettings, options: DatabaseOptions) -> anyhow::Result<Arc<dyn Database>> {
    let setting = if database.database_url.is_some() { "DATABASE_URL, --database-url" } else { "DATA_DIR, --data-dir" };
    tutord_db::open(&database.url(), &options).await.with_context(|| format!("opening the database ({setting})"))
}

/// The trace exporter, which flushes when dropped; `()` without the feature `otlp`.
#[cfg(feature = "otlp")]
type TraceExporter = Option<crate::telemetry::otlp::TraceExporter>;
#[cfg(not(feature = "otlp"))]
type TraceExporter = ();

fn log_to_stderr(config: &LogSettings) -> anyhow::Result<TraceExporter> {
    let filter = EnvFilter::try_new(&config.log_filter).context("RUST_LOG")?;
    // Log files and log collectors get no color codes.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.log_format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    #[cfg(feature = "otlp")]
    let (layer, exporter) = crate::telemetry::otlp::layer()?.unzip();
    #[cfg(not(feature = "otlp"))]
    let (layer, exporter) = (None::<tracing_subscriber::layer::Identity>, ());
    tracing_subscriber::registry().with(filter).with(layer).with(lines).init();
    Ok(exporter)
}
