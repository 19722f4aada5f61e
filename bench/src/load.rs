//! Closed and open loads, and their measurements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::client::{CONNECTIONS, Connection};
use crate::cores::{cores, on_server_cores, server_command};
use crate::pgbench::Script;
use crate::sqlite;
use crate::system::{Node, busy_time, cpu_time};
use crate::turns::{Spread, Turns};

/// The number of connections of an open load. If all of them wait, due requests wait too, and their latency includes the
/// wait.
const OPEN_CONNECTIONS: usize = 256;

/// The relative difference of the rates of two successive windows of a server that is warm.
const STEADY: f64 = 0.05;

/// The maximum number of windows of a warm-up.
const WINDOWS: usize = 20;

/// The least share of the time for which the servers' cores are busy while they are the limit, not the client.
const BUSY: f64 = 0.90;

/// Returns the request with this number.
pub(crate) type RequestSource = Arc<dyn Fn(u64) -> LoadRequest + Send + Sync>;

/// A request of a load.
#[derive(Clone)]
pub(crate) struct LoadRequest {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) writes: bool,
}

/// Returns a source of one repeated request.
pub(crate) fn repeated(request: Vec<u8>) -> RequestSource {
    let asked = LoadRequest { bytes: request.into(), writes: false };
    Arc::new(move |_| asked.clone())
}

/// Returns an empty histogram of latencies in microseconds, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "3 digits are within what the crate takes")]
    Histogram::new(3).expect("a histogram of three digits")
}

/// Records a duration.
pub(crate) fn record(latencies: &mut Histogram<u64>, took: Duration) {
    // The histogram grows. No request takes an hour.
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(3_600_000_000);
    #[expect(clippy::expect_used, reason = "a histogram that may grow takes any value that fits")]
    latencies.record(micros).expect("a time below an hour");
}

/// The target of a closed load of [`CONNECTIONS`] clients.
pub(crate) enum Target<'a> {
    /// An HTTP server.
    Http {
        address: &'a str,
        requests: &'a RequestSource,
        process: u32,
        /// The request for the counters of a cache that is to answer all of the requests.
        counters: Option<&'a [u8]>,
    },
    /// Statements on PostgreSQL.
    Pgbench(&'a Script),
    /// A value of the Redis on this port.
    RedisGet { port: &'a str, key: &'a str },
    /// Statements on SQLite.
    Sqlite(&'a sqlite::StatementLoop),
    /// Work without input, on the servers' cores.
    Cores(fn()),
}

/// The result of one round.
#[derive(Clone, Copy)]
struct Round {
    done: f64,
    took: Duration,
    /// The server's processor time.
    cpu: Option<Duration>,
    /// Busy and all time of the servers' cores, in hundredths of a second.
    busy: (u64, u64),
}

impl Round {
    fn rate(&self) -> f64 {
        self.done / self.took.as_secs_f64()
    }
}

/// The results of a target, turn by turn.
pub(crate) struct Rates {
    /// Responses per second.
    pub(crate) turns: Turns,
    /// The server's processor time for one response in microseconds.
    cpu_micros: Vec<f64>,
    /// The warnings about the rates: a server that was not warm, cores that were not busy.
    pub(crate) notes: Vec<String>,
}

impl Rates {
    fn of(rounds: &[[Round; 2]], cold: Option<String>) -> Self {
        let sum = |of: fn(&Round) -> f64, turn: &[Round; 2]| of(&turn[0]) + of(&turn[1]);
        let rate = |turn| sum(|round| round.done, turn) / sum(|round| round.took.as_secs_f64(), turn);
        let cpu = |turn: &[Round; 2]| {
            let all = turn[0].cpu? + turn[1].cpu?;
            Some(all.as_secs_f64() * 1e6 / sum(|round| round.done, turn))
        };
        let mut notes: Vec<String> = cold.into_iter().collect();
        let (busy, all) = rounds
            .iter()
            .flatten()
            .filter(|round| round.cpu.is_some())
            .fold((0, 0), |(busy, all), round| (busy + round.busy.0, all + round.busy.1));
        let busy = busy as f64 / all as f64;
        if busy < BUSY {
            notes.push(format!("the servers' cores were busy for {:.0} % of the time only", busy * 100.0));
        }
        Self {
            turns: Turns(rounds.iter().map(rate).collect()),
            cpu_micros: rounds.iter().filter_map(cpu).collect(),
            notes,
        }
    }

    /// Returns the median of the responses per second.
    pub(crate) fn median(&self) -> f64 {
        self.turns.median()
    }

    /// Returns the ratio to another target, within each turn.
    pub(crate) fn per(&self, limit: &Self) -> Spread {
        self.turns.per(&limit.turns)
    }

    /// Returns the server's processor time for one response in microseconds.
    pub(crate) fn cpu_micros(&self) -> Option<f64> {
        (!self.cpu_micros.is_empty()).then(|| Spread::of(&self.cpu_micros).median)
    }
}

/// The number of turns and the time of each of a target's two rounds in a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) turns: usize,
    pub(crate) round: Duration,
}

impl Plan {
    pub(crate) const fn new(turns: usize, round_millis: u64) -> Self {
        Self { turns, round: Duration::from_millis(round_millis) }
    }
}

/// Measures the targets in turns, after a warm-up: A B C C B A, so that other work of the machine, and its change,
/// affects all of them equally. pgbench, whose rounds take whole seconds, runs once in a turn; it is best the last.
pub(crate) async fn interleaved(targets: &[Target<'_>], plan: Plan) -> anyhow::Result<Vec<Rates>> {
    let mut cold = Vec::new();
    for target in targets {
        cold.push(target.warm_up(plan.round).await?);
    }
    let mut rounds = vec![Vec::new(); targets.len()];
    for _ in 0..plan.turns {
        let mut first = Vec::new();
        for target in targets {
            first.push(target.run(plan.round).await?);
        }
        for ((target, rounds), first) in targets.iter().zip(&mut rounds).zip(first).rev() {
            let second = if matches!(target, Target::Pgbench(_)) { first } else { target.run(plan.round).await? };
            rounds.push([first, second]);
        }
    }
    Ok(rounds.iter().zip(cold).map(|(rounds, cold)| Rates::of(rounds, cold)).collect())
}

impl<'a> Target<'a> {
    /// Returns the load of these requests on a server.
    pub(crate) fn http(node: &'a Node, requests: &'a RequestSource) -> Self {
        Self::Http { address: &node.address, requests, process: node.id(), counters: None }
    }

    /// Returns the load of these requests on a tutord whose cache is to answer all of them. `counters` is the request for
    /// the counters of the cache.
    pub(crate) fn cached(node: &'a Node, requests: &'a RequestSource, counters: &'a [u8]) -> Self {
        Self::Http { address: &node.address, requests, process: node.id(), counters: Some(counters) }
    }

    /// Sends requests until the server is warm: the cache has only hits, and the rates of two successive windows differ
    /// by at most [`STEADY`]. Returns what was seen instead, after [`WINDOWS`] windows.
    async fn warm_up(&self, window: Duration) -> anyhow::Result<Option<String>> {
        let Self::Http { address, counters, .. } = *self else { return Ok(None) };
        let mut connection = Connection::open(address).await?;
        let mut misses = async || -> anyhow::Result<u64> {
            let Some(counters) = counters else { return Ok(0) };
            let answer: Value = serde_json::from_slice(&connection.expect_success(counters).await?.body)?;
            let namespaces = answer["namespaces"].as_array().context("namespaces")?;
            Ok(namespaces.iter().filter_map(|namespace| namespace["misses"].as_u64()).sum())
        };
        let mut seen = (0, 0.0, 0.0);
        for _ in 0..WINDOWS {
            let before = misses().await?;
            let rate = self.run(window).await?.rate();
            seen = (misses().await? - before, seen.2, rate);
            if seen.0 == 0 && (seen.2 / seen.1 - 1.0).abs() <= STEADY {
                return Ok(None);
            }
        }
        let (missed, before, last) = seen;
        Ok(Some(format!(
            "not warm after {WINDOWS} windows: {missed} misses in the last one, {before:.0} and {last:.0} requests/s"
        )))
    }

    async fn run(&self, round: Duration) -> anyhow::Result<Round> {
        let before = busy_time(&cores().servers)?;
        let (done, took, cpu) = match *self {
            Self::Http { address, requests, process, .. } => {
                let before = cpu_time(process)?;
                let (answered, took) = closed(address, requests, round).await?;
                (answered as f64, took, Some(cpu_time(process)?.saturating_sub(before)))
            }
            Self::Pgbench(script) => (script.run(round)? * round.as_secs_f64(), round, None),
            Self::RedisGet { port, key } => (redis_get(port, key)? * round.as_secs_f64(), round, None),
            Self::Sqlite(statements) => (statements.run(round)? * round.as_secs_f64(), round, None),
            Self::Cores(work) => (on_server_cores(round, || Ok(work))? * round.as_secs_f64(), round, None),
        };
        let after = busy_time(&cores().servers)?;
        Ok(Round { done, took, cpu, busy: (after.0 - before.0, after.1 - before.1) })
    }
}

/// Runs a closed load: each client sends its next request after the response to the one before.
async fn closed(address: &str, requests: &RequestSource, round: Duration) -> anyhow::Result<(u64, Duration)> {
    let began = Instant::now();
    let clients = (0..CONNECTIONS).map(|_| {
        let (address, requests) = (address.to_owned(), Arc::clone(requests));
        tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let mut answered = 0_u64;
            while began.elapsed() < round {
                connection.expect_success(&requests(next()).bytes).await?;
                answered += 1;
            }
            anyhow::Ok(answered)
        })
    });
    let mut answered = 0;
    for client in try_join_all(clients).await? {
        answered += client?;
    }
    Ok((answered, began.elapsed()))
}

/// Returns the next number of a request, unique in this process.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the replies per second to `GET` by redis-benchmark, which is in the place of tutord and shares its cores.
fn redis_get(port: &str, key: &str) -> anyhow::Result<f64> {
    let clients = CONNECTIONS.to_string();
    let output = server_command("redis-benchmark")
        .args(["-p", port, "-c", &clients, "-n", "50000", "--csv", "get", key])
        .output()
        .context("redis-benchmark (of Debian's package redis-tools)")?;
    // The last line: "get …","rate", and latencies from version 6.2 on.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate =
        text.trim_end().lines().last().and_then(|line| line.split("\",\"").nth(1)?.trim_matches('"').parse().ok());
    rate.with_context(|| format!("redis-benchmark: {text}"))
}

/// Measures the latencies of single requests in turns of so many requests each; within a turn the servers alternate,
/// forward and backward. Returns the median latency of each turn in milliseconds.
pub(crate) async fn alternating(targets: &[(&str, &[u8])], turns: u32, times: u32) -> anyhow::Result<Vec<Turns>> {
    let mut connections = Vec::new();
    for (address, request) in targets {
        let mut connection = Connection::open(address).await?;
        // The first request prepares statements and does not count.
        connection.expect_success(request).await?;
        connections.push((connection, *request));
    }
    let mut medians = vec![Turns::default(); targets.len()];
    for _ in 0..turns {
        let mut latencies = vec![histogram(); targets.len()];
        for time in 0..times {
            for place in 0..targets.len() {
                let index = if time % 2 == 0 { place } else { targets.len() - 1 - place };
                let (connection, request) = &mut connections[index];
                let began = Instant::now();
                connection.expect_success(request).await?;
                record(&mut latencies[index], began.elapsed());
            }
        }
        for (medians, latencies) in medians.iter_mut().zip(&latencies) {
            medians.0.push(quantile(latencies, 0.5));
        }
    }
    Ok(medians)
}

/// Runs an open load: `rate` requests per second are due at fixed times, with or without responses to the earlier ones.
/// The latency of a request counts from its due time, so that a slow server does not get fewer requests. With `random`
/// the pauses are exponential, as between the requests of many people.
///
/// Each request has a free connection: behind a slow write a fast read would take as long as the write.
pub(crate) async fn open(
    address: &str,
    requests: &RequestSource,
    rate: f64,
    duration: Duration,
    random: bool,
) -> anyhow::Result<Latencies> {
    let latencies = overload(address, requests, rate, duration, random, OPEN_CONNECTIONS).await?;
    anyhow::ensure!(latencies.refused.is_empty(), "{} requests were refused", latencies.refused.len());
    Ok(latencies)
}

/// Runs an open load over this many connections against a server that may reject requests with a 503.
pub(crate) async fn overload(
    address: &str,
    requests: &RequestSource,
    rate: f64,
    duration: Duration,
    random: bool,
    connections: usize,
) -> anyhow::Result<Latencies> {
    let free = try_join_all((0..connections).map(|_| Connection::open(address))).await?;
    let (free, latencies) = (Arc::new(Mutex::new(free)), Arc::new(Mutex::new(Latencies::default())));
    let permits = Arc::new(Semaphore::new(connections));
    let (tell, mut told) = mpsc::unbounded_channel();
    let began = Instant::now();
    let requests = Arc::clone(requests);
    // A thread, as the timer of the runtime is no finer than a millisecond.
    let clock = tokio::task::spawn_blocking(move || {
        let pause = Duration::from_secs_f64(1.0 / rate);
        let mut due = Duration::ZERO;
        while due < duration {
            std::thread::sleep((began + due).saturating_duration_since(Instant::now()));
            if tell.send((due, requests(next()))).is_err() {
                break;
            }
            due += if random { pause.mul_f64(-(1.0 - rand::random::<f64>()).ln()) } else { pause };
        }
    });
    let mut running = JoinSet::new();
    while let Some((due, asked)) = told.recv().await {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (free, latencies) = (Arc::clone(&free), Arc::clone(&latencies));
        running.spawn(async move {
            let mut connection = locked(&free).pop().context("as many connections as permits")?;
            let status = connection.expect_success_or(503, &asked.bytes).await?.status;
            let took = began.elapsed() - due;
            locked(&free).push(connection);
            drop(permit);
            let mut latencies = locked(&latencies);
            let Latencies { reads, writes, refused } = &mut *latencies;
            record(
                if status == 503 {
                    refused
                } else if asked.writes {
                    writes
                } else {
                    reads
                },
                took,
            );
            anyhow::Ok(())
        });
        while let Some(ended) = running.try_join_next() {
            ended??;
        }
    }
    clock.await?;
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(std::mem::take(&mut *locked(&latencies)))
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The latencies of an open load.
pub(crate) struct Latencies {
    pub(crate) reads: Histogram<u64>,
    pub(crate) writes: Histogram<u64>,
    /// Those of rejected requests.
    pub(crate) refused: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { reads: histogram(), writes: histogram(), refused: histogram() }
    }
}

impl Latencies {
    /// Returns the latencies of reads and writes.
    pub(crate) fn all(&self) -> anyhow::Result<Histogram<u64>> {
        let mut all = self.reads.clone();
        all.add(&self.writes)?;
        Ok(all)
    }
}

/// Returns a quantile in milliseconds.
pub(crate) fn quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}
