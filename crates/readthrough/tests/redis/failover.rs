//! Failovers by a real Sentinel, and lost housekeeping keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use readthrough::{Cache, Invalidation, Key, Namespace, NamespaceOptions};
use testbed::{Redis, RedisCluster, RedisSentinel};

async fn open(url: &str) -> (Cache, Namespace<u64>) {
    let cache = Cache::builder().redis(url).redis_timeout(Duration::from_millis(500)).build().unwrap();
    let values = cache.namespace(NamespaceOptions::new("n")).unwrap();
    cache.until_connected().await;
    (cache, values)
}

async fn read(values: &Namespace<u64>, stored: u64) -> u64 {
    *values.get_or_load(&Key::new(1), || async { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
}

/// Polls until a read returns the value. No event announces that a process has connected to the new master.
async fn until_reads(values: &Namespace<u64>, stored: u64) {
    while read(values, stored).await != stored {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One process is connected before the failover, another one starts after it. The old master is still a master.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_is_followed_before_the_old_master_is_demoted() {
    for min_replicas in [false, true] {
        let redis = RedisSentinel::start(min_replicas).await.unwrap();
        let (a_cache, a) = open(&redis.url()).await;
        assert_eq!(read(&a, 1).await, 1);
        redis.fail_over().await.unwrap();
        let (b_cache, b) = open(&redis.url()).await;
        assert_eq!(read(&b, 1).await, 1);
        // The old master receives it, or refuses it.
        let _ = a.invalidate(&Key::new(1)).await;
        until_reads(&b, 2).await;
        // With the setting, the new master rejects writes until the old one is its replica.
        assert!(min_replicas || redis.masters().await.unwrap() == 2, "the processes did not wait for the demotion");
        until_reads(&a, 2).await;
        // Each sees the writes of the other from now on.
        a_cache.until_connected().await;
        assert_eq!(b.invalidate(&Key::new(1)).await, Invalidation::Complete);
        until_reads(&a, 3).await;
        assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Complete);
        until_reads(&b, 4).await;
        assert!(b_cache.connection_stats().unwrap().is_available);
    }
}

/// Writers and readers on three processes while the master fails over. `READTHROUGH_FAILOVERS=10` is the long form.
#[tokio::test(flavor = "multi_thread")]
async fn reads_under_load_are_fresh_after_failovers() {
    let failovers = std::env::var("READTHROUGH_FAILOVERS").map_or(1, |text| text.parse().unwrap());
    let redis = RedisSentinel::start(true).await.unwrap();
    soak(&redis.url(), failovers, async || redis.fail_over().await.unwrap()).await;
}

/// A replica takes over from a server of a Cluster that responds.
#[tokio::test(flavor = "multi_thread")]
async fn reads_under_load_are_fresh_after_a_failover_of_a_cluster() {
    let mut cluster = RedisCluster::start().await.unwrap();
    cluster.add_replica(cluster.server_of("1").await.unwrap()).await.unwrap();
    soak(&cluster.url(), 1, async || cluster.promote_replica().await.unwrap()).await;
}

async fn soak(url: &str, failovers: u64, fail_over: impl AsyncFn()) {
    let version = Arc::new(AtomicU64::new(1));
    let is_done = Arc::new(AtomicU64::new(0));
    // The newest complete version and the time of its completion.
    let complete = Arc::new(std::sync::Mutex::new(Vec::<(u64, Instant)>::new()));
    let (mut tasks, mut caches) = (Vec::new(), Vec::new());
    for process in 0..3_u64 {
        let (cache, values) = open(url).await;
        caches.push(cache.clone());
        let (version, is_done, complete) = (Arc::clone(&version), Arc::clone(&is_done), Arc::clone(&complete));
        tasks.push(tokio::spawn(async move {
            let (mut reads, mut oldest) = (0_u64, Duration::ZERO);
            while is_done.load(Ordering::Relaxed) == 0 {
                if process == 0 && reads.is_multiple_of(20) {
                    let written = version.fetch_add(1, Ordering::SeqCst) + 1;
                    if values.invalidate(&Key::new(1)).await == Invalidation::Complete {
                        complete.lock().unwrap().push((written, Instant::now()));
                    }
                }
                let began = Instant::now();
                let load = || async { Ok::<_, ()>(Some(version.load(Ordering::SeqCst))) };
                let found = *values.get_or_load(&Key::new(1), load).await.unwrap().unwrap();
                reads += 1;
                let newer = complete.lock().unwrap().iter().find(|(newer, _)| *newer > found).map(|(_, at)| *at);
                oldest = oldest.max(newer.map_or(Duration::ZERO, |at| began.saturating_duration_since(at)));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (reads, oldest, cache.stats()[0].l2_hits, cache.connection_stats().unwrap().breaks)
        }));
    }
    for failover in 1..=failovers {
        fail_over().await;
        for cache in &caches {
            while cache.connection_stats().unwrap().breaks < failover {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cache.until_connected().await;
        }
        for cache in &caches {
            let l2_hits = cache.stats()[0].l2_hits;
            while cache.stats()[0].l2_hits == l2_hits {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    is_done.store(1, Ordering::Relaxed);
    for task in tasks {
        let (reads, oldest, l2_hits, breaks) = task.await.unwrap();
        println!("{failovers} failovers: {reads} reads, {l2_hits} L2 hits, {breaks} breaks, oldest value {oldest:?}");
        assert!(oldest < Duration::from_secs(1), "a value was read {oldest:?} after it was replaced");
    }
}

/// Two processes share values again after the keys of the library are lost, and no old value returns.
#[tokio::test(flavor = "multi_thread")]
async fn lost_housekeeping_keys_cost_misses_and_not_sharing() {
    let redis = Redis::start().await.unwrap();
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (_a_cache, a) = open(&redis.url()).await;
    let (mut stored, mut shared) = (1, 0);
    for command in [&["FLUSHALL"][..], &["DEL", "readthrough:epochs"], &["DEL", "readthrough:invalidations"]] {
        assert_eq!(read(&a, stored).await, stored);
        let mut lose = redis::cmd(command[0]);
        command[1..].iter().for_each(|argument| {
            lose.arg(argument);
        });
        lose.query_async::<()>(&mut connection).await.unwrap();
        // A process that starts later; both hold no value that the other replaces.
        let (_b_cache, b) = open(&redis.url()).await;
        while shared < 3 {
            assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Complete);
            stored += 1;
            let of_a = read(&a, stored).await;
            assert_eq!(of_a, stored);
            shared = if read(&b, stored + 1_000).await == of_a { shared + 1 } else { 0 };
            let _ = b.invalidate(&Key::new(1)).await;
            until_reads(&a, stored).await;
        }
        shared = 0;
        let _ = a.invalidate(&Key::new(1)).await;
        stored += 1;
        until_reads(&a, stored).await;
    }
}

/// A value whose load began before a flush is not stored after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_began_before_a_flush_is_not_stored() {
    let redis = Redis::start().await.unwrap();
    let ((a_cache, a), (b_cache, b)) = (open(&redis.url()).await, open(&redis.url()).await);
    let other = Key::new(2);
    b.get_or_load(&other, || async { Ok::<_, ()>(Some(1)) }).await.unwrap();
    let (started, is_started) = tokio::sync::oneshot::channel();
    let (release, is_released) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn({
        let b = b.clone();
        async move {
            let load = || async {
                started.send(()).unwrap();
                is_released.await.unwrap();
                Ok::<_, ()>(Some(1))
            };
            *b.get_or_load(&Key::new(1), load).await.unwrap().unwrap()
        }
    });
    is_started.await.unwrap();
    assert_eq!(a_cache.flush("n").await.unwrap(), Invalidation::Complete);
    while b.get(&other).await.is_some() {
        // Until the process has received the flush.
        tokio::task::yield_now().await;
    }
    let rejected = b_cache.stats()[0].fills_refused;
    release.send(()).unwrap();
    assert_eq!(load.await.unwrap(), 1, "its own reader began before the flush");
    assert_eq!((read(&a, 2).await, read(&b, 2).await), (2, 2));
    assert_eq!(b_cache.stats()[0].fills_refused, rejected + 1);
}
