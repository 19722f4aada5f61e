//! Single faults, in an order that random schedules seldom reach.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server::{Deployment, Protocol};
use crate::{Cache, Invalidation, Key, Namespace, NamespaceOptions};

pub(super) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
}

fn open(deployment: &Arc<Deployment>) -> (Cache, Namespace<u64>) {
    let cache = Cache::builder().build_with(Some(Deployment::connector(deployment)));
    let options = NamespaceOptions::<u64>::new("n").ttl(Duration::from_secs(20)).without_l1();
    (cache.clone(), cache.namespace(options).unwrap())
}

pub(super) async fn read(values: &Namespace<u64>, stored: u64) -> u64 {
    *values.get_or_load(&Key::new(1), || async move { Ok::<_, ()>(Some(stored)) }).await.unwrap().unwrap()
}

/// All processes lose a server that returns with its data. No process may read the data before every other process had
/// the time to send its invalidations.
#[test]
fn values_that_were_replaced_during_a_hang_are_not_read() {
    run(async {
        for seed in 0..50 {
            let deployment = Deployment::new(seed, Protocol::FULL, false);
            let ((a_cache, a), (b_cache, b)) = (open(&deployment), open(&deployment));
            a_cache.until_connected().await;
            b_cache.until_connected().await;
            assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1), "shared");
            deployment.hang(Duration::from_millis(1_000 + seed * 20));
            // Both processes detect the outage.
            while a_cache.connection_stats().unwrap().is_available || b_cache.connection_stats().unwrap().is_available {
                assert_eq!((read(&a, 1).await, read(&b, 1).await), (1, 1));
            }
            assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Deferred);
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                assert_eq!((read(&a, 2).await, read(&b, 2).await), (2, 2), "seed {seed}");
                sleep(Duration::from_millis(7)).await;
            }
            assert!(b_cache.connection_stats().unwrap().is_available && b_cache.stats()[0].l2_hits > 1, "in use again");
        }
    });
}

/// A hiccup shorter than the window opens no breaker, and the process uses Redis right after it.
#[test]
fn a_short_hang_is_no_outage() {
    run(async {
        let deployment = Deployment::new(1, Protocol::FULL, false);
        let (cache, values) = open(&deployment);
        cache.until_connected().await;
        assert_eq!(read(&values, 1).await, 1);
        deployment.hang(Duration::from_millis(120));
        assert_eq!(read(&values, 2).await, 1, "a reader waits for a lease, and finds the value");
        assert_eq!(read(&values, 3).await, 1, "from Redis");
        assert_eq!(cache.connection_stats().unwrap().breaks, 0);
    });
}

/// Returns whether two processes share a value a second after all housekeeping keys were lost, or after clocks jumped.
fn shares(protocol: Protocol, fault: impl Fn(&Deployment, &Cache)) -> bool {
    let mut shared = false;
    run(async {
        let deployment = Deployment::new(7, protocol, false);
        let (a_cache, a) = open(&deployment);
        a_cache.until_connected().await;
        assert_eq!(read(&a, 1).await, 1);
        fault(&deployment, &a_cache);
        // A process that starts later.
        let (b_cache, b) = open(&deployment);
        b_cache.until_connected().await;
        sleep(Duration::from_secs(1)).await;
        let _ = a.invalidate(&Key::new(1)).await;
        let first = read(&a, 2).await;
        shared = read(&b, 9).await == first;
    });
    shared
}

#[test]
fn lost_housekeeping_keys_cost_misses_and_not_sharing() {
    let lose = |deployment: &Deployment, _: &Cache| deployment.flush_all();
    assert!(shares(Protocol::FULL, lose));
    assert!(!shares(Protocol { epochs: false, ..Protocol::FULL }, lose), "the control shares nothing");
}

#[test]
fn clocks_that_differ_or_jump_do_not_cost_sharing() {
    let hour = 3_600_000;
    let skew = |_: &Deployment, cache: &Cache| {
        let clock = &cache.0.core.clock;
        clock.set(clock.now_ms() - 2 * hour);
    };
    assert!(shares(Protocol::FULL, skew));
    assert!(!shares(Protocol { time: false, ..Protocol::FULL }, skew), "the control shares nothing");
    for offset in [-600_000, 600_000] {
        assert!(shares(Protocol::FULL, |deployment, _| deployment.set_clock(offset)));
    }
}

/// An event is lost with its stream before another process reads it.
#[test]
fn copies_are_dropped_when_the_stream_is_lost() {
    let stale = |protocol| {
        let mut stale = 0;
        run(async {
            for seed in 0..40 {
                let deployment = Deployment::new(seed, protocol, false);
                let with_l1 = || {
                    let cache = Cache::builder().build_with(Some(Deployment::connector(&deployment)));
                    (cache.clone(), cache.namespace(NamespaceOptions::<u64>::new("n")).unwrap())
                };
                let ((a_cache, a), (b_cache, b)) = (with_l1(), with_l1());
                a_cache.until_connected().await;
                b_cache.until_connected().await;
                assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1), "shared");
                // The process has seen an event of the stream.
                assert_eq!(a.invalidate(&Key::new(2)).await, Invalidation::Complete);
                sleep(Duration::from_millis(100)).await;
                assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Complete);
                deployment.trim_events(0);
                sleep(Duration::from_millis(250)).await;
                stale += u32::from(read(&b, 2).await == 1);
            }
        });
        stale
    };
    assert_eq!(stale(Protocol::FULL), 0);
    assert!(stale(Protocol { tail: false, ..Protocol::FULL }) > 0, "the control reads old copies");
}

/// A process that exits while its invalidation is deferred.
#[test]
fn close_sends_deferred_invalidations_or_returns_their_number() {
    run(async {
        for is_closed in [true, false] {
            let deployment = Deployment::new(3, Protocol::FULL, false);
            let ((a_cache, a), (b_cache, b)) = (open(&deployment), open(&deployment));
            a_cache.until_connected().await;
            b_cache.until_connected().await;
            assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1), "shared");
            deployment.hang(Duration::from_millis(100));
            assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Deferred);
            if is_closed {
                let unsent = a_cache.close(Duration::from_millis(1)).await.unwrap_err();
                assert_eq!((unsent.names, unsent.is_flush), (1, false), "Redis hangs for longer");
                a_cache.close(Duration::from_secs(5)).await.unwrap();
                drop((a, a_cache));
                assert_eq!(read(&b, 2).await, 2);
            } else {
                // The value stays until another invalidation or its expiry: the control.
                deployment.lose_commands();
                drop((a, a_cache));
                sleep(Duration::from_millis(300)).await;
                b_cache.until_connected().await;
                assert_eq!(read(&b, 2).await, 1, "the invalidation is lost");
            }
        }
    });
}
