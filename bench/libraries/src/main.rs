//! Compares readthrough with other cache libraries, side by side in one run on one Redis. `cargo xtask bench
//! --libraries` builds and runs it.

mod crowd;
mod libraries;
mod library;
mod load;
mod machine;
mod measure;
mod outage;
mod plot;
mod report;
mod schedule;
mod speed;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum as _};
use libraries::Variant;
use testbed::Redis;

/// Compares readthrough with other cache libraries.
#[derive(Debug, Parser)]
enum Command {
    /// Measures all libraries, and writes README.md and plots into the directory.
    Run {
        /// The directory of the report.
        #[arg(long, default_value = "bench/libraries/report")]
        report: PathBuf,
        /// Measure fewer rounds and schedules.
        #[arg(long)]
        quick: bool,
    },
    /// Repeats L1 hits or L2 hits of one configuration, for a profiler.
    Profile {
        variant: Variant,
        /// The number of reads.
        #[arg(default_value_t = 1_000_000)]
        times: usize,
        /// The number of concurrent readers.
        #[arg(long, default_value_t = 1)]
        readers: usize,
    },
    /// Runs random schedules of one configuration, and prints what the checker finds.
    Stale {
        variant: Variant,
        /// The number of schedules.
        #[arg(default_value_t = 4)]
        seeds: u64,
    },
    /// Runs the schedules that arrive on the standard input.
    #[command(hide = true)]
    Child { variant: String, process: usize, cache: String, database: String },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A task of its own, because the first future runs outside the runtime's workers.
    tokio::spawn(run(Command::parse())).await?
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { report, quick } => measure(&report, quick).await,
        Command::Profile { variant, times, readers } => profile(variant, times, readers).await,
        Command::Stale { variant, seeds } => {
            let found = schedule::one(variant, &Redis::start().await?.url(), 0..seeds).await?;
            println!("{}: {} of {} reads are stale", variant.name(), found.stale(), found.reads);
            Ok(())
        }
        Command::Child { variant, process, cache, database } => {
            schedule::child(&variant, process, &cache, &database).await
        }
    }
}

async fn profile(variant: Variant, times: usize, readers: usize) -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let (subject, load, ids) = (variant.open(&redis.url()).await?, load::Load::immediate(), speed::fresh(512));
    subject.time_reads(&ids, 2 * ids.len(), &load).await?;
    let took = subject.time_concurrent_reads(&ids, times, readers, &load).await?;
    println!("{}: {} a read", variant.name(), measure::time(took.as_nanos() as f64 / times as f64));
    Ok(())
}

async fn measure(directory: &std::path::Path, quick: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    let progress = |part: &str| println!("{:4.0} s: {part}", began.elapsed().as_secs_f64());
    let load_before = machine::load();
    let redis = Redis::start().await?;
    progress("checks that each library caches and invalidates");
    for variant in Variant::value_variants() {
        variant.check(&redis.url()).await?;
    }
    progress("hits, misses and invalidations");
    let speed = speed::run(&redis.url(), quick).await?;
    progress("many readers of one value");
    let crowds = crowd::run(&redis.url(), quick).await?;
    progress("random schedules in two processes");
    let schedules = schedule::run(&redis.url(), quick).await?;
    progress("Redis stopped");
    let outages = outage::run(quick).await?;
    let head = machine::head(quick, began.elapsed(), [load_before, machine::load()])?;
    let results = report::Results { speed, crowds, schedules, outages };
    report::write(directory, &head, &results)?;
    progress("the report is written");
    Ok(())
}
