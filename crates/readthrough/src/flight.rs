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
    open: Arc<Mutex<HashMap<String, Open<V>>>>,
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
    open: Arc<Mutex<HashMap<String, Open<V>>>>,
    entry: String,
    number: u64,
    state: watch::Sender<State<V>>,
}

impl<V> Flights<V> {
    pub(crate) fn new() -> Self {
        Self { open: Arc::default() }
    }

    /// Takes the lead, or follows a load that began with the same stamp: one from before an invalidation
    /// would give a reader from after it the old value.
    pub(crate) fn join(&self, entry: &str, stamp: Stamp) -> Turn<V> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = 0;
        if let Some(other) = open.get(entry) {
            if other.stamp == stamp {
                return Turn::Follow(other.state.clone());
            }
            number = other.number + 1;
        }
        let (state, receiver) = watch::channel(None);
        open.insert(entry.to_owned(), Open { stamp, number, state: receiver });
        Turn::Lead(Leader { open: Arc::clone(&self.open), entry: entry.to_owned(), number, state })
    }
}

impl<V> Leader<V> {
    pub(crate) fn end(self, outcome: Outcome<V>) {
        self.state.send_replace(Some(Arc::new(outcome)));
    }
}

impl<V> Drop for Leader<V> {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // One with a newer stamp may have taken its place.
        if open.get(&self.entry).is_some_and(|own| own.number == self.number) {
            open.remove(&self.entry);
        }
    }
}

/// Waits for the leader; `None` when it gave up without a word.
pub(crate) async fn follow<V>(mut state: watch::Receiver<State<V>>) -> Option<Arc<Outcome<V>>> {
    state.wait_for(Option::is_some).await.ok()?.clone()
}
