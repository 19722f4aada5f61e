//! The operations on Redis: single server, Sentinel, Cluster.

mod endpoint;
mod lent;
mod scripts;
#[cfg(feature = "sentinel")]
mod sentinel;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::{try_join_all, try_join3};
use redis::aio::{ConnectionLike, MultiplexedConnection};
#[cfg(feature = "cluster")]
use redis::cluster_async::ClusterConnection;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{Cmd, Pipeline, RedisFuture, Script, Value, cmd};

use super::tier::{
    Epochs, Event, Fill, Info, LeaseRequest, LeaseResponse, Poll, Replacement, Result, SecondTier, ServerState,
    StreamPosition, TierError,
};
use crate::key::{Names, keys_of};
pub(crate) use endpoint::Endpoint;
pub use lent::RedisConnection;
use scripts::{ACQUIRE, FILL, GENERATION, INVALIDATE, OPEN_EPOCH, PROBE, RELEASE, RENEW, REPLACE};
#[cfg(feature = "sentinel")]
use sentinel::SentinelWatch;

/// The stream of invalidations; the key follows the prefix.
const STREAM: &str = "readthrough:invalidations";
/// A hash of the epoch with its lineage and predecessors, and the numbers of flushed namespaces.
const EPOCHS: &str = "readthrough:epochs";
/// The first part of the fields of flushed namespaces.
const NAMESPACE: &str = "namespace:";
/// The interval in which the lineages of all masters of a cluster are read.
const LINEAGE_INTERVAL: Duration = Duration::from_millis(250);
/// The key of the probe.
const PROBE_KEY: &str = "readthrough:probe";
/// The approximate number of events that the stream keeps for processes that lag.
const STREAM_LENGTH: u64 = 10_000;

impl From<redis::RedisError> for TierError {
    fn from(error: redis::RedisError) -> Self {
        let text = error.to_string();
        // For some errors the client omits the code of the server.
        Self(match error.code() {
            Some(code) if !text.contains(code) => format!("{code}: {text}"),
            _ => text,
        })
    }
}

/// A connection whose keys begin with `prefix`.
struct Connection {
    transport: Transport,
    prefix: String,
    #[cfg(feature = "sentinel")]
    sentinels: Option<SentinelWatch>,
    lineage_read: Mutex<Instant>,
}

#[derive(Clone)]
enum Transport {
    Single(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(ClusterConnection),
}

impl ConnectionLike for Transport {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Connection {
    fn transport(&self) -> Transport {
        self.transport.clone()
    }

    fn stream(&self) -> String {
        [&self.prefix, STREAM].concat()
    }

    fn epochs(&self) -> String {
        [&self.prefix, EPOCHS].concat()
    }

    /// Returns a key that never exists, in the slot of the stream.
    fn proof_key(&self) -> String {
        [PROBE_KEY, ":{", &self.stream(), "}"].concat()
    }

    /// Returns the command that reads the newest event.
    fn newest(&self) -> Cmd {
        let mut command = cmd("XREVRANGE");
        command.arg(self.stream()).arg("+").arg("-").arg("COUNT").arg(1);
        command
    }

    /// Reads the lineages of a cluster, at an interval.
    async fn cluster_lineage(&self) -> Result<Option<String>> {
        {
            let mut read = self.lineage_read.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(self.transport, Transport::Single(_)) || read.elapsed() < LINEAGE_INTERVAL {
                return Ok(None);
            }
            *read = Instant::now();
        }
        // While a master does not respond, its replica may take over: the lineages are read when all respond.
        let info = cmd("INFO").arg("replication").query_async(&mut self.transport()).await;
        Ok(info.ok().map(|info: Value| replication_info(&info).lineage))
    }

    /// Fails if a command of the scripts would fail for lack of memory or of a permission.
    async fn probe(&self) -> Result<()> {
        let mut connection = self.transport();
        PROBE.key([&self.prefix, PROBE_KEY].concat()).invoke_async::<()>(&mut connection).await?;
        // An invalid id: the server checks permissions first and appends nothing.
        let append =
            cmd("XADD").arg(self.stream()).arg("0-0").arg("x").arg("x").query_async::<()>(&mut connection).await;
        match append {
            Err(error) if error.code() != Some("ERR") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes the keys of one name.
    async fn remove_name(&self, name: &str) -> Result<()> {
        let keys = keys_of(&self.prefix, name);
        let mut connection = self.transport();
        let removed = cmd("UNLINK").arg(&keys).query_async::<()>(&mut connection).await;
        match removed {
            // The slot migrates, and one of the keys is not on this server. The lease goes first: it revokes a fill that
            // would come between the two commands.
            Err(error) if error.code() == Some("TRYAGAIN") => {
                for key in keys.iter().rev() {
                    cmd("UNLINK").arg(key).query_async::<()>(&mut connection).await?;
                }
                Ok(())
            }
            removed => Ok(removed?),
        }
    }

    async fn remove(&self, keys: Vec<String>, names: &[String], node: u64) -> Result<()> {
        let mut call = INVALIDATE.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        call.key(self.stream()).arg(STREAM_LENGTH).arg(node).arg(names);
        Ok(call.invoke_async::<()>(&mut self.transport()).await?)
    }

    fn script<'a>(&self, script: &'a Script, names: &Names) -> redis::ScriptInvocation<'a> {
        let keys = names.keys(&self.prefix);
        let mut call = script.prepare_invoke();
        call.key(keys.entry).key(keys.lease);
        if let Some(group) = keys.group {
            call.key(group);
        }
        call
    }
}

#[async_trait]
impl SecondTier for Connection {
    async fn open_epoch(&self, predecessor: Option<&str>) -> Result<ServerState> {
        let mut connection = self.transport();
        self.probe().await?;
        let replication: Value = cmd("INFO").arg("replication").query_async(&mut connection).await?;
        let Replication { lineage, accepts_isolated_writes } = replication_info(&replication);
        let mut open = OPEN_EPOCH.key(self.epochs());
        open.arg(rand::random::<u64>()).arg(&lineage).arg(predecessor.unwrap_or_default());
        open.invoke_async::<()>(&mut connection).await?;
        let epochs: HashMap<String, String> = cmd("HGETALL").arg(self.epochs()).query_async(&mut connection).await?;
        // With the stream, so that all processes of a cluster read the same clock.
        let mut read = redis::pipe();
        read.add_command(self.newest()).cmd("TIME");
        let (newest, time): (StreamRangeReply, (u64, u64)) = read.query_async(&mut connection).await?;
        let epochs = parse_epochs(epochs).ok_or_else(|| TierError("the epochs were evicted at once".to_owned()))?;
        Ok(ServerState { lineage, epochs, newest: position(newest), time_ms: time_ms(time), accepts_isolated_writes })
    }

    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut connection = self.transport();
        let keys: Vec<String> = names.iter().map(|name| [&self.prefix, *name].concat()).collect();
        if let [key] = &keys[..] {
            return Ok(vec![cmd("GET").arg(key).query_async(&mut connection).await?]);
        }
        Ok(cmd("MGET").arg(keys).query_async(&mut connection).await?)
    }

    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<LeaseResponse> {
        let mut call = self.script(&ACQUIRE, names);
        call.arg(request.token).arg(millis(request.ttl));
        call.arg(request.generation).arg(millis(request.generation_ttl));
        let (granted, generation, bytes): (u8, u64, Option<Vec<u8>>) = call.invoke_async(&mut self.transport()).await?;
        Ok(LeaseResponse { is_granted: granted == 1, generation, bytes })
    }

    async fn generations(&self, groups: &[String], generation: u64, ttl: Duration) -> Result<Vec<u64>> {
        try_join_all(groups.iter().map(async |group| {
            let mut call = GENERATION.key([&self.prefix, group.as_str()].concat());
            call.arg(generation).arg(millis(ttl));
            Ok(call.invoke_async(&mut self.transport()).await?)
        }))
        .await
    }

    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool> {
        let mut call = self.script(&FILL, names);
        call.arg(fill.token).arg(fill.generation).arg(fill.bytes).arg(millis(fill.ttl));
        call.arg(millis(fill.generation_ttl));
        Ok(call.invoke_async(&mut self.transport()).await?)
    }

    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()> {
        let mut call = RENEW.key(names.keys(&self.prefix).lease);
        Ok(call.arg(token).arg(millis(ttl)).invoke_async(&mut self.transport()).await?)
    }

    async fn release(&self, names: &Names, token: u64) -> Result<()> {
        Ok(RELEASE.key(names.keys(&self.prefix).lease).arg(token).invoke_async(&mut self.transport()).await?)
    }

    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool> {
        let Replacement { expected, generations: (old, new), bytes, ttl, generation_ttl } = replacement;
        let mut call = self.script(&REPLACE, names);
        call.arg(expected).arg(bytes).arg(millis(ttl)).arg(old).arg(new).arg(millis(generation_ttl));
        Ok(call.invoke_async(&mut self.transport()).await?)
    }

    async fn invalidate(&self, names: &[String], node: u64) -> Result<()> {
        if matches!(self.transport, Transport::Single(_)) {
            return self.remove(names.iter().flat_map(|name| keys_of(&self.prefix, name)).collect(), names, node).await;
        }
        // The names are in many slots. All are removed before the event: a process that receives the event first could
        // fetch the old value again.
        try_join_all(names.iter().map(|name| self.remove_name(name))).await?;
        self.remove(Vec::new(), names, node).await
    }

    async fn announce(&self, names: &[String], node: u64) -> Result<()> {
        self.remove(Vec::new(), names, node).await
    }

    async fn flush(&self, namespace: &str, node: u64) -> Result<Epochs> {
        let mut connection = self.transport();
        let (key, number) = (self.epochs(), rand::random::<u64>());
        let field = [NAMESPACE, namespace].concat();
        // An evicted epoch is replaced. Without a lineage, the next connection begins another one.
        cmd("HSETNX").arg(&key).arg("epoch").arg(rand::random::<u64>()).query_async::<()>(&mut connection).await?;
        cmd("HSET").arg(&key).arg(field).arg(number).query_async::<()>(&mut connection).await?;
        let epochs: HashMap<String, String> = cmd("HGETALL").arg(&key).query_async(&mut connection).await?;
        self.remove(Vec::new(), &[], node).await?;
        parse_epochs(epochs).ok_or_else(|| TierError("the epochs were evicted at once".to_owned()))
    }

    async fn poll(&self, after: &StreamPosition, wait: Duration) -> Result<Poll> {
        // A replica refuses the removal of a key that does not exist, and so does a master with too few replicas.
        let mut poll = redis::pipe();
        poll.cmd("UNLINK").arg(self.proof_key()).ignore();
        poll.cmd("TIME").cmd("INFO").arg("replication").add_command(self.newest());
        // Without COUNT: a truncated response would not prove that nothing was missed up to the request.
        poll.cmd("XREAD").arg("BLOCK").arg(millis(wait)).arg("STREAMS").arg(self.stream()).arg(&after.id);
        let (mut stream, mut hash) = (self.transport(), self.transport());
        let mut read_epochs = cmd("HGETALL");
        read_epochs.arg(self.epochs());
        type Answer = ((u64, u64), Value, StreamRangeReply, Option<StreamReadReply>);
        let (lineage, epochs, answer) = try_join3(
            self.cluster_lineage(),
            async { Ok::<HashMap<String, String>, TierError>(read_epochs.query_async(&mut hash).await?) },
            async { Ok::<Answer, TierError>(poll.query_async(&mut stream).await?) },
        )
        .await?;
        let (time, replication, tail, events) = answer;
        let lineage = match self.transport {
            Transport::Single(_) => Some(replication_info(&replication).lineage),
            #[cfg(feature = "cluster")]
            Transport::Cluster(_) => lineage,
        };
        let streams = events.map(|reply| reply.keys).unwrap_or_default();
        Ok(Poll {
            lineage,
            epochs: parse_epochs(epochs),
            tail: position(tail),
            time_ms: time_ms(time),
            events: streams.into_iter().flat_map(|stream| stream.ids).filter_map(event).collect(),
        })
    }

    fn is_partitioned(&self) -> bool {
        !matches!(self.transport, Transport::Single(_))
    }

    #[cfg(feature = "sentinel")]
    async fn is_current_master(&self) -> Result<bool> {
        match &self.sentinels {
            Some(sentinels) => sentinels.is_current().await,
            None => Ok(true),
        }
    }

    async fn info(&self) -> Result<Info> {
        let info: Value = cmd("INFO").query_async(&mut self.transport()).await?;
        let mut fields = HashMap::new();
        for_each_line(&info, &mut |line| {
            if let Some((name, value)) = line.split_once(':') {
                fields.insert(name.to_owned(), value.to_owned());
            }
        });
        Ok(fields)
    }
}

/// The fields of `INFO replication`.
struct Replication {
    lineage: String,
    accepts_isolated_writes: bool,
}

/// Reads the replication id of a server, or of all masters of a cluster.
fn replication_info(info: &Value) -> Replication {
    let (mut lineages, mut replicas, mut has_minimum) = (Vec::new(), false, false);
    for_each_line(info, &mut |line| match line.split_once(':') {
        Some(("master_replid", id)) => lineages.push(id.trim().to_owned()),
        Some(("connected_slaves", count)) => replicas |= count.trim() != "0",
        Some(("min_slaves_good_slaves", _)) => has_minimum = true,
        _ => {}
    });
    // The masters of a cluster respond in any order.
    lineages.sort_unstable();
    Replication { lineage: lineages.join(","), accepts_isolated_writes: replicas && !has_minimum }
}

/// Splits the hash of epochs; `None` if it has no epoch of the server.
fn parse_epochs(mut fields: HashMap<String, String>) -> Option<Epochs> {
    let server = fields.remove("epoch")?;
    let namespace = |(field, number): (String, String)| Some((field.strip_prefix(NAMESPACE)?.to_owned(), number));
    Some(Epochs { server, namespaces: fields.into_iter().filter_map(namespace).collect() })
}

fn time_ms((seconds, micros): (u64, u64)) -> u64 {
    seconds * 1_000 + micros / 1_000
}

fn position(newest: StreamRangeReply) -> Option<StreamPosition> {
    newest.ids.into_iter().next().and_then(event).map(|event| event.position)
}

fn event(id: StreamId) -> Option<Event> {
    let sequence = id.get("number")?;
    let names = id.map.keys().filter(|field| !matches!(field.as_str(), "number" | "node")).cloned().collect();
    Some(Event { node: id.get("node")?, names, position: StreamPosition { id: id.id, sequence } })
}

/// Calls `line` for each line of a text, or of the texts of several servers.
fn for_each_line(value: &Value, line: &mut dyn FnMut(&str)) {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).lines().for_each(line),
        Value::VerbatimString { text, .. } => text.lines().for_each(line),
        Value::SimpleString(text) => text.lines().for_each(line),
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| for_each_line(value, line)),
        Value::Array(values) => values.iter().for_each(|value| for_each_line(value, line)),
        _ => {}
    }
}
