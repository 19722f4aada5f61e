//! Random schedules of reads and writes in two processes, and a checker of what the reads returned.
//!
//! Two child processes share a Redis for the cache and a server that stands for the database. For each seed both run
//! the reads and writes that the seed and the process determine. Every library runs the same schedules.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use futures_util::future::try_join_all;
use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use testbed::Redis;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::libraries::Variant;
use crate::library::Subject;
use crate::load::{Load, row};

pub(crate) const PROCESSES: usize = 2;
/// The concurrent tasks of each process.
pub(crate) const TASKS: usize = 6;
/// The reads and writes of each task for each seed.
pub(crate) const OPERATIONS: usize = 120;
/// The values of each seed.
const VALUES: u64 = 4;
/// The share of operations that write.
pub(crate) const WRITES: f64 = 0.12;

/// One operation of a schedule.
#[derive(Debug, Clone, PartialEq)]
struct Operation {
    /// The pause before the operation.
    pause: Duration,
    value: u64,
    action: Action,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    /// The delay is the time between the loader's query and its end.
    Read {
        delay: Duration,
    },
    Write,
}

/// Returns the operations of one task.
fn operations(seed: u64, process: usize, task: usize) -> Vec<Operation> {
    let stream = seed * 1_000 + (process * TASKS + task) as u64;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(stream);
    (0..OPERATIONS)
        .map(|_| {
            let pause = Duration::from_micros(random.random_range(0..3_000));
            let value = random.random_range(0..VALUES);
            let slow = random.random_bool(0.2);
            let delay = Duration::from_micros(if slow { random.random_range(5_000..30_000) } else { 0 });
            let action = if random.random_bool(WRITES) { Action::Write } else { Action::Read { delay } };
            Operation { pause, value, action }
        })
        .collect()
}

/// One operation and its result. Times are nanoseconds of the machine's monotonic clock, which all processes share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Read {
        id: u64,
        version: u64,
        began: u64,
    },
    /// A write whose invalidation has returned.
    Write {
        id: u64,
        version: u64,
        acknowledged: u64,
    },
    /// A write whose invalidation was reported as failed or deferred.
    Unacknowledged,
    /// A read that returned an error.
    Failed,
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The findings of the checker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) failed: u64,
    /// Reads that began after a write was acknowledged in the same process, and returned an older value.
    pub(crate) stale_here: u64,
    /// Reads that began after a write was acknowledged in the other process alone, and returned an older value.
    pub(crate) stale_there: u64,
    /// For each stale read, the time from the first acknowledgement of a newer value to the beginning of the read, in
    /// nanoseconds.
    pub(crate) ages: Vec<u64>,
}

impl Found {
    pub(crate) fn stale(&self) -> u64 {
        self.stale_here + self.stale_there
    }

    /// Returns the number of stale reads that began later than this after the acknowledgement.
    pub(crate) fn older_than(&self, bound: Duration) -> usize {
        self.ages.iter().filter(|&&age| u128::from(age) > bound.as_nanos()).count()
    }

    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.unacknowledged += other.unacknowledged;
        self.failed += other.failed;
        self.stale_here += other.stale_here;
        self.stale_there += other.stale_there;
        self.ages.extend(other.ages);
    }
}

/// Compares what the reads returned with the writes that were acknowledged before they began.
fn check(processes: &[Vec<Event>]) -> Found {
    // Time, version and process of each acknowledged write of a value.
    let mut writes: HashMap<u64, Vec<(u64, u64, usize)>> = HashMap::new();
    let mut found = Found::default();
    for (process, events) in processes.iter().enumerate() {
        for event in events {
            match *event {
                Event::Write { id, version, acknowledged } => {
                    found.writes += 1;
                    writes.entry(id).or_default().push((acknowledged, version, process));
                }
                Event::Unacknowledged => found.unacknowledged += 1,
                Event::Failed => found.failed += 1,
                Event::Read { .. } => found.reads += 1,
            }
        }
    }
    for (process, events) in processes.iter().enumerate() {
        for event in events {
            let Event::Read { id, version, began } = *event else { continue };
            let newer = || {
                let writes = writes.get(&id).into_iter().flatten();
                writes.filter(move |(acknowledged, written, _)| *acknowledged < began && *written > version)
            };
            let Some(first) = newer().map(|(acknowledged, ..)| *acknowledged).min() else { continue };
            found.ages.push(began - first);
            if newer().any(|(.., writer)| *writer == process) {
                found.stale_here += 1;
            } else {
                found.stale_there += 1;
            }
        }
    }
    found
}

/// Runs the seeds that arrive on the standard input, one a line, and prints the events of each as a line.
pub(crate) async fn child(variant: &str, process: usize, cache: &str, database: &str) -> anyhow::Result<()> {
    let variant = Variant::from_str(variant, true).map_err(anyhow::Error::msg)?;
    let subject: Arc<dyn Subject> = Arc::from(variant.open(cache).await?);
    let database = redis::Client::open(database)?.get_multiplexed_async_connection().await?;
    // Opens what a library opens with its first read.
    subject.read(process as u64, &Load::immediate()).await?;
    println!("ready");
    let mut seeds = BufReader::new(tokio::io::stdin()).lines();
    while let Some(seed) = seeds.next_line().await? {
        let seed = seed.parse()?;
        let tasks = (0..TASKS).map(|task| {
            tokio::spawn(work(Arc::clone(&subject), database.clone(), seed, operations(seed, process, task)))
        });
        let events = try_join_all(tasks).await?.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
        println!("{}", serde_json::to_string(&events)?);
    }
    Ok(())
}

async fn work(
    subject: Arc<dyn Subject>,
    mut database: MultiplexedConnection,
    seed: u64,
    operations: Vec<Operation>,
) -> anyhow::Result<Vec<Event>> {
    let load = Load::from_database(database.clone());
    let mut events = Vec::with_capacity(operations.len());
    for Operation { pause, value, action } in operations {
        tokio::time::sleep(pause).await;
        let id = 1_000_000 + seed * VALUES + value;
        events.push(match action {
            Action::Read { delay } => {
                let (load, began) = (load.delayed(delay), now());
                match subject.read(id, &load).await {
                    Ok(version) => Event::Read { id, version, began },
                    Err(_) => Event::Failed,
                }
            }
            Action::Write => {
                let version: u64 = database.incr(row(id), 1).await?;
                match subject.invalidate(id).await {
                    Ok(()) => Event::Write { id, version, acknowledged: now() },
                    Err(_) => Event::Unacknowledged,
                }
            }
        });
    }
    Ok(events)
}

/// A child process that runs schedules.
struct Process {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start(variant: Variant, process: usize, cache: &str, database: &str) -> anyhow::Result<Self> {
        let name = variant.to_possible_value().context("a name")?.get_name().to_owned();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["child", &name, &process.to_string(), cache, database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut process = Self { _child: child, input, output };
        if process.line().await? != "ready" {
            bail!("{}: the child process did not start", variant.name());
        }
        Ok(process)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        self.output.next_line().await?.context("the child process ended")
    }

    async fn events(&mut self) -> anyhow::Result<Vec<Event>> {
        Ok(serde_json::from_str(&self.line().await?)?)
    }
}

/// Runs the schedules of all variants, interleaved by groups of seeds.
pub(crate) async fn run(cache: &str, quick: bool) -> anyhow::Result<Vec<(Variant, Found)>> {
    let (groups, seeds) = if quick { (1, 4) } else { (3, 10) };
    let mut results: Vec<(Variant, Found)> =
        Variant::compared().chain([Variant::Control]).map(|variant| (variant, Found::default())).collect();
    for group in 0..groups {
        for (variant, found) in &mut results {
            found.add(one(*variant, cache, group * seeds..(group + 1) * seeds).await?);
        }
    }
    Ok(results)
}

/// Runs schedules of one variant.
pub(crate) async fn one(variant: Variant, cache: &str, seeds: std::ops::Range<u64>) -> anyhow::Result<Found> {
    let mut connection = redis::Client::open(cache)?.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
    let database = Redis::start().await?;
    let mut processes = Vec::new();
    for process in 0..PROCESSES {
        processes.push(Process::start(variant, process, cache, &database.url()).await?);
    }
    let mut found = Found::default();
    for seed in seeds {
        for process in &mut processes {
            process.input.write_all(format!("{seed}\n").as_bytes()).await?;
            process.input.flush().await?;
        }
        let mut events = Vec::new();
        for process in &mut processes {
            events.push(process.events().await?);
        }
        found.add(check(&events));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: u64, began: u64) -> Event {
        Event::Read { id: 1, version, began }
    }

    fn write(version: u64, acknowledged: u64) -> Event {
        Event::Write { id: 1, version, acknowledged }
    }

    #[test]
    fn a_read_is_stale_if_a_newer_write_was_acknowledged_before_it_began() {
        let found = check(&[vec![write(1, 100), read(0, 50), read(0, 100), read(0, 101), read(1, 200)], vec![]]);
        assert_eq!((found.reads, found.writes, found.stale_here, found.stale_there), (4, 1, 1, 0));
        assert_eq!(found.ages, [1]);
    }

    #[test]
    fn stale_reads_are_told_apart_by_the_writer() {
        let found =
            check(&[vec![write(1, 100), write(3, 300)], vec![write(2, 200), read(1, 250), read(1, 350), read(2, 350)]]);
        // At 250 the process has written 2 itself; at 350 the other has written 3, too.
        assert_eq!((found.stale_here, found.stale_there), (2, 1));
        assert_eq!(found.ages, [50, 150, 50]);
        assert_eq!(found.older_than(Duration::from_nanos(50)), 1);
    }

    #[test]
    fn other_values_and_unacknowledged_writes_make_nothing_stale() {
        let other = Event::Write { id: 2, version: 9, acknowledged: 10 };
        let found = check(&[vec![other, Event::Unacknowledged, Event::Failed, read(0, 20)], vec![]]);
        assert_eq!((found.stale(), found.unacknowledged, found.failed), (0, 1, 1));
    }

    #[test]
    fn a_schedule_is_determined_by_seed_process_and_task() {
        assert_eq!(operations(1, 0, 0), operations(1, 0, 0));
        assert_ne!(operations(1, 0, 0), operations(1, 1, 0));
        assert_ne!(operations(1, 0, 0), operations(2, 0, 0));
    }
}
