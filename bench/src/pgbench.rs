//! The limit of a request's statements: the repeated, with the same values, by pgbench.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::NamedTempFile;

use crate::client::CONNECTIONS;
use crate::cores::{cores, server_command};
use crate::proxy::IssuedStatement;

/// Statements as a script of pgbench.
pub(crate) struct Script {
    url: String,
    file: NamedTempFile,
    /// Arguments of pgbench's `-D`.
    values: Vec<String>,
    pub(crate) statements: usize,
    pub(crate) round_trips: usize,
}

impl Script {
    /// Creates the script of a request's statements, with the same round trips.
    pub(crate) fn new(url: &str, issued: &[IssuedStatement]) -> anyhow::Result<Self> {
        Self::varied(url, issued, String::new(), |_, _| None)
    }

    /// The same after other lines, and with expressions instead of some values, each told by the numbers of its
    /// statement and its own. What the statement of the number 4 returns is to be had as `:s4_name`.
    pub(crate) fn varied(
        url: &str,
        issued: &[IssuedStatement],
        mut text: String,
        instead: impl Fn(usize, usize) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let mut values = Vec::new();
        let mut round_trips = 0;
        let follows = |index: usize| issued.get(index).is_some_and(|statement| statement.pipelined);
        for (index, statement) in issued.iter().enumerate() {
            if !statement.pipelined {
                round_trips += 1;
                if follows(index + 1) {
                    text += "\\startpipeline\n";
                }
            }
            let name = |number: usize| format!("s{index}v{number}");
            for (sql, value) in statement.pieces() {
                // In one line: a command begins with its line.
                text += &sql.replace('\n', " ");
                match value.and_then(|number| Some((number, statement.values.get(number - 1)?.as_deref()))) {
                    Some((number, _)) if let Some(expression) = instead(index, number) => text += &expression,
                    Some((_, None)) => text += "NULL",
                    // pgbench has no empty variables.
                    Some((_, Some(""))) => text += "''",
                    Some((number, _)) => write!(text, ":{}", name(number))?,
                    None => {}
                }
            }
            if statement.sql.contains(" RETURNING ") {
                writeln!(text, "\n\\gset s{index}_")?;
            } else {
                text += ";\n";
            }
            let set = statement.values.iter().enumerate().filter_map(|(index, value)| Some((index, value.as_deref()?)));
            let set = set.filter(|(_, value)| !value.is_empty());
            values.extend(set.map(|(index, value)| format!("{}={value}", name(index + 1))));
            if statement.pipelined && !follows(index + 1) {
                text += "\\endpipeline\n";
            }
        }
        let mut file = NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        Ok(Self { url: url.to_owned(), file, values, statements: issued.len(), round_trips })
    }

    /// Returns the executions of the script per second on the servers' cores, where pgbench is in the place of tutord.
    ///
    /// Each connection prepares the statements first, so the first second does not count. pgbench counts whole seconds.
    pub(crate) fn run(&self, round: Duration) -> anyhow::Result<f64> {
        let seconds = (1.0 + round.as_secs_f64().ceil()).to_string();
        let (clients, threads) = (CONNECTIONS.to_string(), cores().servers.len().to_string());
        let mut command = server_command(testbed::postgres::program("pgbench")?);
        command
            .args(["-n", "-M", "prepared", "-P", "1", "-c", &clients, "-j", &threads, "-T", &seconds, "-f"])
            .arg(self.file.path());
        for value in &self.values {
            command.args(["-D", value]);
        }
        let output = command.arg(&self.url).output().context("pgbench")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let progress = String::from_utf8_lossy(&output.stderr).into_owned();
        match warm_rate(&text, &progress) {
            Some(rate) if output.status.success() => Ok(rate),
            _ => bail!("pgbench: {text} {progress}"),
        }
    }
}

/// Returns the executions per second after the first second: from all of them, and those that the first line of the
/// progress has.
fn warm_rate(text: &str, progress: &str) -> Option<f64> {
    let number = |name: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.split([' ', '/']).next()?.parse().ok())
    };
    let (executions, rate) = (number("number of transactions actually processed: ")?, number("tps = ")?);
    let first = progress.lines().find_map(|line| line.strip_prefix("progress: "))?;
    let (seconds, rest) = first.split_once(" s, ")?;
    let (seconds, first): (f64, f64) = (seconds.parse().ok()?, rest.split(' ').next()?.parse().ok()?);
    Some((executions - seconds * first) / (executions / rate - seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_second_does_not_count() {
        let text = "number of transactions actually processed: 30000\nlatency average = 1 ms\n\
                    tps = 15000.000000 (without initial connection time)\n";
        let progress = "progress: 1.0 s, 10000.0 tps, lat 1.6 ms stddev 0.1, 0 failed\n";
        assert!((warm_rate(text, progress).unwrap() - 20_000.0).abs() < 1e-6);
        assert_eq!(warm_rate(text, ""), None);
    }
}
