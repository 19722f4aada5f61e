//! `cargo xtask bench`.

use std::path::PathBuf;
use std::process::Command;

use crate::install;
use crate::test::cargo;

/// What is to be done.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shorter runs, for a first look.
    #[arg(long)]
    quick: bool,
    /// Measures nothing: compares bench/report with the report in this directory, and fails when a ratio has become
    /// worse by more than a tenth.
    #[arg(long, value_name = "OLD_DIR", conflicts_with = "quick")]
    compare: Option<PathBuf>,
}

/// Builds what is measured and what measures, and runs it.
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
