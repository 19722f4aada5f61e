//! The commands for Redis: single, Sentinel, Cluster.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo as _, Pipeline, ProtocolVersion, RedisFuture, Script, Value,
    cmd,
};
use tokio::sync::Mutex;

use super::wire::{
    Acquired, Connect, Event, Failure, Fill, Hello, Info, LeaseRequest, Position, Replacement, Result, Wire,
};
use crate::key::{self, Names};

/// The stream of invalidations, behind the scope.
const STREAM: &str = "readthrough:invalidations";
/// The numbers of flushed namespaces, likewise.
const EPOCHS: &str = "readthrough:epochs";
/// The key of the probe.
const PROBED: &str = "readthrough:probe";
/// About so many events are kept for processes that lag.
const KEPT: u64 = 10_000;

/// Entry, lease and, where there is one, group.
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local generation = '0'
        if KEYS[3] then
            generation = redis.call('GET', KEYS[3])
            if not generation then
                generation = ARGV[3]
                redis.call('SET', KEYS[3], generation, 'PX', ARGV[4])
            end
        end
        local granted = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
        return {granted and 1 or 0, generation, redis.call('GET', KEYS[1])}",
    )
});
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
        redis.call('DEL', KEYS[2])
        if KEYS[3] then
            if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end
            redis.call('PEXPIRE', KEYS[3], ARGV[5])
        end
        redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
        return 1",
    )
});
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1")
});
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0",
    )
});
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('DEL', KEYS[2])
        if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
        if KEYS[3] then
            if redis.call('GET', KEYS[3]) ~= ARGV[4] then return 0 end
            redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
        end
        redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
        return 1",
    )
});
/// The commands of the other scripts, on a key of its own.
static PROBE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('SET', KEYS[1], '1', 'NX', 'PX', 1000)
        redis.call('GET', KEYS[1])
        redis.call('GETRANGE', KEYS[1], 0, 0)
        redis.call('PEXPIRE', KEYS[1], 1000)
        redis.call('DEL', KEYS[1])
        redis.call('UNLINK', KEYS[1])
        return 1",
    )
});
/// Removes its first keys; appends an event to the stream, which is the last key. Each event has the number after
/// the one before it, so that a reader notices when some were trimmed.
static INVALIDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        for index = 1, #KEYS - 1 do redis.call('UNLINK', KEYS[index]) end
        local stream = KEYS[#KEYS]
        local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
        local number = 1
        if newest[1] then number = tonumber(newest[1][2][2]) + 1 end
        redis.call('XADD', stream, 'MAXLEN', '~', ARGV[1], '*',
            'number', string.format('%.0f', number), 'node', ARGV[2], 'names', ARGV[3])
        return number",
    )
});

impl From<redis::RedisError> for Failure {
    fn from(error: redis::RedisError) -> Self {
        let text = error.to_string();
        // The client's texts for some kinds leave the server's code out.
        Self(match error.code() {
            Some(code) if !text.contains(code) => format!("{code}: {text}"),
            _ => text,
        })
    }
}

/// Where Redis is.
pub(crate) enum Endpoint {
    Single(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

impl Endpoint {
    /// `redis://` and `rediss://` (TLS) as they are; `redis+sentinel://host,host/master`, `redis+cluster://host,host`,
    /// and both with `rediss`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Failure(format!("the Redis URL {what}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let tls = scheme.starts_with("rediss");
        let plain = if tls { "rediss" } else { "redis" };
        if scheme == plain {
            let info = text.into_connection_info().map_err(|error| wrong(&format!("can't be read: {error}")))?;
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            return Ok(Self::Single(Client::open(info.set_redis_settings(settings))?));
        }
        // Each of several hosts is made a URL of its own, with the same user and password.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        let path = path.split('?').next().unwrap_or_default();
        match scheme.split_once('+').map(|(_, kind)| kind) {
            Some("cluster") => {
                let nodes: Vec<String> = hosts.split(',').map(|host| format!("{plain}://{at}{host}")).collect();
                let client = ClusterClient::builder(nodes).use_protocol(ProtocolVersion::RESP3).retries(2).build()?;
                Ok(Self::Cluster(client))
            }
            Some("sentinel") => {
                let (master, database) = path.split_once('/').unwrap_or((path, "0"));
                if master.is_empty() {
                    return Err(wrong("names no master: redis+sentinel://host,host/master"));
                }
                let node = format!("{plain}://{at}host/{database}").into_connection_info()?;
                let settings = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
                let mut info = SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
                if tls {
                    info = info.set_tls_mode(redis::TlsMode::Secure);
                }
                let sentinels: Vec<String> = hosts.split(',').map(|host| format!("{plain}://{host}")).collect();
                let client = SentinelClient::build(sentinels, master, Some(info), SentinelServerType::Master)?;
                Ok(Self::Sentinel(Mutex::new(client)))
            }
            _ => Err(wrong("must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://")),
        }
    }
}

#[async_trait]
impl Connect for Endpoint {
    async fn connect(&self, scope: &str) -> Result<Arc<dyn Wire>> {
        // The link has time-outs of its own, and questions for events wait longer than any default.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let transport = match self {
            Self::Single(client) => {
                Transport::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Sentinel(client) => {
                Transport::Single(client.lock().await.get_async_connection_with_config(&config).await?)
            }
            Self::Cluster(client) => Transport::Cluster(client.get_async_connection().await?),
        };
        Ok(Arc::new(Connection { transport, scope: scope.to_owned() }))
    }
}

/// A connection whose keys begin with `scope`.
struct Connection {
    transport: Transport,
    scope: String,
}

#[derive(Clone)]
enum Transport {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Transport {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
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
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
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
        [&self.scope, STREAM].concat()
    }

    fn epochs(&self) -> String {
        [&self.scope, EPOCHS].concat()
    }

    /// The keys that are removed with a name, which are in one slot.
    fn removed(&self, name: &str) -> Vec<String> {
        let mut keys = vec![[&self.scope, name].concat()];
        if !name.starts_with("group:") {
            keys.push(key::lease(&self.scope, name));
        }
        keys
    }

    /// Fails where a command of the scripts would fail: for want of memory or of a permission.
    async fn probe(&self) -> Result<()> {
        let mut connection = self.transport();
        PROBE.key([&self.scope, PROBED].concat()).invoke_async::<()>(&mut connection).await?;
        // An id that is never valid: nothing is appended, and permissions are looked at first.
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
        call.key(self.stream()).arg(KEPT).arg(node).arg(names.join("\n"));
        Ok(call.invoke_async::<()>(&mut self.transport()).await?)
    }

    fn script<'a>(&self, script: &'a Script, names: &Names) -> redis::ScriptInvocation<'a> {
        let keys = names.keys(&self.scope);
        let mut call = script.prepare_invoke();
        call.key(keys.entry).key(keys.lease);
        if let Some(group) = keys.group {
            call.key(group);
        }
        call
    }
}

#[async_trait]
impl Wire for Connection {
    async fn hello(&self) -> Result<Hello> {
        let mut connection = self.transport();
        self.probe().await?;
        // Were it gone and empty at the start again, values from before an old flush would be good once more.
        let number = rand::random::<u64>();
        cmd("HSETNX").arg(self.epochs()).arg("*").arg(number).query_async::<()>(&mut connection).await?;
        let epochs: HashMap<String, String> = cmd("HGETALL").arg(self.epochs()).query_async(&mut connection).await?;
        let mut newest = cmd("XREVRANGE");
        newest.arg(self.stream()).arg("+").arg("-").arg("COUNT").arg(1);
        let newest: StreamRangeReply = newest.query_async(&mut connection).await?;
        let newest = newest.ids.into_iter().next().and_then(event).map(|event| event.at).unwrap_or_default();
        let info: Value = cmd("INFO").arg("server").query_async(&mut connection).await?;
        let mut runs = Vec::new();
        collect(&info, &mut |line| {
            if let Some(run) = line.strip_prefix("run_id:") {
                runs.push(run.to_owned());
            }
        });
        // All servers of a cluster, in any order.
        runs.sort_unstable();
        Ok(Hello { identity: runs.join(","), epochs, newest })
    }

    async fn get(&self, names: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut connection = self.transport();
        let keys: Vec<String> = names.iter().map(|name| [&self.scope, *name].concat()).collect();
        if let [key] = &keys[..] {
            return Ok(vec![cmd("GET").arg(key).query_async(&mut connection).await?]);
        }
        Ok(cmd("MGET").arg(keys).query_async(&mut connection).await?)
    }

    async fn acquire(&self, names: &Names, request: LeaseRequest) -> Result<Acquired> {
        let mut call = self.script(&ACQUIRE, names);
        call.arg(request.token).arg(millis(request.ttl));
        call.arg(request.generation).arg(millis(request.generation_ttl));
        let (granted, generation, bytes): (u8, u64, Option<Vec<u8>>) = call.invoke_async(&mut self.transport()).await?;
        Ok(Acquired { granted: granted == 1, generation, bytes })
    }

    async fn fill(&self, names: &Names, fill: Fill<'_>) -> Result<bool> {
        let mut call = self.script(&FILL, names);
        call.arg(fill.token).arg(fill.generation).arg(fill.bytes).arg(millis(fill.ttl));
        call.arg(millis(fill.generation_ttl));
        Ok(call.invoke_async(&mut self.transport()).await?)
    }

    async fn renew(&self, names: &Names, token: u64, ttl: Duration) -> Result<()> {
        let mut call = RENEW.key(names.keys(&self.scope).lease);
        Ok(call.arg(token).arg(millis(ttl)).invoke_async(&mut self.transport()).await?)
    }

    async fn release(&self, names: &Names, token: u64) -> Result<()> {
        Ok(RELEASE.key(names.keys(&self.scope).lease).arg(token).invoke_async(&mut self.transport()).await?)
    }

    async fn replace(&self, names: &Names, replacement: Replacement<'_>) -> Result<bool> {
        let Replacement { expected, generations: (old, new), bytes, ttl, generation_ttl } = replacement;
        let mut call = self.script(&REPLACE, names);
        call.arg(expected).arg(bytes).arg(millis(ttl)).arg(old).arg(new).arg(millis(generation_ttl));
        Ok(call.invoke_async(&mut self.transport()).await?)
    }

    async fn invalidate(&self, names: &[String], node: u64) -> Result<()> {
        if let Transport::Single(_) = self.transport {
            return self.remove(names.iter().flat_map(|name| self.removed(name)).collect(), names, node).await;
        }
        // The names are in many slots. All are gone before anybody is told, or one who is told could fetch the
        // old value once more. An entry goes with its lease in one command: a fill between the two would stay.
        try_join_all(
            names
                .iter()
                .map(async |name| cmd("UNLINK").arg(self.removed(name)).query_async::<()>(&mut self.transport()).await),
        )
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

    async fn events(&self, after: &Position, wait: Duration) -> Result<Vec<Event>> {
        // All of them: an answer that was cut short would prove nothing of the moment of the question.
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(millis(wait)).arg("STREAMS").arg(self.stream()).arg(&after.id);
        let reply: Option<StreamReadReply> = read.query_async(&mut self.transport()).await?;
        let streams = reply.map(|reply| reply.keys).unwrap_or_default();
        Ok(streams.into_iter().flat_map(|stream| stream.ids).filter_map(event).collect())
    }

    async fn info(&self) -> Result<Info> {
        let info: Value = cmd("INFO").query_async(&mut self.transport()).await?;
        let mut fields = HashMap::new();
        collect(&info, &mut |line| {
            if let Some((name, value)) = line.split_once(':') {
                fields.insert(name.to_owned(), value.to_owned());
            }
        });
        Ok(Info(fields))
    }

    async fn script(&self, script: &str, key: &str, arguments: &[i64]) -> Result<Vec<i64>> {
        let script = Script::new(script);
        let mut call = script.key(key);
        for argument in arguments {
            call.arg(argument);
        }
        Ok(call.invoke_async(&mut self.transport()).await?)
    }

    fn survives_failover(&self) -> bool {
        matches!(self.transport, Transport::Cluster(_))
    }
}

fn event(id: StreamId) -> Option<Event> {
    let number = id.get("number")?;
    let names: String = id.get("names")?;
    let names = names.lines().map(str::to_owned).collect();
    Some(Event { node: id.get("node")?, names, at: Position { id: id.id, number } })
}

/// Gives every line of a text, or of the texts of several servers.
fn collect(value: &Value, line: &mut dyn FnMut(&str)) {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).lines().for_each(line),
        Value::VerbatimString { text, .. } => text.lines().for_each(line),
        Value::SimpleString(text) => text.lines().for_each(line),
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| collect(value, line)),
        Value::Array(values) => values.iter().for_each(|value| collect(value, line)),
        _ => {}
    }
}
