//! The operations on Redis: single server, Sentinel, Cluster.

mod endpoint;
mod lent;
mod scripts;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
#[cfg(feature = "cluster")]
use redis::cluster_async::ClusterConnection;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{Cmd, Pipeline, RedisFuture, Script, Value, cmd};

use super::tier::{
    Event, Fill, Info, LeaseRequest, LeaseResponse, RemoteError, RemoteTier, Replacement, Result, ServerState,
    StreamPosition,
};
use crate::key::{self, Names};
pub(crate) use endpoint::Endpoint;
pub use lent::RedisConnection;
use scripts::{ACQUIRE, FILL, GENERATION, INVALIDATE, PROBE, RELEASE, RENEW, REPLACE};

/// The stream of invalidations; the key follows the prefix.
const STREAM: &str = "readthrough:invalidations";
/// The numbers of flushed namespaces.
const EPOCHS: &str = "readthrough:epochs";
/// The key of the probe.
const PROBE_KEY: &str = "readthrough:probe";
/// The approximate number of events that the stream keeps for processes that lag.
const STREAM_LENGTH: u64 = 10_000;

impl From<redis::RedisError> for RemoteError {
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

    /// Returns the keys to remove for a name, which are in one slot.
    fn keys_to_remove(&self, name: &str) -> Vec<String> {
        let mut keys = vec![[&self.prefix, name].concat()];
        if !name.starts_with("group:") {
            keys.push(key::lease(&self.prefix, name));
        }
        keys
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
impl RemoteTier for Connection {
    async fn state(&self) -> Result<ServerState> {
        let mut connection = self.transport();
        self.probe().await?;
        // If the hash was evicted, a new random number keeps values from before an old flush invalid.
        let number = rand::random::<u64>();
        cmd("HSETNX").arg(self.epochs()).arg("*").arg(number).query_async::<()>(&mut connection).await?;
        let epochs: HashMap<String, String> = cmd("HGETALL").arg(self.epochs()).query_async(&mut connection).await?;
        let mut newest = cmd("XREVRANGE");
        newest.arg(self.stream()).arg("+").arg("-").arg("COUNT").arg(1);
        let newest: StreamRangeReply = newest.query_async(&mut connection).await?;
        let newest = newest.ids.into_iter().next().and_then(event).map(|event| event.position).unwrap_or_default();
        let info: Value = cmd("INFO").arg("server").query_async(&mut connection).await?;
        let mut runs = Vec::new();
        for_each_line(&info, &mut |line| {
            if let Some(run) = line.strip_prefix("run_id:") {
                runs.push(run.to_owned());
            }
        });
        // A cluster has several servers, in any order.
        runs.sort_unstable();
        Ok(ServerState { identity: runs.join(","), epochs, newest })
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
            return self.remove(names.iter().flat_map(|name| self.keys_to_remove(name)).collect(), names, node).await;
        }
        // The names are in many slots. All are removed before the event: a process that receives the event first could
        // fetch the old value again. One command removes an entry and its lease: a fill between two commands would stay.
        try_join_all(names.iter().map(async |name| {
            cmd("UNLINK").arg(self.keys_to_remove(name)).query_async::<()>(&mut self.transport()).await
        }))
        .await?;
        self.remove(Vec::new(), names, node).await
    }

    async fn announce(&self, names: &[String], node: u64) -> Result<()> {
        self.remove(Vec::new(), names, node).await
    }

    async fn flush(&self, namespace: &str, node: u64) -> Result<()> {
        let number = rand::random::<u64>();
        cmd("HSET").arg(self.epochs()).arg(namespace).arg(number).query_async::<()>(&mut self.transport()).await?;
        self.remove(Vec::new(), &[], node).await
    }

    async fn events(&self, after: &StreamPosition, wait: Duration) -> Result<Vec<Event>> {
        // Without COUNT: a truncated response would not prove that nothing was missed up to the request.
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(millis(wait)).arg("STREAMS").arg(self.stream()).arg(&after.id);
        let reply: Option<StreamReadReply> = read.query_async(&mut self.transport()).await?;
        let streams = reply.map(|reply| reply.keys).unwrap_or_default();
        Ok(streams.into_iter().flat_map(|stream| stream.ids).filter_map(event).collect())
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

    fn survives_failover(&self) -> bool {
        !matches!(self.transport, Transport::Single(_))
    }
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
