//! The shared state of handlers, and the state of the HTTP layer.
//!
//! Each module declares its own state, which contains the states that its extractors need.

use std::ops::Deref;
use std::sync::Arc;

use querywatch::Watch;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::client_ip::UntrustedProxies;
use super::connections::Connections;
use super::rate_limit::RateLimits;
use super::requests::Requests;
use super::settings::HttpSettings;

/// A state that handlers share; cheap to clone.
#[derive(Debug)]
pub struct SharedState<T>(Arc<T>);

impl<T> SharedState<T> {
    /// Shares a state.
    pub fn new(state: T) -> Self {
        Self(Arc::new(state))
    }
}

impl<T> Clone for SharedState<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for SharedState<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The state of the middleware and of the extractors of this room.
pub type HttpState = SharedState<Http>;

/// The parts of [`HttpState`].
pub struct Http {
    /// Listening, limits and headers.
    pub settings: HttpSettings,
    /// The watch, which observes every SQL statement.
    pub watch: Watch,
    /// Counts and times of requests.
    pub requests: Requests,
    /// Untrusted proxies that were logged.
    pub untrusted_proxies: UntrustedProxies,
    /// The rate limiter.
    pub limits: Arc<RateLimits>,
    /// The admission control, which sheds load.
    pub admission: Arc<Admission>,
    /// The open client connections.
    pub connections: Arc<Connections>,
    /// Cancelled when the time of requests and streams to complete by themselves is over.
    pub streams_end: CancellationToken,
}
