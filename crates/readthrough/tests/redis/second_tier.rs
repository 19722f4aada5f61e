//! The tests for implementers, on the second tiers of the library and on one that loses the guarantee.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use readthrough::conformance::check;
use readthrough::second_tier::{
    Connector, Epochs, Fill, Info, LeaseRequest, LeaseResponse, MemoryTier, Names, Poll, Replacement, Result,
    SecondTier, ServerState, StreamPosition,
};
use readthrough::{Cache, Key, NamespaceOptions};
use testbed::{Redis, RedisCluster};

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    check(&MemoryTier::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_conforms() {
    let redis = Redis::start().await.unwrap();
    check(&readthrough::second_tier::redis(&redis.url()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_conforms() {
    let cluster = RedisCluster::start().await.unwrap();
    check(&readthrough::second_tier::redis(&cluster.url()).unwrap()).await;
}

/// A tier with get, set and delete: it checks the lease and stores in two steps.
struct GetAndSet(MemoryTier);

struct GetAndSetConnection(Arc<dyn SecondTier>);

#[async_trait]
impl Connector for GetAndSet {
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn SecondTier>> {
        Ok(Arc::new(GetAndSetConnection(self.0.connect(prefix).await?)))
    }
}

#[async_trait]
impl SecondTier for GetAndSetConnection {
    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool> {
        // The lease is still held. An invalidation comes, and then the old value is stored all the same.
        let request = LeaseRequest {
            token: fill.token ^ 1,
            ttl: Duration::from_secs(1),
            generation: fill.generation,
            generation_ttl: fill.generation_ttl,
        };
        if self.0.acquire(names, request).await?.is_granted {
            self.0.release(names, request.token).await?;
            return Ok(false);
        }
        tokio::task::yield_now().await;
        self.0.invalidate(std::slice::from_ref(&names.entry), 0).await?;
        let generation = self.0.acquire(names, LeaseRequest { token: fill.token, ..request }).await?.generation;
        self.0.fill(names, Fill { generation, ..fill }).await
    }
    async fn open_epoch(&self, predecessor: Option<&str>) -> Result<ServerState> {
        self.0.open_epoch(predecessor).await
    }
    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        self.0.get(names).await
    }
    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<LeaseResponse> {
        self.0.acquire(names, request).await
    }
    async fn generations(&self, groups: &[String], generation: u64, ttl: Duration) -> Result<Vec<u64>> {
        self.0.generations(groups, generation, ttl).await
    }
    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()> {
        self.0.renew(names, token, ttl).await
    }
    async fn release(&self, names: &Names, token: u64) -> Result<()> {
        self.0.release(names, token).await
    }
    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool> {
        self.0.replace(names, replacement).await
    }
    async fn invalidate(&self, names: &[String], node: u64) -> Result<()> {
        self.0.invalidate(names, node).await
    }
    async fn announce(&self, names: &[String], node: u64) -> Result<()> {
        self.0.announce(names, node).await
    }
    async fn flush(&self, namespace: &str, node: u64) -> Result<Epochs> {
        self.0.flush(namespace, node).await
    }
    async fn poll(&self, after: &StreamPosition, wait: Duration) -> Result<Poll> {
        self.0.poll(after, wait).await
    }
    async fn info(&self) -> Result<Info> {
        self.0.info().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_without_atomic_operations_does_not_conform() {
    let tier = GetAndSet(MemoryTier::default());
    assert!(AssertUnwindSafe(check(&tier)).catch_unwind().await.is_err());
}

#[tokio::test]
async fn close_waits_for_invalidations_in_progress() {
    let cache = Cache::builder().second_tier(MemoryTier::default()).build().unwrap();
    let values = cache.namespace(NamespaceOptions::<u64>::new("n")).unwrap();
    cache.until_connected().await;
    let key = Key::new(1);
    // The task of the invalidation has not run when its caller is dropped: the runtime has one thread.
    tokio::select! {
        biased;
        _ = values.invalidate(&key) => unreachable!("no task runs in between"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(cache.stats()[0].invalidations, 0);
    cache.close(Duration::from_secs(600)).await.unwrap();
    assert_eq!(cache.stats()[0].invalidations, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_share_values_through_another_second_tier() {
    let server = MemoryTier::default();
    let open = || {
        let cache = Cache::builder().second_tier(server.clone()).build().unwrap();
        let values = cache.namespace(NamespaceOptions::<u64>::new("n").without_l1()).unwrap();
        (cache, values)
    };
    let ((first, a), (second, b)) = (open(), open());
    first.until_connected().await;
    second.until_connected().await;
    let key = Key::in_group("g", 1).tag("t");
    let read = async |values: &readthrough::Namespace<u64>, stored: u64| {
        *values.get_or_load(&key, || async { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
    };
    assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1));
    let _ = b.invalidate_group("t").await;
    assert_eq!((read(&a, 2).await, read(&b, 9).await), (2, 2));
    let _ = second.flush("n").await;
    // The other process learns of a flush with its next poll.
    while read(&a, 3).await != 3 {
        tokio::task::yield_now().await;
    }
}
