//! Keys, groups and tags of any bytes.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use readthrough::{Cache, Invalidation, Key, KeyPart, Namespace, NamespaceOptions};
use testbed::{Redis, RedisCluster};
use tokio::runtime::Runtime;

use super::PATIENT;

fn part() -> impl Strategy<Value = KeyPart> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(prop::sample::select(&b"\n\r\0{}%: \"a"[..]), 0..8),
        any::<u8>().prop_map(|byte| vec![byte; 10_000]),
    ];
    bytes.prop_map(KeyPart::from_bytes)
}

async fn process(url: &str) -> (Cache, Namespace<u64>) {
    let cache = Cache::builder().redis(url).redis_timeout(PATIENT).build().unwrap();
    let values = cache.namespace(NamespaceOptions::new("thing")).unwrap();
    cache.until_connected().await;
    (cache, values)
}

async fn read(values: &Namespace<u64>, key: &Key, stored: u64) -> u64 {
    *values.get_or_load(key, || async { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
}

/// The part of an entry that is invalidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Entry,
    Group,
    Tag,
}

/// Waits until process `b` has received all invalidations of `a`: events arrive in their order.
async fn catch_up(a: &Namespace<u64>, b: &Namespace<u64>) {
    let marker = Key::new("marker of the test");
    let _ = a.invalidate(&marker).await;
    let now = read(a, &marker, rand::random()).await;
    while read(b, &marker, now).await != now {
        tokio::task::yield_now().await;
    }
}

/// Invalidates random keys, groups and tags in one process while another has copies of the values.
fn invalidate_any_key(runtime: &Runtime, url: &str, cases: u32) {
    let ((_a, a), (b_cache, b)) = runtime.block_on(async { (process(url).await, process(url).await) });
    let parts = prop::sample::select(&[Part::Entry, Part::Group, Part::Tag][..]);
    let strategy = (part(), part(), part(), parts);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |(id, member, tag, part)| {
        let key = match part {
            Part::Entry => Key::new(id.clone()),
            Part::Group | Part::Tag => Key::in_group(id.clone(), member).tag(tag.clone()),
        };
        runtime.block_on(async {
            let _ = a.invalidate(&key).await;
            catch_up(&a, &b).await;
            prop_assert_eq!(read(&b, &key, 1).await, 1);
            let hits = b_cache.stats()[0].l1_hits;
            prop_assert_eq!(read(&b, &key, 9).await, 1);
            prop_assert_eq!(b_cache.stats()[0].l1_hits, hits + 1, "copied");
            let told = match part {
                Part::Entry => a.invalidate(&key).await,
                Part::Group => a.invalidate_group(id).await,
                Part::Tag => a.invalidate_group(tag).await,
            };
            prop_assert_eq!(told, Invalidation::Complete);
            catch_up(&a, &b).await;
            prop_assert_eq!(read(&b, &key, 2).await, 2);
            prop_assert_eq!(read(&a, &key, 9).await, 2, "shared");
            Ok(())
        })
    });
    // Keys can be long.
    let error = outcome.err().map(|error| error.to_string().chars().take(2_000).collect::<String>());
    assert_eq!(error, None);
    assert_eq!(b_cache.connection_stats().unwrap().breaks, 0, "no command was refused");
}

#[test]
fn an_invalidation_of_any_key_reaches_the_copies_of_other_processes() {
    let runtime = Runtime::new().unwrap();
    let redis = runtime.block_on(Redis::start()).unwrap();
    invalidate_any_key(&runtime, &redis.url(), 200);
}

#[test]
fn an_invalidation_of_any_key_reaches_the_copies_of_other_processes_of_a_cluster() {
    let runtime = Runtime::new().unwrap();
    let cluster = runtime.block_on(RedisCluster::start()).unwrap();
    invalidate_any_key(&runtime, &cluster.url(), 60);
    runtime.block_on(async {
        let ((_a, a), (_b, b)) = (process(&cluster.url()).await, process(&cluster.url()).await);
        let key = Key::in_group("", "").tag("");
        assert_eq!((read(&a, &key, 1).await, read(&b, &key, 9).await), (1, 1), "an empty group has one slot");
    });
}
