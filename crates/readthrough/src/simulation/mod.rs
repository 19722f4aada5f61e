//! The protocol under random schedules.
//!
//! Several processes (caches of their own) read and write the same keys of a database through a simulated server,
//! on tokio's paused clock. Every command takes a random time, may get lost on its way or on its way back, or is
//! carried out long after its caller gave up; the server forgets keys and events, is restarted with what it had,
//! with what it had a while ago, or with nothing; processes are restarted; the database is replaced by an older state
//! of itself, which each process learns when it connects. Each value is its key's version in the database. After each read its version is compared with what was completed before the read began.

mod server;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::{Cache, Identity, Invalidation, Key, Namespace, NamespaceOptions};
use server::Server;

/// Each odd key is a member of a group.
const KEYS: usize = 6;
const GROUP: &str = "g";
/// The first two keys have a tag.
const TAG: &str = "t";
const TAGGED: usize = 2;
const NODES: usize = 3;
/// How old a value may be that another process has replaced, where L1 is on.
const BOUND: Duration = Duration::from_millis(250);

/// What one schedule did.
#[derive(Debug, Default, Clone)]
struct Tally {
    reads: u64,
    writes: u64,
    stale: Vec<String>,
    l1_hits: u64,
    l2_hits: u64,
    refused: u64,
    deferred: u64,
    coalesced: u64,
    early: u64,
    puts: u64,
    breaks: u64,
    restores: u64,
}

#[derive(Clone, Copy)]
struct Options {
    /// Whether the server checks who fills.
    tokens: bool,
    l1: bool,
    /// Whether anything goes wrong.
    faults: bool,
    /// Whether the database is replaced by an older state of itself now and then.
    restores: bool,
}

/// So many versions of a key are there before a restore at most: a version tells in which state of the database it was
/// written.
const STATE: u64 = 1_000_000;

/// A completed write: until others may not see an older value.
#[derive(Clone, Copy)]
struct Completed {
    version: u64,
    node: usize,
    /// When everybody had to know; `None` while Redis is still to be told.
    at: Option<Instant>,
}

struct World {
    server: Arc<Server>,
    /// The states of the database, the present one last. Those before it still answer on their connections.
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
    /// The newest state of the database that it has been told of.
    told: Arc<AtomicU64>,
}

impl World {
    fn draw(&self, below: u64) -> u64 {
        self.random.lock().unwrap().random_range(0..below)
    }

    /// Makes a connection to the database, whose identity the cache is told first; the number of the state.
    fn connect(&self, node: &Node) -> usize {
        let state = self.database.lock().unwrap().len() - 1;
        node.told.store(u64::try_from(state).unwrap(), Ordering::Relaxed);
        node.cache.set_identity(Some(Identity::new(format!("state-{state}"), "").unwrap()));
        state
    }

    /// Tells a process of the database's state, or first that nothing is known of it, whether it reads or not.
    fn poll(&self, node: usize) {
        let lost_sight = self.draw(4) == 0;
        let nodes = self.nodes.lock().unwrap();
        if lost_sight {
            nodes[node].cache.set_identity(None);
        }
        let version = u64::try_from(self.connect(&nodes[node])).unwrap() * STATE;
        // Nothing of an older state may be read from now on.
        for completed in self.completed.lock().unwrap().iter_mut() {
            completed.push(Completed { version, node, at: None });
        }
    }

    /// The database is an older state of itself from now on, and counts on from there.
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
        let cache = Cache::builder().identity(None).build_with(Some(Server::connect(&self.server)));
        let options = NamespaceOptions::new("n")
            .ttl(Duration::from_millis(1_500))
            .negative_ttl(Duration::from_millis(500))
            .lease(Duration::from_millis(400))
            .lease_wait(Duration::from_millis(60))
            .value_version(|version| *version);
        let values = cache.namespace(if self.options.l1 { options } else { options.without_l1() }).unwrap();
        Node { cache, values, incarnation, told: Arc::default() }
    }

    fn key(key: usize) -> Key {
        let plain = if key % 2 == 1 { Key::in_group(GROUP, key) } else { Key::new(key) };
        if key < TAGGED { plain.tag(TAG) } else { plain }
    }

    /// The least version that a read on this node may return, if it begins now.
    fn floor(&self, node: usize, key: usize) -> u64 {
        let told = self.nodes.lock().unwrap()[node].told.load(Ordering::Relaxed);
        let known = |done: &&Completed| {
            let everybody = match done.at {
                Some(at) if self.options.l1 => at + BOUND <= Instant::now(),
                Some(_) => true,
                None => false,
            };
            // A process that was not told of the database's state yet reads the one before.
            (done.node == node || everybody) && done.version / STATE <= told
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

    async fn write(&self, node: usize, key: usize) {
        let writer = self.nodes.lock().unwrap()[node].clone();
        sleep(Duration::from_millis(self.draw(10))).await;
        let whole_tag = key < TAGGED && self.draw(4) == 0;
        let whole_group = !whole_tag && key % 2 == 1 && self.draw(3) == 0;
        let keys: Vec<usize> = match () {
            () if whole_tag => (0..TAGGED).collect(),
            () if whole_group => (1..KEYS).step_by(2).collect(),
            () => vec![key],
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
                // Its connection leads to a database that is no more.
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
        // What the write did tells whether it was done to the value from before.
        let told = if let Some(before) = before.filter(|before| *before.value() + 1 == versions[0]) {
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
            // The process was restarted meanwhile: whether Redis was told is not known.
            return;
        }
        if state + 1 < self.database.lock().unwrap().len() {
            // The write is lost.
            return;
        }
        let at = (told == Invalidation::Complete).then(Instant::now);
        for (key, version) in keys.iter().zip(&versions) {
            self.completed.lock().unwrap()[*key].push(Completed { version: *version, node, at });
        }
        if at.is_none() {
            // Once Redis is told, everybody has to know.
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

    /// Something goes wrong.
    async fn fault(&self) {
        match self.draw(9) {
            0..=2 => self.server.forget_a_key(self.draw(1 << 30)),
            3 => self.server.trim_events(usize::try_from(self.draw(3)).unwrap()),
            4 => self.server.hang(Duration::from_millis(self.draw(700))),
            5 => self.server.restart_empty(),
            6 => self.server.restart_with_snapshot(),
            7 => self.server.take_snapshot(),
            _ => {
                let node = usize::try_from(self.draw(NODES as u64)).unwrap();
                let incarnation = self.nodes.lock().unwrap()[node].incarnation + 1;
                let started = self.node(incarnation);
                let old = std::mem::replace(&mut self.nodes.lock().unwrap()[node], started);
                // What it knew to be done is no longer known by itself.
                for done in self.completed.lock().unwrap().iter_mut().flatten().filter(|done| done.node == node) {
                    if done.at.is_none() {
                        done.node = usize::MAX;
                    }
                }
                self.count(&old);
            }
        }
    }

    fn count(&self, node: &Node) {
        let mut tally = self.tally.lock().unwrap();
        for stats in node.cache.stats() {
            tally.l1_hits += stats.l1_hits;
            tally.l2_hits += stats.l2_hits;
            tally.refused += stats.fills_refused;
            tally.deferred += stats.deferred;
            tally.coalesced += stats.coalesced;
            tally.early += stats.early_refreshes;
            tally.puts += stats.puts;
        }
        tally.breaks += node.cache.connection_stats().map_or(0, |connection| connection.breaks);
    }
}

/// One schedule of so many operations.
fn run(seed: u64, operations: usize, options: Options) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let server = Server::new(seed, options.tokens, options.faults);
        let world = Arc::new(World {
            server,
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
        for _ in 0..operations {
            let (what, node) = (world.draw(100), usize::try_from(world.draw(NODES as u64)).unwrap());
            // Most of it happens to two keys.
            let key = usize::try_from(world.draw(if world.draw(3) == 0 { KEYS as u64 } else { 2 })).unwrap();
            let world_ = Arc::clone(&world);
            tasks.push(tokio::spawn(async move {
                match what {
                    0..=1 if options.restores => world_.restore(),
                    2..=6 if options.restores => world_.poll(node),
                    7..=9 if options.faults => world_.fault().await,
                    0..=24 => world_.write(node, key).await,
                    // A reader who goes away.
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

/// How many schedules to run: more than by default for a longer look.
fn schedules(default: u64) -> u64 {
    std::env::var("READTHROUGH_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn check(options: Options, seeds: std::ops::Range<u64>) -> Tally {
    let mut sum = Tally::default();
    let mut counts = HashMap::new();
    for seed in seeds {
        let tally = run(seed, 150, options);
        assert!(tally.stale.is_empty(), "schedule {seed}: {:?}", tally.stale);
        sum.reads += tally.reads;
        sum.writes += tally.writes;
        for (name, count) in [
            ("L1 hits", tally.l1_hits),
            ("L2 hits", tally.l2_hits),
            ("refused fills", tally.refused),
            ("deferred invalidations", tally.deferred),
            ("coalesced reads", tally.coalesced),
            ("early refreshes", tally.early),
            ("puts", tally.puts),
            ("link breaks", tally.breaks),
            ("restores", tally.restores),
        ] {
            *counts.entry(name).or_insert(0) += count;
        }
    }
    println!("{} reads and {} writes, 0 stale; {counts:?}", sum.reads, sum.writes);
    let never = |name: &&str| counts[*name] == 0;
    let mut expected = vec!["L2 hits", "refused fills", "coalesced reads", "puts"];
    if options.l1 {
        expected.push("L1 hits");
    }
    if options.faults {
        expected.extend(["deferred invalidations", "link breaks"]);
    }
    if options.restores {
        expected.push("restores");
    }
    assert_eq!(expected.iter().find(|name| never(name)), None, "the schedules did not try this: {counts:?}");
    sum
}

#[test]
fn no_read_is_stale_with_l1() {
    check(Options { tokens: true, l1: true, faults: true, restores: false }, 0..schedules(400));
}

#[test]
fn no_read_is_stale_without_l1() {
    check(Options { tokens: true, l1: false, faults: true, restores: false }, 0..schedules(400));
}

#[test]
fn no_read_is_of_a_state_of_the_database_that_is_no_more() {
    check(Options { tokens: true, l1: true, faults: false, restores: true }, 0..schedules(150));
    check(Options { tokens: true, l1: false, faults: true, restores: true }, 0..schedules(150));
}

#[test]
fn no_read_is_stale_when_nothing_goes_wrong() {
    check(Options { tokens: true, l1: true, faults: false, restores: false }, 0..schedules(200));
}

/// The race that fill tokens close, and the proof that the checks above can find one.
#[test]
fn without_fill_tokens_a_stale_read_is_found() {
    let options = Options { tokens: false, l1: false, faults: false, restores: false };
    let found = (0..400).map(|seed| run(seed, 150, options)).find(|tally| !tally.stale.is_empty());
    println!("{}", found.expect("the race was not found").stale[0]);
}

/// All processes lose a server that comes back with what it had: none may read that before every other had the
/// time to say what it wrote meanwhile.
#[test]
fn what_was_written_while_the_server_hung_is_not_read_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        for seed in 0..50 {
            let server = Server::new(seed, true, false);
            let open = || {
                let cache = Cache::builder().build_with(Some(Server::connect(&server)));
                let values = cache.namespace(NamespaceOptions::<u64>::new("n").without_l1()).unwrap();
                (cache, values)
            };
            let ((a_cache, a), (b_cache, b)) = (open(), open());
            a_cache.until_connected().await;
            b_cache.until_connected().await;
            let key = Key::new(1);
            let read = async |values: &Namespace<u64>, stored: u64| {
                *values.get_or_load(&key, || async move { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
            };
            assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1), "shared");
            server.hang(Duration::from_millis(600 + seed * 20));
            // Both notice.
            assert_eq!((read(&a, 1).await, read(&b, 1).await), (1, 1));
            assert_eq!(a.invalidate(&key).await, Invalidation::Deferred);
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                assert_eq!((read(&a, 2).await, read(&b, 2).await), (2, 2), "seed {seed}");
                sleep(Duration::from_millis(7)).await;
            }
            assert!(
                b_cache.connection_stats().unwrap().is_available && b_cache.stats()[0].l2_hits > 1,
                "the server is used again"
            );
        }
    });
}
