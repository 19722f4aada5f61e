//! Supervises the connection to the second tier.
//!
//! The supervisor starts disconnected. The first command that fails or exceeds its time limit opens the circuit breaker;
//! requests then stop waiting for Redis, and the supervisor probes it at once and every [`PROBE_INTERVAL`]. Before reads
//! use a new connection,
//!
//! 1. the supervisor sends the pending invalidations of this process, and
//! 2. waits for [`QUARANTINE`] so that the other processes, which probe as often, send theirs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{CircuitBreaker, ConnectionHandle};
use super::events::{FollowUp, FreshnessDeadline, apply};
use super::fault::RedisFault;
use super::pending::{Batch, PendingInvalidations};
use super::stats::{CommandCounters, ConnectionStats};
use super::tier::{Connector, RemoteError, RemoteTier, Result, StreamPosition};
use crate::identity::CurrentIdentity;
use crate::stats::add;
use crate::trace::{info, warn};
use crate::version_table::VersionTable;

/// The pause between two probes of a server that does not respond.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The time in which other processes send their pending invalidations: two probes, each with its time limit.
pub(crate) const QUARANTINE: Duration = Duration::from_millis(1_000);
/// How long a read of the stream waits at the server for an event.
const STREAM_WAIT: Duration = Duration::from_millis(50);
/// How often the supervisor reads the identity of a server that can change without a broken connection.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(1);
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
    freshness: FreshnessDeadline,
    pending: PendingInvalidations,
    wake: Notify,
    counters: CommandCounters,
}

/// Aborts a task when it is dropped.
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RedisSupervisor {
    /// Spawns the supervision task, which connects in the background. `staleness` bounds the age of the copies in this
    /// process.
    pub(crate) fn start(
        connector: Box<dyn Connector>,
        versions: Arc<VersionTable>,
        identity: Arc<CurrentIdentity>,
        timeout: Duration,
        staleness: Duration,
    ) -> (Arc<Self>, AbortOnDrop) {
        let supervisor = Arc::new(Self {
            connector,
            versions,
            identity,
            node: rand::random(),
            timeout,
            breaker: CircuitBreaker::new(),
            freshness: FreshnessDeadline::new(staleness),
            pending: PendingInvalidations::default(),
            wake: Notify::new(),
            counters: CommandCounters::default(),
        });
        let task = AbortOnDrop(tokio::spawn(Arc::clone(&supervisor).run()));
        (supervisor, task)
    }

    /// Returns whether reads may use the copies in this process.
    pub(crate) fn is_l1_fresh(&self) -> bool {
        self.freshness.is_fresh()
    }

    /// Returns the connection if reads may use it.
    pub(crate) fn reader(&self) -> Option<ConnectionHandle> {
        if self.pending.any() {
            return None;
        }
        self.breaker.available().filter(|handle| self.is_current(handle))
    }

    /// Returns the connection if it leads to the values of the current identity.
    fn writer(&self) -> Option<ConnectionHandle> {
        self.connection().filter(|handle| self.is_current(handle))
    }

    /// Returns the connection if there is one.
    pub(crate) fn connection(&self) -> Option<ConnectionHandle> {
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
        while self.reader().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a command up to the time limit. A failure opens the circuit breaker.
    pub(crate) async fn call<T>(
        &self,
        handle: &ConnectionHandle,
        command: impl Future<Output = Result<T>>,
    ) -> Option<T> {
        add(&self.counters.commands, 1);
        let error = match timeout(self.timeout, command).await {
            Ok(Ok(response)) => return Some(response),
            Ok(Err(error)) => error,
            Err(_) => RemoteError(format!("no response within {:?}", self.timeout)),
        };
        add(&self.counters.failures, 1);
        self.open_breaker(handle.number, &error);
        None
    }

    /// Returns the state of the connection.
    pub(crate) fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            is_available: self.reader().is_some(),
            is_l1_fresh: self.is_l1_fresh(),
            commands: self.counters.commands.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
            breaks: self.counters.breaks.load(Ordering::Relaxed),
            pending: self.pending.len(),
            fault: self.breaker.fault(),
        }
    }

    fn open_breaker(&self, number: u64, error: &RemoteError) {
        if self.breaker.open(number) {
            self.freshness.expire();
            add(&self.counters.breaks, 1);
            self.breaker.set_fault(Some(RedisFault::of(&error.0)));
            warn!(%error, "redis failed; reads use the loader until redis responds again");
            self.wake.notify_one();
        }
    }

    /// Invalidates names in the second tier. Returns `false` if they are pending.
    pub(crate) async fn invalidate(&self, names: Vec<String>) -> bool {
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
        if let Some(handle) = self.writer()
            && self.call(&handle, handle.tier.flush(namespace, self.node)).await.is_some()
            && let Some(server) = self.call(&handle, handle.tier.state()).await
        {
            handle.set_server(server);
            return true;
        }
        self.pending.add_flush();
        self.wake.notify_one();
        false
    }

    /// Sends the pending invalidations.
    async fn flush_pending(&self, tier: &dyn RemoteTier) -> Result<()> {
        while let Some(batch) = self.pending.take_batch(BATCH) {
            let sent = match &batch {
                Batch::Flush => self.within_limit(tier.flush("*", self.node)).await,
                Batch::Names(names) => self.within_limit(tier.invalidate(names, self.node)).await,
            };
            if let Err(error) = sent {
                self.pending.restore(batch);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn within_limit<T>(&self, command: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = CONNECT_TIMEOUT;
        timeout(limit, command).await.unwrap_or_else(|_| Err(RemoteError(format!("no response within {limit:?}"))))
    }

    /// Connects, watches the connection, and connects again.
    async fn run(self: Arc<Self>) {
        let mut number = 0;
        let mut is_reconnect = false;
        loop {
            number += 1;
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
        let open = async || {
            let tier = self.within_limit(self.connector.connect(&prefix)).await?;
            let server = self.within_limit(tier.state()).await?;
            Ok::<_, RemoteError>((tier, server))
        };
        let (tier, server) = open().await?;
        // The follower has a connection of its own: its reads block at the server.
        let (follower, _) = open().await?;
        let handle = ConnectionHandle::new(tier, server, number, term);
        self.breaker.set_recovering(handle.clone());
        self.flush_pending(handle.tier.as_ref()).await?;
        if is_reconnect {
            sleep(QUARANTINE).await;
            self.flush_pending(handle.tier.as_ref()).await?;
        }
        // Read again: a pending flush has changed the epochs.
        let server = self.within_limit(follower.state()).await?;
        let newest = server.newest.clone();
        handle.set_server(server);
        // Invalidations before `newest` are unknown to this process.
        self.versions.invalidate_all();
        if !self.breaker.close(&handle, || self.is_current(&handle)) {
            return Err(RemoteError("the connection failed during recovery".to_owned()));
        }
        info!(is_reconnect, "redis is available");
        let supervisor = Arc::clone(self);
        Ok(Some(AbortOnDrop(tokio::spawn(async move {
            if let Err(error) = supervisor.follow(follower.as_ref(), &handle, newest).await {
                supervisor.open_breaker(number, &error);
            }
        }))))
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
                && let Err(error) = self.flush_pending(handle.tier.as_ref()).await
            {
                self.open_breaker(number, &error);
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Applies the invalidations of other processes until the connection fails.
    async fn follow(&self, tier: &dyn RemoteTier, handle: &ConnectionHandle, from: StreamPosition) -> Result<()> {
        let mut position = from;
        let mut identified = Instant::now();
        loop {
            let requested = Instant::now();
            let events = timeout(STREAM_WAIT + CONNECT_TIMEOUT, tier.events(&position, STREAM_WAIT))
                .await
                .unwrap_or_else(|_| Err(RemoteError("the stream of invalidations does not respond".to_owned())))?;
            let mut read_state = tier.survives_failover() && identified.elapsed() > IDENTITY_INTERVAL;
            for event in events {
                read_state |= apply(&self.versions, self.node, &mut position, event) == FollowUp::ReadEpochs;
            }
            if read_state {
                let server = self.within_limit(tier.state()).await?;
                identified = Instant::now();
                let known = handle.server();
                if known.identity != server.identity {
                    return Err(RemoteError("a server was replaced or restarted".to_owned()));
                }
                if known.epochs != server.epochs {
                    handle.set_server(server);
                    self.versions.invalidate_all();
                }
            }
            if !self.is_current(handle) {
                return Ok(());
            }
            self.freshness.extend(requested);
        }
    }
}
