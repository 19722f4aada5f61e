//! One load at a time for each entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::entry::Entry;
use crate::version_table::Versions;

/// The result of a load.
pub(crate) enum LoadOutcome<V> {
    Found(Arc<Entry<V>>),
    /// The load failed. Each waiting reader loads itself.
    Failed,
}

type State<V> = Option<Arc<LoadOutcome<V>>>;

/// The loads in progress.
pub(crate) struct SingleFlight<V> {
    table: Arc<Mutex<Table<V>>>,
}

struct Table<V> {
    loads: HashMap<String, Load<V>>,
    /// The number of the newest load. Each load has its own.
    newest: u64,
}

struct Load<V> {
    versions: Versions,
    number: u64,
    state: watch::Receiver<State<V>>,
}

/// The part of a reader in a load.
pub(crate) enum Role<V> {
    /// The reader loads and publishes the outcome.
    Leader(Leader<V>),
    /// The reader waits for the leader.
    Waiter(watch::Receiver<State<V>>),
}

/// Loads for all waiting readers. If it is dropped without an outcome, a waiting reader takes over.
pub(crate) struct Leader<V> {
    table: Arc<Mutex<Table<V>>>,
    entry: String,
    number: u64,
    state: watch::Sender<State<V>>,
}

impl<V> SingleFlight<V> {
    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Mutex::new(Table { loads: HashMap::new(), newest: 0 })) }
    }

    /// Joins a load that began with the same versions, or begins one. A load from before an invalidation would give the old
    /// value to a reader from after it.
    pub(crate) fn join(&self, entry: &str, versions: Versions) -> Role<V> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = table.loads.get(entry)
            && load.versions == versions
        {
            return Role::Waiter(load.state.clone());
        }
        table.newest += 1;
        let number = table.newest;
        let (state, receiver) = watch::channel(None);
        table.loads.insert(entry.to_owned(), Load { versions, number, state: receiver });
        Role::Leader(Leader { table: Arc::clone(&self.table), entry: entry.to_owned(), number, state })
    }
}

impl<V> Leader<V> {
    /// Publishes the outcome to the waiting readers.
    pub(crate) fn finish(self, outcome: LoadOutcome<V>) {
        // First: a reader that received this outcome must not join this load again.
        self.remove();
        self.state.send_replace(Some(Arc::new(outcome)));
    }

    fn remove(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // A newer load may have replaced this one.
        if table.loads.get(&self.entry).is_some_and(|load| load.number == self.number) {
            table.loads.remove(&self.entry);
        }
    }
}

impl<V> Drop for Leader<V> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Waits for the leader; `None` if the leader was dropped without an outcome.
pub(crate) async fn wait<V>(mut state: watch::Receiver<State<V>>) -> Option<Arc<LoadOutcome<V>>> {
    state.wait_for(Option::is_some).await.ok()?.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version_table::VersionTable;

    #[test]
    fn a_reader_that_received_an_outcome_does_not_join_that_load_again() {
        let flights = SingleFlight::<u64>::new();
        let versions = VersionTable::new().read("entry", None);
        for _ in 0..20_000 {
            let Role::Leader(leader) = flights.join("entry", versions) else { panic!("no load is in progress") };
            let Role::Waiter(state) = flights.join("entry", versions) else { panic!("a load is in progress") };
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    // As close behind as another thread can be.
                    while state.borrow().is_none() {
                        std::hint::spin_loop();
                    }
                    assert!(matches!(flights.join("entry", versions), Role::Leader(_)), "the load has ended");
                });
                leader.finish(LoadOutcome::Failed);
            });
        }
    }

    #[test]
    fn a_replaced_load_does_not_end_the_newer_one() {
        let flights = SingleFlight::<u64>::new();
        let table = VersionTable::new();
        let lead = || match flights.join("entry", table.read("entry", None)) {
            Role::Leader(leader) => leader,
            Role::Waiter(_) => panic!("a load is in progress"),
        };
        let first = lead();
        table.increment("entry");
        drop(lead());
        table.increment("entry");
        let third = lead();
        first.finish(LoadOutcome::Failed);
        let role = flights.join("entry", table.read("entry", None));
        assert!(matches!(role, Role::Waiter(_)), "the third load is in progress");
        drop(third);
    }
}
