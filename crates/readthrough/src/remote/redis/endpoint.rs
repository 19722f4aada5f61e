//! The address of Redis.

use std::sync::Arc;

use async_trait::async_trait;
#[cfg(feature = "cluster")]
use redis::cluster::ClusterClient;
#[cfg(feature = "sentinel")]
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, ProtocolVersion};
#[cfg(feature = "sentinel")]
use tokio::sync::Mutex;

use super::{Connection, Transport};
use crate::remote::tier::{Connector, RemoteError, RemoteTier, Result};

/// The address of Redis.
pub(crate) enum Endpoint {
    Single(Client),
    #[cfg(feature = "sentinel")]
    Sentinel(Mutex<SentinelClient>),
    #[cfg(feature = "cluster")]
    Cluster(ClusterClient),
}

impl Endpoint {
    /// Parses a URL: `redis://` and `rediss://` (TLS); `redis+sentinel://host,host/master` and
    /// `redis+cluster://host,host`, and both with `rediss`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| RemoteError(format!("the Redis URL {reason}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("has no scheme"))?;
        let tls = scheme.starts_with("rediss");
        let plain = if tls { "rediss" } else { "redis" };
        if tls && cfg!(not(feature = "tls")) {
            return Err(invalid("needs the feature `tls` of readthrough"));
        }
        if scheme == plain {
            let info = text.into_connection_info().map_err(|error| invalid(&format!("cannot be parsed: {error}")))?;
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            return Ok(Self::Single(Client::open(info.set_redis_settings(settings))?));
        }
        // Each host becomes a URL of its own, with the same user and password.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        let path = path.split('?').next().unwrap_or_default();
        match scheme.split_once('+').map(|(_, kind)| kind) {
            #[cfg(feature = "cluster")]
            Some("cluster") => {
                let nodes: Vec<String> = hosts.split(',').map(|host| format!("{plain}://{at}{host}")).collect();
                let client = ClusterClient::builder(nodes).use_protocol(ProtocolVersion::RESP3).retries(2).build()?;
                Ok(Self::Cluster(client))
            }
            #[cfg(feature = "sentinel")]
            Some("sentinel") => {
                let (master, database) = path.split_once('/').unwrap_or((path, "0"));
                if master.is_empty() {
                    return Err(invalid("names no master: use redis+sentinel://host,host/master"));
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
            #[cfg(not(feature = "cluster"))]
            Some("cluster") => Err(invalid("needs the feature `cluster` of readthrough")),
            #[cfg(not(feature = "sentinel"))]
            Some("sentinel") => Err(invalid("needs the feature `sentinel` of readthrough")),
            _ => Err(invalid("must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://")),
        }
    }
}

#[async_trait]
impl Connector for Endpoint {
    async fn connect(&self, prefix: &str) -> Result<Arc<dyn RemoteTier>> {
        // The supervisor has its own time limits, and reads of the stream block longer than any default.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let transport = match self {
            Self::Single(client) => {
                Transport::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            #[cfg(feature = "sentinel")]
            Self::Sentinel(client) => {
                Transport::Single(client.lock().await.get_async_connection_with_config(&config).await?)
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(client) => Transport::Cluster(client.get_async_connection().await?),
        };
        Ok(Arc::new(Connection { transport, prefix: prefix.to_owned() }))
    }
}
