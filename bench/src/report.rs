//! The results of a run: a text for people, ratios and tables for programs, and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::plot::{Line, draw};

/// The goal of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Higher is better; there is no number.
    More,
    /// Lower is better; there is no number.
    Less,
}

impl Goal {
    /// Returns `true` if the ratio meets the goal. A goal without a number is met by every ratio.
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(goal) => ratio >= goal,
            Self::AtMost(goal) => ratio <= goal,
            Self::More | Self::Less => true,
        }
    }

    /// Returns `true` if a lower ratio is better.
    pub(crate) const fn is_less(self) -> bool {
        matches!(self, Self::AtMost(_) | Self::Less)
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_less() { "<=" } else { ">=" })?;
        match self {
            Self::AtLeast(goal) | Self::AtMost(goal) => write!(f, "{goal}"),
            Self::More | Self::Less => Ok(()),
        }
    }
}

impl std::str::FromStr for Goal {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (less, number) = match text.strip_prefix("<=") {
            Some(number) => (true, number),
            None => (false, text.strip_prefix(">=").ok_or_else(|| anyhow::anyhow!("no goal: {text}"))?),
        };
        Ok(match (less, number) {
            (true, "") => Self::Less,
            (false, "") => Self::More,
            (true, number) => Self::AtMost(number.parse()?),
            (false, number) => Self::AtLeast(number.parse()?),
        })
    }
}

/// A number without a unit, and what it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) ratio: f64,
    pub(crate) goal: Goal,
}

/// A report in the making.
pub(crate) struct Report {
    pub(crate) text: String,
    ratios: Vec<Ratio>,
    directory: PathBuf,
}

impl Report {
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { text: String::new(), ratios: Vec::new(), directory: directory.to_owned() })
    }

    /// Begins a section.
    pub(crate) fn section(&mut self, title: &str, text: &str) {
        println!("\n== {title}");
        self.text += &format!("\n## {title}\n\n{text}\n");
    }

    /// Adds a ratio; how it reads in a table, with a word where its goal is missed.
    pub(crate) fn ratio(&mut self, name: &str, ratio: f64, goal: Goal) -> String {
        println!("{name}: {ratio:.3} {goal}");
        self.ratios.push(Ratio { name: name.to_owned(), ratio, goal });
        let missed = if goal.is_met(ratio) { "" } else { " (missed)" };
        let digits = if ratio < 0.1 { 4 } else { 2 };
        match goal {
            Goal::More | Goal::Less => format!("{ratio:.digits$}"),
            _ => format!("{ratio:.digits$}, goal {goal}{missed}"),
        }
    }

    /// Adds a table to the text, and to a file of its own: a line for the columns, then the rows.
    pub(crate) fn table(&mut self, file: &str, columns: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
        self.text += &format!("\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
        for row in rows {
            self.text += &format!("| {} |\n", row.join(" | "));
            println!("{}", row.join(" | "));
        }
        let cells = |row: &[String]| row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",");
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let mut lines = cells(&columns) + "\n";
        for row in rows {
            writeln!(lines, "{}", cells(row))?;
        }
        Ok(std::fs::write(self.directory.join(file).with_extension("csv"), lines)?)
    }

    /// Adds a plot: a file, and its place in the text.
    pub(crate) fn plot(&mut self, file: &str, title: &str, axes: (&str, &str), lines: &[Line]) -> anyhow::Result<()> {
        draw(&self.directory.join(file).with_extension("svg"), title, axes, lines)?;
        self.text += &format!("\n![{title}]({file}.svg)\n");
        Ok(())
    }

    /// Writes text and ratios.
    pub(crate) fn finish(self, head: &str) -> anyhow::Result<()> {
        let (met, asked) = self
            .ratios
            .iter()
            .filter(|ratio| !matches!(ratio.goal, Goal::More | Goal::Less))
            .fold((0, 0), |(met, asked), ratio| (met + usize::from(ratio.goal.is_met(ratio.ratio)), asked + 1));
        let mut text =
            format!("{head}\n## Goals\n\n{met} of {asked} are met.\n\n| | ratio | goal | |\n|---|---|---|---|\n");
        let mut csv = "name,ratio,goal\n".to_owned();
        for Ratio { name, ratio, goal } in &self.ratios {
            if !matches!(goal, Goal::More | Goal::Less) {
                let verdict = if goal.is_met(*ratio) { "met" } else { "**missed**" };
                writeln!(text, "| {name} | {ratio:.3} | {goal} | {verdict} |")?;
            }
            writeln!(csv, "{},{ratio:.4},{goal}", quoted(name))?;
        }
        text += &self.text;
        std::fs::write(self.directory.join("README.md"), text)?;
        Ok(std::fs::write(self.directory.join("ratios.csv"), csv)?)
    }
}

/// A cell of a CSV file.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
