//! Servers of a Cluster die, hang, return and are replaced, and slots migrate.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use readthrough::{Cache, Invalidation, Key, Namespace, NamespaceOptions};
use testbed::RedisCluster;

/// A cache without copies in the process: each read shows what Redis holds.
struct Process {
    _cache: Cache,
    values: Namespace<u64>,
}

impl Process {
    async fn connect(cluster: &RedisCluster) -> Self {
        let cache = Cache::builder().redis(cluster.url()).redis_timeout(Duration::from_millis(500)).build().unwrap();
        let values = cache.namespace(NamespaceOptions::new("n").without_l1()).unwrap();
        cache.until_connected().await;
        Self { _cache: cache, values }
    }
}

/// A version for each load and each write, and the newest that each key must have.
#[derive(Default)]
struct Database {
    newest: AtomicU64,
    written: Mutex<HashMap<Key, u64>>,
}

impl Database {
    fn next(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::SeqCst) + 1
    }

    async fn read(&self, process: &Process, key: &Key) -> u64 {
        let written = self.written.lock().unwrap().get(key).copied().unwrap_or_default();
        let found =
            *process.values.get_or_load(key, || async { Ok::<_, ()>(Some(self.next())) }).await.unwrap().unwrap();
        assert!(found >= written, "read {found} of {key:?} after {written} was written");
        found
    }

    /// Writes; all reads from now on must see it if the invalidation is complete or `is_lost` for all processes.
    async fn write(&self, process: &Process, key: &Key, is_lost: bool) -> Invalidation {
        let version = self.next();
        let outcome = process.values.invalidate(key).await;
        if is_lost || outcome == Invalidation::Complete {
            self.written.lock().unwrap().insert(key.clone(), version);
        }
        outcome
    }

    /// Writes in one process until another one reads the value that the first stored.
    async fn until_shared(&self, writer: &Process, reader: &Process, key: &Key) {
        loop {
            let outcome = self.write(writer, key, false).await;
            let stored = self.read(writer, key).await;
            if self.read(reader, key).await == stored && outcome == Invalidation::Complete {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Writes until the process does not wait for the server any more.
    async fn until_given_up(&self, process: &Process, key: &Key) {
        loop {
            let began = Instant::now();
            if self.write(process, key, true).await == Invalidation::Deferred
                && began.elapsed() < Duration::from_millis(50)
            {
                return;
            }
        }
    }
}

/// Returns the index of a server that does not have the stream, two of its keys, and keys of the others.
async fn keys(cluster: &RedisCluster) -> (usize, [Key; 2], Vec<Key>) {
    let failing = (cluster.server_of("readthrough:invalidations").await.unwrap() + 1) % 3;
    let (mut lost, mut kept) = (Vec::new(), Vec::new());
    for key in 0..12_u64 {
        let is_lost = cluster.server_of(&key.to_string()).await.unwrap() == failing;
        if is_lost { &mut lost } else { &mut kept }.push(Key::new(key));
    }
    (failing, [lost.swap_remove(0), lost.swap_remove(0)], kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_costs_its_own_keys() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let (a, b) = (Process::connect(&cluster).await, Process::connect(&cluster).await);
    let (dead, [lost, _], kept) = keys(&cluster).await;
    let database = Database::default();
    database.until_shared(&a, &b, &lost).await;
    cluster.kill(dead).unwrap();
    // One process connects when the server is dead already.
    let c = Process::connect(&cluster).await;
    for key in &kept {
        database.until_shared(&a, &b, key).await;
        database.until_shared(&b, &c, key).await;
        database.until_shared(&c, &a, key).await;
    }
    for process in [&a, &b, &c] {
        database.until_given_up(process, &lost).await;
        assert_ne!(database.read(process, &lost).await, database.read(process, &lost).await, "loaded");
    }
}

/// The server still has the old value when it responds again, and no process may read that.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_returns_is_read_after_the_deferred_invalidations() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let (a, b) = (Process::connect(&cluster).await, Process::connect(&cluster).await);
    let (paused, [other, lost], kept) = keys(&cluster).await;
    let database = Database::default();
    database.until_shared(&a, &b, &lost).await;
    cluster.pause(paused).unwrap();
    // The server executes what it was sent when it responds again, but nothing that was not sent any more.
    database.until_given_up(&b, &other).await;
    database.until_given_up(&a, &other).await;
    database.until_given_up(&a, &lost).await;
    for key in &kept {
        database.until_shared(&a, &b, key).await;
    }
    cluster.resume(paused).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        database.read(&b, &lost).await;
    }
    database.until_shared(&a, &b, &lost).await;
}

/// The replica has the old value when it takes over, and no process may read that.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_replaces_a_dead_server_returns_no_old_value() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let (dead, [lost, _], kept) = keys(&cluster).await;
    cluster.add_replica(dead).await.unwrap();
    let (a, b) = (Process::connect(&cluster).await, Process::connect(&cluster).await);
    let database = Database::default();
    for key in kept.iter().chain([&lost]) {
        database.until_shared(&a, &b, key).await;
    }
    cluster.kill(dead).unwrap();
    database.until_given_up(&b, &lost).await;
    database.until_given_up(&a, &lost).await;
    // It exits before its invalidation was sent.
    drop(a);
    cluster.promote_replica().await.unwrap();
    let c = Process::connect(&cluster).await;
    for key in kept.iter().chain([&lost]) {
        database.until_shared(&b, &c, key).await;
        database.until_shared(&c, &b, key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_migrates_is_invalidated_and_costs_its_own_keys() {
    let cluster = RedisCluster::start().await.unwrap();
    let (a, b) = (Process::connect(&cluster).await, Process::connect(&cluster).await);
    let (from, [migrating, _], _) = keys(&cluster).await;
    let database = Database::default();
    database.until_shared(&a, &b, &migrating).await;
    let id = (0..12_u64).find(|id| Key::new(id) == migrating).unwrap().to_string();
    cluster.begin_migration(&id, (from + 1) % 3).await.unwrap();
    for _ in 0..5 {
        assert_eq!(database.write(&a, &migrating, false).await, Invalidation::Complete);
        assert_ne!(database.read(&a, &migrating).await, 0);
        database.read(&b, &migrating).await;
    }
    for key in (0..12_u64).map(Key::new).filter(|key| *key != migrating) {
        database.until_shared(&a, &b, &key).await;
    }
}
