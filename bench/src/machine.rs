//! A description of the machine.

use std::path::Path;
use std::process::Command;

use crate::cores::cores;
use crate::quiet::load_average;

/// The load average of a quiet machine is at most this.
const QUIET: f64 = 0.5;

/// The head of a report.
pub(crate) fn head(quick: bool) -> anyhow::Result<String> {
    let first = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value.trim().to_owned()));
        line.unwrap_or_else(|| "unknown".to_owned())
    };
    let memory: f64 = first("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let tools = [
        ("Linux", said(Path::new("uname"), &["-r"])),
        ("PostgreSQL", said(&testbed::postgres::program("postgres")?, &["--version"])),
        ("Redis", said(Path::new("redis-server"), &["--version"])),
        ("tutord", said(Path::new("git"), &["describe", "--always", "--dirty", "--exclude=*"])),
        ("Date", said(Path::new("date"), &["-u", "+%F"])),
    ];
    let tools: Vec<String> = tools.iter().map(|(name, said)| format!("| {name} | {said} |\n")).collect();
    let load = load_average()?;
    Ok(format!(
        "# tutord against its limits\n\nMade by `cargo xtask bench{}`. What the figures mean: docs/performance.md.\n\
         Client, servers and databases are processes of their own on one machine. {}\n\
         A ratio says how near tutord is to its limit there. The numbers of requests say little about other\n\
         machines. tutord logs warnings alone: no line for each request.\n\n| | |\n|---|---|\n\
         | Processor | {}, {} cores |\n| Memory | {:.0} GB |\n| Load average at the start | {load:.2}{} |\n{}",
        if quick { " --quick" } else { "" },
        cores().describe(),
        first("/proc/cpuinfo", "model name"),
        cores().count(),
        memory / 1e6,
        if load > QUIET { ": **the machine was not quiet**" } else { "" },
        tools.concat(),
    ))
}

/// Returns the version that a program prints.
fn said(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text =
        output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let text = text.strip_prefix("postgres (PostgreSQL) ").or(text.strip_prefix("Redis server v=")).unwrap_or(&text);
    // Redis tells all about its build.
    text.split(" sha=").next().unwrap_or_default().to_owned()
}
