//! Each route alone: how fast it is, next to what limits it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::bare;
use crate::client::{CONNECTIONS, Connection, request};
use crate::load::{Plan, Rates, Target, alternating, interleaved, open, quantile, repeated};
use crate::pgbench::Script;
use crate::proxy::{IssuedStatement, RESPONSE_DELAY, StatementProxy};
use crate::report::{Goal, Report};
use crate::sqlite::StatementLoop;
use crate::stack;
use crate::system::{Node, System, fill, plan, token};

/// A page of messages.
const PAGE: u64 = 50;

/// As many connections to the database as clients, and as pgbench has.
pub(crate) const POOL: [&str; 4] = ["--database-pool-size", "16", "--database-max-overflow", "0"];

/// A measured route.
struct Route {
    name: String,
    path: String,
    token: String,
    /// Of the bare handler, from memory.
    cached: Goal,
    /// Of pgbench, without a cache.
    uncached: Goal,
    /// Set if the route is also compared with Redis and SQLite.
    everywhere: bool,
    /// Set if tutord caches the session of such a request and not its response.
    session_only: bool,
}

/// The servers whose configurations are compared.
struct Nodes {
    l1: Node,
    l2: Node,
    off: Node,
    sqlite: Node,
    /// Without a cache, and with an ear on what it asks PostgreSQL.
    heard: Node,
    wire: StatementProxy,
    file: PathBuf,
}

impl Nodes {
    async fn start(system: &System) -> anyhow::Result<Self> {
        let wire = StatementProxy::start(system, RESPONSE_DELAY).await?;
        let heard = wire.url(system)?;
        // A section may run twice.
        let number = std::fs::read_dir(system.directory.path())?.count();
        let file = system.directory.path().join(format!("limits-{number}.db"));
        let sqlite = format!("sqlite://{}", file.display());
        fill(&sqlite, &plan(system.tokens.len() as u64), 1..=1).await?;
        let off = [&POOL[..], &["--cache-enabled", "false"]].concat();
        let serve = async |url: &str, arguments: &[&str]| system.serve(url, system.program(), arguments).await;
        Ok(Self {
            l1: system.node(&POOL).await?,
            l2: system.node(&["--cache-l1", "false"]).await?,
            off: system.node(&off).await?,
            sqlite: serve(&sqlite, &off).await?,
            heard: serve(&heard, &["--cache-enabled", "false", "--server-timing", "true"]).await?,
            wire,
            file,
        })
    }
}

/// The statements of a request to a node that tells how many there were.
pub(crate) async fn issued(wire: &StatementProxy, node: &Node, request: &[u8]) -> anyhow::Result<Vec<IssuedStatement>> {
    let mut connection = Connection::open(&node.address).await?;
    // What comes first is not prepared yet, on any of the connections that are there.
    for _ in 0..3 {
        connection.expect_success(request).await?;
    }
    // Sometimes work in the background asks something at the same time.
    for _ in 0..10 {
        wire.take()?;
        let counted = connection.expect_success(request).await?.statements;
        let issued = wire.take()?;
        if issued.len() as u64 == counted {
            return Ok(issued);
        }
    }
    bail!("the statements of {}", String::from_utf8_lossy(request))
}

/// The requests for pages of a student's conversation of so many messages.
async fn pages(system: &System, student: u64, messages: u64) -> anyhow::Result<Vec<Route>> {
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
                name: format!("{place} page by {way}"),
                path,
                token: token(student),
                cached: Goal::More,
                uncached: Goal::AtLeast(0.70),
                everywhere: false,
                session_only: offset > 0,
            });
        }
    }
    Ok(routes)
}

/// Measures every route that reads.
pub(crate) async fn run(
    system: &System,
    longest: u64,
    messages: u64,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let plan = if quick { Plan::new(5, 150) } else { Plan::new(9, 400) };
    let route = |name: &str, path: &str, cached: Goal, uncached: Goal, everywhere: bool| Route {
        name: name.to_owned(),
        path: path.to_owned(),
        token: system.tokens[0].clone(),
        cached,
        uncached,
        everywhere,
        session_only: false,
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
    routes.extend(pages(system, longest, messages).await?);
    if quick {
        routes.retain(|route| {
            let full =
                ["list of 100", "exercise list", "statistics", "first page by offset", "middle", "last page by offset"];
            !full.iter().any(|name| route.name.starts_with(name))
        });
    }
    let nodes = Nodes::start(system).await?;
    report.section(
        "Each route alone",
        &format!(
            "Requests a second over {CONNECTIONS} connections, each of which sends the next request when the one before is answered; the \
             same request all the time, authentication included. What stands next to each other took turns, forward and backward, so that \
             a ratio holds whatever else the machine did; it is the median of the ratios of {} turns, with their quartiles in brackets. µs: \
             processor time of tutord for one answer. Pages are of 50 messages, of a conversation of {messages}.",
            plan.turns
        ),
    );
    let counters = system.counters();
    let (mut cached_rows, mut uncached_rows, mut stack_rows, mut redis_rows, mut sqlite_rows, mut latency_rows) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    for route in &routes {
        let asked = request("GET", &route.path, &route.token, "");
        let body = Connection::open(&nodes.l1.address).await?.expect_success(&asked).await?.body;
        let bare = bare::start(&body)?;
        let issued = issued(&nodes.wire, &nodes.heard, &asked).await?;
        let script = Script::new(&system.url, &issued)?;
        let stack = stack::start(&system.url, &stack::without_identity(&issued, &route.token), &body)?;
        let asked = repeated(asked);
        let targets = [
            Target::http(&bare, &asked),
            Target::cached(&nodes.l1, &asked, &counters),
            Target::http(&nodes.off, &asked),
            Target::http(&stack, &asked),
            Target::Pgbench(&script),
        ];
        let rates = interleaved(&targets, plan).await?;
        let bytes = [body.len()];
        if !route.session_only {
            cached_rows.push(compared(
                report,
                &route.name,
                "cached / bare handler",
                &rates[0],
                &rates[1],
                route.cached,
                &bytes,
            ));
        }
        let sent = [script.statements, script.round_trips];
        uncached_rows.push(compared(
            report,
            &route.name,
            "uncached / pgbench",
            &rates[4],
            &rates[2],
            route.uncached,
            &sent,
        ));
        let row = compared(report, &route.name, "uncached / bare stack", &rates[3], &rates[2], Goal::More, &[]);
        stack_rows.push([vec![row[0].clone(), "uncached".to_owned()], row[1..].to_vec()].concat());
        if route.session_only {
            let goal = Goal::AtLeast(0.80);
            let row = compared(report, &route.name, "session cached / bare stack", &rates[3], &rates[1], goal, &[]);
            stack_rows.push([vec![row[0].clone(), "session cached".to_owned()], row[1..].to_vec()].concat());
        }
        for (way, node, rates) in [("cached", &nodes.l1, &rates[1]), ("uncached", &nodes.off, &rates[2])] {
            let latencies = open(&node.address, &asked, rates.median() / 2.0, plan.round * 3, false).await?.reads;
            let quantiles = [0.5, 0.99, 0.999].map(|share| format!("{:.2}", quantile(&latencies, share)));
            let at = format!("{:.0}", rates.median() / 2.0);
            latency_rows.push([vec![route.name.clone(), way.to_owned(), at], quantiles.to_vec()].concat());
        }
        if !route.everywhere {
            continue;
        }
        let (port, key) = redis_value(system, &nodes.l2, &asked(0).bytes).await?;
        let statements = StatementLoop::new(&nodes.file, &issued);
        let targets = [
            Target::RedisGet { port: &port, key: &key },
            Target::cached(&nodes.l2, &asked, &counters),
            Target::Sqlite(&statements),
            Target::http(&nodes.sqlite, &asked),
        ];
        let rates = interleaved(&targets, plan).await?;
        redis_rows.push(compared(report, &route.name, "without L1 / Redis GET", &rates[0], &rates[1], Goal::More, &[]));
        sqlite_rows.push(compared(
            report,
            &route.name,
            "SQLite uncached / loop",
            &rates[2],
            &rates[3],
            Goal::More,
            &[],
        ));
    }
    let pages = |place: &str| {
        let found = routes.iter().find(|route| route.name.starts_with(place) && route.name.ends_with("cursor"));
        found.map(|route| request("GET", &route.path, &route.token, "")).context("a page")
    };
    let (first, last) = (pages("first")?, pages("last")?);
    let address = nodes.off.address.as_str();
    let (turns, times) = if quick { (5, 60) } else { (15, 150) };
    let latencies = alternating(&[(address, &first), (address, &last)], turns, times).await?;
    let depth =
        report.spread("last page by cursor / first: latency", &latencies[1].per(&latencies[0]), Goal::AtMost(1.3));
    report.text += &format!(
        "\nOne request at a time without a cache, the first page takes {:.2} ms and the last page by cursor {:.2} ms (p50): {depth}.\n",
        latencies[0].median(),
        latencies[1].median()
    );
    report.text += "\nFrom memory, next to a handler of axum that has the bytes:\n";
    report.table("cached", &["", "bytes", "bare handler", "tutord", "µs", "tutord / bare"], &cached_rows)?;
    report.text += "\nWithout a cache, next to pgbench with the same statements (prepared, over as many connections, as many of them in \
                    one round trip):\n";
    let columns = ["", "statements", "round trips", "pgbench", "tutord", "µs", "tutord / pgbench"];
    report.table("uncached", &columns, &uncached_rows)?;
    report.text += "\nNext to a bare stack: axum and tokio-postgres, which send the same statements but the one that looks up the session, \
                    prepared and all of them in one round trip, read each value of each row, and return the same bytes. *uncached*: \
                    `CACHE_ENABLED=false`, so tutord looks up the session in the database; *session cached*: a page that tutord does not \
                    cache, by a session that it does.\n";
    report.table("stack", &["", "", "bare stack", "tutord", "µs", "tutord / stack"], &stack_rows)?;
    report.text += "\nFrom Redis, without copies in the process, next to a `GET` of the same value by redis-benchmark. tutord asks for the \
                    session, too:\n";
    report.table("redis", &["", "Redis GET", "tutord", "µs", "tutord / GET"], &redis_rows)?;
    report.text +=
        "\nOn SQLite without a cache, next to a loop around the same prepared statements, one thread for each core:\n";
    report.table("sqlite", &["", "loop", "tutord", "µs", "tutord / loop"], &sqlite_rows)?;
    report.text += "\nLatencies in milliseconds at half of that rate: requests are due at fixed times, and a latency counts from when its \
                    request was due, not from when it could be sent.\n";
    report.table("latencies", &["", "", "requests/s", "p50", "p99", "p99.9"], &latency_rows)
}

/// A row: a limit, tutord, and their ratio, after some numbers.
pub(crate) fn compared(
    report: &mut Report,
    name: &str,
    what: &str,
    limit: &Rates,
    own: &Rates,
    goal: Goal,
    numbers: &[usize],
) -> Vec<String> {
    let shown = report.spread(&format!("{name}: {what}"), &own.per(limit), goal);
    let (of_limit, of_own) = what.split_once(" / ").map_or(("limit", "tutord"), |(own, limit)| (limit, own));
    report.notes(&format!("{name}, {of_limit}"), limit);
    report.notes(&format!("{name}, {of_own}"), own);
    let mut row = vec![name.to_owned()];
    row.extend(numbers.iter().map(ToString::to_string));
    row.push(format!("{:.0}", limit.median()));
    row.push(format!("{:.0}", own.median()));
    row.push(own.cpu_micros().map_or(String::new(), |micros| format!("{micros:.0}")));
    row.push(shown);
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
