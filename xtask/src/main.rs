//! Development commands: `cargo xtask --help` lists them.
#![forbid(unsafe_code)]

mod bench;
mod check;
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
    /// Redis, nginx, Chromium, Python, Node.js and cargo-nextest where they are missing. Licences and advisories of the
    /// dependencies are checked where `cargo xtask deny` has installed cargo-deny.
    Test {
        /// Also run what takes minutes: schemathesis calls every operation of the API's description, and cargo-deny
        /// is installed where it is missing.
        #[arg(long)]
        all: bool,
        /// Passed on to `cargo nextest run`.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Compile all crates with the oldest supported Rust, the `rust-version` of Cargo.toml. Installs that toolchain by
    /// rustup where it is missing.
    Msrv,
    /// Build the documentation of all crates; a warning fails.
    Docs,
    /// Check licences, advisories, bans and sources of the dependencies: deny.toml. Installs cargo-deny into
    /// target/tools where it is missing, which takes minutes.
    Deny {
        /// The checks to run instead of all: `advisories`, `bans`, `licenses`, `sources`.
        checks: Vec<String>,
    },
    /// Build with the profile `dist` and measure; writes bench/report.
    Bench(bench::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test { all, nextest } => test::run(all, &nextest).await,
        Command::Msrv => check::msrv(),
        Command::Docs => check::docs(),
        Command::Deny { checks } => check::deny(&checks),
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
