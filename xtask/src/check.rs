//! `cargo xtask msrv`, `cargo xtask docs`, `cargo xtask package` and `cargo xtask deny`.

use std::process::Command;

use crate::install;
use crate::test::{FEATURES, cargo, command};

/// The first release of the minimum Rust version in Cargo.toml.
const MSRV: &str = concat!(env!("CARGO_PKG_RUST_VERSION"), ".0");

/// The crates that are published.
const LIBRARIES: [&str; 3] = ["querywatch", "querywatch-axum", "readthrough"];

/// Compiles all crates with the minimum Rust version.
pub(crate) fn msrv() -> anyhow::Result<()> {
    install::toolchain(MSRV)?;
    let check = ["run", MSRV, "cargo", "check", "--workspace", FEATURES, "--locked"];
    install::run(&mut command("rustup", &check))
}

/// Builds the packages of the published libraries.
pub(crate) fn package() -> anyhow::Result<()> {
    // In one command, so that a library may depend on another that is not published yet.
    let mut publish = cargo(&["publish", "--dry-run", "--allow-dirty"]);
    install::run(publish.args(LIBRARIES.iter().flat_map(|library| ["-p", library])))
}

/// Builds the documentation, and fails on warnings.
pub(crate) fn docs() -> anyhow::Result<()> {
    let mut doc = cargo(&["doc", "--workspace", FEATURES, "--no-deps", "--quiet"]);
    install::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Runs the given checks of `deny.toml`, or all checks.
pub(crate) fn deny(checks: &[String]) -> anyhow::Result<()> {
    install::cargo_deny()?;
    install::run(Command::new(install::CARGO_DENY).args(["--log-level", "error", "check"]).args(checks))
}
