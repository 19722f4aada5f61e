//! The address that a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use crate::app::App;
use crate::error::ApiError;

/// The client's address: the peer's, or, where the peer is one of `TRUSTED_PROXIES`, the last address
/// in `X-Forwarded-For` that is not a trusted proxy itself.
#[derive(Debug, Clone, Copy)]
pub struct ClientIp(pub IpAddr);

impl FromRequestParts<App> for ClientIp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip());
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let forwarded: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        Ok(Self(client(peer, &forwarded, &app.config.http.trusted_proxies)))
    }
}

fn client(peer: IpAddr, forwarded: &[&str], trusted: &[IpAddr]) -> IpAddr {
    let mut address = peer.to_canonical();
    for next in forwarded.iter().rev() {
        if !trusted.contains(&address) {
            break;
        }
        match next.parse::<IpAddr>() {
            Ok(next) => address = next.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_may_name_the_client() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = [ip("10.0.0.1"), ip("10.0.0.2")];
        assert_eq!(client(ip("203.0.113.9"), &["1.2.3.4"], &proxies), ip("203.0.113.9"));
        assert_eq!(client(ip("10.0.0.1"), &["1.2.3.4"], &proxies), ip("1.2.3.4"));
        assert_eq!(client(ip("::ffff:10.0.0.1"), &["9.9.9.9", "1.2.3.4", "10.0.0.2"], &proxies), ip("1.2.3.4"));
        assert_eq!(client(ip("10.0.0.1"), &["garbage"], &proxies), ip("10.0.0.1"));
        assert_eq!(client(ip("10.0.0.1"), &[], &proxies), ip("10.0.0.1"));
    }
}
