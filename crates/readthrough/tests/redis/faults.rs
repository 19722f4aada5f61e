//! Redis is killed, paused and restarted.

use std::time::Duration;

use readthrough::{Cache, Invalidation, Key, Namespace, NamespaceOptions, RedisFault};
use testbed::Redis;

async fn process(redis: &Redis) -> (Cache, Namespace<u64>) {
    // Longer than by default: a busy machine must not look like one of the faults.
    let cache = Cache::builder().redis(redis.url()).redis_timeout(Duration::from_millis(500)).build().unwrap();
    let values = cache.namespace(NamespaceOptions::new("n")).unwrap();
    cache.until_connected().await;
    (cache, values)
}

async fn read(values: &Namespace<u64>, stored: u64) -> u64 {
    *values.get_or_load(&Key::new(1), || async { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_fails_no_read_and_what_was_written_meanwhile_is_seen() {
    let mut redis = Redis::start().await.unwrap();
    let ((a_cache, a), (b_cache, b)) = (process(&redis).await, process(&redis).await);
    assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1));
    redis.kill().unwrap();
    until(|| !a_cache.connection_stats().unwrap().is_available && !b_cache.connection_stats().unwrap().is_available)
        .await;
    assert_eq!((read(&a, 2).await, read(&b, 2).await), (2, 2), "loaded: nobody knows what others wrote");
    assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Deferred);
    assert_eq!(a_cache.connection_stats().unwrap().pending, 1);
    assert_eq!((read(&a, 3).await, read(&b, 3).await), (3, 3));
    redis.restart().await.unwrap();
    a_cache.until_connected().await;
    b_cache.until_connected().await;
    assert_eq!(a_cache.connection_stats().unwrap().pending, 0);
    assert_eq!((read(&a, 4).await, read(&b, 9).await), (4, 4), "shared again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_not_waited_for_twice() {
    let mut redis = Redis::start().await.unwrap();
    let ((a_cache, a), (b_cache, b)) = (process(&redis).await, process(&redis).await);
    assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1));
    redis.pause().unwrap();
    assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Deferred);
    let failures = a_cache.connection_stats().unwrap().failures;
    for stored in 2..1_000 {
        assert_eq!(read(&a, stored).await, stored);
    }
    assert_eq!(a_cache.connection_stats().unwrap().failures, failures, "none of the reads used Redis");
    until(|| !b_cache.connection_stats().unwrap().is_available).await;
    assert_eq!(read(&b, 1_000).await, 1_000);
    redis.resume().unwrap();
    // It has the old value still, and neither process may read that.
    while !(a_cache.connection_stats().unwrap().is_available && b_cache.connection_stats().unwrap().is_available) {
        assert_eq!((read(&a, 1_000).await, read(&b, 1_000).await), (1_000, 1_000));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((read(&a, 1_000).await, read(&b, 1_000).await), (1_000, 1_000));
    assert_eq!(read(&b, 9).await, 1_000, "shared again");
}

/// Issues commands as an administrator of the server would.
async fn administer(url: &str, commands: &[&str]) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for command in commands {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query_async::<()>(&mut connection).await.unwrap();
    }
}

/// Waits for a fault.
async fn until_fault(cache: &Cache, fault: RedisFault) {
    until(|| cache.connection_stats().unwrap().fault == Some(fault)).await;
}

fn connect(url: &str) -> (Cache, Namespace<u64>) {
    let cache = Cache::builder().redis(url).redis_timeout(Duration::from_millis(500)).build().unwrap();
    let values = cache.namespace(NamespaceOptions::new("n")).unwrap();
    (cache, values)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_not_used_until_it_does() {
    let redis = Redis::start().await.unwrap();
    for (broken, fault, mended) in [
        // Far less than an empty server needs.
        (&["CONFIG SET maxmemory 1000"][..], RedisFault::Full, &["CONFIG SET maxmemory 0"][..]),
        (&["REPLICAOF 127.0.0.1 1"], RedisFault::ReadOnly, &["REPLICAOF NO ONE"]),
    ] {
        let (cache, values) = connect(&redis.url());
        cache.until_connected().await;
        assert_eq!(read(&values, 1).await, 1);
        administer(&redis.url(), broken).await;
        // A full server still deletes: it is the fill that fails.
        let invalidated = values.invalidate(&Key::new(1)).await;
        assert!(fault == RedisFault::Full || invalidated == Invalidation::Deferred, "{fault}");
        while cache.connection_stats().unwrap().fault != Some(fault) {
            let _ = values.invalidate(&Key::new(1)).await;
            assert_eq!(read(&values, 7).await, 7, "loaded: {fault}");
        }
        for stored in 2..50 {
            assert_eq!(read(&values, stored).await, stored, "loaded: {fault}");
        }
        administer(&redis.url(), mended).await;
        cache.until_connected().await;
        assert_eq!(cache.connection_stats().unwrap().fault, None);
        assert_eq!((read(&values, 60).await, read(&values, 61).await), (60, 60), "shared again");
        let _ = values.invalidate(&Key::new(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_the_user_fails_no_read_and_is_named() {
    let redis = Redis::start().await.unwrap();
    let host = redis.url().replace("redis://", "");
    let everything_but_scripts = "ACL SETUSER reader on >secret ~* +@all -evalsha -eval";
    let everything_but_the_stream = "ACL SETUSER silent on >secret ~* +@all -xadd";
    administer(
        &redis.url(),
        &[everything_but_scripts, everything_but_the_stream, "ACL SETUSER keyless on >secret ~other:* +@all"],
    )
    .await;
    administer(&redis.url(), &["CONFIG SET requirepass secret"]).await;
    for (url, fault) in [
        (format!("redis://{host}"), RedisFault::PasswordMissing),
        (format!("redis://:wrong@{host}"), RedisFault::WrongPassword),
        (format!("redis://nobody:secret@{host}"), RedisFault::WrongPassword),
        (format!("redis://reader:secret@{host}"), RedisFault::PermissionMissing),
        (format!("redis://silent:secret@{host}"), RedisFault::PermissionMissing),
        (format!("redis://keyless:secret@{host}"), RedisFault::PermissionMissing),
    ] {
        let (cache, values) = connect(&url);
        until_fault(&cache, fault).await;
        assert!(!cache.connection_stats().unwrap().is_available);
        assert_eq!((read(&values, 1).await, read(&values, 2).await), (1, 2), "loaded: {url}");
    }
    let (cache, _values) = connect(&format!("redis://:secret@{host}"));
    cache.until_connected().await;
}

/// The permissions that a user needs are those for the keys behind the prefix.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_keys_behind_the_prefix_is_enough() {
    let redis = Redis::start().await.unwrap();
    administer(&redis.url(), &["ACL SETUSER app on >secret ~app:* +@all"]).await;
    let url = redis.url().replace("redis://", "redis://app:secret@");
    let cache = Cache::builder().redis(url).prefix("app").redis_timeout(Duration::from_millis(500)).build().unwrap();
    let values = cache.namespace(NamespaceOptions::new("n")).unwrap();
    cache.until_connected().await;
    assert_eq!((read(&values, 1).await, values.invalidate(&Key::new(1)).await), (1, Invalidation::Complete));
    assert_eq!(cache.flush("n").await.unwrap(), Invalidation::Complete);
    assert_eq!(cache.connection_stats().unwrap().fault, None);
}
