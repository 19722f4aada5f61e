//! What a namespace does, with Redis and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use readthrough::{Cache, Invalidation, Key, LoadError, Namespace, NamespaceOptions};
use testbed::{Redis, RedisCluster};

/// Opens a cache as another process would.
async fn process(url: &str) -> (Cache, Namespace<String>) {
    let cache = Cache::builder().redis(url).redis_timeout(Duration::from_secs(5)).build().unwrap();
    let values = cache.namespace(NamespaceOptions::new("thing")).unwrap();
    cache.until_connected().await;
    (cache, values)
}

async fn read(values: &Namespace<String>, key: &Key, stored: &str) -> Option<String> {
    let loaded = values.get_or_load(key, || async { Ok::<_, ()>(Some(stored.to_owned())) }).await.unwrap();
    loaded.map(|value| value.to_string())
}

async fn two_processes(url: &str) {
    let ((a_cache, a), (b_cache, b)) = (process(url).await, process(url).await);
    let keys = [Key::new(1), Key::in_group("g", 1), Key::in_group("g", 2), Key::in_group("h", 1)];
    for key in &keys {
        assert_eq!(read(&a, key, "old").await.unwrap(), "old");
        assert_eq!(read(&b, key, "not loaded").await.unwrap(), "old", "from Redis");
    }
    assert_eq!((a_cache.stats()[0].misses, b_cache.stats()[0].misses, b_cache.stats()[0].l2_hits), (4, 0, 4));
    assert_eq!(a.invalidate_group("g").await, Invalidation::Complete);
    assert_eq!(a.invalidate(&keys[0]).await, Invalidation::Complete);
    for (key, expected) in keys.iter().zip(["new", "new", "new", "old"]) {
        assert_eq!(read(&a, key, "new").await.unwrap(), expected, "{key:?}");
    }
    let many = b.get_many_or_load(&keys, |_| async { Err("not loaded") }).await.unwrap();
    assert_eq!(
        many.iter().map(|value| value.as_ref().unwrap().as_str()).collect::<Vec<_>>(),
        ["new", "new", "new", "old"]
    );
    for (key, same_group) in [(&keys[1], Some(&keys[2])), (&keys[0], None)] {
        let (before, late) = (a.snapshot(key).await.unwrap(), b.snapshot(key).await.unwrap());
        let left = format!("{} and more", before.value());
        assert_eq!(a.replace_if_unchanged(before, left.clone()).await, Invalidation::Complete);
        assert_eq!(read(&a, key, "not loaded").await.unwrap(), left);
        if let Some(member) = same_group {
            assert_eq!(read(&a, member, "loaded").await.unwrap(), "loaded", "the rest of the group is unusable");
        }
        assert_eq!(b.replace_if_unchanged(late, "of an old value".to_owned()).await, Invalidation::Complete);
        assert_eq!(read(&b, key, "new").await.unwrap(), "new", "the value was not stored");
    }
    assert_eq!((a_cache.stats()[0].puts, b_cache.stats()[0].puts), (2, 0));
    assert_eq!(b_cache.flush("thing").await.unwrap(), Invalidation::Complete);
    for key in &keys {
        assert_eq!(read(&b, key, "newer").await.unwrap(), "newer", "{key:?}");
    }
    assert!(a_cache.flush("another").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_values_on_a_single_server() {
    two_processes(&Redis::start().await.unwrap().url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_values_on_a_cluster() {
    two_processes(&RedisCluster::start().await.unwrap().url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_stays_in_the_process() {
    let cache = Cache::builder().build().unwrap();
    let values = cache.namespace(NamespaceOptions::<String>::new("thing")).unwrap();
    let key = Key::in_group("g", 1);
    assert_eq!(read(&values, &key, "old").await.unwrap(), "old");
    assert_eq!(read(&values, &key, "not loaded").await.unwrap(), "old");
    assert_eq!(values.invalidate_group("g").await, Invalidation::Complete);
    assert_eq!(read(&values, &key, "new").await.unwrap(), "new");
    let stats = &cache.stats()[0];
    assert_eq!((stats.l1_hits, stats.misses, stats.loads, stats.invalidations), (1, 2, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_remembered_and_errors_are_not() {
    let redis = Redis::start().await.unwrap();
    let (cache, values) = process(&redis.url()).await;
    let key = Key::new(1);
    assert_eq!(
        values.get_or_load(&key, || async { Err::<Option<String>, _>("no database") }).await,
        Err(LoadError::Failed(Arc::new("no database")))
    );
    assert_eq!(values.get_or_load(&key, || async { Ok::<_, ()>(None) }).await, Ok(None));
    assert_eq!(read(&values, &key, "not loaded").await, None);
    let stats = &cache.stats()[0];
    assert_eq!((stats.loads, stats.load_errors), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_key_share_one_load() {
    let redis = Redis::start().await.unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let mut readers = Vec::new();
    // Two processes, fifty readers each, which wait for each other as long as it takes.
    let open = async || {
        let cache = Cache::builder().redis(redis.url()).redis_timeout(Duration::from_secs(5)).build().unwrap();
        let options = NamespaceOptions::new("thing").lease(Duration::from_secs(60)).lease_wait(Duration::from_secs(60));
        let values = cache.namespace::<String>(options).unwrap();
        cache.until_connected().await;
        (cache, values)
    };
    let processes = [open().await, open().await];
    for reader in 0..100 {
        let values = processes[reader % 2].1.clone();
        let (loads, gate) = (Arc::clone(&loads), Arc::clone(&gate));
        readers.push(tokio::spawn(async move {
            let load = || async move {
                loads.fetch_add(1, Ordering::Relaxed);
                let _permit = gate.acquire().await;
                Ok::<_, ()>(Some("value".to_owned()))
            };
            values.get_or_load(&Key::new(1), load).await.unwrap().unwrap().to_string()
        }));
    }
    // All have arrived when all but the two leaders wait for them.
    let arrived = || processes.iter().map(|(cache, _)| cache.stats()[0].lease_waits).sum::<u64>() > 0;
    while !arrived() {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), "value");
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lasts_as_long_as_its_load_and_not_much_longer_than_its_process() {
    let redis = Redis::start().await.unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let open = async || {
        let cache = Cache::builder().redis(redis.url()).redis_timeout(Duration::from_secs(5)).build().unwrap();
        let options = NamespaceOptions::new("thing").lease(Duration::from_millis(300));
        let values = cache.namespace::<String>(options.lease_wait(Duration::from_secs(600))).unwrap();
        cache.until_connected().await;
        (cache, values)
    };
    let (first, second) = (open().await, open().await);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let read = |values: &Namespace<String>| {
        let (values, loads, gate) = (values.clone(), Arc::clone(&loads), Arc::clone(&gate));
        tokio::spawn(async move {
            let load = || async move {
                loads.fetch_add(1, Ordering::Relaxed);
                let _permit = gate.acquire().await;
                Ok::<_, ()>(Some("value".to_owned()))
            };
            values.get_or_load(&Key::new(1), load).await.unwrap().unwrap().to_string()
        })
    };
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let leader = read(&first.1);
    let lease = loop {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*lease:*").query_async(&mut connection).await.unwrap();
        if let Some(key) = keys.into_iter().next() {
            break key;
        }
    };
    let follower = read(&second.1);
    // Renewed so often it would have expired in between.
    let (mut renewals, mut left) = (0, i64::MAX);
    while renewals < 6 {
        let now: i64 = redis::cmd("PTTL").arg(&lease).query_async(&mut connection).await.unwrap();
        assert!(now > 0, "the lease expired during its load");
        renewals += i32::from(now > left);
        left = now;
    }
    gate.add_permits(2);
    assert_eq!((leader.await.unwrap(), follower.await.unwrap()), ("value".to_owned(), "value".to_owned()));
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    // The lease of a process that was killed: nobody renews it, and nobody waits 600 s.
    let _ = second.1.invalidate(&Key::new(1)).await;
    let _: () = redis::cmd("SET").arg(&lease).arg("1").arg("PX").arg(300).query_async(&mut connection).await.unwrap();
    assert_eq!(read(&second.1).await.unwrap(), "value");
    assert_eq!(loads.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_goes_away_hands_the_load_on() {
    let redis = Redis::start().await.unwrap();
    let (_cache, values) = process(&redis.url()).await;
    let key = Key::new(1);
    let (started, wait) = tokio::sync::oneshot::channel();
    let leader = {
        let (values, key) = (values.clone(), key.clone());
        tokio::spawn(async move {
            let load = || async move {
                started.send(()).unwrap();
                std::future::pending::<Result<Option<String>, ()>>().await
            };
            values.get_or_load(&key, load).await
        })
    };
    wait.await.unwrap();
    let follower = {
        let (values, key) = (values.clone(), key.clone());
        tokio::spawn(async move { read(&values, &key, "value").await })
    };
    tokio::task::yield_now().await;
    leader.abort();
    assert_eq!(follower.await.unwrap().unwrap(), "value");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_a_newer_write_stays() {
    let redis = Redis::start().await.unwrap();
    let open = || async {
        let cache = Cache::builder().redis(redis.url()).redis_timeout(Duration::from_secs(5)).build().unwrap();
        let options = NamespaceOptions::<(u64, String)>::new("row").value_version(|row| row.0).without_l1();
        let rows = cache.namespace(options).unwrap();
        cache.until_connected().await;
        (cache, rows)
    };
    let ((_a, a), (_b, b)) = (open().await, open().await);
    let key = Key::new(1);
    let row = |version: u64| (version, format!("of {version}"));
    let read = async |rows: &Namespace<(u64, String)>, stored: u64| {
        rows.get_or_load(&key, || async { Ok::<_, ()>(Some(row(stored))) }).await.unwrap().unwrap().0
    };
    assert_eq!(read(&a, 1).await, 1);
    assert_eq!(a.replace_if_newer(&key, row(3)).await, Invalidation::Complete);
    assert_eq!(read(&b, 9).await, 3, "put, not loaded");
    assert_eq!(b.replace_if_newer(&key, row(2)).await, Invalidation::Complete);
    assert_eq!(read(&a, 3).await, 3, "the older write did not replace it");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shape_under_the_same_key_is_a_miss() {
    let redis = Redis::start().await.unwrap();
    let (_cache, texts) = process(&redis.url()).await;
    let key = Key::new(1);
    assert_eq!(read(&texts, &key, "text").await.unwrap(), "text");
    let cache = Cache::builder().redis(redis.url()).redis_timeout(Duration::from_secs(5)).build().unwrap();
    let numbers = cache.namespace(NamespaceOptions::<u64>::new("thing")).unwrap();
    cache.until_connected().await;
    assert_eq!(*numbers.get_or_load(&key, || async { Ok::<_, ()>(Some(7)) }).await.unwrap().unwrap(), 7);
    assert_eq!((cache.stats()[0].undecodable > 0, cache.stats()[0].l2_hits), (true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_bound_is_warned_of() {
    let redis = Redis::start().await.unwrap();
    let (cache, _) = process(&redis.url()).await;
    let stats = cache.redis_stats().await.unwrap();
    assert!(stats.used_memory > 0 && stats.version.starts_with(|first: char| first.is_ascii_digit()), "{stats:?}");
    assert!(stats.warnings.len() == 2 && stats.warnings[0].contains("maxmemory"), "{stats:?}");
}

#[test]
fn urls_that_can_not_be_used_are_refused() {
    for url in ["redis", "http://host", "redis+sentinel://host:26379", "redis+ring://host"] {
        let error = Cache::builder().redis(url).build().unwrap_err().to_string();
        assert!(error.starts_with("the Redis URL"), "{url}: {error}");
    }
}
