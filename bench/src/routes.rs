//! Each route alone: how fast it is, next to what limits it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tutord_store::seed::SeedPlan;

use crate::bare;
use crate::client::{Connection, request};
use crate::load::{CONNECTIONS, Rates, Target, interleaved, open, quantile, same};
use crate::pgbench::Script;
use crate::report::{Goal, Report};
use crate::sqlite::Loop;
use crate::system::{Node, System, fill, plan, token};
use crate::wire::{Issued, Wire};

/// A page of messages.
const PAGE: u64 = 50;

/// What is asked for.
struct Route {
    name: String,
    path: String,
    token: String,
    /// Of the bare handler, from memory.
    cached: Goal,
    /// Of pgbench, without a cache.
    uncached: Goal,
    /// Whether it is compared with Redis and SQLite, too.
    everywhere: bool,
}

/// What serves in the ways that are compared.
struct Nodes {
    l1: Node,
    l2: Node,
    off: Node,
    sqlite: Node,
    /// Without a cache, and with an ear on what it asks PostgreSQL.
    heard: Node,
    wire: Wire,
    file: PathBuf,
}

impl Nodes {
    async fn start(system: &System, students: u64) -> anyhow::Result<Self> {
        let wire = Wire::before(system.postgres_address()?.to_owned()).await?;
        let heard = system.url.replace(system.postgres_address()?, &wire.address);
        let file = system.directory.path().join("limits.db");
        let sqlite = format!("sqlite://{}", file.display());
        fill(&sqlite, &plan(students), 1..=1).await?;
        // As many connections as pgbench has.
        let off = ["--cache-enabled", "false", "--database-pool-size", "16", "--database-max-overflow", "0"];
        let serve = async |url: &str, arguments: &[&str]| system.serve(url, system.program(), arguments).await;
        Ok(Self {
            l1: system.node(&[]).await?,
            l2: system.node(&["--cache-l1", "false"]).await?,
            off: system.node(&off).await?,
            sqlite: serve(&sqlite, &off).await?,
            heard: serve(&heard, &["--cache-enabled", "false", "--server-timing", "true"]).await?,
            wire,
            file,
        })
    }

    /// The statements of a request without a cache.
    async fn issued(&self, request: &[u8]) -> anyhow::Result<Vec<Issued>> {
        let mut connection = Connection::open(&self.heard.address).await?;
        // What comes first is not prepared yet, on any of the connections that are there.
        for _ in 0..3 {
            connection.expect_success(request).await?;
        }
        // Sometimes work in the background asks something at the same time.
        for _ in 0..10 {
            self.wire.take();
            let counted = connection.expect_success(request).await?.statements;
            let issued = self.wire.take();
            if issued.len() as u64 == counted && issued.iter().all(|statement| !statement.sql.is_empty()) {
                return Ok(issued);
            }
        }
        bail!("the statements of {}", String::from_utf8_lossy(request))
    }
}

/// A conversation of so many messages, of a student of its own; the requests for its pages.
async fn long_conversation(system: &System, students: u64, messages: u64) -> anyhow::Result<Vec<Route>> {
    let student = students + 1;
    let only = SeedPlan { users: 1, conversations: 1, messages, exercises: 0, seed: 43, ..plan(1) };
    fill(&system.url, &only, student..=student).await?;
    let node = system.node(&["--cache-enabled", "false"]).await?;
    let mut connection = Connection::open(&node.address).await?;
    let mut ask = async |path: &str| -> anyhow::Result<Value> {
        let answer = connection.expect_success(&request("GET", path, &token(student), "")).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    };
    let list = ask("/api/chat/conversations").await?;
    let path = format!("/api/chat/conversations/{}?limit={PAGE}", list["conversations"][0]["id"]);
    let mut routes = Vec::new();
    for (place, offset) in [("first", 0), ("middle", messages / 2), ("last", messages - PAGE)] {
        let by_offset = format!("{path}&offset={offset}");
        let by_cursor = if offset == 0 {
            path.clone()
        } else {
            let before = ask(&format!("{path}&offset={}", offset - PAGE)).await?;
            format!("{path}&cursor={}", before["pagination"]["next_cursor"].as_str().context("a cursor")?)
        };
        for (way, path) in [("offset", by_offset), ("cursor", by_cursor)] {
            routes.push(Route {
                name: format!("{place} page of {messages} messages by {way}"),
                path,
                token: token(student),
                cached: Goal::More,
                uncached: Goal::AtLeast(0.70),
                everywhere: false,
            });
        }
    }
    Ok(routes)
}

/// Measures every route that reads.
pub(crate) async fn run(system: &System, students: u64, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let (rounds, round) = if quick { (3, Duration::from_millis(300)) } else { (5, Duration::from_secs(1)) };
    let messages = if quick { 100_000 } else { 1_000_000 };
    let route = |name: &str, path: &str, cached: Goal, uncached: Goal, everywhere: bool| Route {
        name: name.to_owned(),
        path: path.to_owned(),
        token: system.tokens[0].clone(),
        cached,
        uncached,
        everywhere,
    };
    let (warm, cold) = (Goal::AtLeast(0.75), Goal::AtLeast(0.70));
    let mut routes = vec![
        route("profile", "/api/users/me", warm, Goal::More, true),
        route("exercise", "/api/exercises/1", warm, Goal::More, true),
        route("list of 20 conversations", "/api/chat/conversations?limit=20", warm, cold, true),
        route("list of 100 conversations", "/api/chat/conversations?limit=100", Goal::More, cold, false),
        route("exercise list", "/api/exercises/history", Goal::More, Goal::More, false),
        route("statistics", "/api/progress/statistics", Goal::More, Goal::More, false),
        route("leaderboard", "/api/progress/leaderboard", Goal::More, Goal::More, false),
    ];
    routes.extend(long_conversation(system, students, messages).await?);
    let nodes = Nodes::start(system, students).await?;
    report.section(
        "Each route alone",
        &format!(
            "Requests a second over {CONNECTIONS} connections, each of which sends the next request when the one before is answered; the \
             same request all the time, authentication included. What stands next to each other took turns, so that a ratio holds \
             whatever else the machine did; it is the median of {rounds} rounds, with the lowest and the highest in brackets. µs: processor \
             time of tutord for one answer."
        ),
    );
    let (mut cached_rows, mut uncached_rows, mut redis_rows, mut sqlite_rows, mut latency_rows) =
        (vec![], vec![], vec![], vec![], vec![]);
    for route in &routes {
        let asked = request("GET", &route.path, &route.token, "");
        let body = Connection::open(&nodes.l1.address).await?.expect_success(&asked).await?.body;
        let bare = bare::start(&body)?;
        let issued = nodes.issued(&asked).await?;
        let script = Script::new(&system.url, &issued)?;
        let asked = same(asked);
        let (l1, off) = (nodes.l1.asked(&asked), nodes.off.asked(&asked));
        let mut rates =
            interleaved(&[bare.asked(&asked), l1, Target::Pgbench(&script), off], rounds, round).await?.into_iter();
        let mut pair = || rates.next().zip(rates.next()).context("two targets");
        let (cached, uncached) = (pair()?, pair()?);
        cached_rows.push(compared(report, &route.name, "cached / bare handler", &cached, route.cached, &[body.len()]));
        let sent = [script.statements, script.round_trips];
        uncached_rows.push(compared(report, &route.name, "uncached / pgbench", &uncached, route.uncached, &sent));
        for (way, node, limits) in [("cached", &nodes.l1, &cached), ("uncached", &nodes.off, &uncached)] {
            let latencies = open(&node.address, &asked, limits.1.median() / 2.0, round * 2, false).await?.reads;
            let quantiles = [0.5, 0.99, 0.999].map(|share| format!("{:.2}", quantile(&latencies, share)));
            let at = format!("{:.0}", limits.1.median() / 2.0);
            latency_rows.push([vec![route.name.clone(), way.to_owned(), at], quantiles.to_vec()].concat());
        }
        if !route.everywhere {
            continue;
        }
        let (port, key) = redis_value(system, &nodes.l2, &asked(0).bytes).await?;
        let statements = Loop::new(&nodes.file, &issued);
        let targets = [
            Target::RedisGet { port: &port, key: &key },
            nodes.l2.asked(&asked),
            Target::Sqlite(&statements),
            nodes.sqlite.asked(&asked),
        ];
        let mut rates = interleaved(&targets, rounds, round).await?.into_iter();
        let mut pair = || rates.next().zip(rates.next()).context("two targets");
        redis_rows.push(compared(report, &route.name, "without L1 / Redis GET", &pair()?, Goal::More, &[]));
        sqlite_rows.push(compared(report, &route.name, "SQLite uncached / loop", &pair()?, Goal::More, &[]));
    }
    report.text += "\nFrom memory, next to a handler of axum that has the bytes:\n";
    report.table("cached", &["", "bytes", "bare handler", "tutord", "µs", "tutord / bare"], &cached_rows)?;
    report.text += "\nWithout a cache, next to pgbench with the same statements (prepared, over as many connections, as many of them in \
                    one round trip):\n";
    let columns = ["", "statements", "round trips", "pgbench", "tutord", "µs", "tutord / pgbench"];
    report.table("uncached", &columns, &uncached_rows)?;
    report.text += "\nFrom Redis, without copies in the process, next to a `GET` of the same value by redis-benchmark. tutord asks for the \
                    token and the session, too:\n";
    report.table("redis", &["", "Redis GET", "tutord", "µs", "tutord / GET"], &redis_rows)?;
    report.text += "\nOn SQLite without a cache, next to a loop around the same prepared statements, one thread for each core:\n";
    report.table("sqlite", &["", "loop", "tutord", "µs", "tutord / loop"], &sqlite_rows)?;
    report.text += "\nLatencies in milliseconds at half of that rate: requests are due at fixed times, and a latency counts from when its \
                    request was due, not from when it could be sent.\n";
    report.table("latencies", &["", "", "requests/s", "p50", "p99", "p99.9"], &latency_rows)
}

/// A row: a limit, tutord, and their ratio, after some numbers.
fn compared(
    report: &mut Report,
    name: &str,
    what: &str,
    (limit, own): &(Rates, Rates),
    goal: Goal,
    numbers: &[usize],
) -> Vec<String> {
    let ratio = own.per(limit);
    let shown = report.ratio(&format!("{name}: {what}"), ratio.median, goal);
    let mut row = vec![name.to_owned()];
    row.extend(numbers.iter().map(ToString::to_string));
    row.push(format!("{:.0}", limit.median()));
    row.push(format!("{:.0}", own.median()));
    row.push(own.cpu_micros().map_or(String::new(), |micros| format!("{micros:.0}")));
    row.push(format!("{shown} [{:.2}–{:.2}]", ratio.low, ratio.high));
    row
}

/// The port of Redis, and a key with the bytes that a request reads there.
async fn redis_value(system: &System, node: &Node, asked: &[u8]) -> anyhow::Result<(String, String)> {
    const KEY: &str = "bench:value";
    let mut redis = system.redis().await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await?;
    Connection::open(&node.address).await?.expect_success(asked).await?;
    let mut longest = Vec::new();
    for key in redis::cmd("KEYS").arg("*").query_async::<Vec<String>>(&mut redis).await? {
        // Not all of them are strings. The longest value is the answer, next to those of the session.
        let value: Result<Vec<u8>, _> = redis::cmd("GET").arg(&key).query_async(&mut redis).await;
        longest = value.ok().filter(|value| value.len() > longest.len()).unwrap_or(longest);
    }
    redis::cmd("SET").arg(KEY).arg(longest).query_async::<()>(&mut redis).await?;
    Ok((system.redis.url().rsplit(':').next().context("a port")?.to_owned(), KEY.to_owned()))
}
