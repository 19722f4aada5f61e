//! Connections to the simulated servers, and their commands.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Content, Deployment, Protocol, Role};
use crate::key::{Names, keys_of};
use crate::remote::tier::{
    Connector, Epochs, Fill, Info, LeaseRequest, LeaseResponse, Poll, Replacement, Result, SecondTier, ServerState,
    StreamPosition, TierError,
};

pub(super) struct DeploymentConnector(pub(super) Arc<Deployment>);

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

/// The data of a command.
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
        let generation = if self.protocol().tags { generation } else { 1 };
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
