//! Closed and open loads, and their measurements.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::client::{CONNECTIONS, Connection};
use crate::cores::on_all_cores;
use crate::pgbench::Script;
use crate::sqlite;
use crate::system::{Node, cpu_time};

/// The number of connections of an open load. If all of them wait, due requests wait too, and their latency includes the
/// wait.
const OPEN_CONNECTIONS: usize = 256;

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
    Http { address: &'a str, requests: &'a RequestSource, process: u32 },
    /// Statements on PostgreSQL.
    Pgbench(&'a Script),
    /// A value of the Redis on this port.
    RedisGet { port: &'a str, key: &'a str },
    /// Statements on SQLite.
    Sqlite(&'a sqlite::StatementLoop),
    /// Work without input, on all cores.
    Cores(fn()),
}

/// The result of one round.
#[derive(Clone, Copy)]
struct Round {
    rate: f64,
    /// The server's processor time for one response.
    cpu: Option<Duration>,
}

/// The results of a target, round by round.
pub(crate) struct Rates(Vec<Round>);

/// A number from several rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measurement {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Measurement {
    /// Summarizes at least one number.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        Self { median: numbers[numbers.len() / 2], low: numbers[0], high: numbers[numbers.len() - 1] }
    }
}

impl Rates {
    /// Returns the median of the responses per second.
    pub(crate) fn median(&self) -> f64 {
        Measurement::of(self.0.iter().map(|round| round.rate).collect()).median
    }

    /// Returns the ratio to another target, whose rounds took place at the same times.
    pub(crate) fn per(&self, limit: &Self) -> Measurement {
        Measurement::of(self.0.iter().zip(&limit.0).map(|(own, limit)| own.rate / limit.rate).collect())
    }

    /// Returns the server's processor time for one response in microseconds.
    pub(crate) fn cpu_micros(&self) -> Option<f64> {
        let times: Option<Vec<f64>> = self.0.iter().map(|round| Some(round.cpu?.as_secs_f64() * 1e6)).collect();
        Some(Measurement::of(times?).median)
    }
}

/// Measures the targets alternately, `rounds` times after a warm-up of the HTTP servers, so that other work of the machine
/// affects all of them equally.
pub(crate) async fn interleaved(targets: &[Target<'_>], rounds: usize, round: Duration) -> anyhow::Result<Vec<Rates>> {
    let mut rates: Vec<Vec<Round>> = targets.iter().map(|_| Vec::new()).collect();
    for number in 0..=rounds {
        for (target, rates) in targets.iter().zip(&mut rates) {
            if number > 0 {
                rates.push(target.run(round).await?);
            } else if matches!(target, Target::Http { .. }) {
                target.run(round).await?;
            }
        }
    }
    Ok(rates.into_iter().map(Rates).collect())
}

impl<'a> Target<'a> {
    /// Returns the load of these requests on a server.
    pub(crate) fn http(node: &'a Node, requests: &'a RequestSource) -> Self {
        Self::Http { address: &node.address, requests, process: node.id() }
    }

    async fn run(&self, round: Duration) -> anyhow::Result<Round> {
        let rate = match *self {
            Self::Http { address, requests, process } => {
                let before = cpu_time(process)?;
                let (answered, took) = closed(address, requests, round).await?;
                let cpu = (cpu_time(process)? - before).div_f64(answered as f64);
                return Ok(Round { rate: answered as f64 / took.as_secs_f64(), cpu: Some(cpu) });
            }
            Self::Pgbench(script) => script.run(round)?,
            Self::RedisGet { port, key } => redis_get(port, key)?,
            Self::Sqlite(statements) => statements.run(round)?,
            Self::Cores(work) => on_all_cores(round, |_| Ok(work))?,
        };
        Ok(Round { rate, cpu: None })
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

/// Returns the replies per second to `GET` by redis-benchmark.
fn redis_get(port: &str, key: &str) -> anyhow::Result<f64> {
    let clients = CONNECTIONS.to_string();
    let output = Command::new("redis-benchmark")
        .args(["-p", port, "-c", &clients, "-n", "50000", "--csv", "get", key])
        .output()
        .context("redis-benchmark (of Debian's package redis-tools)")?;
    // The last line: "get …","rate", and latencies from version 6.2 on.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate =
        text.trim_end().lines().last().and_then(|line| line.split("\",\"").nth(1)?.trim_matches('"').parse().ok());
    rate.with_context(|| format!("redis-benchmark: {text}"))
}

/// Measures the latencies of single requests, alternating between the servers.
pub(crate) async fn alternating(targets: &[(&str, &[u8])], times: u32) -> anyhow::Result<Vec<Histogram<u64>>> {
    let mut connections = Vec::new();
    for (address, request) in targets {
        let mut connection = Connection::open(address).await?;
        // The first request prepares statements and does not count.
        connection.expect_success(request).await?;
        connections.push((connection, *request, histogram()));
    }
    for _ in 0..times {
        for (connection, request, latencies) in &mut connections {
            let began = Instant::now();
            connection.expect_success(request).await?;
            record(latencies, began.elapsed());
        }
    }
    Ok(connections.into_iter().map(|(_, _, latencies)| latencies).collect())
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
