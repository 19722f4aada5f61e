//! Supervises the connection to the second tier.
//!
//! The supervisor starts disconnected. The first command that fails or exceeds its time limit opens the circuit breaker;
//! requests then stop waiting for Redis, and the supervisor probes it at once and every [`PROBE_INTERVAL`]. Before reads
//! use a new connection,
//!
//! 1. the supervisor sends the pending invalidations of this process, and after a failover the recent ones, and
//! 2. waits for [`QUARANTINE`] so that the other processes, which probe as often, send theirs.
//!
//! While the connection is in use, the supervisor polls the stream of invalidations, each time with a proof that the server
//! is the master, and queries Sentinel for the master as often as copies may be stale.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{CircuitBreaker, ConnectionHandle};
use super::events::{Freshness, apply};
use super::fault::RedisFault;
use super::latency::LatencyWindow;
use super::pending::{Batch, PendingInvalidations};
use super::recent::{RecentInvalidations, Replay};
use super::stats::{CommandCounters, ConnectionStats};
use super::task::{AbortOnDrop, RunningGuard, TaskState};
use super::tier::{Connector, Result, SecondTier, StreamPosition, TierError};
use crate::clock::Clock;
use crate::identity::CurrentIdentity;
use crate::key::Names;
use crate::stats::add;
use crate::trace::{info, warn};
use crate::version_table::VersionTable;

/// The pause between two probes of a server that does not respond.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The time in which other processes send their pending invalidations: two probes, each with its time limit.
pub(crate) const QUARANTINE: Duration = Duration::from_millis(1_000);
/// How long a read of the stream waits at the server for an event.
const STREAM_WAIT: Duration = Duration::from_millis(50);
/// How long invalidations are stored for the replay to a new master.
pub(crate) const REPLAY_WINDOW: Duration = Duration::from_secs(60);
/// The time limit of each step of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The most names in one invalidation command.
const BATCH: usize = 1_000;

pub(crate) struct RedisSupervisor {
    connector: Box<dyn Connector>,
    versions: Arc<VersionTable>,
    identity: Arc<CurrentIdentity>,
    /// This process, in events.
    pub(crate) node: u64,
    timeout: Duration,
    breaker: CircuitBreaker,
    staleness: Duration,
    latency: LatencyWindow,
    freshness: Freshness,
    pending: PendingInvalidations,
    recent: RecentInvalidations,
    clock: Arc<Clock>,
    /// The server of the last connection.
    last: Mutex<Option<LastServer>>,
    has_warned: AtomicBool,
    flushing: tokio::sync::Mutex<()>,
    /// Wakes the supervision task.
    wake: Notify,
    /// Wakes those who wait for Redis: it responded, or has received pending invalidations.
    changed: Notify,
    counters: CommandCounters,
    /// The number of the newest connection.
    connections: AtomicU64,
    task: Mutex<TaskState>,
    /// Whether the supervision task runs. It ends with its runtime.
    is_running: Arc<AtomicBool>,
    this: Weak<Self>,
}

/// Stops the supervision when it is dropped.
pub(crate) struct Supervision(Arc<RedisSupervisor>);

impl Drop for Supervision {
    fn drop(&mut self) {
        let stopped = TaskState { _handle: None, is_stopped: true };
        *self.0.task.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
    }
}

/// The server that a connection used.
#[derive(Clone)]
struct LastServer {
    prefix: String,
    lineage: String,
    epoch: String,
}

/// The times that bound the supervision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The time limit of a command.
    pub(crate) timeout: Duration,
    /// The age of the copies in this process.
    pub(crate) staleness: Duration,
    /// How long invalidations are stored for the replay to a new master.
    pub(crate) replay_window: Duration,
}

/// Returns whether an error may concern a part of the keys only: a slot in migration, or one server of several.
fn is_partial(tier: &dyn SecondTier, error: &TierError) -> bool {
    tier.is_partitioned() && RedisFault::of(&error.0) == RedisFault::Unreachable
}

impl RedisSupervisor {
    /// Creates a supervisor. Its task connects in the background; without a runtime, from the first use within one on.
    pub(crate) fn start(
        connector: Box<dyn Connector>,
        versions: Arc<VersionTable>,
        identity: Arc<CurrentIdentity>,
        clock: Arc<Clock>,
        limits: Limits,
    ) -> (Arc<Self>, Supervision) {
        let supervisor = Arc::new_cyclic(|this| Self {
            connector,
            versions,
            identity,
            node: rand::random(),
            timeout: limits.timeout,
            staleness: limits.staleness,
            latency: LatencyWindow::default(),
            breaker: CircuitBreaker::new(),
            freshness: Freshness::new(limits.staleness),
            pending: PendingInvalidations::default(),
            recent: RecentInvalidations::new(limits.replay_window),
            clock,
            last: Mutex::default(),
            has_warned: AtomicBool::new(false),
            flushing: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            changed: Notify::new(),
            counters: CommandCounters::default(),
            connections: AtomicU64::new(0),
            task: Mutex::default(),
            is_running: Arc::default(),
            this: Weak::clone(this),
        });
        supervisor.ensure_running();
        (Arc::clone(&supervisor), Supervision(supervisor))
    }

    /// Spawns the supervision task if it does not run: at the start, and after its runtime has ended, such as that of another
    /// test of the same program.
    #[inline]
    fn ensure_running(&self) {
        if !self.is_running.load(Ordering::Acquire) {
            self.spawn();
        }
    }

    #[cold]
    fn spawn(&self) {
        let (Ok(runtime), Some(supervisor)) = (Handle::try_current(), self.this.upgrade()) else { return };
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_stopped || self.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        // The old connections ended with their runtime.
        self.breaker.set_disconnected();
        self.freshness.expire();
        let guard = RunningGuard(Arc::clone(&self.is_running));
        task._handle = Some(AbortOnDrop(runtime.spawn(async move {
            let _guard = guard;
            supervisor.run().await;
        })));
    }

    /// Returns whether reads that began at `now` may use the copies in this process.
    #[inline]
    pub(crate) fn is_l1_fresh(&self, now: Instant) -> bool {
        self.ensure_running();
        self.freshness.is_l1_fresh(now)
    }

    /// Returns the connection if reads of an entry may use it.
    pub(crate) fn reader_of(&self, names: &Names) -> Option<ConnectionHandle> {
        self.available().filter(|_| !self.pending.affects(names))
    }

    fn available(&self) -> Option<ConnectionHandle> {
        self.ensure_running();
        self.breaker
            .available()
            .filter(|handle| self.is_current(handle) && self.freshness.is_remote_fresh(Instant::now()))
    }

    /// Returns whether reads use the second tier, and no invalidation is pending.
    fn is_available(&self) -> bool {
        !self.pending.any() && self.available().is_some()
    }

    /// Returns the connection if it leads to the values of the current identity.
    fn writer(&self) -> Option<ConnectionHandle> {
        self.connection().filter(|handle| self.is_current(handle))
    }

    /// Returns the connection if there is one.
    pub(crate) fn connection(&self) -> Option<ConnectionHandle> {
        self.ensure_running();
        self.breaker.connection()
    }

    /// Returns whether the identity is known and the connection leads to its values.
    pub(crate) fn is_current(&self, handle: &ConnectionHandle) -> bool {
        handle.term == self.identity.term() && self.identity.is_known()
    }

    /// Reconnects for a new identity.
    pub(crate) fn switch_identity(&self, was_known: bool) {
        self.freshness.expire();
        if was_known {
            // The process may have written to the new data and invalidated names of the old identity.
            self.pending.replace_by_flush();
        }
        self.wake.notify_one();
    }

    /// Waits until reads may use the second tier.
    pub(crate) async fn until_available(&self) {
        self.until(|| self.is_available()).await;
    }

    /// Waits until no invalidation is pending.
    pub(crate) async fn until_sent(&self) {
        self.wake.notify_one();
        self.until(|| !self.pending.any()).await;
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition() {
                return;
            }
            changed.await;
        }
    }

    /// Returns the number of pending names, and whether a flush is pending.
    pub(crate) fn pending(&self) -> (usize, bool) {
        self.pending.count()
    }

    /// Waits for a command up to the time limit. A failure opens the circuit breaker, and so do time-outs that amount to an
    /// outage.
    pub(crate) async fn call<T>(
        &self,
        handle: &ConnectionHandle,
        command: impl Future<Output = Result<T>>,
    ) -> Option<T> {
        add(&self.counters.commands, 1);
        let sent = Instant::now();
        let error = match timeout(self.timeout, command).await {
            Ok(Ok(response)) => {
                self.latency.record_success();
                return Some(response);
            }
            Ok(Err(error)) if !is_partial(handle.tier.as_ref(), &error) => Some(error),
            _ => {
                // In a cluster, the stream tells whether all of it is out of reach.
                let is_outage = self.latency.record_timeout(sent) && !handle.tier.is_partitioned();
                is_outage.then(|| TierError(format!("commands have no response within {:?}", self.timeout)))
            }
        };
        add(&self.counters.failures, 1);
        if let Some(error) = error {
            self.open_breaker(handle.number, &error);
        }
        None
    }

    /// Returns the state of the connection.
    pub(crate) fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            is_available: self.is_available(),
            is_l1_fresh: self.is_l1_fresh(Instant::now()),
            commands: self.counters.commands.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
            breaks: self.counters.breaks.load(Ordering::Relaxed),
            pending: self.pending.count().0,
            fault: self.breaker.fault(),
        }
    }

    fn open_breaker(&self, number: u64, error: &TierError) {
        if self.breaker.open(number) {
            self.freshness.expire();
            add(&self.counters.breaks, 1);
            self.breaker.set_fault(Some(RedisFault::of(&error.0)));
            warn!(%error, "redis failed; reads use the loader until redis responds again");
            self.wake.notify_one();
        }
    }

    /// Records an invalidation for the replay to a new master, before the connection sends it.
    pub(crate) fn record(&self, name: &str) {
        self.recent.add_names(&[name.to_owned()]);
    }

    /// Invalidates names in the second tier. Returns `false` if they are pending.
    pub(crate) async fn invalidate(&self, names: Vec<String>) -> bool {
        // Before the connection is chosen: a new master gets the name by this invalidation or by the replay.
        self.recent.add_names(&names);
        if let Some(handle) = self.writer() {
            let mut is_complete = true;
            for batch in names.chunks(BATCH) {
                let command = handle.tier.invalidate(batch, self.node);
                is_complete = is_complete && self.call(&handle, command).await.is_some();
            }
            if is_complete {
                return true;
            }
        }
        self.pending.add_names(names);
        self.wake.notify_one();
        false
    }

    /// Invalidates all values of a namespace, or of all with `*`. Returns `false` if the flush is pending.
    pub(crate) async fn flush(&self, namespace: &str) -> bool {
        self.recent.add_flush();
        // One at a time: the response to an earlier flush must not replace that to a later one.
        let _flush = self.flushing.lock().await;
        if let Some(handle) = self.writer()
            && let Some(epochs) = self.call(&handle, handle.tier.flush(namespace, self.node)).await
        {
            handle.set_flushed(epochs);
            return true;
        }
        self.pending.add_flush();
        self.wake.notify_one();
        false
    }

    /// Sends the pending invalidations.
    async fn flush_pending(&self, handle: &ConnectionHandle) -> Result<()> {
        let tier = handle.tier.as_ref();
        while let Some(batch) = self.pending.batch(BATCH) {
            match &batch {
                // Each by itself, so that the names on a server that has failed hold up no others.
                Batch::Names(names) if tier.is_partitioned() => {
                    let mut failure = None;
                    for name in names {
                        match self.within_limit(tier.invalidate(std::slice::from_ref(&name.0), self.node)).await {
                            Ok(()) => self.pending.confirm(&Batch::Names(vec![name.clone()])),
                            Err(error) => failure = Some(error),
                        }
                    }
                    if let Some(error) = failure {
                        return Err(error);
                    }
                }
                Batch::Flush(_) => {
                    let _flush = self.flushing.lock().await;
                    handle.set_flushed(self.within_limit(tier.flush("*", self.node)).await?);
                }
                Batch::Names(names) => {
                    let names: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
                    self.within_limit(tier.invalidate(&names, self.node)).await?;
                }
            }
            self.pending.confirm(&batch);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Sends the pending invalidations of a new connection. In a cluster, names on a server that has failed stay pending.
    async fn flush_before_use(&self, handle: &ConnectionHandle) -> Result<()> {
        match self.flush_pending(handle).await {
            Err(error) if !is_partial(handle.tier.as_ref(), &error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn within_limit<T>(&self, command: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = CONNECT_TIMEOUT;
        timeout(limit, command).await.unwrap_or_else(|_| Err(TierError(format!("no response within {limit:?}"))))
    }

    /// Connects, watches the connection, and connects again.
    async fn run(self: Arc<Self>) {
        let mut is_reconnect = self.connections.load(Ordering::Relaxed) > 0;
        loop {
            let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
            let term = self.identity.term();
            match self.connect(number, is_reconnect).await {
                Ok(Some(follower)) => {
                    self.watch(number).await;
                    drop(follower);
                }
                Ok(None) => {
                    self.watch(number).await;
                    if self.identity.term() != term {
                        // This process has not read yet, so it needs no quarantine.
                        continue;
                    }
                }
                // The next identity needs another connection.
                Err(_) if self.identity.term() != term => {}
                Err(error) => {
                    let fault = RedisFault::of(&error.0);
                    if self.breaker.set_fault(Some(fault)) {
                        warn!(%error, "{fault}; retrying every {PROBE_INTERVAL:?}");
                    }
                    self.breaker.set_disconnected();
                    self.freshness.expire();
                    sleep(PROBE_INTERVAL).await;
                }
            }
            is_reconnect = true;
            self.versions.invalidate_all();
        }
    }

    /// Opens a connection and closes the circuit breaker. Returns the task that follows the stream; `None` if the identity
    /// is unknown, in which case reads do not use the connection.
    async fn connect(self: &Arc<Self>, number: u64, is_reconnect: bool) -> Result<Option<AbortOnDrop>> {
        let (term, identity) = self.identity.current();
        let Some(identity) = identity else {
            let tier = self.within_limit(self.connector.connect("")).await?;
            self.breaker.set_recovering(ConnectionHandle::new(tier, Default::default(), number, term));
            return Ok(None);
        };
        let prefix = self.identity.key_prefix(&identity.state);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = last.filter(|last| last.prefix == prefix);
        let predecessor = last.as_ref().map(|last| last.epoch.as_str());
        let tier = self.within_limit(self.connector.connect(&prefix)).await?;
        // The follower has a connection of its own: its polls block at the server.
        let follower = self.within_limit(self.connector.connect(&prefix)).await?;
        let server = self.within_limit(tier.open_epoch(predecessor)).await?;
        let is_failover = last.is_some_and(|last| last.lineage != server.lineage);
        self.warn_of_isolated_writes(server.accepts_isolated_writes);
        self.synchronize_clock(server.time_ms);
        let handle = ConnectionHandle::new(tier, server, number, term);
        self.breaker.set_recovering(handle.clone());
        if is_failover {
            // The new master may lack invalidations that the old one has received.
            match self.recent.replay() {
                Replay::Names(names) => self.pending.add_names(names),
                Replay::Flush => self.pending.add_flush(),
            }
        }
        self.flush_before_use(&handle).await?;
        if is_reconnect {
            let until = Instant::now() + QUARANTINE;
            let newest = handle.server().newest.unwrap_or_default();
            while Instant::now() < until {
                // The proof that the server is the master; the events are of no interest yet.
                self.within_limit(follower.poll(&newest, STREAM_WAIT)).await?;
                sleep(Duration::from_millis(10)).await;
            }
            self.flush_before_use(&handle).await?;
        }
        // Read again by the connection of the follower: a pending flush has changed the epochs.
        let requested = Instant::now();
        let server = self.within_limit(follower.open_epoch(Some(&handle.server().epochs.server))).await?;
        if server.lineage != handle.server().lineage {
            return Err(TierError("the server changed during recovery".to_owned()));
        }
        let from = server.newest.clone().unwrap_or_default();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(LastServer { prefix, lineage: server.lineage.clone(), epoch: server.epochs.server.clone() });
        handle.set_server(server);
        // Invalidations before `from` are unknown to this process.
        self.versions.invalidate_all();
        self.latency.reset();
        self.freshness.prove(requested);
        if !self.breaker.close(&handle, || self.is_current(&handle)) {
            return Err(TierError("the connection failed during recovery".to_owned()));
        }
        self.changed.notify_waiters();
        info!(is_reconnect, is_failover, "redis is available");
        let supervisor = Arc::clone(self);
        Ok(Some(AbortOnDrop(tokio::spawn(async move {
            let polls = supervisor.follow(follower.as_ref(), &handle, from);
            let checks = supervisor.check_master(follower.as_ref());
            let ended = tokio::select! {
                ended = polls => ended,
                ended = checks => ended,
            };
            if let Err(error) = ended {
                supervisor.open_breaker(number, &error);
            }
        }))))
    }

    /// Sets the clock to a time of the server, if it is known.
    fn synchronize_clock(&self, time_ms: u64) {
        if time_ms > 0 {
            self.clock.set(time_ms);
        }
    }

    /// Logs once that an isolated master accepts writes.
    fn warn_of_isolated_writes(&self, accepts_isolated_writes: bool) {
        if accepts_isolated_writes && !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(
                "redis has replicas and min-replicas-to-write is 0: processes on an isolated master read old values until \
                 they learn of the new one; set min-replicas-to-write to 1"
            );
        }
    }

    /// Sends pending invalidations until the connection fails or the identity changes.
    async fn watch(&self, number: u64) {
        loop {
            let handle = match self.connection() {
                Some(handle) if handle.number == number && handle.term == self.identity.term() => handle,
                _ => return,
            };
            if self.identity.is_known()
                && self.pending.any()
                && let Err(error) = self.flush_pending(&handle).await
            {
                if is_partial(handle.tier.as_ref(), &error) {
                    sleep(PROBE_INTERVAL).await;
                    continue;
                }
                self.open_breaker(number, &error);
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Applies the invalidations of other processes until the connection fails.
    async fn follow(&self, tier: &dyn SecondTier, handle: &ConnectionHandle, from: StreamPosition) -> Result<()> {
        let mut position = from;
        loop {
            let requested = Instant::now();
            let flushes = handle.flushes();
            let mut poll = timeout(STREAM_WAIT + CONNECT_TIMEOUT, tier.poll(&position, STREAM_WAIT))
                .await
                .unwrap_or_else(|_| Err(TierError("the stream of invalidations does not respond".to_owned())))?;
            self.latency.record_success();
            let known = handle.server();
            if poll.lineage.as_ref().is_some_and(|lineage| *lineage != known.lineage) {
                return Err(TierError("the server was restarted or its role changed".to_owned()));
            }
            self.synchronize_clock(poll.time_ms);
            apply(&self.versions, self.node, &mut position, &mut poll);
            let epochs = match poll.epochs.take() {
                Some(epochs) => epochs,
                None => self.within_limit(tier.open_epoch(Some(&known.epochs.server))).await?.epochs,
            };
            if let Some(last) = &mut *self.last.lock().unwrap_or_else(PoisonError::into_inner) {
                last.epoch.clone_from(&epochs.server);
            }
            if !self.is_current(handle) {
                return Ok(());
            }
            // After a flush of this process, the next poll reads the epochs.
            if let Some(is_changed) = handle.set_epochs(epochs, flushes) {
                if is_changed {
                    self.versions.invalidate_all();
                }
                self.freshness.prove(requested);
                self.changed.notify_waiters();
            }
        }
    }

    /// Fails when clients should use another server.
    async fn check_master(&self, tier: &dyn SecondTier) -> Result<()> {
        loop {
            sleep(self.staleness.max(Duration::from_millis(10))).await;
            // Without an answer nothing is known of another master.
            if matches!(timeout(CONNECT_TIMEOUT, tier.is_current_master()).await, Ok(Ok(false))) {
                return Err(TierError("another server is the master".to_owned()));
            }
        }
    }
}
