//! Entries in Redis: their time to live, stale values, and the lent connection.

use std::sync::Arc;
use std::time::Duration;

use readthrough::{Cache, Key, LoadError, Loaded, Namespace, NamespaceOptions, Reading, redis};
use testbed::Redis;

use super::PATIENT;

async fn process(url: &str, options: NamespaceOptions<u64>) -> (Cache, Namespace<u64>) {
    let cache = Cache::builder().redis(url).redis_timeout(PATIENT).build().unwrap();
    let values = cache.namespace(options).unwrap();
    cache.until_connected().await;
    (cache, values)
}

fn load(value: u64, ttl: Duration) -> impl Future<Output = Result<Loaded<u64>, &'static str>> {
    std::future::ready(Ok(Loaded::new(Some(value)).ttl(ttl)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_value_of_redis_is_returned_until_it_is_invalidated() {
    let server = Redis::start().await.unwrap();
    for l1 in [true, false] {
        let options = || {
            let options = NamespaceOptions::new("n").stale_if_error(Duration::from_secs(600));
            if l1 { options } else { options.without_l1() }
        };
        let ((_a, a), (_b, b)) = (process(&server.url(), options()).await, process(&server.url(), options()).await);
        let key = Key::in_group("g", u64::from(l1)).tag("t");
        let short = Duration::from_millis(20);
        assert_eq!(a.get_or_load_entry(&key, || load(1, short)).await, Ok(Reading::Fresh(Some(Arc::new(1)))));
        while a.get(&key).await.is_some() {
            tokio::task::yield_now().await;
        }
        let fail = || async { Err::<Loaded<u64>, _>("down") };
        for values in [&a, &b] {
            let found = values.get_or_load_entry(&key, fail).await.unwrap();
            assert!(matches!(&found, Reading::Stale { value: Some(value), .. } if **value == 1), "{found:?}");
        }
        let _ = b.invalidate_group("t").await;
        assert_eq!(b.get_or_load_entry(&key, fail).await, Err(LoadError::Failed(Arc::new("down"))));
        let long = Duration::from_secs(100);
        assert_eq!(b.get_or_load_entry(&key, || load(2, long)).await, Ok(Reading::Fresh(Some(Arc::new(2)))));
        while a.get(&key).await != Some(Some(Arc::new(2))) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_live_of_a_loader_holds_in_redis() {
    let server = Redis::start().await.unwrap();
    let options = NamespaceOptions::new("n").max_ttl(Duration::from_secs(1_000)).jitter(0.0);
    let (cache, values) = process(&server.url(), options).await;
    let mut connection = cache.redis_connection().unwrap();
    for (id, seconds, stored) in [(1, 30, 30), (2, 700, 700), (3, 5_000, 1_000)] {
        let ttl = Duration::from_secs(seconds);
        values.get_or_load_entry(&Key::new(id), || load(1, ttl)).await.unwrap();
        let key = format!("v1:n:{{{id}}}");
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        assert!(left <= stored * 1_000 && left > (stored - 10) * 1_000, "{left} of {stored} s");
    }
    values.get_or_load_entry(&Key::new(4), || load(1, Duration::ZERO)).await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*{4}*").query_async(&mut connection).await.unwrap();
    assert!(keys.iter().all(|key| key.starts_with("lease:")), "not stored: {keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lent_connection_runs_pipelines_and_scripts_and_its_errors_break_nothing() {
    let server = Redis::start().await.unwrap();
    let cache = Cache::builder().redis(server.url()).redis_timeout(PATIENT).prefix("shop").build().unwrap();
    assert!(Cache::builder().build().unwrap().redis_connection().is_none());
    cache.until_connected().await;
    let mut connection = cache.redis_connection().unwrap();
    let key = connection.key("visits");
    assert_eq!(key, "shop:visits");
    let counts: Vec<u64> = redis::pipe().incr(&key, 1).incr(&key, 2).query_async(&mut connection).await.unwrap();
    assert_eq!(counts, [1, 3]);
    let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
    assert_eq!(script.key(&key).invoke_async::<u64>(&mut connection).await.unwrap(), 4);
    let refused = redis::cmd("LPUSH").arg(&key).arg("x").query_async::<()>(&mut connection).await.unwrap_err();
    assert_eq!(refused.code(), Some("WRONGTYPE"));
    let stats = cache.connection_stats().unwrap();
    assert!(stats.is_available && stats.breaks == 0, "{stats:?}");
}
