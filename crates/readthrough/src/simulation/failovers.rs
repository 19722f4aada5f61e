//! Failovers in an order that random schedules seldom reach. Each test has a control: without one part of the protocol, a
//! process reads an old value.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::directed::{read, run};
use super::server::{Deployment, Protocol};
use super::{BOUND, FAILOVER_BOUND};
use crate::remote::supervisor::REPLAY_WINDOW;
use crate::{Cache, Invalidation, Key, Namespace, NamespaceOptions};

/// An old master that is not demoted during a test.
const LATER: Duration = Duration::from_secs(3_600);
const TTL: Duration = Duration::from_secs(10);
/// The time in which the processes read.
const READS: Duration = Duration::from_secs(5);
const SAFE: Protocol = Protocol { min_replicas: true, ..Protocol::FULL };

async fn open(deployment: &Arc<Deployment>, replay_window: Duration) -> (Cache, Namespace<u64>) {
    let builder = Cache::builder().replay_window(replay_window);
    let cache = builder.build_with(Some(Deployment::connector(deployment)));
    let values = cache.namespace(NamespaceOptions::<u64>::new("n").ttl(TTL).without_l1()).unwrap();
    cache.until_connected().await;
    (cache, values)
}

/// Reads for some time. Returns the time of the last read that returned 1, the value before the write.
async fn last_stale(processes: &[&Namespace<u64>], duration: Duration) -> Option<Duration> {
    let (began, mut last) = (Instant::now(), None);
    while began.elapsed() < duration {
        for values in processes {
            let at = began.elapsed();
            if read(values, 2).await == 1 {
                last = Some(at);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    last
}

/// Runs a scenario with several seeds. Returns the latest stale read of all.
fn latest(scenario: impl AsyncFn(u64) -> Option<Duration>) -> Option<Duration> {
    let mut latest = None;
    run(async {
        for seed in 0..10 {
            latest = latest.max(scenario(seed).await);
        }
    });
    latest
}

/// The replica is promoted without the last invalidation. The replay is off, or the writer dies.
#[test]
fn a_replica_that_lags_returns_no_old_value() {
    let stale = |protocol, writer_dies: bool| {
        latest(async |seed| {
            let deployment = Deployment::new(seed, protocol, false);
            let replay_window = if writer_dies { REPLAY_WINDOW } else { Duration::ZERO };
            let (a_cache, a) = open(&deployment, replay_window).await;
            let (_b_cache, b) = open(&deployment, replay_window).await;
            assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1), "shared");
            deployment.take_snapshot();
            assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Complete);
            Deployment::fail_over_and_demote(&deployment, LATER);
            if writer_dies {
                drop((a_cache, a));
                return last_stale(&[&b], READS).await;
            }
            last_stale(&[&a, &b], READS).await
        })
    };
    for writer_dies in [false, true] {
        assert_eq!(stale(SAFE, writer_dies), None);
        let control = stale(Protocol { lineages: false, ..SAFE }, writer_dies);
        assert!(control > Some(FAILOVER_BOUND), "the control finds no stale read: {control:?}");
    }
}

/// An address moves to another master and back, between which an invalidation was sent to the other one.
#[test]
fn a_master_that_returns_with_its_data_returns_no_old_value() {
    let stale = |protocol, replay_window| {
        latest(async |seed| {
            let deployment = Deployment::new(seed, protocol, false);
            let (a_cache, a) = open(&deployment, replay_window).await;
            let (b_cache, b) = open(&deployment, replay_window).await;
            assert_eq!((read(&a, 1).await, read(&b, 9).await), (1, 1), "shared");
            Deployment::fail_over_and_demote(&deployment, LATER);
            // Both learn of the new master and use it.
            sleep(Duration::from_secs(3)).await;
            a_cache.until_connected().await;
            b_cache.until_connected().await;
            assert_eq!(a.invalidate(&Key::new(1)).await, Invalidation::Complete);
            deployment.fail_back();
            last_stale(&[&a, &b], READS).await
        })
    };
    assert_eq!(stale(SAFE, Duration::ZERO), None);
    let control = stale(Protocol { predecessors: false, ..SAFE }, Duration::ZERO);
    assert!(control > Some(FAILOVER_BOUND), "the control finds no stale read: {control:?}");
}

/// A process that is connected to the old master, while another process writes through the new one.
fn isolated(protocol: Protocol, demotion: Duration) -> Option<Duration> {
    latest(async |seed| {
        let deployment = Deployment::new(seed, protocol, false);
        let (_a_cache, a) = open(&deployment, REPLAY_WINDOW).await;
        assert_eq!(read(&a, 1).await, 1);
        Deployment::fail_over_and_demote(&deployment, demotion);
        let (_b_cache, b) = open(&deployment, REPLAY_WINDOW).await;
        assert_eq!(b.invalidate(&Key::new(1)).await, Invalidation::Complete);
        last_stale(&[&a, &b], READS).await
    })
}

#[test]
fn a_master_that_refuses_writes_is_left_without_sentinel() {
    let safe = Protocol { sentinel: false, ..SAFE };
    assert!(isolated(safe, LATER) <= Some(BOUND));
    let control = isolated(Protocol { proof: false, ..safe }, LATER);
    assert!(control > Some(FAILOVER_BOUND), "the control finds no stale read: {control:?}");
}

#[test]
fn a_master_that_accepts_writes_is_left_when_sentinel_names_another() {
    assert!(isolated(Protocol::FULL, LATER) <= Some(FAILOVER_BOUND));
    let alone = Protocol { sentinel: false, ..Protocol::FULL };
    let control = isolated(alone, LATER);
    assert!(control > Some(FAILOVER_BOUND), "the control finds no stale read: {control:?}");
    // Until the demotion breaks the connections.
    let demotion = Duration::from_secs(4);
    let until_demotion = isolated(alone, demotion);
    assert!(until_demotion > Some(FAILOVER_BOUND) && until_demotion <= Some(demotion), "{until_demotion:?}");
}

/// A process sends an invalidation to the old master before it learns of the new one, where a value was stored meanwhile.
fn late_writer(replay_window: Duration, writer_dies: bool) -> Option<Duration> {
    let complete = Cell::new(0);
    let stale = latest(async |seed| {
        let deployment = Deployment::new(seed, Protocol::FULL, false);
        let (a_cache, a) = open(&deployment, replay_window).await;
        // The time to the next query of Sentinel varies.
        sleep(Duration::from_millis(seed * 25)).await;
        // The new master follows the epoch of the old one.
        deployment.take_snapshot();
        Deployment::fail_over_and_demote(&deployment, LATER);
        let (_b_cache, b) = open(&deployment, replay_window).await;
        assert_eq!(read(&b, 1).await, 1);
        if a.invalidate(&Key::new(1)).await == Invalidation::Deferred {
            return None;
        }
        complete.set(complete.get() + 1);
        if writer_dies {
            drop((a_cache, a));
            return last_stale(&[&b], 2 * TTL).await;
        }
        last_stale(&[&a, &b], READS).await
    });
    assert!(complete.get() > 0, "no invalidation was sent to the old master");
    stale
}

#[test]
fn invalidations_that_the_old_master_received_are_replayed() {
    assert!(late_writer(REPLAY_WINDOW, false) <= Some(FAILOVER_BOUND));
    let control = late_writer(Duration::ZERO, false);
    assert!(control > Some(FAILOVER_BOUND), "the control finds no stale read: {control:?}");
}

/// The replay is part of a process that no longer exists.
#[test]
fn a_writer_that_dies_before_the_replay_leaves_old_values_until_they_expire() {
    let stale = late_writer(REPLAY_WINDOW, true);
    assert!(stale > Some(FAILOVER_BOUND) && stale <= Some(TTL), "{stale:?}");
}
