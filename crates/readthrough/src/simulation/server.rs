//! Servers in memory that fail as servers and networks do: a master, and a replica that can be promoted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::key::{Names, keys_of};
use crate::remote::tier::{
    Connector, Epochs, Event, Fill, Info, LeaseRequest, LeaseResponse, Poll, Replacement, Result, SecondTier,
    ServerState, StreamPosition, TierError,
};

/// The parts of the protocol, each of which can be switched off as a negative control.
#[derive(Clone, Copy)]
pub(super) struct Protocol {
    /// A fill needs the token of the lease.
    pub(super) tokens: bool,
    /// A new lineage begins a new epoch.
    pub(super) lineages: bool,
    /// An epoch that does not come after the last one of a process is replaced.
    pub(super) predecessors: bool,
    /// A poll sends a write.
    pub(super) proof: bool,
    /// Sentinel names the master.
    pub(super) sentinel: bool,
    /// A flush changes the number of the namespace.
    pub(super) flush: bool,
    /// A poll reads the newest event.
    pub(super) tail: bool,
    /// A poll reads the epochs.
    pub(super) epochs: bool,
    /// A poll reads the clock of the server.
    pub(super) time: bool,
    /// A master without replicas refuses writes.
    pub(super) min_replicas: bool,
}

impl Protocol {
    pub(super) const FULL: Self = Self {
        tokens: true,
        lineages: true,
        predecessors: true,
        proof: true,
        sentinel: true,
        flush: true,
        tail: true,
        epochs: true,
        time: true,
        min_replicas: false,
    };
}

type Data = BTreeMap<String, (Vec<u8>, Instant)>;

/// The keys of the library itself.
#[derive(Default, Clone)]
struct Housekeeping {
    epoch: Option<String>,
    lineage: u64,
    predecessors: Vec<String>,
    namespaces: HashMap<String, String>,
    events: Vec<Event>,
}

#[derive(Default, Clone)]
struct Content {
    data: Data,
    /// By key prefix.
    housekeeping: BTreeMap<String, Housekeeping>,
    /// The id of the newest event: ids increase even if the stream is created again.
    newest_id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    /// A master that has lost its replica, which is the master now.
    Isolated,
    Replica,
}

struct Server {
    role: Role,
    /// A restart breaks all connections.
    run: u64,
    lineage: u64,
    content: Content,
    snapshot: Data,
}

struct State {
    servers: [Server; 2],
    /// The server that new connections reach.
    master: usize,
    newest_lineage: u64,
    hangs_until: Instant,
    /// The clock of the servers.
    time_ms: u64,
    began: Instant,
    random: StdRng,
}

pub(super) struct Deployment {
    state: Mutex<State>,
    protocol: Protocol,
    faults: bool,
}

impl Deployment {
    pub(super) fn new(seed: u64, protocol: Protocol, faults: bool) -> Arc<Self> {
        let server = |role, run| Server { role, run, lineage: run, content: Content::default(), snapshot: Data::new() };
        Arc::new(Self {
            state: Mutex::new(State {
                servers: [server(Role::Master, 1), server(Role::Replica, 1)],
                master: 0,
                newest_lineage: 1,
                hangs_until: Instant::now(),
                time_ms: 1_900_000_000_000,
                began: Instant::now(),
                random: StdRng::seed_from_u64(!seed),
            }),
            protocol,
            faults,
        })
    }

    pub(super) fn connector(deployment: &Arc<Self>) -> Box<dyn Connector> {
        Box::new(DeploymentConnector(Arc::clone(deployment)))
    }

    fn with_master<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let master = state.master;
        change(&mut state.servers[master])
    }

    pub(super) fn evict_a_key(&self, number: u64) {
        self.with_master(|server| {
            let keys: Vec<String> = server.content.data.keys().cloned().collect();
            if let Some(key) = keys.get(usize::try_from(number).unwrap() % keys.len().max(1)) {
                server.content.data.remove(key);
            }
            for kept in server.content.housekeeping.values_mut() {
                if number.is_multiple_of(10) {
                    kept.epoch = None;
                    kept.namespaces.clear();
                }
                if number % 10 == 1 {
                    kept.events.clear();
                }
            }
        });
    }

    /// Removes all keys.
    pub(super) fn flush_all(&self) {
        self.with_master(|server| {
            server.content.data.clear();
            server.content.housekeeping.clear();
        });
    }

    pub(super) fn trim_events(&self, left: usize) {
        self.with_master(|server| {
            for kept in server.content.housekeeping.values_mut() {
                let trimmed = kept.events.len().saturating_sub(left);
                kept.events.drain(..trimmed);
            }
        });
    }

    /// Executes nothing for a while, then all commands that arrived meanwhile.
    pub(super) fn hang(&self, time: Duration) {
        self.state.lock().unwrap().hangs_until = Instant::now() + time;
    }

    /// Loses the commands that the hanging server has not executed.
    pub(super) fn lose_commands(&self) {
        self.with_master(|server| server.run += 1);
    }

    /// Sets the clock of the servers forward or back.
    pub(super) fn set_clock(&self, offset_ms: i64) {
        let mut state = self.state.lock().unwrap();
        state.time_ms = state.time_ms.saturating_add_signed(offset_ms);
    }

    /// Copies the data of the master to the replica, which lags from then on.
    pub(super) fn take_snapshot(&self) {
        let mut state = self.state.lock().unwrap();
        let master = state.master;
        state.servers[master].snapshot = state.servers[master].content.data.clone();
        let content = state.servers[master].content.clone();
        if state.servers[1 - master].role == Role::Replica {
            state.servers[1 - master].content = content;
        }
    }

    pub(super) fn restart_empty(&self) {
        self.restart(|server| server.content = Content { newest_id: server.content.newest_id, ..Content::default() });
    }

    pub(super) fn restart_with_snapshot(&self) {
        self.restart(|server| server.content.data = server.snapshot.clone());
    }

    fn restart(&self, change: impl FnOnce(&mut Server)) {
        let mut state = self.state.lock().unwrap();
        let (master, lineage) = (state.master, state.newest_lineage + 1);
        state.newest_lineage = lineage;
        let server = &mut state.servers[master];
        (server.run, server.lineage) = (server.run + 1, lineage);
        change(server);
    }

    /// Promotes the replica with the data of its last snapshot. The old master goes on, and is demoted after a while.
    pub(super) fn fail_over(deployment: &Arc<Self>) {
        let demotion = {
            let mut state = deployment.state.lock().unwrap();
            let (old, new) = (state.master, 1 - state.master);
            if state.servers[new].role != Role::Replica {
                return;
            }
            state.newest_lineage += 1;
            state.servers[new].lineage = state.newest_lineage;
            state.servers[new].role = Role::Master;
            state.servers[new].content.newest_id += 1_000_000;
            state.servers[old].role = Role::Isolated;
            state.master = new;
            Duration::from_millis(state.random.random_range(100..4_000))
        };
        let deployment = Arc::clone(deployment);
        tokio::spawn(async move {
            sleep(demotion).await;
            let mut state = deployment.state.lock().unwrap();
            let (master, old) = (state.master, 1 - state.master);
            if state.servers[old].role == Role::Isolated {
                let (content, lineage) = (state.servers[master].content.clone(), state.servers[master].lineage);
                let server = &mut state.servers[old];
                (server.role, server.content, server.lineage) = (Role::Replica, content, lineage);
                server.run += 1;
            }
        });
    }

    /// Makes the old master the master again, which was neither demoted nor restarted: an address that moves, say.
    pub(super) fn fail_back(&self) {
        let mut state = self.state.lock().unwrap();
        let (master, old) = (state.master, 1 - state.master);
        if state.servers[old].role == Role::Isolated {
            state.servers[old].role = Role::Master;
            state.servers[master].role = Role::Isolated;
            state.master = old;
        }
    }
}

struct DeploymentConnector(Arc<Deployment>);

#[async_trait]
impl Connector for DeploymentConnector {
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn SecondTier>> {
        let (server, run) = {
            let state = self.0.state.lock().unwrap();
            (state.master, state.servers[state.master].run)
        };
        let link = Link { deployment: Arc::clone(&self.0), server, run, prefix: prefix.to_owned() };
        link.execute(false, |_| ()).await?;
        Ok(Arc::new(Connection { link, opened: Mutex::default() }))
    }
}

#[derive(Clone)]
struct Link {
    deployment: Arc<Deployment>,
    server: usize,
    run: u64,
    prefix: String,
}

/// What a command works on.
struct Context<'a> {
    content: &'a mut Content,
    lineage: u64,
    time_ms: u64,
    random: &'a mut StdRng,
}

impl Link {
    /// Executes one command, which takes a while and may be lost on either way.
    async fn execute<T: Send>(&self, is_write: bool, command: impl FnOnce(Context<'_>) -> T + Send) -> Result<T> {
        let (before, after, lost) = {
            let mut state = self.deployment.state.lock().unwrap();
            let lost = if self.deployment.faults { state.random.random_range(0..300) } else { 300 };
            (state.random.random_range(0..8), state.random.random_range(0..8), lost)
        };
        sleep(Duration::from_millis(before)).await;
        loop {
            let until = self.deployment.state.lock().unwrap().hangs_until;
            if until <= Instant::now() {
                break;
            }
            sleep_until(until).await;
        }
        let answer = {
            let state = &mut *self.deployment.state.lock().unwrap();
            let time_ms = state.time_ms + u64::try_from(state.began.elapsed().as_millis()).unwrap();
            let server = &mut state.servers[self.server];
            if server.run != self.run || lost == 0 {
                return Err(TierError("the connection broke".to_owned()));
            }
            let refuses = server.role == Role::Isolated && self.deployment.protocol.min_replicas;
            if is_write && (refuses || server.role == Role::Replica) {
                return Err(TierError("NOREPLICAS: too few replicas".to_owned()));
            }
            let now = Instant::now();
            server.content.data.retain(|_, (_, until)| *until > now);
            let lineage = server.lineage;
            command(Context { content: &mut server.content, lineage, time_ms, random: &mut state.random })
        };
        sleep(Duration::from_millis(after)).await;
        if lost == 2 {
            // Neither a response nor an error.
            std::future::pending::<()>().await;
        }
        if self.deployment.state.lock().unwrap().servers[self.server].run != self.run || lost == 1 {
            return Err(TierError("the response was lost".to_owned()));
        }
        Ok(answer)
    }
}

struct Connection {
    link: Link,
    /// The epochs at the beginning of the connection.
    opened: Mutex<Option<Epochs>>,
}

impl Connection {
    /// Executes a command even if its caller stops waiting.
    async fn send<T: Send + 'static>(
        &self,
        is_write: bool,
        command: impl FnOnce(Context<'_>) -> T + Send + 'static,
    ) -> Result<T> {
        let link = self.link.clone();
        tokio::spawn(async move { link.execute(is_write, command).await }).await.unwrap()
    }

    fn prefix(&self) -> String {
        self.link.prefix.clone()
    }

    fn protocol(&self) -> Protocol {
        self.link.deployment.protocol
    }
}

impl Content {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.data.get(key).map(|(bytes, _)| bytes.clone())
    }

    fn set(&mut self, key: String, bytes: Vec<u8>, ttl: Duration) {
        self.data.insert(key, (bytes, Instant::now() + ttl));
    }

    fn housekeeping(&mut self, prefix: &str) -> &mut Housekeeping {
        self.housekeeping.entry(prefix.to_owned()).or_default()
    }

    fn append(&mut self, prefix: &str, node: u64, names: Vec<String>) {
        self.newest_id += 1;
        let id = format!("{}-0", self.newest_id);
        let events = &mut self.housekeeping(prefix).events;
        let sequence = events.last().map_or(1, |event| event.position.sequence + 1);
        events.push(Event { position: StreamPosition { id, sequence }, node, names });
    }
}

impl Housekeeping {
    fn epochs(&self) -> Option<Epochs> {
        Some(Epochs { server: self.epoch.clone()?, namespaces: self.namespaces.clone() })
    }

    fn newest(&self) -> Option<StreamPosition> {
        self.events.last().map(|event| event.position.clone())
    }
}

fn number(id: &str) -> u64 {
    id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[async_trait]
impl SecondTier for Connection {
    async fn open_epoch(&self, predecessor: Option<&str>) -> Result<ServerState> {
        let (prefix, protocol) = (self.prefix(), self.protocol());
        let predecessor = predecessor.map(str::to_owned);
        let opened = self.send(true, move |context| {
            let candidate = context.random.random_range(0..u64::MAX).to_string();
            let kept = context.content.housekeeping(&prefix);
            let is_known = |epoch: &String| Some(epoch) == kept.epoch.as_ref() || kept.predecessors.contains(epoch);
            let follows = !protocol.predecessors || predecessor.as_ref().is_none_or(is_known);
            let is_same = !protocol.lineages || kept.lineage == context.lineage;
            if kept.epoch.is_none() || !follows || !is_same {
                let replaced = kept.epoch.replace(candidate);
                kept.predecessors.extend(replaced.into_iter().chain(predecessor));
                kept.lineage = context.lineage;
            }
            ServerState {
                lineage: context.lineage.to_string(),
                epochs: kept.epochs().unwrap(),
                newest: kept.newest(),
                time_ms: if protocol.time { context.time_ms } else { 0 },
                accepts_isolated_writes: false,
            }
        });
        let opened = opened.await?;
        *self.opened.lock().unwrap() = Some(opened.epochs.clone());
        Ok(opened)
    }

    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let keys: Vec<String> = names.iter().map(|name| self.prefix() + name).collect();
        self.send(false, move |context| keys.iter().map(|key| context.content.get(key)).collect()).await
    }

    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<LeaseResponse> {
        let keys = names.keys(&self.link.prefix);
        self.send(true, move |Context { content, .. }| {
            let generation = keys.group.as_ref().map_or(0, |group| {
                let known = content.get(group).map(|bytes| String::from_utf8(bytes).unwrap().parse().unwrap());
                known.unwrap_or_else(|| {
                    let text = request.generation.to_string();
                    content.set(group.clone(), text.into_bytes(), request.generation_ttl);
                    request.generation
                })
            });
            let is_granted = content.get(&keys.lease).is_none();
            if is_granted {
                content.set(keys.lease, request.token.to_string().into_bytes(), request.ttl);
            }
            LeaseResponse { is_granted, generation, bytes: content.get(&keys.entry) }
        })
        .await
    }

    async fn generations(&self, groups: &[String], generation: u64, ttl: Duration) -> Result<Vec<u64>> {
        let keys: Vec<String> = groups.iter().map(|group| self.prefix() + group).collect();
        self.send(true, move |Context { content, .. }| {
            let generation_of = |key: String| {
                let known = content.get(&key).map(|bytes| String::from_utf8(bytes).unwrap().parse().unwrap());
                let generation = known.unwrap_or(generation);
                content.set(key, generation.to_string().into_bytes(), ttl);
                generation
            };
            keys.into_iter().map(generation_of).collect()
        })
        .await
    }

    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool> {
        let (keys, bytes, tokens) = (names.keys(&self.link.prefix), fill.bytes.to_vec(), self.protocol().tokens);
        let (token, generation) = (fill.token.to_string(), fill.generation.to_string());
        let ttl = fill.ttl;
        self.send(true, move |Context { content, .. }| {
            if tokens && content.get(&keys.lease) != Some(token.into_bytes()) {
                return false;
            }
            content.data.remove(&keys.lease);
            if let Some(group) = &keys.group
                && content.get(group) != Some(generation.into_bytes())
            {
                return false;
            }
            content.set(keys.entry, bytes, ttl);
            true
        })
        .await
    }

    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()> {
        let lease = names.keys(&self.link.prefix).lease;
        self.send(true, move |Context { content, .. }| {
            let token = token.to_string().into_bytes();
            if content.get(&lease).as_ref() == Some(&token) {
                content.set(lease, token, ttl);
            }
        })
        .await
    }

    async fn release(&self, names: &Names, token: u64) -> Result<()> {
        let lease = names.keys(&self.link.prefix).lease;
        self.send(true, move |Context { content, .. }| {
            if content.get(&lease) == Some(token.to_string().into_bytes()) {
                content.data.remove(&lease);
            }
        })
        .await
    }

    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool> {
        let Replacement { generations: (old, new), ttl, generation_ttl, .. } = replacement;
        let keys = names.keys(&self.link.prefix);
        let (expected, bytes) = (replacement.expected.to_vec(), replacement.bytes.to_vec());
        let tokens = self.protocol().tokens;
        self.send(true, move |Context { content, .. }| {
            content.data.remove(&keys.lease);
            let mut same = content.get(&keys.entry).is_some_and(|stored| stored.starts_with(&expected));
            if let Some(group) = &keys.group {
                same &= !tokens || content.get(group) == Some(old.to_string().into_bytes());
                if same {
                    content.set(group.clone(), new.to_string().into_bytes(), generation_ttl);
                }
            }
            if same {
                content.set(keys.entry, bytes, ttl);
            }
            same
        })
        .await
    }

    async fn invalidate(&self, names: &[String], node: u64) -> Result<()> {
        let (names, prefix) = (names.to_vec(), self.prefix());
        self.send(true, move |Context { content, .. }| {
            for key in names.iter().flat_map(|name| keys_of(&prefix, name)) {
                content.data.remove(&key);
            }
            content.append(&prefix, node, names);
        })
        .await
    }

    async fn announce(&self, names: &[String], node: u64) -> Result<()> {
        let (names, prefix) = (names.to_vec(), self.prefix());
        self.send(true, move |context| context.content.append(&prefix, node, names)).await
    }

    async fn flush(&self, namespace: &str, node: u64) -> Result<Epochs> {
        let (namespace, prefix, flush) = (namespace.to_owned(), self.prefix(), self.protocol().flush);
        self.send(true, move |context| {
            let mut draw = || context.random.random_range(0..u64::MAX).to_string();
            let kept = context.content.housekeeping(&prefix);
            if kept.epoch.is_none() {
                (kept.epoch, kept.lineage) = (Some(draw()), 0);
            }
            if flush {
                kept.namespaces.insert(namespace, draw());
            }
            let epochs = kept.epochs().unwrap();
            context.content.append(&prefix, node, Vec::new());
            epochs
        })
        .await
    }

    async fn poll(&self, after: &StreamPosition, wait: Duration) -> Result<Poll> {
        let protocol = self.protocol();
        let (prefix, from) = (self.prefix(), after.clone());
        // The events are read again until there is one; the rest is read once.
        let first = self.send(protocol.proof, move |context| {
            let kept = context.content.housekeeping(&prefix);
            Poll {
                lineage: Some(context.lineage.to_string()),
                epochs: kept.epochs(),
                tail: if protocol.tail { kept.newest() } else { Some(from) },
                time_ms: if protocol.time { context.time_ms } else { 0 },
                events: Vec::new(),
            }
        });
        let mut poll = first.await?;
        if !protocol.epochs {
            poll.epochs = self.opened.lock().unwrap().clone();
        }
        let until = Instant::now() + wait;
        loop {
            let (prefix, after) = (self.prefix(), number(&after.id));
            let events = self.send(false, move |context| {
                let events = &context.content.housekeeping(&prefix).events;
                events.iter().filter(|event| number(&event.position.id) > after).cloned().collect::<Vec<_>>()
            });
            poll.events = events.await?;
            if !poll.events.is_empty() || Instant::now() >= until {
                return Ok(poll);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn is_current_master(&self) -> Result<bool> {
        let deployment = &self.link.deployment;
        let latency = deployment.state.lock().unwrap().random.random_range(0..20);
        sleep(Duration::from_millis(latency)).await;
        Ok(!deployment.protocol.sentinel || deployment.state.lock().unwrap().master == self.link.server)
    }

    async fn info(&self) -> Result<Info> {
        Ok(Info::default())
    }
}
