//! The address of Redis.

use std::sync::Arc;
#[cfg(feature = "cluster")]
use std::time::Duration;

use async_trait::async_trait;
#[cfg(feature = "cluster")]
use redis::cluster::ClusterClient;
#[cfg(feature = "sentinel")]
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, ProtocolVersion};
#[cfg(feature = "sentinel")]
use tokio::sync::Mutex;

#[cfg(feature = "cluster")]
use super::cluster::ClusterServers;
#[cfg(feature = "sentinel")]
use super::sentinel::{SentinelWatch, Sentinels};
use super::{Connection, Transport};
use crate::remote::tier::{Connector, SecondTier, TierError};

/// How long a connection to one server of a cluster may take: one that hangs does not hold up the others.
#[cfg(feature = "cluster")]
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(250);

/// The address of Redis.
pub(crate) enum Endpoint {
    Single(Box<Client>),
    #[cfg(feature = "sentinel")]
    Sentinel(Box<Mutex<SentinelClient>>, Arc<Sentinels>),
    #[cfg(feature = "cluster")]
    Cluster(Box<ClusterClient>, Arc<ClusterServers>),
}

impl Endpoint {
    /// Parses a URL: `redis://` and `rediss://` (TLS); `redis+sentinel://host,host/master` and
    /// `redis+cluster://host,host`, and both with `rediss`.
    pub(crate) fn parse(text: &str) -> Result<Self, TierError> {
        let invalid = |reason: &str| TierError(format!("the Redis URL {reason}"));
        #[cfg_attr(
            not(any(feature = "cluster", feature = "sentinel")),
            allow(unused_variables, reason = "only URLs of several hosts need the rest")
        )]
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("has no scheme"))?;
        let tls = scheme.starts_with("rediss");
        let plain = if tls { "rediss" } else { "redis" };
        if tls && cfg!(not(feature = "tls")) {
            return Err(invalid("needs the feature `tls` of readthrough"));
        }
        if scheme == plain {
            let info = text.into_connection_info().map_err(|error| invalid(&format!("cannot be parsed: {error}")))?;
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            return Ok(Self::Single(Box::new(Client::open(info.set_redis_settings(settings))?)));
        }
        match scheme.split_once('+').map(|(_, kind)| kind) {
            #[cfg(feature = "cluster")]
            Some("cluster") => Self::cluster(plain, rest),
            #[cfg(feature = "sentinel")]
            Some("sentinel") => Self::sentinel(plain, rest),
            #[cfg(not(feature = "cluster"))]
            Some("cluster") => Err(invalid("needs the feature `cluster` of readthrough")),
            #[cfg(not(feature = "sentinel"))]
            Some("sentinel") => Err(invalid("needs the feature `sentinel` of readthrough")),
            _ => Err(invalid("must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://")),
        }
    }

    #[cfg(feature = "cluster")]
    fn cluster(scheme: &str, rest: &str) -> Result<Self, TierError> {
        let Address { at, hosts, .. } = Address::parse(rest);
        let nodes: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{at}{host}")).collect();
        // The pauses stay below the time limit of a command.
        let client = ClusterClient::builder(nodes)
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECTION_TIMEOUT)
            .retries(2)
            .min_retry_wait(2)
            .max_retry_wait(10)
            .build()?;
        Ok(Self::Cluster(Box::new(client), Arc::default()))
    }

    #[cfg(feature = "sentinel")]
    fn sentinel(scheme: &str, rest: &str) -> Result<Self, TierError> {
        let Address { at, hosts, path } = Address::parse(rest);
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() {
            return Err(TierError("the Redis URL names no master: use redis+sentinel://host,host/master".to_owned()));
        }
        let node = format!("{scheme}://{at}host/{database}").into_connection_info()?;
        let settings = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let mut info = SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
        if scheme == "rediss" {
            info = info.set_tls_mode(redis::TlsMode::Secure);
        }
        let sentinels: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
        let clients = sentinels.iter().map(|url| Client::open(url.as_str())).collect::<Result<_, _>>()?;
        let watched = Arc::new(Sentinels::new(clients, master));
        let name = String::from(master);
        let client = SentinelClient::build(sentinels, name, Some(info), SentinelServerType::Master)?;
        Ok(Self::Sentinel(Box::new(Mutex::new(client)), watched))
    }
}

/// The parts of a URL of several hosts. Each host becomes a URL of its own, with the same user and password.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
struct Address<'a> {
    /// The user and the password, with the `@`.
    at: String,
    hosts: &'a str,
    #[cfg_attr(not(feature = "sentinel"), expect(dead_code, reason = "a cluster has one database"))]
    path: &'a str,
}

#[cfg(any(feature = "cluster", feature = "sentinel"))]
impl<'a> Address<'a> {
    fn parse(rest: &'a str) -> Self {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        Self { at, hosts, path: path.split('?').next().unwrap_or_default() }
    }
}

#[async_trait]
impl Connector for Endpoint {
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn SecondTier>, TierError> {
        // The supervisor has its own time limits, and reads of the stream block longer than any default.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        #[cfg(feature = "sentinel")]
        let mut sentinels = None;
        #[cfg(feature = "cluster")]
        let mut servers = None;
        let transport = match self {
            Self::Single(client) => {
                Transport::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            #[cfg(feature = "sentinel")]
            Self::Sentinel(client, watched) => {
                let client = client.lock().await.async_get_client().await?;
                sentinels = SentinelWatch::new(Arc::clone(watched), client.get_connection_info().addr());
                Transport::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(client, known) => {
                servers = Some(Arc::clone(known));
                Transport::Cluster(client.get_async_connection().await?)
            }
        };
        Ok(Arc::new(Connection {
            transport,
            prefix: prefix.to_owned(),
            #[cfg(feature = "sentinel")]
            sentinels,
            #[cfg(feature = "cluster")]
            servers,
            lineage: std::sync::Mutex::default(),
        }))
    }
}
