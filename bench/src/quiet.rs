//! Whether the machine was quiet: its load at the start, and a fixed loop before and after each section.

use std::process::Stdio;
use std::time::Instant;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::cores::{command_on, cores};
use crate::turns::Spread;

/// The relative difference of the loop's time before and after a section that marks the section.
pub(crate) const TOLERANCE: f64 = 0.05;

/// The state of the machine at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    /// Milliseconds of the loop on the client's first core.
    client: f64,
    /// The same on the servers' first core.
    servers: f64,
    /// Hundredths of a second that the host gave to other machines so far.
    stolen: u64,
}

impl State {
    /// Runs the loop on both cores.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let on = |cores: &[usize]| -> anyhow::Result<f64> {
            let program = std::env::current_exe()?;
            let output = command_on(&cores[..1], program).arg("calibrate").stderr(Stdio::inherit()).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
        };
        Ok(Self { client: on(&cores().client)?, servers: on(&cores().servers)?, stolen: stolen()? })
    }

    /// Returns the larger of the relative differences on the two cores.
    pub(crate) fn difference(&self, after: &Self) -> f64 {
        let of = |before: f64, after: f64| (after / before - 1.0).abs();
        of(self.client, after.client).max(of(self.servers, after.servers))
    }

    /// Returns the cells of a table: the loop before and after on both cores, and the stolen seconds.
    pub(crate) fn cells(&self, after: &Self) -> [String; 3] {
        [
            format!("{:.2} → {:.2}", self.client, after.client),
            format!("{:.2} → {:.2}", self.servers, after.servers),
            format!("{:.2}", (after.stolen - self.stolen) as f64 / 100.0),
        ]
    }
}

/// Prints the median milliseconds of a fixed piece of work.
pub(crate) fn calibrate() {
    let bytes = vec![7_u8; 1 << 20];
    let times: Vec<f64> = (0..25)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..4 {
                std::hint::black_box(Sha256::digest(std::hint::black_box(&bytes)));
            }
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    println!("{}", Spread::of(&times).median);
}

/// Returns the load average of the last minute.
pub(crate) fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().context("a load average")?.parse()?)
}

/// Returns the time that the host gave to other machines, in hundredths of a second, on all cores.
fn stolen() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    // "cpu", user, nice, system, idle, iowait, irq, softirq, steal.
    Ok(text.split_ascii_whitespace().nth(8).context("stolen time")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_core_decides() {
        let state = |client, servers| State { client, servers, stolen: 0 };
        assert!(state(10.0, 10.0).difference(&state(10.4, 9.7)) < TOLERANCE);
        assert!(state(10.0, 10.0).difference(&state(10.0, 10.6)) > TOLERANCE);
        assert!(state(10.0, 10.0).difference(&state(9.0, 10.0)) > TOLERANCE);
    }
}
