//! `cargo xtask bench`.

use std::path::PathBuf;
use std::process::Command;

use crate::install;
use crate::test::cargo;

/// Options of the benchmarks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run shorter benchmarks for a first look.
    #[arg(long)]
    quick: bool,
    /// Measure nothing. Compare bench/report with the report in this directory, and fail if a ratio is worse by more
    /// than 10 %.
    #[arg(long, value_name = "OLD_DIR", conflicts_with = "quick")]
    compare: Option<PathBuf>,
}

/// Builds tutord and the benchmarks, and runs them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    install::missing()?;
    install::run(&mut cargo(&["build", "--profile", "dist", "--package", "tutord", "--package", "bench"]))?;
    let mut measure = Command::new("target/dist/bench");
    match &args.compare {
        Some(old) => measure.arg("compare").arg(old).arg("bench/report"),
        None => measure.arg("all"),
    };
    if args.quick {
        measure.arg("--quick");
    }
    install::run(&mut measure)
}
