//! The benefit and the cost of the cache.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use readthrough::{Cache, Invalidation, Key, NamespaceOptions};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use testbed::Redis;

use crate::bare;
use crate::client::{CONNECTIONS, Connection, request};
use crate::cores::on_servers;
use crate::load::{Plan, Target, histogram, interleaved, quantile, record, repeated};
use crate::system::{System, connect};

const READS: [(&str, &str); 4] = [
    ("own profile", "/api/users/me"),
    ("an exercise", "/api/exercises/1"),
    ("list of 20 conversations", "/api/chat/conversations?limit=20"),
    ("statistics", "/api/progress/statistics"),
];

/// Measures everything and writes `cache.md`.
pub(crate) async fn run(system: System, directory: &Path, quick: bool) -> anyhow::Result<()> {
    let mut report = String::from(
        "# The cache, measured\n\nMade by `cargo xtask bench`. Server, databases and client share one machine; \
         compare rows of one table with each other, not with other machines.\n",
    );
    let mut redis = connect(&system.redis).await?;
    throughputs(&system, quick, &mut report).await?;
    commands(&system, &mut redis, &mut report).await?;
    students(&system, &mut redis, &mut report).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await?;
    staleness(&system, quick, &mut report).await?;
    groups(quick, &mut report).await?;
    faults(system, &mut report).await?;
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("cache.md"), &report)?;
    println!("{report}");
    Ok(())
}

/// Requests a second of a warm cache, next to a handler that has the bytes.
async fn throughputs(system: &System, quick: bool, report: &mut String) -> anyhow::Result<()> {
    let plan = if quick { Plan::new(3, 150) } else { Plan::new(7, 400) };
    let counters = system.counters();
    writeln!(
        report,
        "\n## Throughput\n\nRequests a second over {CONNECTIONS} connections, each sending the next request when the one before is \
         answered; the same request all the time, authentication included. *bare* is a handler of axum that returns the \
         same bytes.\n\n| | bytes | bare | L1 hit | of bare | Redis hit | of bare | no cache | of bare |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    let nodes = [
        system.node(&[]).await?,
        system.node(&["--cache-l1", "false"]).await?,
        system.node(&["--cache-enabled", "false"]).await?,
    ];
    for (name, path) in READS {
        let asked = request("GET", path, &system.tokens[0], "");
        let body = Connection::open(&nodes[0].address).await?.send(&asked).await?.body;
        let bare = bare::start(&body)?;
        let asked = repeated(asked);
        let mut targets = vec![Target::http(&bare, &asked)];
        targets.extend(nodes[..2].iter().map(|node| Target::cached(node, &asked, &counters)));
        targets.push(Target::http(&nodes[2], &asked));
        let rates = interleaved(&targets, plan).await?;
        let mut row = format!("| {name} | {} | {:.0} |", body.len(), rates[0].median());
        for rate in &rates[1..] {
            write!(row, " {:.0} | {:.2} |", rate.median(), rate.per(&rates[0]).median)?;
        }
        writeln!(report, "{row}")?;
    }
    Ok(())
}

/// Returns the number of calls of each Redis command, from clients and from scripts.
async fn calls(redis: &mut MultiplexedConnection) -> anyhow::Result<BTreeMap<String, u64>> {
    let text: String = redis::cmd("INFO").arg("commandstats").query_async(redis).await?;
    let call = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(call).collect())
}

async fn commands(system: &System, redis: &mut MultiplexedConnection, report: &mut String) -> anyhow::Result<()> {
    const TIMES: u32 = 500;
    writeln!(
        report,
        "\n## Commands\n\nWhat Redis carries out for one request, from its own counts over {TIMES} requests, commands within scripts \
         included; the stream of invalidations, which each process asks all the time, left out.\n\n| request | statements | commands |\n|---|---|---|"
    )?;
    let l1 = system.node(&["--server-timing", "true"]).await?;
    let l2 = system.node(&["--server-timing", "true", "--cache-l1", "false"]).await?;
    let token = &system.tokens[1];
    let read = request("GET", "/api/users/me", token, "");
    let write = request("PUT", "/api/users/me", token, r#"{"bio": "another"}"#);
    let cases = [
        ("profile, from L1", &l1, &read),
        ("profile, from Redis (token, session and user)", &l2, &read),
        ("change of the profile, invalidating profile and progress", &l1, &write),
    ];
    for (name, node, asked) in cases {
        let mut connection = Connection::open(&node.address).await?;
        for _ in 0..3 {
            connection.send(asked).await?;
        }
        let before = calls(redis).await?;
        let mut statements = 0;
        for _ in 0..TIMES {
            let answer = connection.send(asked).await?;
            if answer.status != 200 {
                bail!("{name}: {}", answer.status);
            }
            statements += answer.statements;
        }
        let after = calls(redis).await?;
        let mut counts = Vec::new();
        for (command, count) in after {
            let each = (count - before.get(&command).copied().unwrap_or(0)) as f64 / f64::from(TIMES);
            if each >= 0.01 && !["xread", "info", "hgetall", "hsetnx", "xrevrange"].contains(&command.as_str()) {
                counts.push(format!("{command} {each:.2}"));
            }
        }
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        writeln!(report, "| {name} | {:.2} | {counts} |", statements as f64 / f64::from(TIMES))?;
    }
    Ok(())
}

/// Measures the memory of one student in Redis.
async fn students(system: &System, redis: &mut MultiplexedConnection, report: &mut String) -> anyhow::Result<()> {
    redis::cmd("FLUSHALL").query_async::<()>(redis).await?;
    let node = system.node(&[]).await?;
    let used = async |redis: &mut MultiplexedConnection| -> anyhow::Result<u64> {
        let text: String = redis::cmd("INFO").arg("memory").query_async(redis).await?;
        let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).context("used_memory")?;
        Ok(line.trim().parse()?)
    };
    let before = used(redis).await?;
    let mut connection = Connection::open(&node.address).await?;
    for token in &system.tokens {
        for path in ["/api/users/me", "/api/chat/conversations", "/api/exercises/history", "/api/progress"] {
            connection.send(&request("GET", path, token, "")).await?;
        }
    }
    let each = (used(redis).await? - before) / system.tokens.len() as u64;
    writeln!(
        report,
        "\n## Memory\n\nA student whose session, profile, first 20 conversations (of about 10), history and progress are cached takes \
         {each} bytes of Redis, keys and Redis's own overhead included (over {} students).",
        system.tokens.len()
    )?;
    Ok(())
}

/// Measures how long another node returns a replaced value.
async fn staleness(system: &System, quick: bool, report: &mut String) -> anyhow::Result<()> {
    let writes = if quick { 100 } else { 1_000 };
    let (first, second) = (system.node(&[]).await?, system.node(&[]).await?);
    let (mut writer, mut reader) = (Connection::open(&first.address).await?, Connection::open(&second.address).await?);
    let token = &system.tokens[0];
    let read = request("GET", "/api/users/me", token, "");
    let mut rows = Vec::new();
    for by_psql in [false, true] {
        let mut ages = histogram();
        for number in 0..writes {
            let name = format!("name {by_psql} {number}");
            reader.send(&read).await?;
            if by_psql {
                system.sql(&format!("UPDATE users SET name = '{name}' WHERE id = 1")).await?;
            } else {
                let body = format!(r#"{{"name": "{name}"}}"#);
                writer.expect_success(&request("PUT", "/api/users/me", token, &body)).await?;
            }
            let replaced = Instant::now();
            let mut oldest = Duration::ZERO;
            loop {
                let asked = replaced.elapsed();
                let body = reader.send(&read).await?.body;
                if serde_json::from_slice::<Value>(&body)?["name"] == name.as_str() {
                    break;
                }
                oldest = asked;
            }
            record(&mut ages, oldest);
        }
        rows.push(ages);
    }
    writeln!(
        report,
        "\n## The other node\n\nOne node (or `psql`) changes a profile; how long after the answer another node's copy still began to be \
         read, over {writes} changes each; 0 when its first read showed the new value.\n\n| changed by | p50 | p99 | max |\n|---|---|---|---|"
    )?;
    for (name, ages) in ["a node", "psql"].iter().zip(&rows) {
        let at = |quantile: f64| ages.value_at_quantile(quantile) as f64 / 1e3;
        writeln!(report, "| {name} | {:.2} ms | {:.2} ms | {:.2} ms |", at(0.5), at(0.99), ages.max() as f64 / 1e3)?;
    }
    Ok(())
}

/// Invalidating a group, however many members it has, and the way of old.
async fn groups(quick: bool, report: &mut String) -> anyhow::Result<()> {
    writeln!(
        report,
        "\n## Invalidating a group\n\nA group of so many keys: by its generation, and by `SCAN` for its keys (1,000 at a time) and \
         `UNLINK`, as the original did.\n\n| keys | generation | SCAN |\n|---|---|---|"
    )?;
    for (keys, generation, scan) in invalidations(quick).await? {
        writeln!(report, "| {keys} | {generation:.2} ms | {scan:.1} ms |")?;
    }
    Ok(())
}

/// Of groups of several sizes: the keys, and milliseconds by generation (median of 21) and by SCAN (of 3).
pub(crate) async fn invalidations(quick: bool) -> anyhow::Result<Vec<(u32, f64, f64)>> {
    let server = on_servers(Redis::start()).await?;
    let mut redis = connect(&server).await?;
    let cache = Cache::builder().redis(server.url()).redis_timeout(Duration::from_secs(2)).build()?;
    let values = cache.namespace(NamespaceOptions::<u64>::new("bench"))?;
    cache.until_connected().await;
    let sizes = if quick { vec![1_000, 10_000, 100_000] } else { vec![1_000, 10_000, 100_000, 1_000_000] };
    let mut rows = Vec::new();
    for size in sizes {
        let (mut by_generation, mut by_scan) = (histogram(), histogram());
        for _ in 0..3 {
            // In pieces: Redis answers nobody else while it runs a script.
            let script = "for n = ARGV[1], ARGV[1] + 999 do redis.call('SET', 'v1:bench:{g}:' .. n, 'value') end";
            for first in (0..size).step_by(1_000) {
                redis::Script::new(script).arg(first).invoke_async::<()>(&mut redis).await?;
            }
            for _ in 0..7 {
                values
                    .get_or_load(&Key::in_group("g", "page"), || async { Ok::<_, std::convert::Infallible>(Some(1)) })
                    .await?;
                let began = Instant::now();
                let reached = values.invalidate_group("g").await;
                record(&mut by_generation, began.elapsed());
                anyhow::ensure!(reached == Invalidation::Complete, "Redis was not reached");
            }
            let began = Instant::now();
            scan(&mut redis, "v1:bench:{g}:*").await?;
            record(&mut by_scan, began.elapsed());
        }
        rows.push((size, quantile(&by_generation, 0.5), quantile(&by_scan, 0.5)));
    }
    Ok(rows)
}

async fn scan(redis: &mut MultiplexedConnection, pattern: &str) -> anyhow::Result<()> {
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) =
            redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1_000).query_async(redis).await?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).query_async::<()>(redis).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// Requests while Redis is stopped, paused and started again.
async fn faults(mut system: System, report: &mut String) -> anyhow::Result<()> {
    writeln!(
        report,
        "\n## Without Redis\n\nFour clients of one node read profiles and lists of conversations and change profiles, one in ten, all \
         the time; two seconds of each state.\n\n| Redis | requests | failed | p50 | p99 | max |\n|---|---|---|---|---|---|"
    )?;
    let node = system.node(&[]).await?;
    for state in ["in use", "killed", "started again", "paused (SIGSTOP)", "resumed"] {
        let stop = AtomicBool::new(false);
        let change = async {
            match state {
                "killed" => system.redis.kill()?,
                "started again" => system.redis.restart().await?,
                "paused (SIGSTOP)" => system.redis.pause()?,
                "resumed" => system.redis.resume()?,
                _ => {}
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            stop.store(true, Ordering::Relaxed);
            anyhow::Ok(())
        };
        let tokens = &system.tokens;
        let clients = futures_util::future::try_join_all((0..4).map(|client| {
            let (stop, address) = (&stop, &node.address);
            async move {
                let mut connection = Connection::open(address).await?;
                let (mut latencies, mut failed, mut number) = (histogram(), 0_u64, client);
                while !stop.load(Ordering::Relaxed) {
                    let token = &tokens[number % 100];
                    let asked = match number % 10 {
                        0 => request("PUT", "/api/users/me", token, &format!(r#"{{"bio": "{number}"}}"#)),
                        1..5 => request("GET", "/api/chat/conversations", token, ""),
                        _ => request("GET", "/api/users/me", token, ""),
                    };
                    let began = Instant::now();
                    failed += u64::from(connection.send(&asked).await?.status != 200);
                    record(&mut latencies, began.elapsed());
                    number += 4;
                }
                anyhow::Ok((latencies, failed))
            }
        }));
        let (done, ()) = futures_util::future::try_join(clients, change).await?;
        let (mut latencies, mut failed) = (histogram(), 0);
        for (of_client, failures) in done {
            latencies.add(of_client)?;
            failed += failures;
        }
        let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
        writeln!(
            report,
            "| {state} | {} | {failed} | {:.2} ms | {:.2} ms | {:.1} ms |",
            latencies.len(),
            at(0.5),
            at(0.99),
            latencies.max() as f64 / 1e3
        )?;
    }
    Ok(())
}
