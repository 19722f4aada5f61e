//! The way of the original before and after its work, and tutord, over the same rows.

use std::time::Duration;

use crate::client::{Connection, request};
use crate::delay::DelayProxy;
use crate::load::alternating;
use crate::naive;
use crate::report::{Goal, Report};
use crate::system::{System, memory, token};
use crate::turns::Turns;

/// The time that a network adds to each round trip.
const AWAY: Duration = Duration::from_millis(2);

/// The longest conversation, of `student`, has so many messages.
pub(crate) async fn run(
    system: &System,
    student: u64,
    messages: u64,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.section(
        "The way it was, the way it was made better, and tutord",
        "The same rows of the same database. *Naive*: a list asks once for each of its conversations, a conversation comes with all its \
         messages, nothing is cached. *Better*: one statement that groups all messages, pages by LIMIT and OFFSET. Both are a small \
         server of axum and tokio-postgres with prepared statements, which looks up no session. One request at a time over one \
         connection, in turns, p50. The last column is what the original told of its own work, on other machines.",
    );
    let (naive, plain, cached) = (
        naive::start(&system.url)?,
        system.node(&["--cache-enabled", "false", "--server-timing", "true"]).await?,
        system.node(&[]).await?,
    );
    let list = conversations(system, student).await?;
    let long = list.first().copied().unwrap_or_default();
    let of = |path: &str, bearer: &str| request("GET", path, bearer, "");
    let (own, first) = (token(1), token(student));
    // Turns, and requests in a turn.
    let (turns, times_in_turn, slow) = if quick { (5, 20, 3) } else { (15, 40, 5) };
    let mut rows = Vec::new();

    let lists = [
        (naive.address.as_str(), of("/naive/conversations?limit=20", "1")),
        (&naive.address, of("/better/conversations?limit=20", "1")),
        (&plain.address, of("/api/chat/conversations?limit=20", &own)),
        (&cached.address, of("/api/chat/conversations?limit=20", &own)),
    ];
    let mut statements = Vec::new();
    for (address, request) in &lists[..3] {
        statements.push(Connection::open(address).await?.expect_success(request).await?.statements);
    }
    report.ratio(
        "original: statements of a list of 20, tutord / naive",
        statements[2] as f64 / statements[0] as f64,
        Goal::Less,
    );
    let count = |index: usize| statements[index].to_string();
    rows.push(row(
        "statements for 20 conversations",
        &[count(0), count(1), format!("{} (session included)", count(2)), "0".into()],
        "21 → 3",
    ));

    let times = apart(&lists, (turns, times_in_turn), slow).await?;
    report.spread("original: list of 20, uncached tutord / naive", &times[2].per(&times[0]), Goal::Less);
    report.ratio("original: list of 20, uncached tutord / better", times[2].median() / times[1].median(), Goal::Less);
    rows.push(row("list of 20 conversations", &shown(&times), "200 ms → 50 ms"));

    let far = DelayProxy::start(system.postgres_address()?, AWAY)?;
    let far = system.url.replace(system.postgres_address()?, &far.address);
    let (far_naive, far_plain) =
        (naive::start(&far)?, system.serve(&far, system.program(), &["--cache-enabled", "false"]).await?);
    let far = [&far_naive, &far_naive, &far_plain, &cached].map(|node| node.address.as_str());
    let far = std::array::from_fn(|index| (far[index], lists[index].1.clone()));
    let times = apart(&far, (turns, 2), slow).await?;
    report.spread("original: list of 20, database away, uncached tutord / naive", &times[2].per(&times[0]), Goal::Less);
    rows.push(row("the same, the database 2 ms away", &shown(&times), "200 ms → 50 ms"));

    let offset = messages - 50;
    let (all, page) = (format!("/naive/conversations/{long}"), format!("/better/conversations/{long}"));
    let own_page = format!("/api/chat/conversations/{long}?limit=50");
    let bearer = student.to_string();
    let fast = [
        (naive.address.as_str(), of(&page, &bearer)),
        (&plain.address, of(&own_page, &first)),
        (&cached.address, of(&own_page, &first)),
    ];
    let deep = [
        (naive.address.as_str(), of(&format!("{page}?offset={offset}"), &bearer)),
        (&plain.address, of(&format!("{own_page}&offset={offset}"), &first)),
        (&cached.address, of(&format!("{own_page}&offset={offset}"), &first)),
    ];
    let everything = timed(&[(naive.address.as_str(), of(&all, &bearer))], slow, 1).await?.remove(0);
    for (name, pages) in [("first", &fast), ("last", &deep)] {
        let better = timed(&pages[..1], slow, 2).await?;
        let quick_pages = timed(&pages[1..], turns, times_in_turn).await?;
        let times = [std::slice::from_ref(&everything), &better[..], &quick_pages[..]].concat();
        let ratio = times[2].median() / times[0].median();
        report.ratio(&format!("original: {name} page, uncached tutord / all messages"), ratio, Goal::Less);
        rows.push(row(
            &format!("conversation of {messages} messages, {name} page of 50 (naive: all)"),
            &shown(&times),
            "5–10 s → 150 ms",
        ));
    }

    for (name, theirs, ours) in
        [("profile", "/naive/users/me", "/api/users/me"), ("exercise", "/naive/exercises/1", "/api/exercises/1")]
    {
        let reads = [
            (naive.address.as_str(), of(theirs, "1")),
            (&plain.address, of(ours, &own)),
            (&cached.address, of(ours, &own)),
        ];
        let times = timed(&reads, turns, 100).await?;
        report.spread(&format!("original: {name}, cached tutord / naive"), &times[2].per(&times[0]), Goal::Less);
        let [theirs, plain, cached] = [0, 1, 2].map(|index| format!("{:.3} ms", times[index].median()));
        rows.push(row(&format!("{name}, read again"), &[theirs, String::new(), plain, cached], "5–10 ms → < 1 ms"));
    }

    // Processes that have served nothing else.
    let (naive, plain) = (naive::start(&system.url)?, system.node(&["--cache-enabled", "false"]).await?);
    let mut grown = Vec::new();
    for (node, request) in [(&naive, of(&all, &bearer)), (&plain, of(&own_page, &first))] {
        let before = memory(node.id(), "VmRSS")?;
        Connection::open(&node.address).await?.expect_success(&request).await?;
        grown.push((before, memory(node.id(), "VmHWM")?));
    }
    let less = 1.0 - grown[1].1 as f64 / grown[0].1 as f64;
    let less = report.ratio("original: peak memory that a page saves", less, Goal::AtLeast(0.95));
    let [theirs, ours] =
        [grown[0], grown[1]].map(|(before, after)| format!("{} → {}", megabytes(before), megabytes(after)));
    rows.push(row(
        "memory of the process, before and at most while it serves the conversation",
        &[theirs, String::new(), ours, String::new()],
        "−95 %",
    ));
    report.table(
        "original",
        &["", "naive", "better", "tutord, no cache", "tutord, cached", "the original's own"],
        &rows,
    )?;
    report.text += &format!(
        "\nPeak memory that a page saves, of all messages at once: {less}. The read load is in the day below.\n"
    );
    Ok(())
}

/// Of a student, newest activity first.
async fn conversations(system: &System, student: u64) -> anyhow::Result<Vec<i64>> {
    let list = "SELECT id FROM conversations WHERE user_id = $1 ORDER BY last_message_at DESC";
    let rows = system.client().await?.query(list, &[&i64::try_from(student)?]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Measures in turns; the median latencies of each in milliseconds.
pub(crate) async fn timed(targets: &[(&str, Vec<u8>)], turns: u32, times: u32) -> anyhow::Result<Vec<Turns>> {
    let targets: Vec<_> = targets.iter().map(|(address, request)| (*address, request.as_slice())).collect();
    alternating(&targets, turns, times).await
}

/// The same of four targets, of which the second is slow: it takes part in no turn of the others, since it would leave
/// PostgreSQL busy and the caches of the processor cold for them.
async fn apart(targets: &[(&str, Vec<u8>); 4], (turns, times): (u32, u32), slow: u32) -> anyhow::Result<Vec<Turns>> {
    let [naive, grouped, plain, cached] = targets.clone();
    let grouped = timed(&[grouped], slow, 2).await?;
    let mut medians = timed(&[naive, plain, cached], turns, times).await?;
    medians.splice(1..1, grouped);
    Ok(medians)
}

fn shown(times: &[Turns]) -> [String; 4] {
    std::array::from_fn(|index| format!("{:.2} ms", times[index].median()))
}

fn row(name: &str, cells: &[String; 4], told: &str) -> Vec<String> {
    [&[name.to_owned()], &cells[..], &[told.to_owned()]].concat()
}

pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
