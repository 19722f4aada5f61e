//! A description of the machine, and of the versions that are compared.

use std::process::Command;
use std::time::Duration;

/// The locked versions.
const LOCK: &str = include_str!("../Cargo.lock");
const PACKAGES: [&str; 6] = ["amalgam-cache", "cached", "hitbox", "hitbox-redis", "moka", "redis"];

/// Returns the load average of the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Returns the head of the report.
pub(crate) fn head(quick: bool, took: Duration, load: [String; 2]) -> anyhow::Result<String> {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("", |(_, name)| name);
    let versions: Vec<String> =
        PACKAGES.iter().map(|package| format!("{package} {}", version(package).unwrap_or("unknown"))).collect();
    let rows = [
        ("Processor", format!("{processor}, {} cores", std::thread::available_parallelism()?)),
        ("Load average", format!("{} at the start, {} at the end", load[0], load[1])),
        ("Libraries", versions.join(", ")),
        ("Redis", said("redis-server", &["--version"])),
        ("Commit", said("git", &["describe", "--always", "--dirty", "--exclude=*"])),
        ("Date", said("date", &["-u", "+%F"])),
        ("Duration", format!("{:.0} s{}", took.as_secs_f64(), if quick { ", `--quick`" } else { "" })),
    ];
    let rows: Vec<String> = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    Ok(format!("| | |\n|---|---|\n{}", rows.concat()))
}

/// Returns the locked version of a package.
fn version(package: &str) -> Option<&'static str> {
    let start = format!("name = \"{package}\"\nversion = \"");
    LOCK.split_once(&start)?.1.split('"').next()
}

/// Returns what a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text =
        output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // Redis prints everything about its build.
    text.trim_start_matches("Redis server v=").split(" sha=").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_version() {
        assert!(PACKAGES.iter().all(|package| version(package).is_some()));
    }
}
