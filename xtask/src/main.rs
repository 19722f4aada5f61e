//! Development commands: `cargo xtask test`, `cargo xtask bench`.
#![forbid(unsafe_code)]

mod bench;
mod install;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development commands.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check format and lints, run all tests against real servers, and build the docs. Installs PostgreSQL,
    /// Redis, nginx, Chromium, Python, Node.js and cargo-nextest where they are missing.
    Test {
        /// Also run the tests that take minutes: schemathesis calls every operation of the API's description.
        #[arg(long)]
        all: bool,
        /// Passed on to `cargo nextest run`.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Build with the profile `dist` and measure; writes bench/report.
    Bench(bench::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test { all, nextest } => test::run(all, &nextest).await,
        Command::Bench(args) => bench::run(&args),
    };
    // Without the backtrace that `RUST_BACKTRACE=1` would add: what failed has printed its own output.
    outcome.map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
