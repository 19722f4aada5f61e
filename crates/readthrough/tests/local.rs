//! A cache in one process, without a second tier.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use readthrough::{Cache, Key, LoadError, Loaded, Namespace, NamespaceOptions, Reading};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

fn open(options: NamespaceOptions<u64>) -> (Cache, Namespace<u64>) {
    let cache = Cache::builder().build().unwrap();
    let values = cache.namespace(options).unwrap();
    (cache, values)
}

async fn read(values: &Namespace<u64>, key: &Key, stored: u64) -> u64 {
    *values.get_or_load(key, || async { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
}

/// Lets all tasks run until each of them waits.
async fn settle() {
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn all_readers_of_a_key_share_the_error_of_its_load() {
    let (_cache, values) = open(NamespaceOptions::local("n"));
    let loads = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let readers: Vec<_> = (0..500)
        .map(|_| {
            let (values, loads, gate) = (values.clone(), Arc::clone(&loads), Arc::clone(&gate));
            tokio::spawn(async move {
                let load = || async {
                    loads.fetch_add(1, Ordering::Relaxed);
                    let _permit = gate.acquire().await;
                    Err::<Option<u64>, _>(std::io::Error::other("overloaded"))
                };
                values.get_or_load(&Key::new(1), load).await.unwrap_err()
            })
        })
        .collect();
    settle().await;
    gate.add_permits(500);
    let mut errors = Vec::new();
    for reader in readers {
        errors.push(reader.await.unwrap());
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    let LoadError::Failed(first) = &errors[0] else { panic!("{:?}", errors[0]) };
    assert!(errors.iter().all(|error| matches!(error, LoadError::Failed(error) if Arc::ptr_eq(error, first))));
    assert_eq!(read(&values, &Key::new(1), 7).await, 7, "an error is not cached");
}

#[tokio::test]
async fn a_reader_whose_loader_has_other_errors_loads_itself() {
    let (_cache, values) = open(NamespaceOptions::local("n"));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let leader = {
        let (values, gate) = (values.clone(), Arc::clone(&gate));
        tokio::spawn(async move {
            let load = || async {
                let _permit = gate.acquire().await;
                Err::<Option<u64>, _>("broken")
            };
            values.get_or_load(&Key::new(1), load).await
        })
    };
    settle().await;
    let other = {
        let values = values.clone();
        tokio::spawn(async move { values.get_or_load(&Key::new(1), || async { Ok::<_, u8>(Some(2)) }).await })
    };
    settle().await;
    gate.add_permits(1);
    assert_eq!(leader.await.unwrap(), Err(LoadError::Failed(Arc::new("broken"))));
    assert_eq!(other.await.unwrap(), Ok(Some(Arc::new(2))));
}

#[tokio::test(start_paused = true)]
async fn no_reader_waits_long_for_a_load_that_hangs() {
    let options = NamespaceOptions::local("n").soft_timeout(SECOND).hard_timeout(10 * SECOND);
    let (cache, values) = open(options);
    let began = Instant::now();
    let hung = {
        let values = values.clone();
        tokio::spawn(async move { values.get_or_load(&Key::new(1), pending::<Result<Option<u64>, ()>>).await })
    };
    settle().await;
    let loads = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let (values, loads) = (values.clone(), Arc::clone(&loads));
            tokio::spawn(async move {
                let load = || async {
                    loads.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, ()>(Some(2))
                };
                values.get_or_load(&Key::new(1), load).await
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Ok(Some(Arc::new(2))));
    }
    assert_eq!((began.elapsed(), loads.load(Ordering::Relaxed)), (SECOND, 1), "one of them loads for all");
    assert_eq!(hung.await.unwrap(), Err(LoadError::TimedOut(10 * SECOND)));
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(cache.stats()[0].soft_timeouts, 100);
}

#[tokio::test(start_paused = true)]
async fn readers_of_many_keys_and_of_single_keys_share_loads() {
    let (_cache, values) = open(NamespaceOptions::local("n"));
    let loaded = Arc::new(Mutex::new(Vec::new()));
    let load = |keys: Vec<u64>| {
        let (values, loaded) = (values.clone(), Arc::clone(&loaded));
        tokio::spawn(async move {
            let names: Vec<Key> = keys.iter().map(Key::new).collect();
            let load = |places: Vec<usize>| {
                let wanted: Vec<u64> = places.into_iter().map(|place| keys[place]).collect();
                loaded.lock().unwrap().extend(wanted.clone());
                async move {
                    tokio::time::sleep(SECOND).await;
                    Ok::<_, ()>(wanted.into_iter().map(|key| Some(key * 10)).collect())
                }
            };
            let found = values.get_many_or_load(&names, load).await.unwrap();
            found.into_iter().map(|value| *value.unwrap()).collect::<Vec<u64>>()
        })
    };
    let first = load(vec![1, 2, 1, 3]);
    settle().await;
    let second = load(vec![3, 4, 2]);
    settle().await;
    let third = load(vec![4, 1]);
    settle().await;
    // A reader of a single key waits for the same load.
    assert_eq!(read(&values, &Key::new(4), 7).await, 40);
    assert_eq!(first.await.unwrap(), [10, 20, 10, 30]);
    assert_eq!(second.await.unwrap(), [30, 40, 20]);
    assert_eq!(third.await.unwrap(), [40, 10]);
    assert_eq!(*loaded.lock().unwrap(), [1, 2, 3, 4]);
    let failed = values.get_many_or_load(&[Key::new(8)], |_| async { Err::<Vec<Option<u64>>, _>("broken") }).await;
    assert_eq!(failed, Err(LoadError::Failed(Arc::new("broken"))));
}

#[tokio::test]
async fn many_keys_are_loaded_in_batches() {
    let (_cache, values) = open(NamespaceOptions::local("n"));
    let keys: Vec<Key> = (0..1_200).map(Key::new).collect();
    let sizes = Mutex::new(Vec::new());
    let load = |places: Vec<usize>| {
        sizes.lock().unwrap().push(places.len());
        // The last value is omitted.
        async move { Ok::<_, ()>(places.into_iter().filter(|place| *place != 1_199).map(|at| Some(at as u64)).collect()) }
    };
    let found = values.get_many_or_load(&keys, load).await.unwrap();
    assert_eq!(*sizes.lock().unwrap(), [500, 500, 200]);
    assert!((0..1_199).all(|place| found[place].as_deref() == Some(&(place as u64))));
    assert_eq!(found[1_199], None);
}

#[tokio::test(start_paused = true)]
async fn a_loader_chooses_the_time_to_live_of_its_value() {
    let options = NamespaceOptions::local("n").ttl(10 * SECOND).max_ttl(100 * SECOND).jitter(0.0);
    let (_cache, values) = open(options);
    for (ttl, lives) in [
        (Some(2 * SECOND), 2 * SECOND),
        (Some(50 * SECOND), 50 * SECOND),
        (Some(1_000 * SECOND), 100 * SECOND),
        (None, 10 * SECOND),
    ] {
        let key = Key::new(format!("{ttl:?}"));
        let read = async |stored: u64| {
            let loaded = Loaded::new(Some(stored));
            let loaded = ttl.map_or(loaded.clone(), |ttl| loaded.ttl(ttl));
            values.get_or_load_entry(&key, || async { Ok::<_, ()>(loaded) }).await.unwrap()
        };
        assert_eq!(read(1).await, Reading::Fresh(Some(Arc::new(1))));
        advance(lives - Duration::from_millis(1)).await;
        assert_eq!(read(2).await, Reading::Fresh(Some(Arc::new(1))), "{ttl:?}");
        advance(Duration::from_millis(1)).await;
        assert_eq!(read(3).await, Reading::Fresh(Some(Arc::new(3))), "{ttl:?}");
    }
    let uncached = || async { Ok::<_, ()>(Loaded::new(Some(1)).ttl(Duration::ZERO)) };
    let _ = values.get_or_load_entry(&Key::new(0), uncached).await;
    assert_eq!(values.get(&Key::new(0)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_returned_only_where_allowed_and_never_an_invalidated_one() {
    let fail = || async { Err::<Loaded<u64>, _>("down") };
    let down = || Err(LoadError::Failed(Arc::new("down")));
    for (bound, allowed) in [(Duration::ZERO, false), (5 * SECOND, true)] {
        let options = NamespaceOptions::local("n").ttl(10 * SECOND).jitter(0.0).stale_if_error(bound);
        let (cache, values) = open(options);
        let key = Key::in_group("g", 1);
        assert_eq!(read(&values, &key, 1).await, 1);
        advance(12 * SECOND).await;
        let found = values.get_or_load_entry(&key, fail).await;
        let stale = Reading::Stale { value: Some(Arc::new(1)), expired_for: 2 * SECOND };
        assert_eq!(found, if allowed { Ok(stale) } else { down() });
        assert_eq!(cache.stats()[0].stale_reads, u64::from(allowed));
        assert_eq!(values.get(&key).await, None);
        let plain = values.get_or_load(&key, || async { Err::<Option<u64>, _>("down") }).await;
        assert_eq!(plain, Err(LoadError::Failed(Arc::new("down"))));
        let _ = values.invalidate_group("g").await;
        assert_eq!(values.get_or_load_entry(&key, fail).await, down(), "it was invalidated");
        assert_eq!(read(&values, &key, 2).await, 2);
        advance(15 * SECOND).await;
        assert_eq!(values.get_or_load_entry(&key, fail).await, down(), "the bound is over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_accepts_a_stale_value_does_not_wait_for_a_load_that_hangs() {
    let options = NamespaceOptions::local("n").ttl(10 * SECOND).stale_if_error(60 * SECOND).jitter(0.0);
    let (_cache, values) = open(options.soft_timeout(SECOND).hard_timeout(20 * SECOND));
    let key = Key::new(1);
    assert_eq!(read(&values, &key, 1).await, 1);
    advance(11 * SECOND).await;
    let began = Instant::now();
    let hung = {
        let (values, key) = (values.clone(), key.clone());
        tokio::spawn(async move { values.get_or_load_entry(&key, pending::<Result<Loaded<u64>, ()>>).await })
    };
    settle().await;
    let found = values.get_or_load_entry(&key, || async { Ok::<_, ()>(Loaded::new(Some(2))) }).await.unwrap();
    assert_eq!(
        (found, began.elapsed()),
        (Reading::Stale { value: Some(Arc::new(1)), expired_for: 2 * SECOND }, SECOND)
    );
    let found = hung.await.unwrap().unwrap();
    assert_eq!(found, Reading::Stale { value: Some(Arc::new(1)), expired_for: 21 * SECOND });
}

#[tokio::test]
async fn an_entry_is_invalidated_by_each_of_its_tags() {
    let (_cache, values) = open(NamespaceOptions::local("n"));
    let key = Key::in_group("g", 1).tag("a").tag("b");
    for (stored, name) in [(1, "g"), (2, "a"), (3, "b")] {
        assert_eq!(read(&values, &key, stored).await, stored);
        let _ = values.invalidate_group("c").await;
        assert_eq!(read(&values, &key, 9).await, stored);
        let _ = values.invalidate_group(name).await;
    }
    assert_eq!(read(&values, &key, 4).await, 4);
    assert_eq!(read(&values, &Key::in_group("g", 1).tag("a"), 5).await, 5, "other tags, another entry");
}

/// Neither `Clone` nor `Serialize`.
struct Handle(Mutex<u8>);

#[tokio::test]
async fn values_of_any_type_are_cached() {
    let cache = Cache::builder().build().unwrap();
    let handles = cache.namespace(NamespaceOptions::<Handle>::local("handle").weigher(|_| 1_000)).unwrap();
    let read = async |stored| {
        handles.get_or_load(&Key::new(1), || async { Ok::<_, ()>(Some(Handle(Mutex::new(stored)))) }).await.unwrap()
    };
    *read(1).await.unwrap().0.lock().unwrap() += 1;
    assert_eq!(*read(9).await.unwrap().0.lock().unwrap(), 2);
}

#[test]
fn a_namespace_is_opened_with_one_type_and_the_same_options() {
    let cache = Cache::builder().build().unwrap();
    let options = || NamespaceOptions::<u64>::local("n").ttl(SECOND);
    cache.namespace(options()).unwrap();
    cache.namespace(options()).unwrap();
    assert_eq!(cache.stats().len(), 1);
    for error in [
        cache.namespace(options().version(2)).map(drop),
        cache.namespace(NamespaceOptions::<u64>::local("n")).map(drop),
        cache.namespace(NamespaceOptions::<String>::local("n").ttl(SECOND)).map(drop),
    ] {
        assert!(error.unwrap_err().to_string().contains("namespace n"));
    }
}
