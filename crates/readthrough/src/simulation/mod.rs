//! The protocol under random schedules.
//!
//! Several processes (separate caches) read and write the same keys of a database through simulated servers, on tokio's
//! paused clock. Each command takes a random time, and may be lost on either way or executed after its caller gave up. The
//! servers evict keys and events, restart with all, some or none of their data, and fail over to a replica that lags;
//! their clock jumps; processes restart; the database is replaced by an older state of itself, which each process learns
//! when it connects. A value is the version of its key in the database. After each read its version is compared with the
//! writes that were complete before the read began.

mod directed;
mod failovers;
mod server;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::remote::supervisor::REPLAY_WINDOW;
use crate::{Cache, Identity, Invalidation, Key, Namespace, NamespaceOptions};
use server::{Deployment, Protocol};

/// Each odd key is a member of a group.
const KEYS: usize = 6;
const GROUP: &str = "g";
/// The first two keys have a tag.
const TAG: &str = "t";
const TAGGED: usize = 2;
const NODES: usize = 3;
/// The bound of L1, and of a flush if polls respond.
const BOUND: Duration = Duration::from_millis(250);
/// The bound of a flush if polls hang: reads stop using Redis without a proof for this long.
const FLUSH_BOUND: Duration = Duration::from_secs(1);
/// The bound after a failover if the old master accepts writes: to learn of the new master, and to replay.
const FAILOVER_BOUND: Duration = Duration::from_millis(3_000);

/// Counters of one schedule.
#[derive(Debug, Default, Clone)]
struct Tally {
    reads: u64,
    writes: u64,
    stale: Vec<String>,
    l1_hits: u64,
    l2_hits: u64,
    rejected: u64,
    deferred: u64,
    coalesced: u64,
    early: u64,
    replaced: u64,
    breaks: u64,
    restores: u64,
    failovers: u64,
    flushes: u64,
}

#[derive(Clone, Copy)]
struct Options {
    protocol: Protocol,
    l1: bool,
    /// Set if commands are lost and servers restart.
    faults: bool,
    /// Set if the database is replaced by an older state of itself.
    restores: bool,
    /// Set if masters fail over.
    failovers: bool,
    flushes: bool,
    replay_window: Duration,
    ttl: Duration,
    operations: usize,
}

impl Options {
    /// No faults, with L1.
    const CALM: Self = Self {
        protocol: Protocol::FULL,
        l1: true,
        faults: false,
        restores: false,
        failovers: false,
        flushes: true,
        replay_window: REPLAY_WINDOW,
        ttl: Duration::from_millis(1_500),
        operations: 150,
    };
    /// Lost commands, restarts and evictions.
    const FAULTS: Self = Self { faults: true, ..Self::CALM };
    /// Failovers only. Values outlive the bound, and schedules the quarantine, so that both are tested.
    const FAILOVERS: Self =
        Self { failovers: true, ttl: Duration::from_secs(60), flushes: false, operations: 600, ..Self::CALM };
    /// Failovers with a master that refuses writes once it has lost its replica.
    const SAFE_FAILOVERS: Self =
        Self { protocol: Protocol { min_replicas: true, ..Protocol::FULL }, ..Self::FAILOVERS };
}

/// The number of versions of a key between two restores at most: a version identifies the state of the database in which
/// it was written.
const STATE: u64 = 1_000_000;

/// A completed write.
#[derive(Clone, Copy)]
struct Completed {
    version: u64,
    node: usize,
    /// The time at which it was complete; `None` while Redis has not received the invalidation.
    at: Option<Instant>,
    /// The time in which other processes may read older values.
    bound: Duration,
}

struct World {
    deployment: Arc<Deployment>,
    /// The states of the database, the present one last. Old connections still read the earlier states.
    database: Mutex<Vec<[u64; KEYS]>>,
    completed: Mutex<Vec<Vec<Completed>>>,
    nodes: Mutex<Vec<Node>>,
    random: Mutex<StdRng>,
    tally: Mutex<Tally>,
    options: Options,
}

#[derive(Clone)]
struct Node {
    cache: Cache,
    values: Namespace<u64>,
    incarnation: u64,
    /// The newest state of the database that the process knows.
    known: Arc<AtomicU64>,
}

impl World {
    fn draw(&self, below: u64) -> u64 {
        self.random.lock().unwrap().random_range(0..below)
    }

    /// Opens a connection to the database and sets the identity of the cache first. Returns the number of the state.
    fn connect(&self, node: &Node) -> usize {
        let state = self.database.lock().unwrap().len() - 1;
        node.known.store(u64::try_from(state).unwrap(), Ordering::Relaxed);
        node.cache.set_identity(Some(Identity::new(format!("state-{state}"), "").unwrap()));
        state
    }

    /// Sets the identity of a process without a read; sometimes it is unknown first.
    fn poll(&self, node: usize) {
        let is_unknown_first = self.draw(4) == 0;
        let nodes = self.nodes.lock().unwrap();
        if is_unknown_first {
            nodes[node].cache.set_identity(None);
        }
        let version = u64::try_from(self.connect(&nodes[node])).unwrap() * STATE;
        // No value of an older state may be read from now on.
        for completed in self.completed.lock().unwrap().iter_mut() {
            completed.push(Completed { version, node, at: None, bound: BOUND });
        }
    }

    /// Replaces the database by an older state of itself, which counts on from there.
    fn restore(&self) {
        let lost = self.draw(3);
        let mut database = self.database.lock().unwrap();
        let state = u64::try_from(database.len()).unwrap();
        let kept = database.last().unwrap().map(|version| state * STATE + (version % STATE).saturating_sub(lost));
        database.push(kept);
        drop(database);
        // Writes to the earlier state of the database are not completed.
        for completed in self.completed.lock().unwrap().iter_mut() {
            completed.retain(|done| done.at.is_none() && done.version % STATE == 0);
        }
        self.tally.lock().unwrap().restores += 1;
    }

    fn node(&self, incarnation: u64) -> Node {
        let builder = Cache::builder().identity(None).replay_window(self.options.replay_window);
        let cache = builder.build_with(Some(Deployment::connector(&self.deployment)));
        // The clocks of the machines differ by up to ten minutes.
        cache.0.core.clock.set(1_900_000_000_000 + self.draw(1_200_000));
        let options = NamespaceOptions::new("n")
            .ttl(self.options.ttl)
            .negative_ttl(Duration::from_millis(500))
            .lease(Duration::from_millis(400))
            .lease_wait(Duration::from_millis(60))
            .value_version(|version| *version);
        let values = cache.namespace(if self.options.l1 { options } else { options.without_l1() }).unwrap();
        Node { cache, values, incarnation, known: Arc::default() }
    }

    fn key(key: usize) -> Key {
        let plain = if key % 2 == 1 { Key::in_group(GROUP, key) } else { Key::new(key) };
        if key < TAGGED { plain.tag(TAG) } else { plain }
    }

    /// Returns the least version that a read on this node may return if it begins now.
    fn floor(&self, node: usize, key: usize) -> u64 {
        let newest_state = self.nodes.lock().unwrap()[node].known.load(Ordering::Relaxed);
        let known = |done: &&Completed| {
            let reaches_all = match done.at {
                Some(at) => at + done.bound <= Instant::now(),
                None => false,
            };
            // A process that does not know the newest state of the database reads the one before.
            (done.node == node || reaches_all) && done.version / STATE <= newest_state
        };
        self.completed.lock().unwrap()[key].iter().filter(known).map(|done| done.version).max().unwrap_or(0)
    }

    async fn read(&self, node: usize, key: usize) {
        let reader = self.nodes.lock().unwrap()[node].clone();
        let floor = self.floor(node, key);
        let (before, fails, after) = (self.draw(15), self.options.faults && self.draw(20) == 0, self.draw(15));
        let connecting = reader.clone();
        let load = || async move {
            let state = self.connect(&connecting);
            sleep(Duration::from_millis(before)).await;
            let version = self.database.lock().unwrap()[state][key];
            sleep(Duration::from_millis(after)).await;
            if fails { Err(()) } else { Ok((version > 0).then_some(version)) }
        };
        let many = self.draw(5) == 0;
        let found = if many {
            let keys = [Self::key(key)];
            reader
                .values
                .get_many_or_load(&keys, |_| {
                    let load = load.clone();
                    async move { load().await.map(|value| vec![value]) }
                })
                .await
                .map(|mut values| values.remove(0))
        } else {
            reader.values.get_or_load(&Self::key(key), load).await
        };
        let mut tally = self.tally.lock().unwrap();
        tally.reads += 1;
        if let Ok(found) = found {
            let version = found.map_or(0, |version| *version);
            if version < floor {
                tally.stale.push(format!("node {node} read {version} of key {key}, but {floor} was completed"));
            }
        }
    }

    /// Returns how long other processes may read older values after a write.
    fn bound(&self, is_flush: bool) -> Duration {
        if self.options.failovers && !self.options.protocol.min_replicas {
            FAILOVER_BOUND
        } else if is_flush && self.options.faults {
            FLUSH_BOUND
        } else if self.options.l1 || self.options.failovers || is_flush {
            BOUND
        } else {
            Duration::ZERO
        }
    }

    async fn write(&self, node: usize, key: usize) {
        let writer = self.nodes.lock().unwrap()[node].clone();
        sleep(Duration::from_millis(self.draw(10))).await;
        let is_flush = self.options.flushes && self.draw(12) == 0;
        let whole_tag = !is_flush && key < TAGGED && self.draw(4) == 0;
        let whole_group = !is_flush && !whole_tag && key % 2 == 1 && self.draw(3) == 0;
        let keys: Vec<usize> = if is_flush {
            (0..KEYS).collect()
        } else if whole_tag {
            (0..TAGGED).collect()
        } else if whole_group {
            (1..KEYS).step_by(2).collect()
        } else {
            vec![key]
        };
        let before = match self.draw(2) {
            0 if keys.len() == 1 => writer.values.snapshot(&Self::key(key)).await,
            _ => None,
        };
        let state = self.connect(&writer);
        sleep(Duration::from_millis(self.draw(5))).await;
        let versions: Vec<u64> = {
            let mut database = self.database.lock().unwrap();
            if state + 1 < database.len() {
                // The connection leads to a state of the database that was replaced.
                return;
            }
            keys.iter()
                .map(|key| {
                    database[state][*key] += 1;
                    database[state][*key]
                })
                .collect()
        };
        sleep(Duration::from_millis(self.draw(10))).await;
        // The result of the write shows whether the snapshot was the value before it.
        let outcome = if is_flush {
            self.tally.lock().unwrap().flushes += 1;
            writer.cache.flush("n").await.unwrap()
        } else if let Some(before) = before.filter(|before| *before.value() + 1 == versions[0]) {
            let left = *before.value() + 1;
            writer.values.replace_if_unchanged(before, left).await
        } else if whole_tag {
            writer.values.invalidate_group(TAG).await
        } else if whole_group {
            writer.values.invalidate_group(GROUP).await
        } else if self.draw(4) == 0 {
            writer.values.replace_if_newer(&Self::key(key), versions[0]).await
        } else {
            writer.values.invalidate(&Self::key(key)).await
        };
        self.tally.lock().unwrap().writes += 1;
        if self.nodes.lock().unwrap()[node].incarnation != writer.incarnation {
            // The process was restarted meanwhile: whether Redis received the invalidation is unknown.
            return;
        }
        if state + 1 < self.database.lock().unwrap().len() {
            // The write is lost.
            return;
        }
        let bound = self.bound(is_flush);
        let at = (outcome == Invalidation::Complete).then(Instant::now);
        for (key, version) in keys.iter().zip(&versions) {
            self.completed.lock().unwrap()[*key].push(Completed { version: *version, node, at, bound });
        }
        if at.is_none() {
            // When Redis has received the invalidation, it holds for all processes.
            writer.cache.until_connected().await;
            let now = Instant::now();
            for (key, version) in keys.iter().zip(&versions) {
                let mut completed = self.completed.lock().unwrap();
                for done in completed[*key].iter_mut().filter(|done| done.version == *version && done.node == node) {
                    done.at = Some(now);
                }
            }
        }
    }

    /// A fault of the servers or of a process.
    fn fault(&self) {
        match self.draw(11) {
            0..=2 => self.deployment.evict_a_key(self.draw(1 << 30)),
            9 => self.deployment.flush_all(),
            10 => self.deployment.set_clock(i64::try_from(self.draw(1_200_000)).unwrap() - 600_000),
            3 => self.deployment.trim_events(usize::try_from(self.draw(3)).unwrap()),
            4 => self.deployment.hang(Duration::from_millis(self.draw(700))),
            5 => self.deployment.restart_empty(),
            6 => self.deployment.restart_with_snapshot(),
            7 => self.deployment.take_snapshot(),
            _ => {
                let node = usize::try_from(self.draw(NODES as u64)).unwrap();
                let incarnation = self.nodes.lock().unwrap()[node].incarnation + 1;
                let started = self.node(incarnation);
                let old = std::mem::replace(&mut self.nodes.lock().unwrap()[node], started);
                // The process no longer knows the writes that other processes have not received.
                for done in self.completed.lock().unwrap().iter_mut().flatten().filter(|done| done.node == node) {
                    if done.at.is_none() {
                        done.node = usize::MAX;
                    }
                }
                self.count(&old);
            }
        }
    }

    /// Fails over, or back to a master that was not demoted.
    fn fail_over(&self) {
        if self.draw(2) == 0 {
            self.deployment.fail_back();
        } else {
            Deployment::fail_over(&self.deployment);
            self.tally.lock().unwrap().failovers += 1;
        }
    }

    fn count(&self, node: &Node) {
        let mut tally = self.tally.lock().unwrap();
        for stats in node.cache.stats() {
            tally.l1_hits += stats.l1_hits;
            tally.l2_hits += stats.l2_hits;
            tally.rejected += stats.fills_refused;
            tally.deferred += stats.deferred;
            tally.coalesced += stats.coalesced;
            tally.early += stats.early_refreshes;
            tally.replaced += stats.puts;
        }
        tally.breaks += node.cache.connection_stats().map_or(0, |connection| connection.breaks);
    }
}

/// Runs one schedule.
fn run(seed: u64, options: Options) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let deployment = Deployment::new(seed, options.protocol, options.faults);
        let world = Arc::new(World {
            deployment,
            database: Mutex::new(vec![[0; KEYS]]),
            completed: Mutex::new(vec![Vec::new(); KEYS]),
            nodes: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            tally: Mutex::default(),
            options,
        });
        *world.nodes.lock().unwrap() = (0..NODES).map(|_| world.node(0)).collect();
        sleep(Duration::from_millis(200)).await;
        let mut tasks = Vec::new();
        for _ in 0..options.operations {
            let (what, node) = (world.draw(100), usize::try_from(world.draw(NODES as u64)).unwrap());
            // Most operations use two keys.
            let key = usize::try_from(world.draw(if world.draw(3) == 0 { KEYS as u64 } else { 2 })).unwrap();
            let world_ = Arc::clone(&world);
            tasks.push(tokio::spawn(async move {
                match what {
                    0..=1 if options.restores => world_.restore(),
                    2..=6 if options.restores => world_.poll(node),
                    7..=9 if options.faults => world_.fault(),
                    // Seldom enough that the processes use each master for a while.
                    7 if options.failovers => {
                        if world_.draw(3) == 0 {
                            world_.fail_over();
                        }
                    }
                    9 if options.failovers => world_.deployment.take_snapshot(),
                    0..=24 => world_.write(node, key).await,
                    // A reader that is dropped.
                    25..=29 => {
                        let patience = Duration::from_millis(world_.draw(20));
                        let _ = tokio::time::timeout(patience, world_.read(node, key)).await;
                    }
                    _ => world_.read(node, key).await,
                }
            }));
            sleep(Duration::from_millis(world.draw(12))).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        for node in world.nodes.lock().unwrap().iter() {
            world.count(node);
        }
        world.tally.lock().unwrap().clone()
    })
}

/// Returns the number of schedules: that of the environment variable, or the default.
fn schedules(default: u64) -> u64 {
    std::env::var("READTHROUGH_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn check(options: Options, seeds: std::ops::Range<u64>) -> Tally {
    let mut sum = Tally::default();
    let mut counts = HashMap::new();
    for seed in seeds {
        let tally = run(seed, options);
        assert!(tally.stale.is_empty(), "schedule {seed}: {:?}", tally.stale);
        sum.reads += tally.reads;
        sum.writes += tally.writes;
        for (name, count) in [
            ("L1 hits", tally.l1_hits),
            ("L2 hits", tally.l2_hits),
            ("rejected fills", tally.rejected),
            ("deferred invalidations", tally.deferred),
            ("coalesced reads", tally.coalesced),
            ("early refreshes", tally.early),
            ("replaced values", tally.replaced),
            ("opened breakers", tally.breaks),
            ("restores", tally.restores),
            ("failovers", tally.failovers),
            ("flushes", tally.flushes),
        ] {
            *counts.entry(name).or_insert(0) += count;
        }
    }
    println!("{} reads and {} writes, 0 stale; {counts:?}", sum.reads, sum.writes);
    let is_missing = |name: &&str| counts[*name] == 0;
    let mut expected = vec!["L2 hits", "rejected fills", "coalesced reads", "replaced values"];
    if options.l1 {
        expected.push("L1 hits");
    }
    if options.faults {
        expected.extend(["deferred invalidations", "opened breakers"]);
    }
    for (name, is_expected) in
        [("restores", options.restores), ("failovers", options.failovers), ("flushes", options.flushes)]
    {
        if is_expected {
            expected.push(name);
        }
    }
    assert_eq!(expected.iter().find(|name| is_missing(name)), None, "not part of any schedule: {counts:?}");
    sum
}

#[test]
fn no_read_is_stale_with_l1() {
    check(Options::FAULTS, 0..schedules(150));
}

#[test]
fn no_read_is_stale_without_l1() {
    check(Options { l1: false, ..Options::FAULTS }, 0..schedules(150));
}

#[test]
fn no_read_is_of_a_replaced_state_of_the_database() {
    let restores = Options { restores: true, flushes: false, ..Options::CALM };
    check(restores, 0..schedules(100));
    check(Options { l1: false, faults: true, ..restores }, 0..schedules(150));
}

#[test]
fn no_read_is_stale_without_faults() {
    check(Options::CALM, 0..schedules(200));
}

/// The old master refuses writes: the bound of L1 holds.
#[test]
fn no_read_is_stale_in_a_failover_with_min_replicas() {
    check(Options::SAFE_FAILOVERS, 0..schedules(30));
    check(Options { l1: false, ..Options::SAFE_FAILOVERS }, 0..schedules(30));
    // Without the replay, the guarantee depends on the epochs alone.
    check(Options { replay_window: Duration::ZERO, ..Options::SAFE_FAILOVERS }, 0..schedules(30));
}

/// The old master accepts writes until it is demoted: the bound is the time to learn of the new one.
#[test]
fn reads_in_a_failover_without_min_replicas_are_stale_for_a_bounded_time() {
    check(Options::FAILOVERS, 0..schedules(30));
    check(Options { l1: false, ..Options::FAILOVERS }, 0..schedules(30));
}

/// Without one part of the protocol, the schedules find a stale read. This also proves that the checks above can find one.
/// `failovers` has the controls of the other parts.
#[test]
fn without_a_part_of_the_protocol_a_stale_read_is_found() {
    let full = Protocol::FULL;
    let flushes = Options { l1: false, ..Options::CALM };
    let quiet = Options { flushes: false, ..flushes };
    let safe = Options { l1: false, replay_window: Duration::ZERO, ..Options::SAFE_FAILOVERS };
    for (part, options) in [
        ("tokens", Options { protocol: Protocol { tokens: false, ..full }, ..quiet }),
        ("tags", Options { protocol: Protocol { tags: false, ..full }, ..quiet }),
        ("flush", Options { protocol: Protocol { flush: false, ..full }, ..flushes }),
        ("epochs", Options { protocol: Protocol { epochs: false, ..full }, ..flushes }),
        ("lineages", Options { protocol: Protocol { lineages: false, ..safe.protocol }, ..safe }),
    ] {
        let found = (0..600).map(|seed| run(seed, options)).find(|tally| !tally.stale.is_empty());
        println!("{part}: {}", found.unwrap_or_else(|| panic!("no stale read without {part}")).stale[0]);
    }
}
