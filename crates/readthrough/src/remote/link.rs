//! When the second tier may be used.
//!
//! A link is down until a connection is made and greeted, and again after the first command that fails or takes
//! too long: that is the breaker. While it is down, nobody waits for Redis; one task probes it (half-open), at
//! once and then every [`PROBE`]. Before reads use it again,
//!
//! 1. what this process invalidated meanwhile is invalidated now, and
//! 2. other processes get [`QUARANTINE`] to do the same: each of them probes as often.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::fault::RedisFault;
use super::follow::{Step, Trust, apply};
use super::wire::{Connect, Failure, Hello, Position, Result, Wire};
use crate::identity::IdentityCell;
use crate::stamps::Stamps;
use crate::stats::add;

/// Between two probes of a server that does not answer.
pub(crate) const PROBE: Duration = Duration::from_millis(250);
/// How long other processes get to invalidate what they owe: two probes, each with its time-out.
pub(crate) const QUARANTINE: Duration = Duration::from_millis(1_000);
/// How long a question for new invalidations waits at the server.
const WAIT: Duration = Duration::from_millis(50);
/// How often the server's run is asked for, where it can change without a broken connection.
const IDENTITY: Duration = Duration::from_secs(1);
/// Connecting and greeting.
const CONNECT: Duration = Duration::from_millis(500);
/// So many invalidations are owed by name; with more, everything is flushed instead.
const MOST_OWED: usize = 100_000;
/// So many names are invalidated with one command.
const BATCH: usize = 1_000;

/// A connection that may be read from.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) wire: Arc<dyn Wire>,
    hello: Arc<RwLock<Hello>>,
    number: u64,
    /// That of the identity whose values it leads to.
    pub(crate) term: u64,
}

impl Live {
    /// What entries of a namespace must carry to be good.
    pub(crate) fn epoch(&self, namespace: &str) -> u64 {
        let hello = self.hello.read().unwrap_or_else(PoisonError::into_inner);
        epoch(&hello.identity, &hello.epochs, namespace)
    }
}

/// All processes must find the same number, whatever compiled them: no `std` hasher.
fn epoch(identity: &str, epochs: &HashMap<String, String>, namespace: &str) -> u64 {
    let number = |key: &str| epochs.get(key).map_or("", String::as_str);
    let parts = [identity, number("*"), number(namespace)];
    // FNV-1a, with a byte between the parts that is in none of them.
    parts
        .iter()
        .flat_map(|part| part.bytes().chain([0xff]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Clone)]
enum State {
    Down,
    /// Invalidations go through, reads do not.
    Recovering(Live),
    Up(Live),
}

/// What the second tier is still to be told.
#[derive(Default)]
struct Owed {
    names: BTreeSet<String>,
    everything: bool,
}

/// Counts of the link.
#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) commands: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) breaks: AtomicU64,
}

pub(crate) struct Link {
    connect: Box<dyn Connect>,
    stamps: Arc<Stamps>,
    identity: Arc<IdentityCell>,
    /// This process, in events.
    pub(crate) node: u64,
    timeout: Duration,
    state: RwLock<State>,
    trust: Trust,
    owed: Mutex<Owed>,
    owes: AtomicBool,
    wake: Notify,
    /// Why it is down; kept until it is up.
    fault: Mutex<Option<RedisFault>>,
    pub(crate) counters: LinkCounters,
}

/// Ends the link's task with the cache.
pub(crate) struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// A link whose task connects in the background. `staleness` bounds how old the copies of this process may be.
    pub(crate) fn start(
        connect: Box<dyn Connect>,
        stamps: Arc<Stamps>,
        identity: Arc<IdentityCell>,
        timeout: Duration,
        staleness: Duration,
    ) -> (Arc<Self>, Keeper) {
        let link = Arc::new(Self {
            connect,
            stamps,
            identity,
            node: rand::random(),
            timeout,
            state: RwLock::new(State::Down),
            trust: Trust::new(staleness),
            owed: Mutex::default(),
            owes: AtomicBool::new(false),
            wake: Notify::new(),
            fault: Mutex::default(),
            counters: LinkCounters::default(),
        });
        let keeper = Keeper(tokio::spawn(Arc::clone(&link).keep()));
        (link, keeper)
    }

    /// Whether copies in this process may be used.
    pub(crate) fn trusts_l1(&self) -> bool {
        self.trust.holds()
    }

    /// The connection, if reads may use it.
    pub(crate) fn reader(&self) -> Option<Live> {
        if self.owes.load(Ordering::Acquire) {
            return None;
        }
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(live) if self.is_current(live) => Some(live.clone()),
            _ => None,
        }
    }

    /// The connection, if it leads to the values of the present identity.
    pub(crate) fn writer(&self) -> Option<Live> {
        self.connection().filter(|live| self.is_current(live))
    }

    /// The connection, if there is one.
    pub(crate) fn connection(&self) -> Option<Live> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(live) | State::Recovering(live) => Some(live.clone()),
            State::Down => None,
        }
    }

    /// Whether a connection leads to the values of the present identity, which is known.
    pub(crate) fn is_current(&self, live: &Live) -> bool {
        live.term == self.identity.term() && self.identity.is_known()
    }

    /// The identity is another one: connects for that.
    pub(crate) fn follow_identity(&self, was_known: bool) {
        self.trust.end();
        if was_known {
            // What this process wrote to the new data before it knew them was invalidated under the old identity, or is owed.
            self.owe(|owed| *owed = Owed { names: BTreeSet::new(), everything: true });
        }
        self.wake.notify_one();
    }

    /// Waits until reads may use the second tier.
    pub(crate) async fn until_up(&self) {
        while self.reader().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a command as long as the time-out. One that fails takes the link down.
    pub(crate) async fn call<T>(&self, live: &Live, command: impl Future<Output = Result<T>>) -> Option<T> {
        add(&self.counters.commands, 1);
        let failure = match timeout(self.timeout, command).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(failure)) => failure,
            Err(_) => Failure(format!("no answer within {:?}", self.timeout)),
        };
        add(&self.counters.failures, 1);
        self.take_down(live.number, &failure);
        None
    }

    /// Why Redis is not used; `None` while it is, and before the first attempt has ended.
    pub(crate) fn fault(&self) -> Option<RedisFault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why Redis is not used; whether that is news.
    fn set_fault(&self, fault: Option<RedisFault>) -> bool {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, fault) != fault
    }

    fn take_down(&self, number: u64, failure: &Failure) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Up(live) | State::Recovering(live) = &*state
            && live.number == number
        {
            *state = State::Down;
            drop(state);
            self.trust.end();
            add(&self.counters.breaks, 1);
            self.set_fault(Some(RedisFault::of(&failure.0)));
            tracing::warn!(%failure, "Redis is not used until it answers again");
            self.wake.notify_one();
        }
    }

    /// Tells the second tier of names that are no longer good; `false` when it is still to be told.
    pub(crate) async fn invalidate(&self, names: Vec<String>) -> bool {
        if let Some(live) = self.writer() {
            let mut told = true;
            for batch in names.chunks(BATCH) {
                told = told && self.call(&live, live.wire.invalidate(batch, self.node)).await.is_some();
            }
            if told {
                return true;
            }
        }
        self.owe(|owed| {
            owed.names.extend(names);
            if owed.names.len() > MOST_OWED {
                owed.everything = true;
                owed.names.clear();
            }
        });
        false
    }

    /// Makes everything stored of a namespace (of all, as `*`) unusable; `false` when the second tier is still to
    /// be told.
    pub(crate) async fn flush(&self, namespace: &str) -> bool {
        if let Some(live) = self.writer()
            && self.call(&live, live.wire.flush(namespace, self.node)).await.is_some()
            && let Some(hello) = self.call(&live, live.wire.hello()).await
        {
            *live.hello.write().unwrap_or_else(PoisonError::into_inner) = hello;
            return true;
        }
        self.owe(|owed| owed.everything = true);
        false
    }

    fn owe(&self, change: impl FnOnce(&mut Owed)) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut owed);
        self.owes.store(true, Ordering::Release);
        drop(owed);
        self.wake.notify_one();
    }

    pub(crate) fn owed(&self) -> usize {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).names.len()
    }

    /// Tells the second tier what it is owed.
    async fn settle(&self, wire: &dyn Wire) -> Result<()> {
        loop {
            // Taken out while it is told: what is added meanwhile, the same name too, is told again.
            let (names, everything) = {
                let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
                if owed.names.is_empty() && !owed.everything {
                    self.owes.store(false, Ordering::Release);
                    return Ok(());
                }
                let everything = std::mem::take(&mut owed.everything);
                let names: Vec<_> = owed.names.iter().take(if everything { 0 } else { BATCH }).cloned().collect();
                for name in &names {
                    owed.names.remove(name);
                }
                (names, everything)
            };
            let told = if everything {
                self.within(wire.flush("*", self.node)).await
            } else {
                self.within(wire.invalidate(&names, self.node)).await
            };
            if let Err(failure) = told {
                self.owe(|owed| {
                    owed.names.extend(names);
                    owed.everything |= everything;
                });
                return Err(failure);
            }
        }
    }

    async fn within<T>(&self, command: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(CONNECT, command).await.unwrap_or_else(|_| Err(Failure(format!("no answer within {CONNECT:?}"))))
    }

    /// Connects, watches, and connects again.
    async fn keep(self: Arc<Self>) {
        let mut number = 0;
        let mut outage = false;
        loop {
            number += 1;
            let term = self.identity.term();
            match self.up(number, outage).await {
                Ok(Some(follower)) => {
                    self.watch(number).await;
                    follower.abort();
                }
                Ok(None) => {
                    self.watch(number).await;
                    if self.identity.term() != term {
                        // Nothing was read before, so there is nothing that others have to tell first.
                        continue;
                    }
                }
                // Begun anew for the next identity.
                Err(_) if self.identity.term() != term => {}
                Err(failure) => {
                    let fault = RedisFault::of(&failure.0);
                    if self.set_fault(Some(fault)) {
                        tracing::warn!(%failure, "{fault}; it is tried again until it can be used");
                    }
                    *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Down;
                    self.trust.end();
                    sleep(PROBE).await;
                }
            }
            outage = true;
            self.stamps.flush();
        }
    }

    /// Brings the link up; the task that follows the invalidations of others. `None` while nobody knows whose
    /// invalidations these are: then there is only a connection.
    async fn up(self: &Arc<Self>, number: u64, outage: bool) -> Result<Option<JoinHandle<()>>> {
        let (term, identity) = self.identity.current();
        let Some(identity) = identity else {
            let wire = self.within(self.connect.connect("")).await?;
            let live = Live { wire, hello: Arc::default(), number, term };
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Recovering(live);
            return Ok(None);
        };
        let scope = self.identity.scope(&identity.state);
        let connect = async || {
            let wire = self.within(self.connect.connect(&scope)).await?;
            let hello = self.within(wire.hello()).await?;
            Ok::<_, Failure>((wire, hello))
        };
        let (wire, hello) = connect().await?;
        // A connection of its own: its questions wait at the server.
        let (second, _) = connect().await?;
        let live = Live { wire, hello: Arc::new(RwLock::new(hello)), number, term };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Recovering(live.clone());
        self.settle(live.wire.as_ref()).await?;
        if outage {
            sleep(QUARANTINE).await;
            self.settle(live.wire.as_ref()).await?;
        }
        // Greeted again: a flush that was owed has changed the epochs.
        let hello = self.within(second.hello()).await?;
        let newest = hello.newest.clone();
        *live.hello.write().unwrap_or_else(PoisonError::into_inner) = hello;
        // Copies from before this moment may have been invalidated without a word to us.
        self.stamps.flush();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*state, State::Recovering(recovering) if recovering.number == number) || !self.is_current(&live) {
            return Err(Failure("it failed again at once".to_owned()));
        }
        *state = State::Up(live.clone());
        drop(state);
        self.set_fault(None);
        tracing::info!(outage, "Redis is used");
        let link = Arc::clone(self);
        Ok(Some(tokio::spawn(async move {
            if let Err(failure) = link.follow(second.as_ref(), &live, newest).await {
                link.take_down(number, &failure);
            }
        })))
    }

    /// Settles what is owed although the link is up, until it is down or leads to another identity's values.
    async fn watch(&self, number: u64) {
        loop {
            let live = match self.connection() {
                Some(live) if live.number == number && live.term == self.identity.term() => live,
                _ => return,
            };
            if self.identity.is_known()
                && self.owes.load(Ordering::Acquire)
                && let Err(failure) = self.settle(live.wire.as_ref()).await
            {
                self.take_down(number, &failure);
                return;
            }
            self.wake.notified().await;
        }
    }

    async fn follow(&self, wire: &dyn Wire, live: &Live, mut at: Position) -> Result<()> {
        let mut identified = Instant::now();
        loop {
            let asked = Instant::now();
            let events = timeout(WAIT + CONNECT, wire.events(&at, WAIT))
                .await
                .unwrap_or_else(|_| Err(Failure("invalidations can't be followed".to_owned())))?;
            let mut changed = wire.survives_failover() && identified.elapsed() > IDENTITY;
            for event in events {
                changed |= apply(&self.stamps, self.node, &mut at, event) == Step::ReadEpochs;
            }
            if changed {
                let hello = self.within(wire.hello()).await?;
                identified = Instant::now();
                let mut known = live.hello.write().unwrap_or_else(PoisonError::into_inner);
                if known.identity != hello.identity {
                    return Err(Failure("a server was replaced or restarted".to_owned()));
                }
                if known.epochs != hello.epochs {
                    known.epochs = hello.epochs;
                    self.stamps.flush();
                }
            }
            if !self.is_current(live) {
                return Ok(());
            }
            self.trust.renew(asked);
        }
    }
}
