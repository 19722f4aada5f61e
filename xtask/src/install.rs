//! Installs what the tests need, where that can be done.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::test::cargo;

/// Makes sure that PostgreSQL, Redis, nginx, Chromium, Python, Node.js and cargo-nextest are there.
pub(crate) fn missing() -> anyhow::Result<()> {
    let mut packages = testbed::missing_packages();
    packages.extend(
        [("python3", "python3"), ("node", "nodejs"), ("npm", "npm")]
            .iter()
            .filter_map(|(program, package)| (!has(program)).then_some(*package)),
    );
    // Debian's Python comes without what makes environments.
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

/// Where the packages go that read the API's description.
const TOOLS: &str = "target/tools";

/// cargo-deny, once [`cargo_deny`] has installed it.
pub(crate) const CARGO_DENY: &str = "target/tools/cargo/bin/cargo-deny";

/// Installs cargo-deny, which takes minutes, unless this version is installed.
pub(crate) fn cargo_deny() -> anyhow::Result<()> {
    if !Path::new(CARGO_DENY).is_file() {
        println!("installing cargo-deny");
    }
    let root = format!("{TOOLS}/cargo");
    run(&mut cargo(&["install", "--locked", "--quiet", "cargo-deny", "--version", "0.20.2", "--root", &root]))
}

/// Installs a Rust toolchain unless it is installed.
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

/// Installs into a directory unless it holds what was installed from the same files.
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
    fs::write(stamp, wanted).context("the mark of what is installed")
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
