//! `cargo xtask bench` and `cargo xtask bench --libraries`.

use std::path::PathBuf;
use std::process::Command;

use crate::install;
use crate::test::cargo;

/// The comparison of cache libraries, which is no member of the workspace.
pub(crate) const MANIFEST: &str = "bench/libraries/Cargo.toml";

/// Options of the benchmarks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run shorter benchmarks for a first look.
    #[arg(long)]
    quick: bool,
    /// Measure nothing. List the ratios of the report in this directory and of bench/report with their differences and
    /// the share that agrees within 10 %, and fail if a ratio is worse by more than 10 %.
    #[arg(long, value_name = "OLD_DIR", conflicts_with = "quick")]
    compare: Option<PathBuf>,
    /// Also measure the latencies by distance of the database for this other build of tutord.
    #[arg(long, value_name = "TUTORD", conflicts_with_all = ["compare", "libraries"])]
    before: Option<PathBuf>,
    /// Compare readthrough with other cache libraries instead, and write bench/libraries/report. Builds
    /// bench/libraries, a workspace of its own, with the profile `release`, and runs its lints and tests first.
    #[arg(long, conflicts_with = "compare")]
    libraries: bool,
}

/// Builds tutord and the benchmarks, and runs them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    install::missing()?;
    if args.libraries {
        return libraries(args.quick);
    }
    install::run(&mut cargo(&["build", "--profile", "dist", "--package", "tutord", "--package", "bench"]))?;
    let mut measure = Command::new("target/dist/bench");
    match &args.compare {
        Some(old) => measure.arg("compare").arg(old).arg("bench/report"),
        None => measure.arg("all"),
    };
    if args.quick {
        measure.arg("--quick");
    }
    if let Some(before) = &args.before {
        measure.arg("--before").arg(before);
    }
    install::run(&mut measure)
}

/// Checks, builds and runs the comparison of cache libraries.
fn libraries(quick: bool) -> anyhow::Result<()> {
    let options = ["--release", "--locked", "--manifest-path", MANIFEST, "--target-dir", "target/libraries"];
    // The lints and tests of the project leave this workspace out.
    install::run(cargo(&["clippy", "--all-targets"]).args(options).args(["--", "--deny", "warnings"]))?;
    install::run(cargo(&["test"]).args(options))?;
    install::run(cargo(&["build"]).args(options))?;
    let mut measure = Command::new("target/libraries/release/bench-libraries");
    measure.arg("run");
    if quick {
        measure.arg("--quick");
    }
    install::run(&mut measure)
}
