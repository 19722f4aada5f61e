//! The supervised connection, lent to the program.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value};

use super::{Connection, Transport, is_broken};
use crate::remote::connection::ConnectionHandle;
use crate::remote::supervisor::RedisSupervisor;

/// The connection of the cache to Redis, for commands, pipelines and scripts of the program itself.
///
/// A command has the time limit of the cache ([`redis_timeout`](crate::CacheBuilder::redis_timeout)). A command that
/// exceeds it, or that breaks the connection, opens the circuit breaker of the cache; an error that Redis returns does
/// not. [`Cache::redis_connection`](crate::Cache::redis_connection) returns it for a few commands; after an error, ask for
/// another one.
#[derive(Clone)]
pub struct RedisConnection {
    supervisor: Arc<RedisSupervisor>,
    handle: ConnectionHandle,
    transport: Transport,
    prefix: String,
}

impl RedisConnection {
    /// Returns the connection of the supervisor if there is one.
    pub(crate) fn new(supervisor: Arc<RedisSupervisor>, prefix: String) -> Option<Self> {
        let handle = supervisor.connection()?;
        let tier: &dyn Any = handle.tier.as_ref();
        let transport = tier.downcast_ref::<Connection>()?.transport();
        Some(Self { supervisor, handle, transport, prefix })
    }

    /// Returns the key of a name: behind the prefix of the cache and the lineage of the identity, so that programs and
    /// sets of data that share a Redis do not share the key. The keys of the cache itself follow the *state* of the
    /// identity, or begin with `v`, `lease:`, `group:` or `readthrough:`.
    pub fn key(&self, name: &str) -> String {
        [&self.prefix, name].concat()
    }

    async fn supervised<T>(
        supervisor: &RedisSupervisor,
        handle: &ConnectionHandle,
        command: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let command = async {
            match command.await {
                Err(error) if is_broken(&error) => Err(error.into()),
                response => Ok(response),
            }
        };
        let response = supervisor.call(handle, command).await;
        response.unwrap_or_else(|| Err(RedisError::from((ErrorKind::Io, "Redis does not respond"))))
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let Self { supervisor, handle, transport, .. } = self;
        Box::pin(Self::supervised(supervisor, handle, transport.req_packed_command(cmd)))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let Self { supervisor, handle, transport, .. } = self;
        Box::pin(Self::supervised(supervisor, handle, transport.req_packed_commands(pipeline, offset, count)))
    }

    fn get_db(&self) -> i64 {
        self.transport.get_db()
    }
}
