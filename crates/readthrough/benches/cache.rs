//! The latency of each path through the cache, beside a bare lookup in moka and a bare `GET`. `cargo bench -p readthrough`
//! starts a Redis server.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use readthrough::{Cache, Key, Namespace, NamespaceOptions};
use redis::AsyncCommands as _;
use testbed::Redis;

async fn read(values: &Namespace<Vec<u8>>, key: &Key) {
    values.get_or_load(key, || async { Ok::<_, ()>(Some(vec![7; 1_000])) }).await.unwrap();
}

fn cache(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(Redis::start()).unwrap();
    let _guard = runtime.enter();
    let cache = Cache::builder().redis(redis.url()).build().unwrap();
    let l1 = cache.namespace(NamespaceOptions::<Vec<u8>>::new("l1")).unwrap();
    let l2 = cache.namespace(NamespaceOptions::<Vec<u8>>::new("l2").without_l1()).unwrap();
    runtime.block_on(cache.until_connected());
    let number = AtomicU64::new(0);
    let fresh = || Key::new(number.fetch_add(1, Ordering::Relaxed));

    let key = Key::new("hot");
    runtime.block_on(async {
        read(&l1, &key).await;
        read(&l2, &key).await;
    });
    let moka = moka::sync::Cache::builder().time_to_live(Duration::from_secs(300)).build();
    moka.insert("v1:l1:{hot}".to_owned(), Arc::new(vec![7_u8; 1_000]));
    criterion.bench_function("bare lookup in moka, 1 kB", |bench| {
        bench.to_async(&runtime).iter(|| async { moka.get("v1:l1:{hot}").unwrap() });
    });
    let client = redis::Client::open(redis.url()).unwrap();
    let connection = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
    let bytes = rmp_serde::to_vec(&vec![7_u8; 1_000]).unwrap();
    runtime.block_on(connection.clone().set::<_, _, ()>("bare", bytes)).unwrap();
    criterion.bench_function("bare GET and decoding, 1 kB", |bench| {
        bench.to_async(&runtime).iter(async || {
            let bytes: Vec<u8> = connection.clone().get("bare").await.unwrap();
            rmp_serde::from_slice::<Vec<u8>>(&bytes).unwrap()
        });
    });
    criterion.bench_function("L1 hit, 1 kB", |bench| bench.to_async(&runtime).iter(|| read(&l1, &key)));
    criterion.bench_function("L2 hit, 1 kB", |bench| bench.to_async(&runtime).iter(|| read(&l2, &key)));
    criterion.bench_function("miss, lease and fill, 1 kB", |bench| {
        bench.to_async(&runtime).iter(|| async { read(&l2, &fresh()).await });
    });
    criterion.bench_function("invalidate an entry", |bench| {
        bench.to_async(&runtime).iter(|| async { l2.invalidate(&fresh()).await });
    });
    for members in [10, 1_000_000] {
        runtime.block_on(fill(&redis, members));
        criterion.bench_function(&format!("invalidate a group, {members} keys present"), |bench| {
            bench.to_async(&runtime).iter(|| async { l2.invalidate_group("g").await });
        });
    }
}

/// Adds members to the group with a script.
async fn fill(redis: &Redis, members: u64) {
    let client = redis::Client::open(redis.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let script = "for n = 1, ARGV[1] do redis.call('SET', 'v1:l2:{g}:' .. n, 'value') end";
    redis::Script::new(script).arg(members).invoke_async::<()>(&mut connection).await.unwrap();
}

criterion_group!(benches, cache);
criterion_main!(benches);
