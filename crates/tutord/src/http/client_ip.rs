//! The client address of a request.
//!
//! Proxies send it in `X-Forwarded-For` or in `Forwarded` (RFC 7239). A client can send both headers, and its values
//! stand to the left of those that proxies append, so each header is read from the right for as long as the sender is
//! trusted. A proxy that knows only one of the headers forwards the other unchanged; if both name a client and
//! disagree, both are ignored.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use axum::extract::{ConnectInfo, FromRef, FromRequestParts, Request};
use axum::http::header::{FORWARDED, HeaderName};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};

use super::error::ApiError;
use super::state::{Http, HttpState};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The maximum number of logged proxies, each logged once: any client can send these headers.
pub(super) const MAX_LOGGED: usize = 100;

/// Returns the client's address: the peer's, or, if the peer is one of `TRUSTED_PROXIES`, the last address in
/// `X-Forwarded-For` or `Forwarded` that is not a trusted proxy.
#[derive(Debug, Clone, Copy)]
pub struct ClientIp(pub IpAddr);

impl<S> FromRequestParts<S> for ClientIp
where
    S: Send + Sync,
    HttpState: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self::of(parts, &HttpState::from_ref(state)))
    }
}

impl ClientIp {
    /// Returns the client address of a request.
    pub(crate) fn of(parts: &Parts, http: &Http) -> Self {
        let peer = peer(&parts.extensions).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self(client(peer, &parts.headers, |address| http.settings.trusts_proxy(address)))
    }
}

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical())
}

fn client(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusts(peer) {
        return peer;
    }
    let values = |name: &HeaderName| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let x_forwarded_for: Vec<_> = values(&X_FORWARDED_FOR).flat_map(|value| value.split(',')).map(node).collect();
    let forwarded: Vec<_> =
        values(&FORWARDED).flat_map(|value| split(value, ',')).map(|element| node(&forwarded_for(element))).collect();
    match (x_forwarded_for.is_empty(), forwarded.is_empty()) {
        (_, true) => walk(peer, &x_forwarded_for, &trusts),
        (true, false) => walk(peer, &forwarded, &trusts),
        (false, false) => {
            let (one, other) = (walk(peer, &x_forwarded_for, &trusts), walk(peer, &forwarded, &trusts));
            if one == other { one } else { peer }
        }
    }
}

/// Reads from the right to the first untrusted address. An invalid entry ends the search; the proxy that sent it is the
/// last known address.
fn walk(peer: IpAddr, nodes: &[Option<IpAddr>], trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut address = peer;
    for node in nodes.iter().rev() {
        match node {
            Some(next) if trusts(address) => address = *next,
            _ => break,
        }
    }
    address
}

/// Parses `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`. Returns `None` for
/// `unknown` and for obfuscated names (`_x`).
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.or_else(bracketed).as_ref().map(IpAddr::to_canonical)
}

/// Returns the value of `for` in an element of `Forwarded`, without quotes.
fn forwarded_for(element: &str) -> String {
    let pairs = split(element, ';').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value.trim()).next();
    // Addresses contain no characters that need a backslash.
    value.unwrap_or_default().trim_matches('"').replace('\\', "")
}

/// Splits at a character outside of quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter| {
        let separates = letter == separator && !quoted;
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && quoted && !escaped;
        separates
    })
}

/// The untrusted proxies that were logged.
#[derive(Debug, Default)]
pub struct UntrustedProxies(Mutex<HashSet<IpAddr>>);

/// Logs each address once from which untrusted forwarded requests come.
pub(super) fn log_untrusted_proxy(http: &Http, request: &Request) {
    let header = [X_FORWARDED_FOR, FORWARDED].into_iter().find(|name| request.headers().contains_key(name));
    let (Some(header), Some(proxy)) = (header, peer(request.extensions())) else { return };
    if http.settings.trusts_proxy(proxy) {
        return;
    }
    let mut logged = http.untrusted_proxies.0.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.len() < MAX_LOGGED && logged.insert(proxy) {
        tracing::warn!(
            %proxy, %header,
            "forwarded requests come from an address that is not trusted: its clients count as one address; \
             if it is your proxy, add it to TRUSTED_PROXIES"
        );
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use ipnet::IpNet;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client_of(peer: &str, sent: &[(HeaderName, &'static str)]) -> IpAddr {
        let networks: [IpNet; 2] = ["10.0.0.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let headers = sent.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        client(ip(peer), &map, |address| networks.iter().any(|network| network.contains(&address)))
    }

    #[test]
    fn only_trusted_proxies_may_name_the_client() {
        for (peer, sent, expected) in [
            ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
            ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("10.0.1.1", "1.2.3.4", "10.0.1.1"),
            ("::ffff:10.0.0.1", "9.9.9.9, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
            ("fd00::1", "9.9.9.9,::ffff:1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", "1.2.3.4:5678", "1.2.3.4"),
            ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
            ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
            ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
            ("10.0.0.1", "9.9.9.9, unknown", "10.0.0.1"),
            ("10.0.0.1", "9.9.9.9, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "garbage", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            assert_eq!(client_of(peer, &[(X_FORWARDED_FOR, sent)]), ip(expected), "{peer}: {sent}");
        }
        assert_eq!(client_of("10.0.0.1", &[]), ip("10.0.0.1"));
        let lines = [(X_FORWARDED_FOR, "9.9.9.9"), (X_FORWARDED_FOR, "1.2.3.4, 10.0.0.7")];
        assert_eq!(client_of("10.0.0.1", &lines), ip("1.2.3.4"), "lines are one list");
    }

    #[test]
    fn the_standard_header_is_read_as_it_is_written() {
        for (sent, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=\"[2001:db8:cafe::17]\" ; host=\"a,b;c\"", "2001:db8:cafe::17"),
            ("for=1.1.1.1, for=192.0.2.43, for=10.0.0.9;proto=https", "192.0.2.43"),
            ("host=\"for=1.1.1.1\";for=192.0.2.43", "192.0.2.43"),
            ("for=192.0.2.43;host=\"a\\\", for=6.6.6.6\"", "192.0.2.43"),
            ("for=\"192.0.2.43:47011\"", "192.0.2.43"),
            ("for=1.1.1.1, for=_hidden", "10.0.0.1"),
            ("for=1.1.1.1, for=unknown", "10.0.0.1"),
            ("for=1.1.1.1, proto=https", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client_of("10.0.0.1", &[(FORWARDED, sent)]), ip(expected), "{sent}");
        }
        assert_eq!(client_of("203.0.113.9", &[(FORWARDED, "for=1.2.3.4")]), ip("203.0.113.9"));
    }

    #[test]
    fn a_header_that_a_proxy_passes_on_is_not_believed() {
        for (x_forwarded_for, forwarded, expected) in
            [("1.2.3.4", "for=1.2.3.4", "1.2.3.4"), ("1.2.3.4", "for=6.6.6.6", "10.0.0.1")]
        {
            let sent = [(X_FORWARDED_FOR, x_forwarded_for), (FORWARDED, forwarded)];
            assert_eq!(client_of("10.0.0.1", &sent), ip(expected), "{x_forwarded_for} {forwarded}");
        }
    }
}
