//! One load at a time for each entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::entry::Entry;
use crate::stamps::Stamp;

/// What came of a load.
pub(crate) enum Outcome<V> {
    Found(Arc<Entry<V>>),
    /// It failed, and so will those who waited if they wait for the next in turn: let each try at once.
    Failed,
}

type State<V> = Option<Arc<Outcome<V>>>;

/// The loads that are under way.
pub(crate) struct Flights<V> {
    table: Arc<Mutex<Table<V>>>,
}

struct Table<V> {
    open: HashMap<String, Open<V>>,
    /// The number of the newest: each has one of its own.
    newest: u64,
}

struct Open<V> {
    stamp: Stamp,
    number: u64,
    state: watch::Receiver<State<V>>,
}

/// What a reader is to do.
pub(crate) enum Turn<V> {
    /// Load, and say what came of it.
    Lead(Leader<V>),
    /// Wait for the one who loads.
    Follow(watch::Receiver<State<V>>),
}

/// Loads for all who wait. When it is dropped without a word, the first who waited takes over.
pub(crate) struct Leader<V> {
    table: Arc<Mutex<Table<V>>>,
    entry: String,
    number: u64,
    state: watch::Sender<State<V>>,
}

impl<V> Flights<V> {
    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Mutex::new(Table { open: HashMap::new(), newest: 0 })) }
    }

    /// Takes the lead, or follows a load that began with the same stamp: one from before an invalidation
    /// would give a reader from after it the old value.
    pub(crate) fn join(&self, entry: &str, stamp: Stamp) -> Turn<V> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = table.open.get(entry)
            && other.stamp == stamp
        {
            return Turn::Follow(other.state.clone());
        }
        table.newest += 1;
        let number = table.newest;
        let (state, receiver) = watch::channel(None);
        table.open.insert(entry.to_owned(), Open { stamp, number, state: receiver });
        Turn::Lead(Leader { table: Arc::clone(&self.table), entry: entry.to_owned(), number, state })
    }
}

impl<V> Leader<V> {
    pub(crate) fn end(self, outcome: Outcome<V>) {
        // First: a reader who is told of this load may not take it for the next one, which begins after it.
        self.close();
        self.state.send_replace(Some(Arc::new(outcome)));
    }

    fn close(&self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have taken its place.
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

/// Waits for the leader; `None` when it gave up without a word.
pub(crate) async fn follow<V>(mut state: watch::Receiver<State<V>>) -> Option<Arc<Outcome<V>>> {
    state.wait_for(Option::is_some).await.ok()?.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamps::Stamps;

    #[test]
    fn who_was_told_of_a_load_does_not_join_it_again() {
        let flights = Flights::<u64>::new();
        let stamp = Stamps::new().read("entry", None);
        for _ in 0..20_000 {
            let Turn::Lead(leader) = flights.join("entry", stamp) else { panic!("nobody loads") };
            let Turn::Follow(state) = flights.join("entry", stamp) else { panic!("a load is under way") };
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    // As close behind as another thread can be.
                    while state.borrow().is_none() {
                        std::hint::spin_loop();
                    }
                    assert!(matches!(flights.join("entry", stamp), Turn::Lead(_)), "the load had ended");
                });
                leader.end(Outcome::Failed);
            });
        }
    }

    #[test]
    fn a_load_that_was_overtaken_ends_without_a_trace() {
        let flights = Flights::<u64>::new();
        let stamps = Stamps::new();
        let lead = || match flights.join("entry", stamps.read("entry", None)) {
            Turn::Lead(leader) => leader,
            Turn::Follow(_) => panic!("a load is under way"),
        };
        let first = lead();
        stamps.bump("entry");
        drop(lead());
        stamps.bump("entry");
        let third = lead();
        first.end(Outcome::Failed);
        assert!(matches!(flights.join("entry", stamps.read("entry", None)), Turn::Follow(_)), "the third is under way");
        drop(third);
    }
}
