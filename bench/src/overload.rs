//! Behaviour under more requests than the server can serve.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::bare;
use crate::cores::cores;
use crate::day::{Day, MIX, REPLY};
use crate::load::{Latencies, RequestSource, overload, quantile};
use crate::machine;
use crate::report::{Goal, Report};
use crate::system::{Node, System, fill, plan};

/// Students of each database.
const STUDENTS: u64 = 500;
/// Connections of the client. When all of them wait for an answer, what is due waits with them, and its latency counts that.
const OPEN_CONNECTIONS: usize = 1_024;
/// Requests a second that the search for the saturation begins with.
const LEAST: f64 = 100.0;
/// The maximum number of runs at a rate, until one run is served in time.
const TRIES: usize = 3;
/// Within this 99 % are answered at saturation.
const IN_TIME: Duration = Duration::from_millis(250);

/// Measures on SQLite and on PostgreSQL, and writes `overload.md`.
pub(crate) async fn run(tutord: &Path, directory: &Path, quick: bool) -> anyhow::Result<()> {
    let head = machine::head(quick)?;
    let system = System::start(tutord, STUDENTS).await?;
    let model = bare::start(REPLY.as_bytes())?;
    let url = format!("http://{}/v1", model.address);
    let told = ["--load-shedding", "true", "--llm-model", "fake", "--llm-base-url", &url];
    let file = format!("sqlite://{}", system.directory.path().join("overload.db").display());
    fill(&file, &plan(STUDENTS), 1..=STUDENTS).await?;
    let sqlite = system.serve(&file, system.program(), &told).await?;
    let postgres = system.node(&told).await?;
    let requests = Day::new(&system).await?.requests();
    let mut report = Report::new(directory)?;
    report.section(
        "Overload",
        &format!(
            "{MIX}. {STUDENTS} students. Requests are due at random times at a fixed rate over {OPEN_CONNECTIONS} connections, whether \
             those before are answered or not, and a latency counts from when its request was due. Saturation (1x) is the highest \
             rate, in steps of a tenth, at which 99 % of the requests of one run in {TRIES} are answered within {} ms; shed requests \
             count as late. The model shares the servers' cores. {} Latencies in milliseconds.",
            IN_TIME.as_millis(),
            cores().describe()
        ),
    );
    let mut rows = Vec::new();
    for (name, node) in [("SQLite", &sqlite), ("PostgreSQL", &postgres)] {
        measure(name, node, &requests, quick, &mut report, &mut rows).await?;
    }
    let columns = ["", "load", "offered/s", "answered/s", "of saturation", "p50", "p99", "shed", "p99 of the refusals"];
    report.table("overload", &columns, &rows)?;
    std::fs::write(directory.join("overload.md"), head + &report.text)?;
    Ok(())
}

async fn measure(
    name: &str,
    node: &Node,
    requests: &RequestSource,
    quick: bool,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(if quick { 4 } else { 15 });
    let run = async |rate: f64, duration: Duration| {
        let latencies = overload(&node.address, requests, rate, duration, true, OPEN_CONNECTIONS).await?;
        // The next load begins when the queue of this one is gone.
        tokio::time::sleep(Duration::from_secs(2)).await;
        anyhow::Ok(latencies)
    };
    // The first runs fill the cache.
    run(LEAST, duration / 3).await?;
    ensure!(
        in_time(&run(LEAST, duration / 3).await?)? >= 0.99,
        "{name} does not answer {LEAST} requests a second in time"
    );
    // One run may meet a pause of the machine; a rate that is too high fails them all.
    let suffices = async |rate: f64| {
        for _ in 0..TRIES {
            if in_time(&run(rate, duration / 3).await?)? >= 0.99 {
                return anyhow::Ok(true);
            }
        }
        Ok(false)
    };
    let mut saturation = LEAST;
    for step in [1.5, 1.1] {
        while suffices(saturation * step).await? {
            saturation *= step;
        }
    }
    for times in [1.0, 2.0, 3.0] {
        let latencies = run(saturation * times, duration).await?;
        let answered = latencies.all()?;
        let rate = answered.len() as f64 / duration.as_secs_f64();
        let goodput = rate / saturation;
        let (p50, p99) = (quantile(&answered, 0.5), quantile(&answered, 0.99));
        let goal = |goal| if times > 1.0 { goal } else { Goal::More };
        let shown = report.ratio(
            &format!("overload {name} {times}x: answers per saturation"),
            goodput,
            goal(Goal::AtLeast(0.8)),
        );
        let limit = if times > 1.0 { Goal::AtMost(1.0) } else { Goal::AtMost(0.25) };
        report.ratio(&format!("overload {name} {times}x: p99 in seconds"), p99 / 1e3, limit);
        let refused = latencies.refused.len() as f64;
        rows.push(vec![
            name.to_owned(),
            format!("{times}x"),
            format!("{:.0}", saturation * times),
            format!("{rate:.0}"),
            shown,
            format!("{p50:.1}"),
            format!("{p99:.1}"),
            format!("{:.1} %", 100.0 * refused / (refused + answered.len() as f64)),
            format!("{:.1}", quantile(&latencies.refused, 0.99)),
        ]);
    }
    Ok(())
}

/// The share of the requests that were answered in time.
fn in_time(latencies: &Latencies) -> anyhow::Result<f64> {
    let answered = latencies.all()?;
    let limit = u64::try_from(IN_TIME.as_micros())?;
    let in_time = answered.iter_recorded().filter(|value| value.value_iterated_to() <= limit);
    let in_time: u64 = in_time.map(|value| value.count_at_value()).sum();
    Ok(in_time as f64 / (answered.len() + latencies.refused.len()) as f64)
}
