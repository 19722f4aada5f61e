//! The servers of a cluster. Each has a circuit breaker of its own, so that a server that fails costs its own keys.
//!
//! Every [`check`](ClusterServers::check) reads which server has which slots, and sends each server a write, as polls of the
//! stream do, together with a read of its replication id. Reads use a server for [`PROOF_AGE`] after the last such proof. A
//! server that has failed is written to after the next proof, and read from [`QUARANTINE`] later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{ErrorKind, RedisError, RedisResult, Value, cmd};
use tokio::time::{Instant, timeout};

use super::{Access, PROBE_KEY, Replication, is_broken, replication_info};
use crate::remote::latency::LatencyWindow;
use crate::remote::supervisor::QUARANTINE;
use crate::remote::tier::{Result, TierError};

/// How long reads use a server after the last proof that it is a master.
const PROOF_AGE: Duration = Duration::from_secs(1);
/// The time limit of a proof.
const PROOF_LIMIT: Duration = Duration::from_millis(300);
/// A command that is given up earlier says nothing about its server.
const SLOW: Duration = Duration::from_millis(25);
/// The number of a server's keys that proofs use in turn: one of them may lie in a slot that migrates.
const PROOF_KEYS: usize = 4;
/// How many numbers are tried to find keys in slots of each server.
const ATTEMPTS: u32 = 200_000;

/// The servers of a cluster, for all connections of a process.
#[derive(Default)]
pub(crate) struct ClusterServers {
    topology: RwLock<Arc<Topology>>,
    checks: AtomicUsize,
}

#[derive(Default)]
struct Topology {
    ranges: Vec<Range>,
    servers: Vec<Arc<Server>>,
    /// The index of the server of each slot.
    owners: HashMap<Slot, usize>,
    /// For each server, numbers whose slot it has.
    numbers: Vec<Vec<u32>>,
}

/// Slots of a server, from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    server: String,
}

#[derive(Default)]
struct Server {
    id: String,
    window: LatencyWindow,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    is_failed: bool,
    /// When the last proof was requested.
    proof: Option<Instant>,
    readable_from: Option<Instant>,
}

impl Server {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, access: Access, now: Instant) -> bool {
        let health = self.health();
        match access {
            Access::Invalidate => !health.is_failed,
            Access::Read => {
                !health.is_failed
                    && health.proof.is_some_and(|proof| now < proof + PROOF_AGE)
                    && health.readable_from.is_none_or(|from| from <= now)
            }
        }
    }

    fn fail(&self) {
        self.health().is_failed = true;
    }

    fn prove(&self, requested: Instant) {
        let now = Instant::now();
        let mut health = self.health();
        if health.is_failed {
            self.window.reset();
        } else {
            self.window.record_success();
        }
        if health.is_failed || health.proof.is_some_and(|proof| proof + PROOF_AGE <= now) {
            // Other processes, which prove as often, send their pending invalidations first.
            health.readable_from = Some(now + QUARANTINE);
        }
        (health.is_failed, health.proof) = (false, Some(requested));
    }
}

/// A command that waits for its response.
struct Attempt<'a> {
    server: &'a Server,
    sent: Instant,
    is_answered: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.sent.elapsed() >= SLOW && self.server.window.record_timeout(self.sent) {
            self.server.fail();
        }
    }
}

impl ClusterServers {
    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a command whose keys are in the slot of `key`, unless the breaker of the server is open.
    pub(super) async fn run<T>(
        &self,
        key: &str,
        access: Access,
        command: impl Future<Output = RedisResult<T>>,
    ) -> Result<T> {
        let topology = self.topology();
        let sent = Instant::now();
        let server = topology.server_of(key).filter(|server| server.admits(access, sent));
        let Some(server) = server else {
            return Err(TierError("the server of the key is not in use".to_owned()));
        };
        let mut attempt = Attempt { server, sent, is_answered: false };
        let response = command.await;
        attempt.is_answered = true;
        match &response {
            Err(error) if is_broken(error) => server.fail(),
            _ => server.window.record_success(),
        }
        Ok(response?)
    }

    /// Reads the slots and the replication ids of all servers. Servers that do not respond in time are left out. Returns as
    /// soon as an id is not in `known`.
    pub(super) async fn check(
        &self,
        connection: &ClusterConnection,
        prefix: &str,
        stream: &str,
        known: Option<&str>,
    ) -> Result<Replication> {
        let route = SingleNodeRoutingInfo::SpecificNode(Route::with_key(stream, SlotAddr::Master));
        let mut slots = cmd("CLUSTER");
        slots.arg("SLOTS");
        let ranges = connection.clone().route_command(slots, RoutingInfo::SingleNode(route)).await?;
        let topology = self.update(parse(&ranges).ok_or_else(|| TierError("unexpected CLUSTER SLOTS".to_owned()))?);
        let mut proofs: FuturesUnordered<_> = topology
            .proof_keys(prefix, self.checks.fetch_add(1, Ordering::Relaxed))
            .map(|(server, key)| {
                let mut connection = connection.clone();
                async move {
                    let requested = Instant::now();
                    let mut proof = redis::pipe();
                    // A server that is no longer the master of the slot refuses it, and the client learns of the master.
                    proof.cmd("UNLINK").arg(key).ignore().cmd("INFO").arg("replication");
                    let response = timeout(PROOF_LIMIT, proof.query_async::<(Value,)>(&mut connection)).await;
                    let response = response.unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "no response"))));
                    if let Err(error) = &response
                        && is_broken(error)
                    {
                        server.fail();
                    }
                    let replication = replication_info(&response.ok()?.0);
                    Some((server, requested, replication))
                }
            })
            .collect();
        let (mut lineages, mut accepts_isolated_writes) = (Vec::new(), false);
        while let Some(proof) = proofs.next().await {
            let Some((server, requested, replication)) = proof else { continue };
            accepts_isolated_writes |= replication.accepts_isolated_writes;
            let is_known = known.is_none_or(|known| is_part_of(&replication.lineage, known));
            lineages.push(replication.lineage);
            if !is_known {
                break;
            }
            server.prove(requested);
        }
        if topology.server_of(stream).is_none_or(|server| server.health().is_failed) {
            return Err(TierError("the server of the stream does not respond".to_owned()));
        }
        lineages.sort_unstable();
        Ok(Replication { lineage: lineages.join(","), accepts_isolated_writes })
    }

    fn update(&self, ranges: Vec<Range>) -> Arc<Topology> {
        let known = self.topology();
        if known.ranges == ranges {
            return known;
        }
        let topology = Arc::new(Topology::new(ranges, &known));
        *self.topology.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&topology);
        topology
    }
}

impl Topology {
    /// Creates the topology of these slots. Servers that were known keep their state.
    fn new(ranges: Vec<Range>, known: &Self) -> Self {
        let mut topology = Self::default();
        for Range { first, last, server } in &ranges {
            let index = topology.servers.iter().position(|known| known.id == *server).unwrap_or_else(|| {
                let same = known.servers.iter().find(|known| known.id == *server);
                let new = || Arc::new(Server { id: server.clone(), ..Server::default() });
                topology.servers.push(same.map_or_else(new, Arc::clone));
                topology.servers.len() - 1
            });
            topology.owners.extend((*first..=*last).filter_map(Slot::new).map(|slot| (slot, index)));
        }
        topology.numbers = vec![Vec::new(); topology.servers.len()];
        for number in 0..ATTEMPTS {
            if topology.numbers.iter().all(|numbers| numbers.len() == PROOF_KEYS) {
                break;
            }
            if let Some(index) = topology.index_of(&number.to_string())
                && topology.numbers[index].len() < PROOF_KEYS
            {
                topology.numbers[index].push(number);
            }
        }
        topology.ranges = ranges;
        topology
    }

    fn server_of(&self, key: &str) -> Option<&Server> {
        self.index_of(key).map(|index| &*self.servers[index])
    }

    fn index_of(&self, key: &str) -> Option<usize> {
        self.owners.get(&Slot::for_key(key)).copied()
    }

    /// Returns for each server a key that never exists, in one of its slots.
    fn proof_keys(&self, prefix: &str, check: usize) -> impl Iterator<Item = (&Server, String)> {
        self.servers.iter().zip(&self.numbers).filter(|(_, numbers)| !numbers.is_empty()).map(
            move |(server, numbers)| {
                let number = numbers[check % numbers.len()];
                (&**server, format!("{prefix}{PROBE_KEY}:{{{number}}}"))
            },
        )
    }
}

/// Returns whether an id is in a list of ids.
pub(super) fn is_part_of(id: &str, known: &str) -> bool {
    known.split(',').any(|known| known == id)
}

/// Reads the response to `CLUSTER SLOTS`.
fn parse(ranges: &Value) -> Option<Vec<Range>> {
    let Value::Array(ranges) = ranges else { return None };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else { return None };
        let [_, _, Value::BulkString(id), ..] = &master[..] else { return None };
        let server = String::from_utf8_lossy(id).into_owned();
        Some(Range { first: u16::try_from(*first).ok()?, last: u16::try_from(*last).ok()?, server })
    };
    ranges.iter().map(range).collect()
}
