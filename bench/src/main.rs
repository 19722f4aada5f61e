//! Measures tutord, as a process of its own, against limits measured in the same run. `cargo xtask bench` builds and
//! runs it.
#![forbid(unsafe_code)]

mod bare;
mod cache;
mod client;
mod compare;
mod cores;
mod day;
mod delay;
mod distance;
mod growth;
mod load;
mod machine;
mod naive;
mod original;
mod overload;
mod pgbench;
mod plot;
mod proxy;
mod quiet;
mod report;
mod routes;
mod sqlite;
mod stack;
mod system;
mod turns;
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
    /// Measures latencies by the distance of the database; writes `README.md`, `distance.csv` and `distance.svg` into the
    /// directory.
    Distance(Options),
    /// Lists the ratios of two reports with their differences, and the share that agrees within a tenth. Fails when one
    /// has become worse by more than that.
    Compare {
        /// The directory of the report to compare with.
        old: PathBuf,
        /// The directory of the other.
        new: PathBuf,
    },
    /// Serves the bytes of its standard input, by axum and nothing else: the limit of a handler.
    #[command(hide = true)]
    Bare,
    /// Serves the statements that its standard input describes, by axum and tokio-postgres and nothing else.
    #[command(hide = true)]
    Stack,
    /// Prints the milliseconds of a fixed piece of work.
    #[command(hide = true)]
    Calibrate,
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
    /// Another build of tutord, to which the latencies by distance are compared.
    #[arg(long)]
    before: Option<PathBuf>,
    /// The directory of the reports.
    #[arg(long, default_value = "bench/report")]
    report: PathBuf,
    /// Shorter runs of fewer routes, for a first look; `all` leaves out cache.md and overload.md.
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
    Distance,
    Original,
    Day,
    Growth,
    Watching,
}

const STUDENTS: u64 = 2_000;

/// The number of times that a section is measured, until the machine was quiet.
const TRIES: usize = 2;

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    // Before there are threads. The servers are started on their own cores.
    if matches!(command, Command::All(_) | Command::Cache(_) | Command::Overload(_) | Command::Distance(_)) {
        cores::bind_client()?;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(command))
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::All(options) => all(&options).await,
        Command::Distance(options) => all(&Options { only: vec![Part::Distance], ..options }).await,
        Command::Cache(Options { tutord, report, quick, .. }) => {
            cache::run(System::start(&tutord, STUDENTS).await?, &report, quick).await
        }
        Command::Overload(Options { tutord, report, quick, .. }) => overload::run(&tutord, &report, quick).await,
        Command::Compare { old, new } => compare::run(&old, &new),
        Command::Bare => bare::serve().await,
        Command::Stack => stack::serve().await,
        Command::Calibrate => {
            quiet::calibrate();
            Ok(())
        }
        Command::Naive { url } => naive::serve(&url).await,
    }
}

async fn all(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let quick = options.quick;
    let head = machine::head(quick)?;
    let mut report = Report::new(&options.report)?;
    // The distance has databases of its own.
    let students = if options.only == [Part::Distance] { 100 } else { STUDENTS };
    let system = System::start(&options.tutord, students).await?;
    let messages = if quick { 100_000 } else { 1_000_000 };
    let chosen = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let longest = if chosen(&Part::Routes) || chosen(&Part::Original) {
        system.add_long_conversation(messages).await?
    } else {
        0
    };
    for part in Part::value_variants().iter().filter(|part| chosen(part)) {
        let mark = report.mark();
        // A short run has no time for a second try.
        for attempt in 1..=if quick { 1 } else { TRIES } {
            report.return_to(&mark);
            let before = quiet::State::now()?;
            let report = &mut report;
            match part {
                Part::Routes => routes::run(&system, longest, messages, quick, report).await?,
                Part::Writes => writes::run(&system, quick, report).await?,
                Part::Distance => distance::run(&system, options.before.as_deref(), quick, report).await?,
                Part::Original => original::run(&system, longest, messages, quick, report).await?,
                Part::Day => day::run(&system, quick, report).await?,
                Part::Growth => growth::run(&system, quick, report).await?,
                Part::Watching => watching::run(&system, quick, report).await?,
            }
            println!("{part:?}: at {:.0} s", began.elapsed().as_secs_f64());
            if report.quiet(&format!("{part:?}, {attempt}"), &before, &quiet::State::now()?) {
                break;
            }
        }
    }
    report.finish(&head)?;
    if options.only.is_empty() && !quick {
        cache::run(system, &options.report, quick).await?;
        overload::run(&options.tutord, &options.report, quick).await?;
    }
    println!("took {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
