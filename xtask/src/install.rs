//! Installs the dependencies of the tests, if possible.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::test::cargo;

/// Installs missing programs: PostgreSQL, Redis, nginx, Chromium, Python, Node.js and cargo-nextest.
pub(crate) fn missing() -> anyhow::Result<()> {
    let mut packages = testbed::missing_packages();
    packages.extend(
        [("python3", "python3"), ("node", "nodejs"), ("npm", "npm")]
            .iter()
            .filter_map(|(program, package)| (!has(program)).then_some(*package)),
    );
    // Debian's Python does not include the module that creates environments.
    let has_venv = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    if !has_venv.is_ok_and(|output| output.status.success()) {
        packages.push("python3-venv");
    }
    if !packages.is_empty() {
        apt(&packages)?;
    }
    python_packages()?;
    node_packages()?;
    if !has("cargo-nextest") {
        println!("installing cargo-nextest");
        run(Command::new("cargo").args(["install", "--locked", "cargo-nextest"]))?;
    }
    Ok(())
}

/// Directories of the packages that parse the API description.
const TOOLS: &str = "target/tools";

/// Returns the path of cargo-deny after its installation by [`cargo_deny`].
pub(crate) const CARGO_DENY: &str = "target/tools/cargo/bin/cargo-deny";

/// Installs this version of cargo-deny if it is missing, which takes minutes.
pub(crate) fn cargo_deny() -> anyhow::Result<()> {
    if !Path::new(CARGO_DENY).is_file() {
        println!("installing cargo-deny");
    }
    let root = format!("{TOOLS}/cargo");
    run(&mut cargo(&["install", "--locked", "--quiet", "cargo-deny", "--version", "0.20.2", "--root", &root]))
}

/// Installs a Rust toolchain if it is missing.
pub(crate) fn toolchain(version: &str) -> anyhow::Result<()> {
    if !has("rustup") {
        bail!("please install rustup, which runs the Rust toolchain {version}");
    }
    let probe = Command::new("rustup").args(["run", version, "cargo", "--version"]).output()?;
    if probe.status.success() {
        return Ok(());
    }
    println!("installing the Rust toolchain {version}");
    run(Command::new("rustup").args(["toolchain", "install", version, "--profile", "minimal", "--no-self-update"]))
        .with_context(|| format!("the Rust toolchain {version} is missing (`rust-version` in Cargo.toml)"))
}

fn python_packages() -> anyhow::Result<()> {
    let directory = Path::new(TOOLS).join("python");
    install_once(&directory, &["requirements.txt"], "crates/tutord/tests/python", || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
        let pip = directory.join("bin/pip");
        let requirements = "crates/tutord/tests/python/requirements.txt";
        run(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", "-r", requirements]))
    })
}

fn node_packages() -> anyhow::Result<()> {
    let directory = Path::new(TOOLS).join("typescript");
    let files = ["package.json", "package-lock.json"];
    let source = "crates/tutord/tests/typescript";
    install_once(&directory, &files, source, || {
        fs::create_dir_all(&directory)?;
        for file in files {
            fs::copy(Path::new(source).join(file), directory.join(file))?;
        }
        run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&directory))
    })
}

/// Installs packages into a directory, unless the directory was filled from the same files.
fn install_once(
    directory: &Path,
    files: &[&str],
    source: &str,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut wanted = String::new();
    for file in files {
        let path = Path::new(source).join(file);
        wanted += &fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    }
    let stamp = directory.join("installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("installing {source} into {}", directory.display());
    install()?;
    fs::write(stamp, wanted).context("writing the stamp of the installation")
}

fn apt(packages: &[&str]) -> anyhow::Result<()> {
    let wanted = packages.join(" and ");
    if !has("apt-get") {
        bail!("please install {wanted}, and add the programs to PATH");
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    if !root {
        bail!("please install the missing packages: sudo apt-get install {}", packages.join(" "));
    }
    println!("installing {wanted}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // The installation must not start services.
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        run(&mut command)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat())
}

/// Returns whether a program is in the search path.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a command, and fails if the command fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} failed with {status}") }
}
