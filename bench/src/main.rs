//! Measures tutord, as a process of its own, against limits measured in the same run. `cargo xtask bench` builds and
//! runs it.
#![forbid(unsafe_code)]

mod bare;
mod cache;
mod client;
mod load;
mod system;

use std::path::PathBuf;

use clap::Parser;

/// Measures tutord.
#[derive(Debug, Parser)]
enum Command {
    /// What the cache is worth: writes `cache.md` into the directory.
    Cache {
        /// The program to measure.
        #[arg(long, default_value = "target/release/tutord")]
        tutord: PathBuf,
        /// Where reports go.
        #[arg(long, default_value = "bench/report")]
        report: PathBuf,
        /// Shorter runs, for a first look.
        #[arg(long)]
        quick: bool,
    },
    /// Serves the bytes of its standard input, by axum and nothing else: the limit of a handler.
    #[command(hide = true)]
    Bare,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Cache { tutord, report, quick } => cache::run(&tutord, &report, quick).await,
        Command::Bare => bare::serve().await,
    }
}
