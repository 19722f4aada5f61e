//! The loads in progress: at most one for each entry, shared by all readers of this process.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::entry::Entry;
use crate::version_table::Versions;

/// The outcome of a load.
pub(crate) enum LoadOutcome<V> {
    Loaded(Entry<V>),
    Failed {
        failure: Failure,
        /// An expired value that readers who accept one may take instead.
        stale: Option<Entry<V>>,
    },
}

/// The reason why a load has no value.
#[derive(Clone)]
pub(crate) enum Failure {
    /// The error of the loader, an `Arc<E>`. Readers of one key may use loaders with different types of errors.
    Error(Arc<dyn Any + Send + Sync>),
    /// The load exceeded the hard time-out.
    TimedOut(Duration),
}

/// The error of a read.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader failed. All readers that waited for the load share its error.
    Failed(Arc<E>),
    /// The load exceeded the [hard time-out](crate::NamespaceOptions::hard_timeout) and was dropped.
    TimedOut(Duration),
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::TimedOut(after) => Self::TimedOut(*after),
        }
    }
}

impl<E: std::fmt::Display> std::fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "load failed: {error}"),
            Self::TimedOut(after) => write!(f, "load timed out after {after:?}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error.as_ref()),
            Self::TimedOut(_) => None,
        }
    }
}

impl<E: Send + Sync + 'static> LoadError<E> {
    pub(crate) fn to_failure(&self) -> Failure {
        match self {
            Self::Failed(error) => Failure::Error(Arc::clone(error) as Arc<dyn Any + Send + Sync>),
            Self::TimedOut(after) => Failure::TimedOut(*after),
        }
    }

    /// Returns the error of another reader's load, or `None` if that loader has errors of another type.
    pub(crate) fn of(failure: &Failure) -> Option<Self> {
        match failure {
            Failure::Error(error) => Arc::clone(error).downcast().ok().map(Self::Failed),
            Failure::TimedOut(after) => Some(Self::TimedOut(*after)),
        }
    }
}

type State<V> = Option<Arc<LoadOutcome<V>>>;
/// The channel of an outcome, which the first waiter opens: most loads have no waiters.
type Outcome<V> = OnceLock<watch::Sender<State<V>>>;

/// The loads in progress.
pub(crate) struct SingleFlight<V> {
    table: Arc<Mutex<Table<V>>>,
}

struct Table<V> {
    open: HashMap<Arc<str>, Load<V>>,
    /// The number of the newest load: each has its own.
    newest: u64,
}

struct Load<V> {
    versions: Versions,
    number: u64,
    state: Arc<Outcome<V>>,
}

/// The part of a reader.
pub(crate) enum Role<V> {
    /// The reader loads for all.
    Lead(Leader<V>),
    /// The reader waits for the leader.
    Wait(Waiter<V>),
}

/// The right to load an entry for all readers. If it is dropped without an outcome, the first waiter takes over.
pub(crate) struct Leader<V> {
    table: Arc<Mutex<Table<V>>>,
    entry: Arc<str>,
    number: u64,
    state: Arc<Outcome<V>>,
    is_open: bool,
}

/// A reader that waits for a load.
pub(crate) struct Waiter<V> {
    number: u64,
    state: watch::Receiver<State<V>>,
}

/// The end of a wait.
pub(crate) enum Waited<V> {
    /// The load has an outcome.
    Ended(Arc<LoadOutcome<V>>),
    /// The leader went away.
    Abandoned,
    /// The load is still in progress; its number.
    TimedOut(u64),
}

impl<V> SingleFlight<V> {
    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Mutex::new(Table { open: HashMap::new(), newest: 0 })) }
    }

    /// Waits for a load that began with the same versions, or leads one. A load from before an invalidation would give a
    /// reader from after it the old value. The load `overdue` is not waited for again: it loses the lead.
    pub(crate) fn join(&self, entry: &str, versions: &Versions, overdue: Option<u64>) -> Role<V> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = table.open.get(entry)
            && other.versions == *versions
            && Some(other.number) != overdue
        {
            let state = other.state.get_or_init(|| watch::channel(None).0).subscribe();
            return Role::Wait(Waiter { number: other.number, state });
        }
        table.newest += 1;
        let number = table.newest;
        let (entry, state) = (Arc::<str>::from(entry), Arc::new(OnceLock::new()));
        table.open.insert(Arc::clone(&entry), Load { versions: versions.clone(), number, state: Arc::clone(&state) });
        Role::Lead(Leader { table: Arc::clone(&self.table), entry, number, state, is_open: true })
    }
}

impl<V> Leader<V> {
    /// Ends the load.
    pub(crate) fn end(mut self, outcome: LoadOutcome<V>) {
        // First: a reader that learns of this load must not take it for the next one, which begins after it.
        self.close();
        if let Some(state) = self.state.get() {
            state.send_replace(Some(Arc::new(outcome)));
        }
    }

    /// Returns whether no other load has taken the place of this one.
    pub(crate) fn leads(&self) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.open.get(&self.entry).is_some_and(|own| own.number == self.number)
    }

    fn close(&mut self) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.open.get(&self.entry).is_some_and(|own| own.number == self.number) {
            table.open.remove(&self.entry);
        }
    }
}

impl<V> Drop for Leader<V> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<V> Waiter<V> {
    /// Waits for the outcome, at most for `bound`.
    pub(crate) async fn wait(mut self, bound: Duration) -> Waited<V> {
        match timeout(bound, self.state.wait_for(Option::is_some)).await {
            Ok(Ok(state)) => state.clone().map_or(Waited::Abandoned, Waited::Ended),
            Ok(Err(_)) => Waited::Abandoned,
            Err(_) => Waited::TimedOut(self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Key, PrefixHashes};
    use crate::version_table::VersionTable;

    fn read(table: &VersionTable) -> Versions {
        table.read(&PrefixHashes::new("v1:n"), &Key::new("entry"))
    }

    fn failed() -> LoadOutcome<u64> {
        LoadOutcome::Failed { failure: Failure::TimedOut(Duration::ZERO), stale: None }
    }

    #[test]
    fn a_reader_that_received_an_outcome_does_not_join_that_load_again() {
        let flights = SingleFlight::<u64>::new();
        let versions = read(&VersionTable::new());
        for _ in 0..20_000 {
            let Role::Lead(leader) = flights.join("entry", &versions, None) else { panic!("no load is in progress") };
            let Role::Wait(waiter) = flights.join("entry", &versions, None) else { panic!("a load is in progress") };
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    // As close behind as another thread can be.
                    while waiter.state.borrow().is_none() {
                        std::hint::spin_loop();
                    }
                    let role = flights.join("entry", &versions, None);
                    assert!(matches!(role, Role::Lead(_)), "the load has ended");
                });
                leader.end(failed());
            });
        }
    }

    #[test]
    fn a_replaced_load_does_not_end_the_newer_one() {
        let flights = SingleFlight::<u64>::new();
        let table = VersionTable::new();
        let lead = |overdue| match flights.join("entry", &read(&table), overdue) {
            Role::Lead(leader) => leader,
            Role::Wait(_) => panic!("a load is in progress"),
        };
        let first = lead(None);
        table.increment("v1:n:{entry}");
        drop(lead(None));
        table.increment("v1:n:{entry}");
        let third = lead(None);
        let fourth = lead(Some(third.number));
        assert!(!first.leads() && !third.leads() && fourth.leads());
        first.end(failed());
        third.end(failed());
        let role = flights.join("entry", &read(&table), None);
        assert!(matches!(role, Role::Wait(waiter) if waiter.number == fourth.number), "the fourth load is in progress");
    }
}
