//! A second tier in memory, for tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::tier::{
    Connector, Epochs, Event, Fill, Info, LeaseRequest, LeaseResponse, Poll, Replacement, Result, SecondTier,
    ServerState, StreamPosition, keys_of,
};
use crate::key::Names;

/// The number of events that are kept for readers that lag.
const STREAM_LENGTH: usize = 10_000;

/// A server in memory that several caches of one process share, for tests of programs that use the cache.
///
/// Entries whose time to live is over are removed when they are read, so the memory grows with the number of keys.
///
/// ```
/// use readthrough::second_tier::MemoryTier;
/// use readthrough::{Cache, Key, NamespaceOptions};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = MemoryTier::default();
///     let first = Cache::builder().second_tier(server.clone()).build()?;
///     let second = Cache::builder().second_tier(server).build()?;
///     let a = first.namespace(NamespaceOptions::<u32>::new("number"))?;
///     let b = second.namespace(NamespaceOptions::<u32>::new("number"))?;
///     first.until_connected().await;
///     second.until_connected().await;
///     a.get_or_load(&Key::new(1), || async { Ok::<_, std::io::Error>(Some(7)) }).await?;
///     let found = b.get_or_load(&Key::new(1), || async { Err(std::io::Error::other("not called")) }).await?;
///     assert_eq!(*found.unwrap(), 7);
///     Ok(())
/// }
/// ```
#[derive(Clone, Default)]
pub struct MemoryTier(Arc<Server>);

#[derive(Default)]
struct Server {
    state: Mutex<State>,
    appended: Notify,
}

#[derive(Default)]
struct State {
    data: HashMap<String, (Vec<u8>, Instant)>,
    /// By prefix.
    streams: HashMap<String, Stream>,
}

/// The epochs and the events of one prefix.
#[derive(Default)]
struct Stream {
    epochs: Option<Epochs>,
    predecessors: Vec<String>,
    events: Vec<Event>,
    newest: u64,
}

impl std::fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTier").finish_non_exhaustive()
    }
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let (bytes, expires_at) = self.data.get(key)?;
        if *expires_at > Instant::now() {
            return Some(bytes.clone());
        }
        self.data.remove(key);
        None
    }

    fn set(&mut self, key: String, bytes: Vec<u8>, ttl: Duration) {
        self.data.insert(key, (bytes, Instant::now() + ttl));
    }

    fn has_number(&mut self, key: &str, number: u64) -> bool {
        self.get(key).is_some_and(|bytes| bytes == number.to_string().into_bytes())
    }

    fn set_number(&mut self, key: String, number: u64, ttl: Duration) {
        self.set(key, number.to_string().into_bytes(), ttl);
    }

    /// Returns the generation of a group, and creates it if it is missing.
    fn generation(&mut self, key: &str, candidate: u64, ttl: Duration) -> u64 {
        let stored = self.get(key).and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok());
        let generation = stored.unwrap_or(candidate);
        self.set_number(key.to_owned(), generation, ttl);
        generation
    }

    fn stream(&mut self, prefix: &str) -> &mut Stream {
        self.streams.entry(prefix.to_owned()).or_default()
    }
}

impl Stream {
    fn position(&self) -> Option<StreamPosition> {
        self.events.last().map(|event| event.position.clone())
    }

    fn append(&mut self, node: u64, names: Vec<String>) {
        self.newest += 1;
        let position = StreamPosition { id: format!("{}-0", self.newest), sequence: self.newest };
        self.events.push(Event { position, node, names });
        if self.events.len() > 2 * STREAM_LENGTH {
            self.events.drain(..STREAM_LENGTH);
        }
    }
}

/// A connection whose keys begin with `prefix`.
struct Connection {
    server: Arc<Server>,
    prefix: String,
}

#[async_trait]
impl Connector for MemoryTier {
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn SecondTier>> {
        Ok(Arc::new(Connection { server: Arc::clone(&self.0), prefix: prefix.to_owned() }))
    }
}

impl Connection {
    fn poll_now(&self, after: &StreamPosition) -> Poll {
        let mut state = self.server.lock();
        let stream = state.stream(&self.prefix);
        let events = stream.events.iter().filter(|event| event.position.sequence > after.sequence).cloned().collect();
        Poll { lineage: None, epochs: stream.epochs.clone(), tail: stream.position(), time_ms: 0, events }
    }

    fn append(&self, state: &mut State, node: u64, names: &[String]) {
        state.stream(&self.prefix).append(node, names.to_vec());
        self.server.appended.notify_waiters();
    }
}

#[async_trait]
impl SecondTier for Connection {
    async fn open_epoch(&self, predecessor: Option<&str>) -> Result<ServerState> {
        let mut state = self.server.lock();
        let stream = state.stream(&self.prefix);
        let known = stream.epochs.as_ref().filter(|epochs| {
            let follows =
                |epoch: &str| epoch == epochs.server || stream.predecessors.iter().any(|known| known == epoch);
            predecessor.is_none_or(follows)
        });
        let epochs = match known {
            Some(epochs) => epochs.clone(),
            None => {
                let old = stream.epochs.take().unwrap_or_default();
                stream.predecessors.extend([old.server].into_iter().chain(predecessor.map(str::to_owned)));
                let epochs = Epochs { server: rand::random::<u64>().to_string(), namespaces: old.namespaces };
                stream.epochs.insert(epochs).clone()
            }
        };
        let newest = stream.position();
        Ok(ServerState { lineage: "memory".to_owned(), epochs, newest, accepts_isolated_writes: false, time_ms: 0 })
    }

    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut state = self.server.lock();
        Ok(names.iter().map(|name| state.get(&[&self.prefix, *name].concat())).collect())
    }

    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<LeaseResponse> {
        let keys = names.keys(&self.prefix);
        let mut state = self.server.lock();
        let LeaseRequest { token, ttl, generation, generation_ttl } = request;
        let generation = keys.group.map_or(0, |group| state.generation(&group, generation, generation_ttl));
        let is_granted = state.get(&keys.lease).is_none();
        if is_granted {
            state.set_number(keys.lease, token, ttl);
        }
        Ok(LeaseResponse { is_granted, generation, bytes: state.get(&keys.entry) })
    }

    async fn generations(&self, groups: &[String], generation: u64, ttl: Duration) -> Result<Vec<u64>> {
        let mut state = self.server.lock();
        Ok(groups
            .iter()
            .map(|group| state.generation(&[&self.prefix, group.as_str()].concat(), generation, ttl))
            .collect())
    }

    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool> {
        let keys = names.keys(&self.prefix);
        let mut state = self.server.lock();
        if !state.has_number(&keys.lease, fill.token) {
            return Ok(false);
        }
        state.data.remove(&keys.lease);
        if let Some(group) = keys.group {
            if !state.has_number(&group, fill.generation) {
                return Ok(false);
            }
            state.set_number(group, fill.generation, fill.generation_ttl);
        }
        state.set(keys.entry, fill.bytes.to_vec(), fill.ttl);
        Ok(true)
    }

    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()> {
        let lease = names.keys(&self.prefix).lease;
        let mut state = self.server.lock();
        if state.has_number(&lease, token) {
            state.set_number(lease, token, ttl);
        }
        Ok(())
    }

    async fn release(&self, names: &Names, token: u64) -> Result<()> {
        let lease = names.keys(&self.prefix).lease;
        let mut state = self.server.lock();
        if state.has_number(&lease, token) {
            state.data.remove(&lease);
        }
        Ok(())
    }

    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool> {
        let Replacement { expected, generations: (old, new), bytes, ttl, generation_ttl } = replacement;
        let keys = names.keys(&self.prefix);
        let mut state = self.server.lock();
        state.data.remove(&keys.lease);
        if !state.get(&keys.entry).is_some_and(|stored| stored.starts_with(expected)) {
            return Ok(false);
        }
        if let Some(group) = keys.group {
            if !state.has_number(&group, old) {
                return Ok(false);
            }
            state.set_number(group, new, generation_ttl);
        }
        state.set(keys.entry, bytes.to_vec(), ttl);
        Ok(true)
    }

    async fn invalidate(&self, names: &[String], node: u64) -> Result<()> {
        let mut state = self.server.lock();
        for key in names.iter().flat_map(|name| keys_of(&self.prefix, name)) {
            state.data.remove(&key);
        }
        self.append(&mut state, node, names);
        Ok(())
    }

    async fn announce(&self, names: &[String], node: u64) -> Result<()> {
        self.append(&mut self.server.lock(), node, names);
        Ok(())
    }

    async fn flush(&self, namespace: &str, node: u64) -> Result<Epochs> {
        let mut state = self.server.lock();
        let epochs = state.stream(&self.prefix).epochs.get_or_insert_default();
        if epochs.server.is_empty() {
            epochs.server = rand::random::<u64>().to_string();
        }
        epochs.namespaces.insert(namespace.to_owned(), rand::random::<u64>().to_string());
        let epochs = epochs.clone();
        self.append(&mut state, node, &[]);
        Ok(epochs)
    }

    async fn poll(&self, after: &StreamPosition, wait: Duration) -> Result<Poll> {
        // Registered before the first look, so that no event comes between the two.
        let appended = self.server.appended.notified();
        let poll = self.poll_now(after);
        if !poll.events.is_empty() || timeout(wait, appended).await.is_err() {
            return Ok(poll);
        }
        Ok(self.poll_now(after))
    }

    async fn info(&self) -> Result<Info> {
        Ok(Info::default())
    }
}
