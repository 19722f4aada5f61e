//! The growth of costs with the size of the data.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use testbed::FakeModel;
use testbed::model::Behaviour;
use tutord_core::operations::SeedPlan;

use crate::cache::invalidations;
use crate::client::{Connection, request};
use crate::cores::{Cores, command_on, cores};
use crate::load::{Plan, Target, interleaved, repeated};
use crate::naive;
use crate::original::{megabytes, timed};
use crate::plot::{Axes, Line};
use crate::report::{Goal, Report};
use crate::routes::POOL;
use crate::system::{Node, System, fill, log_in, memory, plan as seed_plan, token};
use crate::turns::Turns;

/// Measures every curve.
pub(crate) async fn run(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    messages(system, quick, report).await?;
    invalidation(quick, report).await?;
    streams(system, quick, report).await?;
    by_cores(system, quick, report).await
}

/// A database of some size, and who serves it.
struct Sized {
    messages: u64,
    tutord: Node,
    naive: Node,
    list: Vec<u8>,
    page: Vec<u8>,
    student: i64,
}

impl Sized {
    /// Ten messages a conversation, ten conversations a student.
    async fn start(system: &System, messages: u64) -> anyhow::Result<Self> {
        let url = system.postgres.empty_database().await?;
        // Nobody is logged in yet: who is needed is seen in the rows.
        let rows = SeedPlan { users: messages / 100, conversations: messages / 10, messages, ..seed_plan(1) };
        fill(&url, &rows, RangeInclusive::new(1, 0)).await?;
        let database = system.postgres.client(url.rsplit('/').next().context("a database")?).await?;
        // As large a list everywhere; and the longest conversation there is.
        let typical = "SELECT user_id FROM conversations GROUP BY user_id ORDER BY abs(count(*) - 50), user_id LIMIT 1";
        let student: i64 = database.query_one(typical, &[]).await?.get(0);
        let longest = "SELECT id, user_id, message_count FROM conversations ORDER BY message_count DESC LIMIT 1";
        let longest = database.query_one(longest, &[]).await?;
        let (conversation, owner, count): (i64, i64, i64) = (longest.get(0), longest.get(1), longest.get(2));
        let (student_number, owner) = (u64::try_from(student)?, u64::try_from(owner)?);
        log_in(&url, student_number..=student_number).await?;
        if owner != student_number {
            log_in(&url, owner..=owner).await?;
        }
        let page = format!("/api/chat/conversations/{conversation}?limit=50&offset={}", (count - 50).max(0));
        Ok(Self {
            messages,
            tutord: system.serve(&url, system.program(), &["--cache-enabled", "false"]).await?,
            naive: naive::start(&url)?,
            list: request("GET", "/api/chat/conversations?limit=20", &token(student_number), ""),
            page: request("GET", &page, &token(owner), ""),
            student,
        })
    }
}

async fn messages(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let sizes: &[u64] = if quick { &[10_000, 100_000, 1_000_000] } else { &[10_000, 100_000, 1_000_000, 10_000_000] };
    report.section(
        "As the database grows",
        "Databases of several sizes on one PostgreSQL, without a cache: a list of 20 conversations of a student who has about 50, and the \
         last page, by offset, of the longest conversation. One request at a time, to each size in turn, p50 in milliseconds.",
    );
    let mut databases = Vec::new();
    for &messages in sizes {
        println!("a database of {messages} messages");
        databases.push(Sized::start(system, messages).await?);
    }
    let own = |request: fn(&Sized) -> Vec<u8>| {
        databases.iter().map(|sized| (sized.tutord.address.as_str(), request(sized))).collect::<Vec<_>>()
    };
    let other = |way: &str| {
        let path = format!("/{way}/conversations?limit=20");
        let target = |sized: &'_ Sized| request("GET", &path, &sized.student.to_string(), "");
        databases.iter().map(|sized| (sized.naive.address.as_str(), target(sized))).collect::<Vec<_>>()
    };
    let (turns, times) = if quick { (5, 60) } else { (15, 140) };
    let list = timed(&own(|sized| sized.list.clone()), turns, times).await?;
    let page = timed(&own(|sized| sized.page.clone()), turns, times).await?;
    let naive = timed(&other("naive"), 5, 10).await?;
    let better = timed(&other("better"), 3, 1).await?;
    let line = |name: &str, times: &[Turns]| Line {
        name: name.to_owned(),
        points: databases.iter().zip(times).map(|(sized, time)| (sized.messages as f64, time.median())).collect(),
    };
    let lines = [
        line("list of 20, tutord", &list),
        line("list of 20, a statement for each", &naive),
        line("list of 20, all messages grouped", &better),
        line("last page of the longest, tutord", &page),
    ];
    let rows: Vec<Vec<String>> = databases
        .iter()
        .enumerate()
        .map(|(index, sized)| {
            let times = lines.iter().map(|line| format!("{:.2}", line.points[index].1));
            std::iter::once(sized.messages.to_string()).chain(times).collect()
        })
        .collect();
    let columns: Vec<&str> = std::iter::once("messages").chain(lines.iter().map(|line| line.name.as_str())).collect();
    report.table("messages", &columns, &rows)?;
    report.plot(
        "messages",
        "Latency by messages in the database",
        &Axes::logarithmic("messages", "ms (p50)"),
        &lines,
    )?;
    for (name, times) in [("list", &list), ("last page", &page)] {
        let growth = times[times.len() - 1].per(&times[0]);
        let growth =
            report.spread(&format!("{name}: latency at the most messages / at the fewest"), &growth, Goal::AtMost(1.2));
        report.text +=
            &format!("\nThe {name} at {} messages, compared with 10000: {growth}.\n", sizes[sizes.len() - 1]);
    }
    Ok(())
}

async fn invalidation(quick: bool, report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "As a group of cached values grows",
        "Making all values of a group unusable: by its generation, as tutord does, and by looking for them with SCAN, as the original \
         did. Milliseconds.",
    );
    let found = invalidations(quick).await?;
    let rows: Vec<_> =
        found.iter().map(|(keys, a, b)| vec![keys.to_string(), format!("{a:.3}"), format!("{b:.1}")]).collect();
    report.table("invalidation", &["keys", "generation", "SCAN"], &rows)?;
    let line = |name: &str, time: fn(&(u32, f64, f64)) -> f64| Line {
        name: name.to_owned(),
        points: found.iter().map(|row| (f64::from(row.0), time(row))).collect(),
    };
    let lines = [line("generation", |row| row.1), line("SCAN and UNLINK", |row| row.2)];
    report.plot("invalidation", "Invalidating a group", &Axes::logarithmic("keys", "ms"), &lines)?;
    let growth = found[found.len() - 1].1 / found[0].1;
    report.ratio("invalidation of a group: the largest / the smallest", growth, Goal::Less);
    Ok(())
}

/// Memory by the number of replies that are being streamed.
async fn streams(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "As streams are opened",
        "Memory of a process (RSS) that so many students ask at once, by a model that has begun to answer and goes on; and before that, \
         idle, two seconds after its start.",
    );
    let model = FakeModel::start().await?;
    let url = model.base_url();
    let node = system.node(&["--llm-model", "fake", "--llm-base-url", &url]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = memory(node.id(), "VmRSS")?;
    let mut rows = vec![vec!["0".to_owned(), megabytes(idle)]];
    let mut line = Line { name: "RSS".to_owned(), points: Vec::new() };
    let (mut open, mut feeds) = (Vec::new(), Vec::new());
    let counts: &[usize] = if quick { &[1, 10, 100, 500] } else { &[1, 10, 100, 1_000, 2_000] };
    for &count in counts {
        while open.len() < count {
            let (feed, pieces) = tokio::sync::mpsc::channel(1);
            model.next(Behaviour::Feed(pieces));
            feed.send("Let us see. ".to_owned()).await?;
            feeds.push(feed);
            let body = format!(r#"{{"message": "What about number {}?"}}"#, open.len());
            let student = &system.tokens[open.len() % system.tokens.len()];
            let mut connection = Connection::open(&node.address).await?;
            let (answer, _) = connection.begin(&request("POST", "/api/chat/stream", student, &body)).await?;
            anyhow::ensure!(answer.status == 200, "a stream: {}", answer.status);
            open.push(connection);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = memory(node.id(), "VmRSS")?;
        rows.push(vec![count.to_string(), megabytes(now)]);
        line.points.push((count as f64, now as f64 / 1e6));
    }
    report.table("streams", &["streams", "memory"], &rows)?;
    let each = (line.points[counts.len() - 1].1 * 1e6 - idle as f64) / counts[counts.len() - 1] as f64;
    report.plot("streams", "Memory by open streams", &Axes::logarithmic("streams", "MB (RSS)"), &[line])?;
    let idle = report.ratio("idle memory, of 40 MB", idle as f64 / 40e6, Goal::AtMost(1.0));
    report.text += &format!("\nEach stream takes {:.1} kB. Idle memory, of 40 MB: {idle}.\n", each / 1e3);
    Ok(())
}

/// Throughput by the cores that tutord may use.
async fn by_cores(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let plan = if quick { Plan::new(3, 200) } else { Plan::new(9, 500) };
    let Cores { client, servers } = cores();
    // The servers' first: the client has the last ones added.
    let order: Vec<usize> =
        servers.iter().chain(client.iter().filter(|core| !servers.contains(core))).copied().collect();
    let all = order.len();
    report.section(
        "As cores are added",
        &format!(
            "A list of 20 conversations, requests a second; tutord is pinned to so many of the {all} cores (taskset), with as many threads: first \
             to those that PostgreSQL and Redis use, then to those of the client, too."
        ),
    );
    let path = "/api/chat/conversations?limit=20";
    let asked = repeated(request("GET", path, &system.tokens[0], ""));
    let mut nodes = Vec::new();
    for cores in 1..=all {
        for way in ["true", "false"] {
            let mut program = command_on(&order[..cores], &system.tutord);
            program.env("TOKIO_WORKER_THREADS", cores.to_string());
            let arguments = [&POOL[..], &["--cache-enabled", way]].concat();
            nodes.push(system.serve(&system.url, program, &arguments).await?);
        }
    }
    let targets: Vec<_> = nodes.iter().map(|node| Target::http(node, &asked)).collect();
    let rates = interleaved(&targets, plan).await?;
    let line = |name: &str, first: usize| Line {
        name: name.to_owned(),
        points: rates
            .iter()
            .skip(first)
            .step_by(2)
            .enumerate()
            .map(|(n, rate)| (n as f64 + 1.0, rate.median()))
            .collect(),
    };
    let lines = [line("cached", 0), line("without a cache", 1)];
    let rows: Vec<Vec<String>> = (0..all)
        .map(|n| {
            vec![(n + 1).to_string(), format!("{:.0}", lines[0].points[n].1), format!("{:.0}", lines[1].points[n].1)]
        })
        .collect();
    report.table("cores", &["cores", "cached", "without a cache"], &rows)?;
    report.plot("cores", "Throughput by cores", &Axes::logarithmic("cores", "requests/s"), &lines)?;
    if all > 1 {
        for (index, name) in [(0, "cached"), (1, "uncached")] {
            let gain = rates[2 * all - 2 + index].per(&rates[index]);
            report.spread(&format!("list of 20, {name}: all cores / one"), &gain, Goal::More);
        }
    }
    Ok(())
}
