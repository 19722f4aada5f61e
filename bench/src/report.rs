//! The results of a run: a text for people, ratios and tables for programs, and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::load::Rates;
use crate::plot::{Axes, Line, draw};
use crate::quiet;
use crate::turns::Spread;

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
    /// The lowest and the highest quartile of the turns, where there are turns.
    pub(crate) quartiles: Option<(f64, f64)>,
}

/// A report in the making.
pub(crate) struct Report {
    pub(crate) text: String,
    ratios: Vec<Ratio>,
    /// Turns far from the others: ratio, turn, value, median.
    outliers: Vec<[String; 4]>,
    /// Remarks about rates, such as a server that was not seen to be warm.
    notes: Vec<String>,
    /// What was seen of the machine in each section.
    quiet: Vec<Vec<String>>,
    directory: PathBuf,
}

/// A place in a report, to return to.
pub(crate) struct Mark {
    text: usize,
    ratios: usize,
    outliers: usize,
    notes: usize,
}

impl Report {
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            text: String::new(),
            ratios: Vec::new(),
            outliers: Vec::new(),
            notes: Vec::new(),
            quiet: Vec::new(),
            directory: directory.to_owned(),
        })
    }

    /// Begins a section.
    pub(crate) fn section(&mut self, title: &str, text: &str) {
        println!("\n== {title}");
        self.text += &format!("\n## {title}\n\n{text}\n");
    }

    /// Returns the present end of the report.
    pub(crate) const fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            ratios: self.ratios.len(),
            outliers: self.outliers.len(),
            notes: self.notes.len(),
        }
    }

    /// Removes everything after the mark but the states of the machine.
    pub(crate) fn return_to(&mut self, mark: &Mark) {
        self.text.truncate(mark.text);
        self.ratios.truncate(mark.ratios);
        self.outliers.truncate(mark.outliers);
        self.notes.truncate(mark.notes);
    }

    /// Adds the state of the machine before and after a section. Returns `true` if it was the same.
    pub(crate) fn quiet(&mut self, section: &str, before: &quiet::State, after: &quiet::State) -> bool {
        let difference = before.difference(after);
        let same = difference <= quiet::TOLERANCE;
        let verdict = format!("{:.1} %{}", difference * 100.0, if same { "" } else { ", **not quiet**" });
        println!("{section}: the machine's speed changed by {verdict}");
        self.quiet.push([&[section.to_owned()], &before.cells(after)[..], &[verdict]].concat());
        same
    }

    /// Adds the remarks about rates.
    pub(crate) fn notes(&mut self, name: &str, rates: &Rates) {
        for note in &rates.notes {
            let note = format!("{name}: {note}");
            // The same rates may stand next to several limits.
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Adds a ratio from one number; how it reads in a table, with a word where its goal is missed.
    pub(crate) fn ratio(&mut self, name: &str, ratio: f64, goal: Goal) -> String {
        println!("{name}: {ratio:.3} {goal}");
        self.ratios.push(Ratio { name: name.to_owned(), ratio, goal, quartiles: None });
        let missed = if goal.is_met(ratio) { "" } else { " (missed)" };
        let digits = if ratio < 0.1 { 4 } else { 2 };
        match goal {
            Goal::More | Goal::Less => format!("{ratio:.digits$}"),
            _ => format!("{ratio:.digits$}, goal {goal}{missed}"),
        }
    }

    /// Adds a ratio from several turns: their median, with the quartiles. Turns far from the others are listed.
    pub(crate) fn spread(&mut self, name: &str, spread: &Spread, goal: Goal) -> String {
        let shown = self.ratio(name, spread.median, goal);
        if let Some(ratio) = self.ratios.last_mut() {
            ratio.quartiles = Some((spread.low, spread.high));
        }
        for (turn, value) in &spread.outliers {
            let turn = format!("{turn} of {}", spread.turns);
            self.outliers.push([name.to_owned(), turn, format!("{value:.4}"), format!("{:.4}", spread.median)]);
        }
        let digits = if spread.median < 0.1 { 4 } else { 2 };
        format!("{shown} [{:.digits$}–{:.digits$}]", spread.low, spread.high)
    }

    /// Adds a table to the text, and to a file of its own: a line for the columns, then the rows.
    pub(crate) fn table(&mut self, file: &str, columns: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
        self.text += &markdown(columns, rows);
        for row in rows {
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
    pub(crate) fn plot(&mut self, file: &str, title: &str, axes: &Axes, lines: &[Line]) -> anyhow::Result<()> {
        draw(&self.directory.join(file).with_extension("svg"), title, axes, lines)?;
        self.text += &format!("\n![{title}]({file}.svg)\n");
        Ok(())
    }

    /// Writes text and ratios.
    pub(crate) fn finish(self, head: &str) -> anyhow::Result<()> {
        let asked = |ratio: &&Ratio| !matches!(ratio.goal, Goal::More | Goal::Less);
        let (met, all) = self
            .ratios
            .iter()
            .filter(asked)
            .fold((0, 0), |(met, all), ratio| (met + usize::from(ratio.goal.is_met(ratio.ratio)), all + 1));
        let mut text = head.to_owned();
        text += "\n## The machine during the run\n\nA fixed loop (SHA-256, median of 25, in ms) before and after each section, on the \
                 client's core and on the servers' core, and the time that the host gave to other machines. A section whose loop differs \
                 by more than 5 % is marked; a full run repeats it once and reports the second time.\n";
        text += &markdown(&["section", "client's core", "servers' core", "stolen s", "difference"], &self.quiet);
        write!(text, "\n## Goals\n\n{met} of {all} are met.\n\n| | ratio | goal | |\n|---|---|---|---|\n")?;
        let mut csv = "name,ratio,goal,low,high\n".to_owned();
        for Ratio { name, ratio, goal, .. } in self.ratios.iter().filter(asked) {
            let verdict = if goal.is_met(*ratio) { "met" } else { "**missed**" };
            writeln!(text, "| {name} | {ratio:.3} | {goal} | {verdict} |")?;
        }
        for Ratio { name, ratio, goal, quartiles } in &self.ratios {
            let quartiles = quartiles.map_or_else(|| ",".to_owned(), |(low, high)| format!("{low:.4},{high:.4}"));
            writeln!(csv, "{},{ratio:.4},{goal},{quartiles}", quoted(name))?;
        }
        text += &self.text;
        text += "\n## Outliers\n\nTurns beyond 1.5 times the interquartile range. They count: the median is that of all turns.\n";
        let outliers: Vec<Vec<String>> = self.outliers.iter().map(|cells| cells.to_vec()).collect();
        text += &markdown(&["ratio", "turn", "value", "median"], &outliers);
        text += "\nServers that were not seen to be warm before they were measured, or that the client did not keep busy (at least 90 % \
                 of the time of the servers' cores):\n";
        if self.notes.is_empty() {
            text += "\nNone.\n";
        }
        for note in &self.notes {
            writeln!(text, "\n- {note}")?;
        }
        std::fs::write(self.directory.join("README.md"), text)?;
        Ok(std::fs::write(self.directory.join("ratios.csv"), csv)?)
    }
}

/// A table.
fn markdown(columns: &[&str], rows: &[Vec<String>]) -> String {
    let rows: String = rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    format!("\n| {} |\n|{}\n{rows}", columns.join(" | "), "---|".repeat(columns.len()))
}

/// A cell of a CSV file.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
