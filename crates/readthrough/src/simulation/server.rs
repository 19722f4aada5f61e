//! A server in memory that misbehaves as servers and networks do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::key::{self, Names};
use crate::remote::tier::{
    Connector, Event, Fill, Info, LeaseRequest, LeaseResponse, RemoteError, RemoteTier, Replacement, Result,
    ServerState, StreamPosition,
};

type Data = BTreeMap<String, (Vec<u8>, Instant)>;

#[derive(Default)]
struct Journal {
    epochs: HashMap<String, String>,
    events: Vec<Event>,
}

struct State {
    run: u64,
    data: Data,
    snapshot: Data,
    /// By prefix.
    journals: BTreeMap<String, Journal>,
    /// Of the newest event ever: ids increase even when the stream is made anew.
    newest_id: u64,
    hangs_until: Instant,
    random: StdRng,
}

pub(crate) struct Server {
    state: Mutex<State>,
    tokens: bool,
    faults: bool,
}

impl Server {
    pub(crate) fn new(seed: u64, tokens: bool, faults: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                run: 1,
                data: Data::new(),
                snapshot: Data::new(),
                journals: BTreeMap::new(),
                newest_id: 0,
                hangs_until: Instant::now(),
                random: StdRng::seed_from_u64(!seed),
            }),
            tokens,
            faults,
        })
    }

    pub(crate) fn connect(server: &Arc<Self>) -> Box<dyn Connector> {
        Box::new(ServerConnector(Arc::clone(server)))
    }

    pub(crate) fn forget_a_key(&self, number: u64) {
        let mut state = self.state.lock().unwrap();
        let keys: Vec<String> = state.data.keys().cloned().collect();
        if let Some(key) = keys.get(usize::try_from(number).unwrap() % keys.len().max(1)) {
            state.data.remove(key);
        }
        for journal in state.journals.values_mut() {
            if number.is_multiple_of(10) {
                journal.epochs.clear();
            }
            if number % 10 == 1 {
                journal.events.clear();
            }
        }
    }

    pub(crate) fn trim_events(&self, left: usize) {
        let mut state = self.state.lock().unwrap();
        for journal in state.journals.values_mut() {
            let gone = journal.events.len().saturating_sub(left);
            journal.events.drain(..gone);
        }
    }

    /// Carries nothing out for a while; then everything that was asked meanwhile.
    pub(crate) fn hang(&self, time: Duration) {
        self.state.lock().unwrap().hangs_until = Instant::now() + time;
    }

    pub(crate) fn take_snapshot(&self) {
        let mut state = self.state.lock().unwrap();
        state.snapshot = state.data.clone();
    }

    pub(crate) fn restart_empty(&self) {
        let mut state = self.state.lock().unwrap();
        state.run += 1;
        state.data.clear();
        state.journals.clear();
    }

    /// As after a failover to a replica that lagged.
    pub(crate) fn restart_with_snapshot(&self) {
        let mut state = self.state.lock().unwrap();
        state.run += 1;
        state.data = state.snapshot.clone();
    }
}

struct ServerConnector(Arc<Server>);

#[async_trait]
impl Connector for ServerConnector {
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn RemoteTier>> {
        let run = self.0.state.lock().unwrap().run;
        let connection = Connection { server: Arc::clone(&self.0), run, prefix: prefix.to_owned() };
        connection.carry_out(|_| ()).await?;
        Ok(Arc::new(connection))
    }
}

struct Connection {
    server: Arc<Server>,
    run: u64,
    prefix: String,
}

impl Connection {
    /// One command: takes its time, and may get lost on either way.
    async fn carry_out<T: Send>(&self, command: impl FnOnce(&mut State) -> T + Send) -> Result<T> {
        let (before, after, lost) = {
            let mut state = self.server.state.lock().unwrap();
            let lost = if self.server.faults { state.random.random_range(0..200) } else { 200 };
            (state.random.random_range(0..8), state.random.random_range(0..8), lost)
        };
        sleep(Duration::from_millis(before)).await;
        loop {
            let until = self.server.state.lock().unwrap().hangs_until;
            if until <= Instant::now() {
                break;
            }
            sleep_until(until).await;
        }
        let answer = {
            let mut state = self.server.state.lock().unwrap();
            if state.run != self.run || lost == 0 {
                return Err(RemoteError("the connection broke".to_owned()));
            }
            let now = Instant::now();
            state.data.retain(|_, (_, until)| *until > now);
            command(&mut state)
        };
        sleep(Duration::from_millis(after)).await;
        if self.server.state.lock().unwrap().run != self.run || lost == 1 {
            return Err(RemoteError("the answer got lost".to_owned()));
        }
        Ok(answer)
    }

    /// A command that reaches the server although its caller may have given up meanwhile.
    async fn send<T: Send + 'static>(&self, command: impl FnOnce(&mut State) -> T + Send + 'static) -> Result<T> {
        let connection = Self { server: Arc::clone(&self.server), run: self.run, prefix: self.prefix.clone() };
        tokio::spawn(async move { connection.carry_out(command).await }).await.unwrap()
    }
}

impl State {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.data.get(key).map(|(bytes, _)| bytes.clone())
    }

    fn set(&mut self, key: String, bytes: Vec<u8>, ttl: Duration) {
        self.data.insert(key, (bytes, Instant::now() + ttl));
    }

    fn journal(&mut self, prefix: &str) -> &mut Journal {
        self.journals.entry(prefix.to_owned()).or_default()
    }

    fn append(&mut self, prefix: &str, node: u64, names: Vec<String>) {
        self.newest_id += 1;
        let id = format!("{:09}", self.newest_id);
        let events = &mut self.journal(prefix).events;
        let number = events.last().map_or(1, |event| event.position.sequence + 1);
        events.push(Event { position: StreamPosition { id, sequence: number }, node, names });
    }
}

#[async_trait]
impl RemoteTier for Connection {
    async fn state(&self) -> Result<ServerState> {
        let (run, prefix) = (self.run, self.prefix.clone());
        self.send(move |state| {
            let number = state.random.random_range(0..u64::MAX).to_string();
            let newest_id = state.newest_id;
            let journal = state.journal(&prefix);
            journal.epochs.entry("*".to_owned()).or_insert(number);
            let newest = journal.events.last().map_or_else(
                || StreamPosition { id: format!("{newest_id:09}"), sequence: 0 },
                |event| event.position.clone(),
            );
            ServerState { identity: run.to_string(), epochs: journal.epochs.clone(), newest }
        })
        .await
    }

    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let keys: Vec<String> = names.iter().map(|name| [&self.prefix, *name].concat()).collect();
        self.send(move |state| keys.iter().map(|key| state.get(key)).collect()).await
    }

    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<LeaseResponse> {
        let keys = names.keys(&self.prefix);
        self.send(move |state| {
            let generation = keys.group.as_ref().map_or(0, |group| {
                let known = state.get(group).map(|bytes| String::from_utf8(bytes).unwrap().parse().unwrap());
                known.unwrap_or_else(|| {
                    let text = request.generation.to_string();
                    state.set(group.clone(), text.into_bytes(), request.generation_ttl);
                    request.generation
                })
            });
            let granted = state.get(&keys.lease).is_none();
            if granted {
                state.set(keys.lease, request.token.to_string().into_bytes(), request.ttl);
            }
            LeaseResponse { is_granted: granted, generation, bytes: state.get(&keys.entry) }
        })
        .await
    }

    async fn generations(&self, groups: &[String], generation: u64, ttl: Duration) -> Result<Vec<u64>> {
        let keys: Vec<String> = groups.iter().map(|group| [&self.prefix, group.as_str()].concat()).collect();
        self.send(move |state| {
            let generation_of = |key: String| {
                let known = state.get(&key).map(|bytes| String::from_utf8(bytes).unwrap().parse().unwrap());
                let generation = known.unwrap_or(generation);
                state.set(key, generation.to_string().into_bytes(), ttl);
                generation
            };
            keys.into_iter().map(generation_of).collect()
        })
        .await
    }

    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool> {
        let (keys, bytes, tokens) = (names.keys(&self.prefix), fill.bytes.to_vec(), self.server.tokens);
        let (token, generation) = (fill.token.to_string(), fill.generation.to_string());
        let ttl = fill.ttl;
        self.send(move |state| {
            if tokens && state.get(&keys.lease) != Some(token.into_bytes()) {
                return false;
            }
            state.data.remove(&keys.lease);
            if let Some(group) = &keys.group
                && state.get(group) != Some(generation.into_bytes())
            {
                return false;
            }
            state.set(keys.entry, bytes, ttl);
            true
        })
        .await
    }

    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()> {
        let lease = names.keys(&self.prefix).lease;
        self.send(move |state| {
            let token = token.to_string().into_bytes();
            if state.get(&lease).as_ref() == Some(&token) {
                state.set(lease, token, ttl);
            }
        })
        .await
    }

    async fn release(&self, names: &Names, token: u64) -> Result<()> {
        let lease = names.keys(&self.prefix).lease;
        self.send(move |state| {
            if state.get(&lease) == Some(token.to_string().into_bytes()) {
                state.data.remove(&lease);
            }
        })
        .await
    }

    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool> {
        let Replacement { generations: (old, new), ttl, generation_ttl, .. } = replacement;
        let (keys, expected, bytes) =
            (names.keys(&self.prefix), replacement.expected.to_vec(), replacement.bytes.to_vec());
        let tokens = self.server.tokens;
        self.send(move |state| {
            state.data.remove(&keys.lease);
            let mut same = state.get(&keys.entry).is_some_and(|stored| stored.starts_with(&expected));
            if let Some(group) = &keys.group {
                same &= !tokens || state.get(group) == Some(old.to_string().into_bytes());
                if same {
                    state.set(group.clone(), new.to_string().into_bytes(), generation_ttl);
                }
            }
            if same {
                state.set(keys.entry, bytes, ttl);
            }
            same
        })
        .await
    }

    async fn invalidate(&self, names: &[String], node: u64) -> Result<()> {
        let (names, prefix) = (names.to_vec(), self.prefix.clone());
        self.send(move |state| {
            for name in &names {
                state.data.remove(&(prefix.clone() + name));
                state.data.remove(&key::lease(&prefix, name));
            }
            state.append(&prefix, node, names);
        })
        .await
    }

    async fn announce(&self, names: &[String], node: u64) -> Result<()> {
        let (names, prefix) = (names.to_vec(), self.prefix.clone());
        self.send(move |state| state.append(&prefix, node, names)).await
    }

    async fn flush(&self, namespace: &str, node: u64) -> Result<()> {
        let (namespace, prefix) = (namespace.to_owned(), self.prefix.clone());
        self.send(move |state| {
            let number = state.random.random_range(0..u64::MAX).to_string();
            state.journal(&prefix).epochs.insert(namespace, number);
            state.append(&prefix, node, Vec::new());
        })
        .await
    }

    async fn events(&self, after: &StreamPosition, wait: Duration) -> Result<Vec<Event>> {
        let until = Instant::now() + wait;
        loop {
            let (after, prefix) = (after.id.clone(), self.prefix.clone());
            let events = self.send(move |state| {
                state
                    .journal(&prefix)
                    .events
                    .iter()
                    .filter(|event| event.position.id > after)
                    .cloned()
                    .collect::<Vec<_>>()
            });
            let events = events.await?;
            if !events.is_empty() || Instant::now() >= until {
                return Ok(events);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn info(&self) -> Result<Info> {
        Ok(Info::default())
    }
}
