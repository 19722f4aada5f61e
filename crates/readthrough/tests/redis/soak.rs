//! Readers and writers in several processes, and a count of each key's completed writes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use readthrough::{Cache, Invalidation, Key, Namespace, NamespaceOptions};
use testbed::{Redis, RedisCluster};

const KEYS: usize = 8;
const PROCESSES: usize = 3;
/// How old a copy in a process may be.
const STALENESS: Duration = Duration::from_millis(250);

/// The database, and what is known of each key.
#[derive(Default)]
struct Oracle {
    versions: [AtomicU64; KEYS],
    /// Completed writes of each key, and when they were complete.
    completed: [Mutex<Vec<(u64, Instant)>>; KEYS],
    reads: AtomicU64,
    writes: AtomicU64,
    /// The oldest value that was read although it was replaced, by how long: for the report.
    oldest_micros: AtomicU64,
}

impl Oracle {
    fn key(index: usize) -> Key {
        if index.is_multiple_of(2) { Key::new(index) } else { Key::in_group("odd", index) }
    }

    async fn read(&self, values: &Namespace<u64>, index: usize, staleness: Duration) {
        let now = Instant::now();
        let floor = {
            let completed = self.completed[index].lock().unwrap();
            let known = completed.iter().filter(|(_, at)| *at + staleness <= now);
            known.map(|(version, _)| *version).max().unwrap_or(0)
        };
        let load = || async {
            tokio::task::yield_now().await;
            let version = self.versions[index].load(Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok::<_, ()>(Some(version))
        };
        let found = *values.get_or_load(&Self::key(index), load).await.unwrap().unwrap();
        assert!(found >= floor, "read {found} of key {index}, but {floor} was completed");
        self.reads.fetch_add(1, Ordering::Relaxed);
        let completed = self.completed[index].lock().unwrap();
        if let Some((_, at)) = completed.iter().find(|(version, at)| *version > found && *at < now) {
            let age = u64::try_from((now - *at).as_micros()).unwrap();
            self.oldest_micros.fetch_max(age, Ordering::Relaxed);
        }
    }

    async fn write(&self, values: &Namespace<u64>, index: usize) {
        let before = values.snapshot(&Self::key(index)).await;
        let version = self.versions[index].fetch_add(1, Ordering::SeqCst) + 1;
        let before = before.filter(|before| *before.value() + 1 == version && !version.is_multiple_of(5));
        let outcome = if let Some(before) = before {
            values.replace_if_unchanged(before, version).await
        } else if index % 2 == 1 && version.is_multiple_of(3) {
            values.invalidate_group("odd").await
        } else {
            values.invalidate(&Self::key(index)).await
        };
        if outcome == Invalidation::Complete {
            let mut completed = self.completed[index].lock().unwrap();
            completed.push((version, Instant::now()));
            // Old ones are implied by newer ones that are as old as the bound.
            if completed.len() > 200 {
                completed.drain(..100);
            }
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
    }
}

async fn soak(url: &str, l1: bool) {
    let operations: u64 = std::env::var("READTHROUGH_OPERATIONS").map_or(4_000, |text| text.parse().unwrap());
    let oracle = Arc::new(Oracle::default());
    let staleness = if l1 { STALENESS } else { Duration::ZERO };
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        // A busy machine is no reason to give Redis up here: the faults have tests of their own.
        let cache = Cache::builder().redis(url).redis_timeout(Duration::from_secs(2)).build().unwrap();
        let options = NamespaceOptions::new("n").ttl(Duration::from_millis(700));
        let values = cache.namespace(if l1 { options } else { options.without_l1() }).unwrap();
        cache.until_connected().await;
        processes.push((cache, values));
    }
    let mut tasks = Vec::new();
    for task in 0..12 {
        let (oracle, values) = (Arc::clone(&oracle), processes[task % PROCESSES].1.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..operations {
                // Two keys are hot.
                let index = rand::random_range(0..if rand::random_ratio(1, 3) { KEYS } else { 2 });
                if rand::random_ratio(1, 12) {
                    oracle.write(&values, index).await;
                } else {
                    oracle.read(&values, index, staleness).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats: Vec<_> = processes.iter().map(|(cache, _)| cache.stats().remove(0)).collect();
    let sum = |count: fn(&readthrough::NamespaceStats) -> u64| stats.iter().map(count).sum::<u64>();
    println!(
        "{} reads and {} writes, 0 stale beyond the bound; the oldest copy read was replaced {} µs before; \
         L1 hits {}, L2 hits {}, coalesced {}, refused fills {}",
        oracle.reads.load(Ordering::Relaxed),
        oracle.writes.load(Ordering::Relaxed),
        oracle.oldest_micros.load(Ordering::Relaxed),
        sum(|stats| stats.l1_hits),
        sum(|stats| stats.l2_hits),
        sum(|stats| stats.coalesced),
        sum(|stats| stats.fills_refused),
    );
    assert!(sum(|stats| stats.l2_hits) > 0 && sum(|stats| stats.fills_refused) > 0, "{stats:?}");
    assert_eq!(sum(|stats| stats.l1_hits) > 0, l1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_on_a_single_server() {
    let redis = Redis::start().await.unwrap();
    soak(&redis.url(), false).await;
    soak(&redis.url(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_on_a_cluster() {
    let cluster = RedisCluster::start().await.unwrap();
    soak(&cluster.url(), false).await;
    soak(&cluster.url(), true).await;
}
