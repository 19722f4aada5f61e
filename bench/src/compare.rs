//! Two reports, by their ratios: times differ between machines, ratios to a limit of the same run much less.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::report::Goal;

/// The relative difference of a ratio that counts as noise.
const TOLERANCE: f64 = 0.10;

/// The share of the ratios that two runs of the same program have within [`TOLERANCE`] where the runs can be trusted.
const TRUSTED: f64 = 0.90;

/// A ratio of both reports, and of how it changed.
#[derive(Debug, PartialEq)]
struct Change {
    name: String,
    before: f64,
    after: f64,
    /// The relative difference, seen from the first report.
    difference: f64,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
}

/// Two compared reports.
#[derive(Debug)]
struct Comparison {
    changes: Vec<Change>,
    /// Ratios of the first report alone.
    gone: Vec<String>,
    /// Ratios of the second report alone.
    new: Vec<String>,
}

/// Prints each ratio with both values and its difference, and the share of the ratios that agree within [`TOLERANCE`].
///
/// # Errors
/// Returns an error if a ratio has become worse by more than that, or is missing.
pub(crate) fn run(old: &Path, new: &Path) -> anyhow::Result<()> {
    let comparison = Comparison::of(&read(old)?, &read(new)?);
    print!("{}", comparison.text());
    let worse = comparison.gone.len() + comparison.count(Verdict::Worse);
    if worse > 0 {
        bail!("{worse} ratios are worse by more than {:.0} % or gone", TOLERANCE * 100.0);
    }
    Ok(())
}

impl Comparison {
    fn of(old: &BTreeMap<String, (f64, Goal)>, new: &BTreeMap<String, (f64, Goal)>) -> Self {
        let mut comparison = Self { changes: Vec::new(), gone: Vec::new(), new: Vec::new() };
        for (name, &(before, goal)) in old {
            let Some(&(after, _)) = new.get(name) else {
                comparison.gone.push(name.clone());
                continue;
            };
            // Two zeros are equal.
            let difference = if before == after { 0.0 } else { after / before - 1.0 };
            let verdict = if difference.abs() <= TOLERANCE {
                Verdict::Same
            } else if (difference > 0.0) == goal.is_less() {
                Verdict::Worse
            } else {
                Verdict::Better
            };
            comparison.changes.push(Change { name: name.clone(), before, after, difference, verdict });
        }
        comparison.new.extend(new.keys().filter(|name| !old.contains_key(*name)).cloned());
        comparison
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().filter(|change| change.verdict == verdict).count()
    }

    /// The share of the common ratios within [`TOLERANCE`]; 1 if there are none.
    fn share(&self) -> f64 {
        if self.changes.is_empty() { 1.0 } else { self.count(Verdict::Same) as f64 / self.changes.len() as f64 }
    }

    /// A table in Markdown, largest difference first.
    fn text(&self) -> String {
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by(|a, b| b.difference.abs().total_cmp(&a.difference.abs()));
        let row = |change: &Change| {
            let verdict = match change.verdict {
                Verdict::Same => "",
                Verdict::Better => "better",
                Verdict::Worse => "worse",
            };
            let Change { name, before, after, difference, .. } = change;
            format!("| {name} | {before:.4} | {after:.4} | {:+.1} % | {verdict} |\n", difference * 100.0)
        };
        let rows: String = changes.into_iter().map(row).collect();
        let only = |names: &[String], which: &str| -> String {
            names.iter().map(|name| format!("- only in the {which} report: {name}\n")).collect()
        };
        let (same, all, share) = (self.count(Verdict::Same), self.changes.len(), self.share());
        format!(
            "| ratio | first | second | difference | |\n|---|--:|--:|--:|---|\n{rows}\n{}{}{same} of {all} ratios ({:.0} %) agree within {:.0} \
             %: {} {:.0} %.\n",
            only(&self.gone, "first"),
            only(&self.new, "second"),
            share * 100.0,
            TOLERANCE * 100.0,
            if share >= TRUSTED { "at least" } else { "fewer than" },
            TRUSTED * 100.0,
        )
    }
}

/// By name.
fn read(directory: &Path) -> anyhow::Result<BTreeMap<String, (f64, Goal)>> {
    let file = directory.join("ratios.csv");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    text.lines().skip(1).map(row).collect::<anyhow::Result<_>>().with_context(|| file.display().to_string())
}

/// Parses a name, a ratio, a goal, and further cells that an older report does not have. Only the name may be quoted.
fn row(line: &str) -> anyhow::Result<(String, (f64, Goal))> {
    let (name, rest) = match line.strip_prefix('"') {
        Some(rest) => rest.split_once("\",").context("the end of a name")?,
        None => line.split_once(',').context("a name")?,
    };
    let mut cells = rest.split(',');
    let (ratio, goal) = (cells.next().context("a ratio")?, cells.next().context("a goal")?);
    Ok((name.replace("\"\"", "\""), (ratio.parse()?, goal.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ratios.csv"), format!("name,ratio,goal\n{rows}")).unwrap();
        directory
    }

    #[test]
    fn only_what_is_worse_by_more_than_chance_fails() {
        let old = report("\"page, last\",0.70,>=0.7\ngrowth,1.10,<=1.2\nfree,0.50,>=\n");
        for (new, fails) in [
            ("\"page, last\",0.64,>=0.7\ngrowth,1.20,<=1.2\nfree,0.90,>=\n", false),
            ("\"page, last\",0.60,>=0.7\ngrowth,1.10,<=1.2\nfree,0.50,>=\n", true),
            ("\"page, last\",0.70,>=0.7\ngrowth,1.40,<=1.2\nfree,0.50,>=\n", true),
            ("\"page, last\",0.70,>=0.7\ngrowth,0.50,<=1.2\nfree,0.50,>=\n", false),
            ("growth,1.10,<=1.2\nfree,0.50,>=\n", true),
        ] {
            assert_eq!(run(old.path(), report(new).path()).is_err(), fails, "{new}");
        }
    }

    #[test]
    fn each_ratio_is_listed_and_the_share_that_agrees_is_told() {
        let old = read(report("\"page, last\",0.70,>=0.7\ngrowth,1.00,<=1.2\nsaved,0,>=\nold,1,>=\n").path()).unwrap();
        // With quartiles, as newer reports have them.
        let new = "\"page, last\",0.35,>=0.7,0.30,0.40\ngrowth,1.05,<=1.2,,\nsaved,0,>=,,\nnew,1,>=,,\n";
        let comparison = Comparison::of(&old, &read(report(new).path()).unwrap());
        assert!((comparison.share() - 2.0 / 3.0).abs() < 1e-9);
        let text = comparison.text();
        for line in [
            "| page, last | 0.7000 | 0.3500 | -50.0 % | worse |",
            "| growth | 1.0000 | 1.0500 | +5.0 % |  |",
            "| saved | 0.0000 | 0.0000 | +0.0 % |  |",
            "- only in the first report: old",
            "- only in the second report: new",
            "2 of 3 ratios (67 %) agree within 10 %: fewer than 90 %.",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert_eq!(comparison.changes.iter().filter(|change| change.verdict == Verdict::Worse).count(), 1);
    }

    #[test]
    fn a_report_that_is_no_report_is_named() {
        let broken = report("name without anything\n");
        let error = format!("{:#}", read(broken.path()).unwrap_err());
        assert!(error.contains("ratios.csv") && error.contains("a name"), "{error}");
    }
}
