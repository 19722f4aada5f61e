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
    /// Check format and lints, run all tests against real servers, and build the docs. Installs PostgreSQL, Redis,
    /// nginx, Chromium, Python, Node.js and cargo-nextest if they are missing. Checks licences and advisories of the
    /// dependencies if `cargo xtask deny` has installed cargo-deny.
    Test {
        /// Also run the slow steps: schemathesis calls every operation of the API description, and cargo-deny is
        /// installed if it is missing.
        #[arg(long)]
        all: bool,
        /// Arguments for `cargo nextest run`.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Test querywatch with real drivers: sqlx, SeaORM, tokio-postgres, rusqlite and diesel-async. They have a workspace of
    /// their own, so `cargo xtask test` does not run them.
    Adapters,
    /// Build the packages of the libraries as `cargo publish` does, without publishing them.
    Package,
    /// Compile all crates with the minimum Rust version, which is `rust-version` in Cargo.toml. Installs that toolchain
    /// with rustup if it is missing.
    Msrv,
    /// Build the documentation of all crates, and fail on warnings.
    Docs,
    /// Check licences, advisories, bans and sources of the dependencies with deny.toml. Installs cargo-deny into
    /// target/tools if it is missing, which takes minutes.
    Deny {
        /// Run only these checks: `advisories`, `bans`, `licenses`, `sources`.
        checks: Vec<String>,
    },
    /// Build with the profile `dist`, measure, and write bench/report.
    Bench(bench::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test { all, nextest } => test::run(all, &nextest).await,
        Command::Adapters => test::adapters().await,
        Command::Package => check::package(),
        Command::Msrv => check::msrv(),
        Command::Docs => check::docs(),
        Command::Deny { checks } => check::deny(&checks),
        Command::Bench(args) => bench::run(&args),
    };
    // Omits the backtrace of `RUST_BACKTRACE=1`, because the failed command has printed its own output.
    outcome.map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
