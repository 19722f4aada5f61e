//! The settings of the HTTP layer.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::Args;
use ipnet::IpNet;
use url::Url;

use crate::values::{http_url, size};

/// The URL of the service for a browser on the same machine, without the port of LISTEN_ADDR.
#[expect(clippy::expect_used, reason = "a constant")]
static LOCAL: LazyLock<Url> = LazyLock::new(|| Url::parse("http://localhost").expect("an address"));

/// Listening, limits and headers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Address and port to listen on.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Public URL of tutord, for links in mails. An https URL enables HSTS and Secure cookies. Default:
    /// http://localhost with the port of LISTEN_ADDR.
    #[arg(long, env = "PUBLIC_URL", value_parser = public_url)]
    public_url: Option<Url>,
    /// Comma-separated origins that may send requests with credentials (CORS). Default: the origin of PUBLIC_URL.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,
    /// Comma-separated addresses and networks (10.0.0.0/8) of trusted proxies, which may set X-Forwarded-For or
    /// Forwarded.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// Maximum size of a request body in bytes.
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 1_048_576, value_parser = size(65_536, 1_073_741_824))]
    pub max_body_bytes: usize,
    /// Timeout of a request in seconds; replies of the model have LLM_TIMEOUT_SECONDS.
    #[arg(long, env = "REQUEST_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub request_timeout_seconds: u64,
    /// Time in seconds for open requests and streams to complete during shutdown.
    #[arg(long, env = "SHUTDOWN_TIMEOUT_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub shutdown_timeout_seconds: u64,
    /// Maximum number of open client connections. Default: as many as the limit of file descriptors allows, at most
    /// 10,000.
    #[arg(long, env = "MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_connections: Option<u32>,
    /// Time in seconds after which an idle connection is closed. A proxy in front of tutord must close its idle
    /// connections earlier.
    #[arg(long, env = "IDLE_TIMEOUT_SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_timeout_seconds: u64,
    /// Under overload, reject requests that can't be served in time with 503 at once.
    #[arg(long, env = "LOAD_SHEDDING", default_value_t = true, action = clap::ArgAction::Set)]
    pub load_shedding: bool,
    /// Send a Server-Timing header with the duration and the number of statements of each request.
    #[arg(long, env = "SERVER_TIMING", default_value_t = false, action = clap::ArgAction::Set)]
    pub server_timing: bool,
}

impl HttpSettings {
    /// Returns [`request_timeout_seconds`](Self::request_timeout_seconds) as a duration.
    pub const fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Returns `true` if the address belongs to a trusted proxy.
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// Returns the public URL of this service.
    pub fn public_url(&self) -> Url {
        let mut local = self.public_url.clone().unwrap_or_else(|| LOCAL.clone());
        if self.public_url.is_none() {
            // Setting the port can't fail: the URL has a host.
            let _ = local.set_port(Some(self.listen.port()));
        }
        local
    }

    /// Returns `true` if other machines can connect, but links in mails point to localhost.
    pub fn lacks_public_url(&self) -> bool {
        self.public_url.is_none() && !self.listen.ip().is_loopback()
    }

    /// Returns the origins that may send credentials: the configured list, or the origin of
    /// [`public_url`](Self::public_url).
    pub fn allowed_origins(&self) -> Vec<HeaderValue> {
        if self.cors_origins.is_empty() {
            self.public_url().origin().ascii_serialization().parse().into_iter().collect()
        } else {
            self.cors_origins.clone()
        }
    }

    /// Returns `true` if the public URL is `https`.
    pub fn uses_tls(&self) -> bool {
        self.public_url().scheme() == "https"
    }

    /// Returns `true` if the service is reached at this machine alone, without TLS.
    pub(crate) fn is_local(&self) -> bool {
        !self.uses_tls() && matches!(self.public_url().host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|_| text.parse()).map_err(|_| "must be an IP address or a network such as 10.0.0.0/8".to_owned())
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    if !is_origin {
        return Err("must be scheme://host[:port] without a path, such as https://app.example.com".to_owned());
    }
    text.parse().map_err(|_| "must be ASCII".to_owned())
}

/// Parses a URL to which link paths are appended.
fn public_url(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user, query or fragment".to_owned());
    }
    Ok(url)
}
