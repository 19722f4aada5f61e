//! Two reports, by their ratios: times differ between machines, ratios to a limit of the same run much less.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::report::Goal;

/// The relative difference of a ratio that counts as noise.
const TOLERANCE: f64 = 0.10;

/// Prints the ratios that differ by more than [`TOLERANCE`].
///
/// # Errors
/// Returns an error if a ratio has become worse by more than that, or is missing.
pub(crate) fn run(old: &Path, new: &Path) -> anyhow::Result<()> {
    let (old, new) = (read(old)?, read(new)?);
    let mut worse = 0;
    for (name, (before, goal)) in &old {
        let Some((after, _)) = new.get(name) else {
            println!("gone:   {name}");
            worse += 1;
            continue;
        };
        let change = after / before;
        let gain = if goal.is_less() { 1.0 / change } else { change };
        let verdict = if gain < 1.0 - TOLERANCE {
            worse += 1;
            "worse:  "
        } else if gain > 1.0 / (1.0 - TOLERANCE) {
            "better: "
        } else {
            continue;
        };
        println!("{verdict}{name}: {before:.3} → {after:.3}");
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        println!("new:    {name}");
    }
    if worse > 0 {
        bail!("{worse} of {} ratios are worse by more than {:.0} %", old.len(), TOLERANCE * 100.0);
    }
    println!("none of {} ratios is worse by more than {:.0} %", old.len(), TOLERANCE * 100.0);
    Ok(())
}

/// By name.
fn read(directory: &Path) -> anyhow::Result<BTreeMap<String, (f64, Goal)>> {
    let file = directory.join("ratios.csv");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let row = |line: &str| -> anyhow::Result<_> {
        // From the end: only the name may hold a comma.
        let mut cells = line.rsplitn(3, ',');
        let (goal, ratio) = (cells.next().context("a goal")?, cells.next().context("a ratio")?);
        let name = cells.next().context("a name")?.trim_matches('"').to_owned();
        Ok((name, (ratio.parse()?, goal.parse()?)))
    };
    text.lines().skip(1).map(row).collect()
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
}
