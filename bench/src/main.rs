//! Measures tutord, as a process of its own, against limits measured in the same run. `cargo xtask bench` builds and
//! runs it.
#![forbid(unsafe_code)]

mod bare;
mod cache;
mod client;
mod compare;
mod cores;
mod day;
mod growth;
mod load;
mod machine;
mod naive;
mod original;
mod overload;
mod pgbench;
mod plot;
mod proxy;
mod report;
mod routes;
mod sqlite;
mod system;
mod watching;
mod writes;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Parser, ValueEnum};

use report::Report;
use system::System;

/// Measures tutord.
#[derive(Debug, Parser)]
enum Command {
    /// Everything: writes README.md, ratios.csv, tables, plots and cache.md into the directory.
    All(Options),
    /// Measures the benefit of the cache; writes `cache.md` into the directory.
    Cache(Options),
    /// Measures the behaviour under overload; writes `overload.md` and `overload.csv` into the directory.
    Overload(Options),
    /// Compares the ratios of two reports, and fails when one has become worse by more than a tenth.
    Compare {
        /// The directory of the report to compare with.
        old: PathBuf,
        /// The directory of the other.
        new: PathBuf,
    },
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
    #[arg(long, default_value = "target/dist/tutord")]
    tutord: PathBuf,
    /// The directory of the reports.
    #[arg(long, default_value = "bench/report")]
    report: PathBuf,
    /// Shorter runs, for a first look.
    #[arg(long)]
    quick: bool,
    /// Only these parts, without cache.md.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Routes,
    Writes,
    Original,
    Day,
    Growth,
    Watching,
}

const STUDENTS: u64 = 2_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::All(options) => all(&options).await,
        Command::Cache(Options { tutord, report, quick, .. }) => {
            cache::run(System::start(&tutord, STUDENTS).await?, &report, quick).await
        }
        Command::Overload(Options { tutord, report, quick, .. }) => overload::run(&tutord, &report, quick).await,
        Command::Compare { old, new } => compare::run(&old, &new),
        Command::Bare => bare::serve().await,
        Command::Naive { url } => naive::serve(&url).await,
    }
}

async fn all(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let quick = options.quick;
    let head = machine::head(quick)?;
    let mut report = Report::new(&options.report)?;
    let system = System::start(&options.tutord, STUDENTS).await?;
    let messages = if quick { 100_000 } else { 1_000_000 };
    let longest = system.add_long_conversation(messages).await?;
    for part in Part::value_variants() {
        if !options.only.is_empty() && !options.only.contains(part) {
            continue;
        }
        let report = &mut report;
        match part {
            Part::Routes => routes::run(&system, longest, messages, quick, report).await?,
            Part::Writes => writes::run(&system, quick, report).await?,
            Part::Original => original::run(&system, longest, messages, quick, report).await?,
            Part::Day => day::run(&system, quick, report).await?,
            Part::Growth => growth::run(&system, quick, report).await?,
            Part::Watching => watching::run(&system, quick, report).await?,
        }
        println!("{part:?}: at {:.0} s", began.elapsed().as_secs_f64());
    }
    report.finish(&head)?;
    if options.only.is_empty() {
        cache::run(system, &options.report, quick).await?;
        // The last, as it binds this process to one core.
        overload::run(&options.tutord, &options.report, quick).await?;
    }
    println!("took {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
