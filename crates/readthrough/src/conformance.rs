//! Tests that every [second tier](crate::second_tier) must pass.
//!
//! Call [`check`] in a test, with a server that nobody else uses:
//!
//! ```
//! use readthrough::second_tier::MemoryTier;
//!
//! #[tokio::main]
//! async fn main() {
//!     readthrough::conformance::check(&MemoryTier::default()).await;
//! }
//! ```
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use crate::key::{Key, Names};
use crate::second_tier::{Connector, Fill, LeaseRequest, LeaseResponse, Replacement, SecondTier, StreamPosition};

const LONG: Duration = Duration::from_secs(600);
const NODE: u64 = 7;

/// The number of rounds of the races.
const ROUNDS: u64 = 100;

/// Runs all tests, which take a few seconds.
///
/// # Panics
/// Panics if the tier does not do what its operations promise.
pub async fn check(connector: &dyn Connector) {
    for key in [Key::new("entry"), Key::in_group("group", "member")] {
        let names = Names::new("v1:conformance", &key);
        let tier = Checked(open(connector, "a:").await, names);
        tier.leases_are_exclusive().await;
        tier.revoked_leases_store_nothing().await;
        tier.replacements_need_the_expected_entry().await;
        tier.races_leave_nothing_old().await;
        tier.times_to_live_hold().await;
    }
    generations_belong_to_groups(open(connector, "a:").await).await;
    events_are_complete_and_in_order(open(connector, "b:").await, open(connector, "b:").await).await;
    prefixes_are_separate(open(connector, "c:").await, open(connector, "d:").await).await;
}

/// Opens a connection, and watches the master as a cache does.
async fn open(connector: &dyn Connector, prefix: &str) -> Arc<dyn SecondTier> {
    let tier = connector.connect(prefix).await.expect("the tier connects");
    tier.open_epoch(None).await.expect("an epoch");
    let watched = Arc::downgrade(&tier);
    tokio::spawn(async move {
        while let Some(tier) = watched.upgrade() {
            let _ = tier.is_current_master().await;
            drop(tier);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tier
}

fn group_of(names: &Names) -> &str {
    names.group.as_ref().unwrap_or(&names.entry)
}

/// A connection and the names of one entry.
#[derive(Clone)]
struct Checked(Arc<dyn SecondTier>, Names);

impl Checked {
    async fn acquire(&self, token: u64) -> LeaseResponse {
        let request = LeaseRequest { token, ttl: LONG, generation: rand::random::<u64>() | 1, generation_ttl: LONG };
        self.0.acquire(&self.1, request).await.expect("acquire")
    }

    async fn granted(&self, token: u64) -> u64 {
        let response = self.acquire(token).await;
        assert!(response.is_granted, "a lease that nobody holds is granted");
        assert_eq!(response.generation == 0, self.1.group.is_none(), "the generation is 0 only without a group");
        response.generation
    }

    async fn fill(&self, token: u64, generation: u64, bytes: &[u8], ttl: Duration) -> bool {
        let fill = Fill { token, generation, bytes, ttl, generation_ttl: LONG };
        self.0.fill(&self.1, fill).await.expect("fill")
    }

    async fn invalidate(&self, name: &str) {
        self.0.invalidate(&[name.to_owned()], NODE).await.expect("invalidate");
    }

    /// Returns the stored entry if it is valid: its first eight bytes are the generation of its group.
    async fn stored(&self) -> Option<Vec<u8>> {
        let names: Vec<&str> =
            [Some(&self.1.entry), self.1.group.as_ref()].into_iter().flatten().map(String::as_str).collect();
        let mut values = self.0.get(&names).await.expect("get").into_iter();
        let bytes = values.next().expect("one value for each name")?;
        let generation = match &self.1.group {
            Some(_) => String::from_utf8(values.next().expect("one value for each name")?).ok()?.parse().ok()?,
            None => 0_u64,
        };
        (bytes.get(..8) == Some(&generation.to_be_bytes()[..])).then_some(bytes)
    }

    /// Stores an entry; returns its bytes and its generation.
    async fn store(&self, token: u64, value: u8) -> (Vec<u8>, u64) {
        let generation = self.granted(token).await;
        let bytes = [&generation.to_be_bytes()[..], &[value]].concat();
        assert!(self.fill(token, generation, &bytes, LONG).await, "a fill with a valid lease is accepted");
        assert_eq!(self.stored().await.as_ref(), Some(&bytes));
        (bytes, generation)
    }

    async fn leases_are_exclusive(&self) {
        self.invalidate(&self.1.entry).await;
        let generation = self.granted(1).await;
        let second = self.acquire(2).await;
        assert!(!second.is_granted, "a held lease is not granted");
        assert_eq!(second.generation, generation, "a group keeps its generation");
        assert!(!self.fill(2, generation, b"x", LONG).await, "only the holder of the lease fills");
        self.0.release(&self.1, 2).await.expect("release");
        assert!(!self.acquire(3).await.is_granted, "only the holder releases the lease");
        self.0.release(&self.1, 1).await.expect("release");
        self.granted(4).await;
        self.0.release(&self.1, 4).await.expect("release");
        let (bytes, generation) = self.store(5, 1).await;
        assert!(!self.fill(5, generation, b"x", LONG).await, "a fill ends the lease");
        let response = self.acquire(6).await;
        assert_eq!((response.is_granted, response.bytes), (true, Some(bytes)), "a lease comes with the stored entry");
        self.0.release(&self.1, 6).await.expect("release");
    }

    async fn revoked_leases_store_nothing(&self) {
        for name in [self.1.entry.as_str(), group_of(&self.1)] {
            self.store_over(1).await;
            let generation = self.acquire(10).await.generation;
            self.invalidate(name).await;
            assert_eq!(self.stored().await, None, "an invalidated entry is not returned");
            self.0.renew(&self.1, 10, LONG).await.expect("renew");
            let late = [&generation.to_be_bytes()[..], b"late"].concat();
            let stored = self.fill(10, generation, &late, LONG).await;
            assert!(!stored && self.stored().await.is_none(), "an invalidation revokes the lease");
            self.invalidate(&self.1.entry).await;
        }
    }

    /// Stores an entry whatever was stored before.
    async fn store_over(&self, value: u8) -> (Vec<u8>, u64) {
        self.invalidate(&self.1.entry).await;
        self.store(rand::random(), value).await
    }

    async fn replacements_need_the_expected_entry(&self) {
        let replace = async |expected: &[u8], old: u64, new: u64, bytes: &[u8]| {
            let generations = (old, new);
            let replacement = Replacement { expected, generations, bytes, ttl: LONG, generation_ttl: LONG };
            self.0.replace(&self.1, replacement).await.expect("replace")
        };
        let (bytes, generation) = self.store_over(1).await;
        let new = if generation == 0 { 0 } else { generation ^ 2 };
        let replaced = [&new.to_be_bytes()[..], &[2]].concat();
        assert!(!replace(b"other", generation, new, &replaced).await, "another entry is not replaced");
        if self.1.group.is_some() {
            assert!(!replace(&bytes, generation ^ 4, new, &replaced).await, "another generation is not replaced");
        }
        assert_eq!(self.stored().await.as_ref(), Some(&bytes));
        let lease = self.acquire(20).await;
        assert!(replace(&bytes, generation, new, &replaced).await, "the expected entry is replaced");
        assert!(!self.fill(20, lease.generation, &bytes, LONG).await, "a replacement revokes the lease");
        assert_eq!(self.stored().await.as_ref(), Some(&replaced));
        assert!(!replace(&bytes, generation, new, &replaced).await, "the old entry is gone");
        self.invalidate(group_of(&self.1)).await;
        assert!(!replace(&replaced, new, generation, &bytes).await, "an invalidated entry is not replaced");
    }

    /// Lets fills and replacements race with invalidations. Whoever comes first, nothing is stored afterwards.
    async fn races_leave_nothing_old(&self) {
        for round in 0..ROUNDS {
            let (bytes, generation) = self.store_over(1).await;
            self.acquire(round).await;
            let name = if round % 2 == 0 { &self.1.entry } else { group_of(&self.1) }.to_owned();
            let invalidation = {
                let tier = self.clone();
                tokio::spawn(async move { tier.invalidate(&name).await })
            };
            let fill = {
                let (tier, bytes) = (self.clone(), bytes.clone());
                tokio::spawn(async move { tier.fill(round, generation, &bytes, LONG).await })
            };
            let replace = {
                let (tier, bytes) = (self.clone(), bytes.clone());
                let generations = (generation, generation);
                tokio::spawn(async move {
                    let replacement =
                        Replacement { expected: &bytes, generations, bytes: &bytes, ttl: LONG, generation_ttl: LONG };
                    tier.0.replace(&tier.1, replacement).await
                })
            };
            let (invalidated, filled, replaced) = (invalidation.await, fill.await, replace.await);
            assert!(invalidated.is_ok() && filled.is_ok() && replaced.is_ok_and(|replaced| replaced.is_ok()));
            assert_eq!(self.stored().await, None, "an operation that races with an invalidation stores nothing");
        }
    }

    async fn times_to_live_hold(&self) {
        self.invalidate(&self.1.entry).await;
        let generation = self.granted(30).await;
        let bytes = [&generation.to_be_bytes()[..], b"short"].concat();
        assert!(self.fill(30, generation, &bytes, Duration::from_millis(100)).await);
        // A server does not announce that a value or a lease has expired, so the loops poll.
        while self.stored().await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let short = LeaseRequest { token: 31, ttl: Duration::from_millis(100), generation: 1, generation_ttl: LONG };
        assert!(self.0.acquire(&self.1, short).await.expect("acquire").is_granted);
        while !self.acquire(32).await.is_granted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!self.fill(31, generation, &bytes, LONG).await, "an expired lease is lost");
        self.0.release(&self.1, 32).await.expect("release");
    }
}

async fn generations_belong_to_groups(tier: Arc<dyn SecondTier>) {
    let names: Vec<String> = ["x", "y"]
        .map(|tag| Names::new("v1:conformance", &Key::in_group(tag, "")).group)
        .into_iter()
        .flatten()
        .collect();
    let generations = async |candidate: u64| tier.generations(&names, candidate, LONG).await.expect("generations");
    let first = generations(1_001).await;
    assert_eq!(first, generations(1_003).await, "a group keeps its generation");
    tier.invalidate(&names[..1], NODE).await.expect("invalidate");
    let second = generations(1_005).await;
    assert_eq!(second, [1_005, first[1]], "an invalidated group has the next generation");
}

async fn events_are_complete_and_in_order(writer: Arc<dyn SecondTier>, reader: Arc<dyn SecondTier>) {
    let opened = reader.open_epoch(None).await.expect("open_epoch");
    let again = writer.open_epoch(Some(&opened.epochs.server)).await.expect("open_epoch");
    assert_eq!(again.epochs, opened.epochs, "two connections have one epoch");
    let mut position = opened.newest.unwrap_or_default();
    let poll = reader.poll(&position, Duration::from_millis(1)).await.expect("poll");
    assert!(poll.events.is_empty(), "nothing has happened");
    let sent: Vec<Vec<String>> = vec![
        vec!["v1:conformance:{1}".to_owned()],
        vec!["group:v1:conformance:{2}".to_owned(), "v1:conformance:{3}:x".to_owned()],
    ];
    writer.invalidate(&sent[0], NODE).await.expect("invalidate");
    writer.announce(&sent[1], NODE).await.expect("announce");
    let flushed = writer.flush("conformance", NODE).await.expect("flush");
    assert_ne!(flushed, opened.epochs, "a flush changes the epochs");
    let mut received = Vec::new();
    while received.len() < 3 {
        let poll = reader.poll(&position, Duration::from_millis(50)).await.expect("poll");
        for event in poll.events {
            let StreamPosition { sequence, .. } = event.position;
            assert_eq!((sequence, event.node), (position.sequence + 1, NODE), "events have consecutive numbers");
            position = event.position;
            let mut names = event.names;
            names.sort();
            received.push(names);
        }
    }
    assert_eq!(received, [sent[0].clone(), sent[1].clone(), Vec::new()]);
    let poll = reader.poll(&position, Duration::from_millis(1)).await.expect("poll");
    assert_eq!((poll.tail.as_ref(), poll.epochs.as_ref()), (Some(&position), Some(&flushed)));
    // A poll that waits is woken by the next event.
    let waiting = {
        let (reader, position) = (Arc::clone(&reader), position.clone());
        tokio::spawn(async move { reader.poll(&position, LONG).await })
    };
    // A connection does not announce that its poll waits. If the pause is too short, the poll finds the event at once.
    tokio::time::sleep(Duration::from_millis(20)).await;
    writer.invalidate(&sent[0], NODE).await.expect("invalidate");
    let woken = waiting.await.expect("poll").expect("poll");
    let woken = if woken.events.is_empty() { reader.poll(&position, LONG).await.expect("poll") } else { woken };
    assert_eq!(woken.events.len(), 1);
}

async fn prefixes_are_separate(first: Arc<dyn SecondTier>, second: Arc<dyn SecondTier>) {
    let names = Names::new("v1:conformance", &Key::new("shared"));
    let (first, second) = (Checked(first, names.clone()), Checked(second, names));
    first.store(1, 1).await;
    assert_eq!(second.stored().await, None);
    second.store(1, 2).await;
    second.invalidate(&second.1.entry).await;
    assert!(first.stored().await.is_some(), "an invalidation has one prefix");
}
