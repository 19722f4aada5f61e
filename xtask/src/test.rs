//! `cargo xtask test`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use testbed::Postgres;
use testbed::postgres::URL_VARIABLE;

use crate::{check, install};

/// The optional features. All steps use the same features, so that each crate is built once.
pub(crate) const FEATURES: &str = "--features=tutord/otlp";

/// Runs all steps, and stops at the first failure.
async fn run_steps(all: bool, nextest: &[String]) -> anyhow::Result<Vec<(&'static str, Duration)>> {
    let mut took = Vec::new();
    let mut step = |name: &'static str, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        println!("\n== {name}");
        let began = Instant::now();
        work().with_context(|| format!("step `{name}`"))?;
        took.push((name, began.elapsed()));
        anyhow::Ok(())
    };
    step("install what is missing", &mut install::missing)?;
    step("format", &mut || {
        install::run(&mut cargo(&["fmt", "--all", "--check"]))?;
        install::run(&mut cargo(&["fmt", "--manifest-path", crate::bench::MANIFEST, "--check"]))
    })?;
    step("lints", &mut || {
        install::run(&mut cargo(&[
            "clippy",
            "--workspace",
            FEATURES,
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    let postgres = Postgres::start(false).await?;
    let servers = [(URL_VARIABLE, postgres.base_url())];
    step("tests", &mut || {
        // Removes the report of an earlier run, so that it is not mistaken for this run's.
        let _ = std::fs::remove_file(report_path());
        // `.config/nextest.toml` excludes the slow tests.
        let filter = all.then_some("--ignore-default-filter");
        let mut run = cargo(&["nextest", "run", "--workspace", FEATURES, "--cargo-quiet"]);
        install::run(run.args(filter).args(nextest).envs(servers))
    })?;
    step("doc tests", &mut || {
        install::run(cargo(&["test", "--doc", "--workspace", FEATURES, "--quiet"]).envs(servers))
    })?;
    step("docs", &mut check::docs)?;
    if all || Path::new(install::CARGO_DENY).is_file() {
        step("licences and advisories", &mut || check::deny(&[]))?;
    } else {
        println!(
            "\n== licences and advisories\nskipped: `cargo xtask deny` installs cargo-deny and turns this step on"
        );
    }
    Ok(took)
}

/// Runs all steps, and prints a summary.
pub(crate) async fn run(all: bool, nextest: &[String]) -> anyhow::Result<()> {
    let took = run_steps(all, nextest).await?;
    println!("\n== summary");
    for (name, duration) in took {
        println!("{:>6.1} s  {name}", duration.as_secs_f64());
    }
    let report = std::fs::read_to_string(report_path()).context("the test report")?;
    println!("{}", by_database(&report));
    let (passed, failed) = totals(&report);
    println!("tests: {passed} passed, {failed} failed");
    Ok(())
}

/// Runs the tests of querywatch with real drivers.
pub(crate) async fn adapters() -> anyhow::Result<()> {
    install::missing()?;
    let postgres = Postgres::start(false).await?;
    let manifest = "crates/querywatch/adapters/Cargo.toml";
    let mut run = cargo(&["nextest", "run", "--manifest-path", manifest, "--locked", "--target-dir", "target"]);
    install::run(run.env(URL_VARIABLE, postgres.base_url()))?;
    let lints = ["clippy", "--manifest-path", manifest, "--locked", "--target-dir", "target", "--all-targets"];
    install::run(cargo(&lints).args(["--quiet", "--", "-D", "warnings"]))
}

/// Returns the path of the test report in `.config/nextest.toml`.
fn report_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/nextest/default/junit.xml")
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// Returns a command without the variables that cargo sets for xtask.
pub(crate) fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    // Some build scripts depend on these variables. Without their removal, these scripts and all dependent crates would
    // be rebuilt at each change between xtask and cargo.
    let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        command.env_remove(name);
    }
    command
}

/// Counts the tests for each database in the report of the run.
fn by_database(report: &str) -> String {
    let count = |suite: &str, database: &str| {
        let class = format!("classname=\"{suite}\"");
        cases(report).filter(|case| case.contains(&class) && name(case).split("::").any(|s| s == database)).count()
    };
    let line = |what: &str, suite: &str| {
        format!("{what}: {} on SQLite, {} on PostgreSQL", count(suite, "sqlite"), count(suite, "postgres"))
    };
    format!("{}\n{}", line("API tests", "tutord::api"), line("store conformance", "tutord-db::conformance"))
}

fn totals(report: &str) -> (usize, usize) {
    let failed = report.matches("<failure").count();
    (cases(report).count() - failed, failed)
}

fn cases(report: &str) -> impl Iterator<Item = &str> {
    report.split("<testcase ").skip(1).map(|rest| rest.split('>').next().unwrap_or_default())
}

fn name(case: &str) -> &str {
    case.split("name=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_counted_by_suite_and_database() {
        let report = r#"<testsuite>
            <testcase name="chat::list::sqlite" classname="tutord::api" time="1"></testcase>
            <testcase name="chat::list::postgres" classname="tutord::api"><failure/></testcase>
            <testcase name="chat::page::postgres" classname="tutord::api"/>
            <testcase name="users::sqlite" classname="tutord-db::conformance"/>
            <testcase name="unit" classname="tutord"/></testsuite>"#;
        let expected = "API tests: 1 on SQLite, 2 on PostgreSQL\nstore conformance: 1 on SQLite, 0 on PostgreSQL";
        assert_eq!(by_database(report), expected);
        assert_eq!(totals(report), (4, 1));
    }
}
