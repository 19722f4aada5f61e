//! Installs what the tests need, where that can be done.

use std::process::Command;

use anyhow::{Context as _, bail};

/// Makes sure that PostgreSQL, Redis, Chromium and cargo-nextest are there.
pub(crate) fn missing() -> anyhow::Result<()> {
    let packages = testbed::missing_packages();
    if !packages.is_empty() {
        apt(&packages)?;
    }
    if !has("cargo-nextest") {
        println!("installing cargo-nextest");
        run(Command::new("cargo").args(["install", "--locked", "cargo-nextest"]))?;
    }
    Ok(())
}

fn apt(packages: &[&str]) -> anyhow::Result<()> {
    let wanted = packages.join(" and ");
    if !has("apt-get") {
        bail!("please install {wanted} (with their programs in PATH)");
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    if !root {
        bail!("please install what is missing: sudo apt-get install {}", packages.join(" "));
    }
    println!("installing {wanted}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Only the programs are wanted: no service may be started by the installation.
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        run(&mut command)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat())
}

/// Whether a program is in the search path.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} failed with {status}") }
}
