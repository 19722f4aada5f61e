//! `cargo xtask bench`.

use crate::install;
use crate::test::cargo;

/// Builds what is measured and what measures, and runs it.
pub(crate) fn run(quick: bool) -> anyhow::Result<()> {
    install::missing()?;
    install::run(&mut cargo(&["build", "--release", "--package", "tutord", "--package", "bench"]))?;
    let mut measure = std::process::Command::new("target/release/bench");
    measure.arg("cache");
    if quick {
        measure.arg("--quick");
    }
    install::run(&mut measure)
}
