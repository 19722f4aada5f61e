//! Servers in memory that fail as servers and networks do: a master, and a replica that can be promoted.

mod connection;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::remote::tier::{Connector, Epochs, Event, StreamPosition};
use connection::DeploymentConnector;

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
    /// A tag that was invalidated gets a new generation, not its old one.
    pub(super) tags: bool,
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
        tags: true,
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

    /// Promotes the replica with the data of its last snapshot. The old master goes on, and is demoted after a random time.
    pub(super) fn fail_over(deployment: &Arc<Self>) {
        let demotion = Duration::from_millis(deployment.state.lock().unwrap().random.random_range(100..4_000));
        Self::fail_over_and_demote(deployment, demotion);
    }

    /// Promotes the replica as `fail_over` does, and demotes the old master after the given time.
    pub(super) fn fail_over_and_demote(deployment: &Arc<Self>, demotion: Duration) {
        {
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
        }
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
