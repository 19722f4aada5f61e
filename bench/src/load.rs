//! Load, and what it measures.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::pgbench::Script;
use crate::sqlite;
use crate::system::cpu_time;

/// Clients at once: connections that each send the next request when the one before is answered.
pub(crate) const CONNECTIONS: usize = 16;
/// Connections of an open load. When all of them wait for an answer, what is due waits with them, and its latency counts
/// that.
const OPEN_CONNECTIONS: usize = 256;

/// The n-th request of a load, for whoever sends it.
pub(crate) type Requests = Arc<dyn Fn(u64) -> Asked + Send + Sync>;

/// A request.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) writes: bool,
}

/// The same request all the time.
pub(crate) fn same(request: Vec<u8>) -> Requests {
    let asked = Asked { bytes: request.into(), writes: false };
    Arc::new(move |_| asked.clone())
}

/// Latencies in microseconds, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "3 digits are within what the crate takes")]
    Histogram::new(3).expect("a histogram of three digits")
}

/// Records a duration.
pub(crate) fn record(latencies: &mut Histogram<u64>, took: Duration) {
    // It grows as it must; an hour is more than anything here takes.
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(3_600_000_000);
    #[expect(clippy::expect_used, reason = "a histogram that may grow takes any value that fits")]
    latencies.record(micros).expect("a time below an hour");
}

/// Something that is asked over and over, by [`CONNECTIONS`] clients at once.
pub(crate) enum Target<'a> {
    /// A server of HTTP.
    Http { address: &'a str, requests: &'a Requests, process: u32 },
    /// Statements on PostgreSQL.
    Pgbench(&'a Script),
    /// A value of the Redis on this port.
    RedisGet { port: &'a str, key: &'a str },
    /// Statements on SQLite.
    Sqlite(&'a sqlite::Loop),
    /// Work without input, on all cores.
    Cores(fn()),
}

/// What a target does in one round.
#[derive(Clone, Copy)]
struct Round {
    rate: f64,
    /// Processor time of the server for one answer.
    cpu: Option<Duration>,
}

/// What a target did, round by round.
pub(crate) struct Rates(Vec<Round>);

/// A number that was measured several times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Measured {
    /// Of at least one number.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        Self { median: numbers[numbers.len() / 2], low: numbers[0], high: numbers[numbers.len() - 1] }
    }
}

impl Rates {
    /// Answers a second.
    pub(crate) fn median(&self) -> f64 {
        Measured::of(self.0.iter().map(|round| round.rate).collect()).median
    }

    /// The ratios to the rounds of another target, which were made at the same times.
    pub(crate) fn per(&self, limit: &Self) -> Measured {
        Measured::of(self.0.iter().zip(&limit.0).map(|(own, limit)| own.rate / limit.rate).collect())
    }

    /// Microseconds of the server's processor time for one answer.
    pub(crate) fn cpu_micros(&self) -> Option<f64> {
        let times: Option<Vec<f64>> = self.0.iter().map(|round| Some(round.cpu?.as_secs_f64() * 1e6)).collect();
        Some(Measured::of(times?).median)
    }
}

/// Lets the targets take turns, `rounds` times over after one that does not count (but where a program begins anew each
/// time), so that whatever else the machine does meanwhile concerns all of them alike.
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

impl Target<'_> {
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

/// Every client sends its next request as soon as the one before is answered.
async fn closed(address: &str, requests: &Requests, round: Duration) -> anyhow::Result<(u64, Duration)> {
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

/// Numbers requests across all loads of this process: none is sent twice.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Work a second of a thread on each core; `begin` makes what a thread repeats.
pub(crate) fn on_all_cores<W: FnMut()>(
    round: Duration,
    begin: impl Fn(usize) -> anyhow::Result<W> + Sync,
) -> anyhow::Result<f64> {
    let cores = std::thread::available_parallelism()?.get();
    let began = Instant::now();
    let run = &|thread| {
        let mut work = begin(thread)?;
        let mut done = 0_u64;
        while began.elapsed() < round {
            work();
            done += 1;
        }
        anyhow::Ok(done)
    };
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|thread| scope.spawn(move || run(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .sum::<anyhow::Result<u64>>()
    })?;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// `GET` by redis-benchmark: replies a second.
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

/// Latencies of single requests, one after the other, taking turns: to each server as often as to any other.
pub(crate) async fn taking_turns(targets: &[(&str, &[u8])], times: u32) -> anyhow::Result<Vec<Histogram<u64>>> {
    let mut connections = Vec::new();
    for (address, request) in targets {
        let mut connection = Connection::open(address).await?;
        // What is not prepared yet does not count.
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

/// Latencies of an open load: requests are due at fixed times at `rate` a second, whether those before are answered or
/// not, and each one's latency counts from when it was due, so that a server that stops is not asked less. With
/// `random` the pauses are exponential, as those of many people are. Reads and writes apart.
///
/// Each request takes a connection on which no other waits, as those of many people do: behind a slow write a quick read
/// would take as long.
pub(crate) async fn open(
    address: &str,
    requests: &Requests,
    rate: f64,
    duration: Duration,
    random: bool,
) -> anyhow::Result<Latencies> {
    let latencies = overload(address, requests, rate, duration, random, OPEN_CONNECTIONS).await?;
    anyhow::ensure!(latencies.refused.is_empty(), "{} requests were refused", latencies.refused.len());
    Ok(latencies)
}

/// The same over so many connections, of a server that may refuse requests with 503.
pub(crate) async fn overload(
    address: &str,
    requests: &Requests,
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

/// What an open load has met with.
pub(crate) struct Latencies {
    pub(crate) reads: Histogram<u64>,
    pub(crate) writes: Histogram<u64>,
    /// Of requests that were refused.
    pub(crate) refused: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { reads: histogram(), writes: histogram(), refused: histogram() }
    }
}

impl Latencies {
    /// Reads and writes together.
    pub(crate) fn all(&self) -> anyhow::Result<Histogram<u64>> {
        let mut all = self.reads.clone();
        all.add(&self.writes)?;
        Ok(all)
    }
}

/// A quantile in milliseconds.
pub(crate) fn quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}
