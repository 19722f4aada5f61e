//! The report: README.md and plots.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::crowd::{self, Crowd};
use crate::libraries::{Tiers, Variant};
use crate::measure::{Spread, Times, time, times};
use crate::outage::{self, Fault, Outage};
use crate::plot::{self, Bar, Panel};
use crate::schedule::{self, Found};
use crate::speed::{self, Speed};

/// Explains how each library is configured.
const CONFIGURATIONS: &str = include_str!("configurations.md");

/// The bound after which readthrough does not use L1 without a response from Redis: its default.
const L1_STALENESS: Duration = Duration::from_millis(250);

/// The measurements.
pub(crate) struct Results {
    pub(crate) speed: Speed,
    pub(crate) crowds: Vec<Crowd>,
    pub(crate) schedules: Vec<(Variant, Found)>,
    pub(crate) outages: Vec<Outage>,
}

/// A goal with its result.
struct Goal {
    name: String,
    goal: &'static str,
    result: String,
    met: bool,
}

/// Writes the report into the directory.
pub(crate) fn write(directory: &Path, head: &str, results: &Results) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    plot::draw(&directory.join("speed.svg"), "Time of one operation", &speed_panels(&results.speed))?;
    plot::draw(
        &directory.join("stale.svg"),
        "Stale reads after a completed write",
        &[stale_panel(&results.schedules)],
    )?;
    let goals = goals(results);
    let met = goals.iter().filter(|goal| goal.met).count();
    let mut text = format!(
        "# Cache libraries, side by side\n\nMade by `cargo xtask bench --libraries`. [The description](../README.md) says what is measured. All \
         libraries run in one program on one Redis, in interleaved rounds; a ratio compares samples of the same round. Figures in \
         parentheses are quartiles.\n\n{head}\n## Goals\n\n{met} of {} are met.\n\n| | goal | result | |\n|---|---|---|---|\n",
        goals.len()
    );
    for Goal { name, goal, result, met } in &goals {
        writeln!(text, "| {name} | {goal} | {result} | {} |", if *met { "met" } else { "**missed**" })?;
    }
    text += &speed_section(&results.speed);
    text += &crowd_section(&results.crowds);
    text += &outage_section(&results.outages);
    text += &schedule_section(&results.schedules);
    write!(text, "\n{}", CONFIGURATIONS.trim_start())?;
    let text = wrap(&text);
    std::fs::write(directory.join("README.md"), &text)?;
    println!("{text}");
    Ok(())
}

/// Wraps the paragraphs of a Markdown text at 100 columns. Tables, headings and images stay as they are.
fn wrap(text: &str) -> String {
    let paragraph = |text: &str| {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + word.chars().count() <= 100 => *line += &format!(" {word}"),
                _ => lines.push(word.to_owned()),
            }
        }
        lines.join("\n")
    };
    let blocks = text.trim_end().split("\n\n");
    let wrapped: Vec<String> = blocks
        .map(|block| if block.starts_with(['|', '#', '!']) { block.to_owned() } else { paragraph(block) })
        .collect();
    wrapped.join("\n\n") + "\n"
}

/// Returns a Markdown table.
fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

fn goals(results: &Results) -> Vec<Goal> {
    let speed = &results.speed;
    let mut goals = Vec::new();
    let mut ratio = |what: &str, measured: &Times, variant: Variant, than: Variant, least: f64, goal| {
        if let Some(ratio @ Spread { low, median, high }) = measured.speed(variant.name(), than.name()) {
            goals.push(Goal {
                name: format!("{what}: speed relative to {}", than.name()),
                goal,
                result: format!("{median:.2} ({low:.2} to {high:.2})"),
                met: ratio.median >= least,
            });
        }
    };
    let (both, redis) = (Variant::Readthrough, Variant::ReadthroughRedis);
    ratio("L1 hit", &speed.l1_hit, both, Variant::BareMoka, 0.8, "≥ 0.8");
    for than in [Variant::Amalgam, Variant::AmalgamStrict, Variant::Hitbox, Variant::Cached] {
        ratio("L1 hit", &speed.l1_hit, both, than, 1.0, "≥ 1");
    }
    for (what, measured) in [("L2 hit", &speed.l2_hit), ("L2 hit, concurrent", &speed.l2_hit_concurrent)] {
        ratio(what, measured, redis, Variant::BareGet, 0.8, "≥ 0.8");
        for than in [Variant::AmalgamRedis, Variant::HitboxRedis, Variant::CachedRedis] {
            ratio(what, measured, redis, than, 1.0, "≥ 1");
        }
    }
    ratio("miss", &speed.miss, both, Variant::AmalgamStrict, 1.0, "≥ 1");
    ratio("invalidation", &speed.invalidation, both, Variant::AmalgamStrict, 1.0, "≥ 1");
    for (variant, found) in &results.schedules {
        let (name, count) = match variant {
            Variant::ReadthroughRedis => ("stale reads, readthrough without L1".to_owned(), found.stale()),
            Variant::Readthrough => {
                ("stale reads in the writer's process, readthrough with L1".to_owned(), found.stale_here)
            }
            Variant::Control => {
                goals.push(Goal {
                    name: "stale reads that the checker finds without any invalidation".to_owned(),
                    goal: "> 0",
                    result: found.stale().to_string(),
                    met: found.stale() > 0,
                });
                continue;
            }
            _ => continue,
        };
        goals.push(Goal { name, goal: "0", result: count.to_string(), met: count == 0 });
        if *variant == Variant::Readthrough {
            let late = found.older_than(L1_STALENESS);
            goals.push(Goal {
                name: "stale reads more than 250 ms after the write in the other process, readthrough with L1"
                    .to_owned(),
                goal: "0",
                result: late.to_string(),
                met: late == 0,
            });
        }
    }
    for crowd in results.crowds.iter().filter(|crowd| crowd.variant == Variant::Readthrough) {
        let (one, two) = (crowd.one.loads, crowd.two.loads);
        for (name, loads) in [("loads of 500 readers of a cold key", one), ("the same in two caches", two)] {
            goals.push(Goal { name: name.to_owned(), goal: "1", result: format!("{loads}"), met: loads == 1.0 });
        }
        let loads = crowd.failing.loads;
        goals.push(Goal {
            name: "loads of 500 readers whose loader fails".to_owned(),
            goal: "1",
            result: format!("{loads}"),
            met: loads == 1.0,
        });
    }
    goals
}

fn speed_section(speed: &Speed) -> String {
    let rows: Vec<Vec<String>> = Variant::compared()
        .chain([Variant::BareMoka, Variant::BareGet])
        .map(|variant| {
            let cell = |measured: &Times| times(measured.get(variant.name()));
            vec![
                variant.name().to_owned(),
                cell(&speed.l1_hit),
                cell(&speed.l2_hit),
                cell(&speed.l2_hit_concurrent),
                cell(&speed.miss),
                cell(&speed.invalidation),
            ]
        })
        .collect();
    format!(
        "\n## Time of one operation\n\nOne reader at a time, and for the third column {} readers at once. The loader of a miss returns at \
         once. A miss and an invalidation do different work in each library, which [the configurations](#configurations) \
         name.\n\n![Time of one operation](speed.svg)\n{}",
        speed::READERS,
        table(&["", "L1 hit", "L2 hit", "L2 hit, concurrent", "miss", "invalidation"], &rows)
    )
}

fn crowd_section(crowds: &[Crowd]) -> String {
    let rows: Vec<Vec<String>> = crowds
        .iter()
        .map(|Crowd { variant, one, two, failing }| {
            // The store of `#[cached]` is a static, so two caches would be one.
            let apart = *variant != Variant::CachedMemory;
            let two =
                if apart { [two.loads.to_string(), times(Some(two.last))] } else { ["—", "—"].map(str::to_owned) };
            let [two_loads, two_last] = two;
            vec![
                variant.name().to_owned(),
                one.loads.to_string(),
                times(Some(one.last)),
                two_loads,
                two_last,
                failing.loads.to_string(),
                failing.errors.to_string(),
                if failing.errors == 0.0 { "> 5 s".to_owned() } else { times(Some(failing.last)) },
            ]
        })
        .collect();
    format!(
        "\n## {} readers of one value\n\nAll start at the same time. The loader takes {}. *Two caches* have a connection and an L1 each, \
         and half of the readers. Counts are medians.\n{}",
        crowd::READERS,
        time(crowd::DELAY.as_nanos() as f64),
        table(
            &[
                "",
                "loads",
                "until the last reader",
                "loads, two caches",
                "until the last reader",
                "loads, failing loader",
                "errors",
                "until the last reader"
            ],
            &rows
        )
    )
}

fn outage_section(outages: &[Outage]) -> String {
    let mut text = format!(
        "\n## Redis stopped\n\nFor two seconds readers arrive every 25 ms: one reads a value that was read before, the other a value that \
         was not. A reader waits for {} at most. Columns count the reads that got a value, an error, or nothing.\n",
        time(outage::PATIENCE.as_nanos() as f64)
    );
    for (fault, title) in [
        (Fault::Killed, "The server is killed: connections are refused"),
        (Fault::Hung, "The server hangs: connections stay open"),
    ] {
        let rows: Vec<Vec<String>> = outages
            .iter()
            .filter(|outage| outage.fault == fault)
            .map(|Outage { variant, warm, cold, .. }| {
                let mut row = vec![variant.name().to_owned()];
                for results in [warm, cold] {
                    row.push(format!("{} / {} / {}", results.values, results.errors, results.unanswered));
                    row.push(format!("{}, longest {}", time(results.took.median), time(results.longest)));
                }
                row
            })
            .collect();
        let columns = ["", "read before", "time", "not read before", "time"];
        text += &format!("\n### {title}\n{}", table(&columns, &rows));
    }
    text
}

fn schedule_section(schedules: &[(Variant, Found)]) -> String {
    let rows: Vec<Vec<String>> = schedules
        .iter()
        .map(|(variant, found)| {
            let ages: Vec<f64> = found.ages.iter().map(|&age| age as f64).collect();
            let longest = ages.iter().copied().fold(0.0, f64::max);
            let age = if ages.is_empty() {
                "—".to_owned()
            } else {
                format!("{}, longest {}", time(Spread::of(ages).median), time(longest))
            };
            vec![
                variant.name().to_owned(),
                found.reads.to_string(),
                found.writes.to_string(),
                (found.unacknowledged + found.failed).to_string(),
                found.stale_here.to_string(),
                found.stale_there.to_string(),
                format!("{:.2} %", share(found)),
                age,
            ]
        })
        .collect();
    format!(
        "\n## Stale reads after a completed write\n\n{} processes of {} tasks each run the same random schedules of reads and writes for every \
         library. A write changes the database, then invalidates as the library documents it. A read is stale if it began after \
         the invalidation of a newer write had returned. *Late by* is the time from that return to the beginning of the \
         read.\n\nAn L1 in the other process can be stale until the message of the invalidation arrives. Stale \
         reads in the writer's process, and all stale reads without an L1, are values that were stored after their \
         invalidation.\n\nThe L1 of cached is the client-side cache of the crate redis. By its source, the task that sent \
         a GET stores the response, and may do so after the task of the connection has processed an invalidation of it. Redis \
         then sends no further message for that key, so the old value would stay until it expires.\n\n![Stale reads after a completed write](stale.svg)\n{}",
        schedule::PROCESSES,
        schedule::TASKS,
        table(
            &["", "reads", "writes", "failed", "stale, same process", "stale, other process", "share", "late by"],
            &rows
        )
    )
}

/// Returns the share of stale reads in percent.
fn share(found: &Found) -> f64 {
    100.0 * found.stale() as f64 / found.reads.max(1) as f64
}

fn speed_panels(speed: &Speed) -> Vec<Panel> {
    let panel = |title: &str, measured: &Times, reference: Option<Variant>| {
        let mut bars: Vec<Bar> = Variant::compared()
            .chain(reference)
            .filter_map(|variant| {
                let value = measured.get(variant.name())?.median;
                Some(Bar { name: variant.name(), value, text: time(value), kind: kind(variant) })
            })
            .collect();
        bars.sort_by(|one, other| one.value.total_cmp(&other.value));
        Panel { title: title.to_owned(), bars }
    };
    vec![
        panel("L1 hit", &speed.l1_hit, Some(Variant::BareMoka)),
        panel("L2 hit", &speed.l2_hit, Some(Variant::BareGet)),
        panel("Miss, immediate loader", &speed.miss, None),
        panel("Invalidation", &speed.invalidation, None),
    ]
}

fn stale_panel(schedules: &[(Variant, Found)]) -> Panel {
    let bars = schedules
        .iter()
        .filter(|(variant, _)| *variant != Variant::Control)
        .map(|(variant, found)| {
            let text = match found.stale() {
                0 => "none".to_owned(),
                stale => format!("{:.2} % ({stale} of {})", share(found), found.reads),
            };
            Bar { name: variant.name(), value: share(found), text, kind: kind(*variant) }
        })
        .collect();
    Panel { title: "Share of all reads, two processes, same schedules".to_owned(), bars }
}

fn kind(variant: Variant) -> plot::Kind {
    match variant {
        Variant::Readthrough | Variant::ReadthroughRedis => plot::Kind::Own,
        _ if variant.is_reference() => plot::Kind::Reference,
        _ if variant.tiers() == Tiers::Memory => plot::Kind::Memory,
        _ => plot::Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped_and_tables_are_not() {
        let row = format!("| {} |", "wide ".repeat(30));
        let text = format!("# Title\n\n{}\n\n{row}\n|---|\n\n![plot](plot.svg)\n", "wörd ".repeat(40));
        let wrapped = wrap(&text);
        let prose: Vec<&str> = wrapped.lines().filter(|line| line.starts_with("wörd")).collect();
        assert!(prose.len() == 2 && prose.iter().all(|line| line.chars().count() <= 100), "{wrapped}");
        assert!(wrapped.contains(&row) && wrapped.ends_with("|---|\n\n![plot](plot.svg)\n"), "{wrapped}");
        assert_eq!(wrap(&wrapped), wrapped);
    }
}
