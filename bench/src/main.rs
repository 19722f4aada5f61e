//! Measures tutord, as a process of its own, against limits measured in the same run. `cargo xtask bench` builds and
//! runs it.
#![forbid(unsafe_code)]

mod bare;
mod cache;
mod client;
mod day;
mod load;
mod naive;
mod pgbench;
mod plot;
mod report;
mod routes;
mod sqlite;
mod system;
mod wire;

use std::path::PathBuf;

use clap::{Args, Parser};

/// Measures tutord.
#[derive(Debug, Parser)]
enum Command {
    /// What the cache is worth: writes `cache.md` into the directory.
    Cache(Options),
    /// Each route alone.
    Routes(Options),
    /// A day of many students.
    Day(Options),
    /// Serves the bytes of its standard input, by axum and nothing else: the limit of a handler.
    #[command(hide = true)]
    Bare,
    /// Serves a database as one would at first.
    #[command(hide = true)]
    Naive {
        /// The address of a PostgreSQL database.
        url: String,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// The program to measure.
    #[arg(long, default_value = "target/release/tutord")]
    tutord: PathBuf,
    /// Where reports go.
    #[arg(long, default_value = "bench/report")]
    report: PathBuf,
    /// Shorter runs, for a first look.
    #[arg(long)]
    quick: bool,
}

const STUDENTS: u64 = 2_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Cache(Options { tutord, report, quick }) => cache::run(&tutord, &report, quick).await,
        Command::Routes(Options { tutord, report: directory, quick }) => {
            let mut report = report::Report::new(&directory)?;
            let system = system::System::start(&tutord, STUDENTS).await?;
            routes::run(&system, STUDENTS, quick, &mut report).await?;
            report.finish("# tutord against its limits\n")
        }
        Command::Day(Options { tutord, report: directory, quick }) => {
            let mut report = report::Report::new(&directory)?;
            let system = system::System::start(&tutord, STUDENTS).await?;
            day::run(&system, quick, &mut report).await?;
            report.finish("# tutord against its limits\n")
        }
        Command::Bare => bare::serve().await,
        Command::Naive { url } => naive::serve(&url).await,
    }
}
