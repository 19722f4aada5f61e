//! Round trips to a server, which the program counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::context;
use crate::scope_state::ScopeState;

/// The round trips of a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTrips {
    /// Number of round trips.
    pub total: u32,
    /// Number of round trips that follow one another: of three concurrent calls with one round trip each, it is 1.
    pub sequential: u32,
}

/// The counters of a scope.
#[derive(Debug, Default)]
pub(crate) struct RoundTripCounters {
    total: AtomicU32,
    sequential: AtomicU32,
}

impl RoundTripCounters {
    pub(crate) fn read(&self) -> RoundTrips {
        RoundTrips { total: self.total.load(Ordering::Relaxed), sequential: self.sequential.load(Ordering::Relaxed) }
    }

    /// Adds the round trips of a call, or of an inner scope, that began after `before` sequential ones.
    pub(crate) fn add(&self, before: u32, made: RoundTrips) {
        self.total.fetch_add(made.total, Ordering::Relaxed);
        self.sequential.fetch_max(before.saturating_add(made.sequential), Ordering::Relaxed);
    }
}

/// A call on one connection, whose round trips follow one another.
///
/// [`begin`](Self::begin) before the connection is acquired: calls that begin together are concurrent, even if one of them
/// waits for its connection.
#[derive(Debug)]
#[must_use = "the call counts when it ends"]
pub struct RoundTripCall(Option<(Arc<ScopeState>, u32)>);

impl RoundTripCall {
    /// Begins a call in the current scope.
    pub fn begin() -> Self {
        Self(context::with_current(|current| (Arc::clone(&current.state), current.state.round_trips.read().sequential)))
    }

    /// Adds the round trips of the call to the scope in which it began.
    pub fn end(self, round_trips: u32) {
        if let Some((scope, before)) = self.0 {
            scope.round_trips.add(before, RoundTrips { total: round_trips, sequential: round_trips });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    async fn call(round_trips: u32) {
        let call = RoundTripCall::begin();
        tokio::task::yield_now().await;
        call.end(round_trips);
    }

    async fn count(work: impl Future<Output = ()>) -> (u32, u32) {
        let RoundTrips { total, sequential } = Scope::unwatched().run(work).await.1.round_trips;
        (total, sequential)
    }

    #[tokio::test]
    async fn concurrent_calls_follow_no_other() {
        assert_eq!(count(async { _ = tokio::join!(call(1), call(2), call(1)) }).await, (4, 2));
        let sequential = async {
            call(1).await;
            call(2).await;
        };
        assert_eq!(count(sequential).await, (3, 3));
    }

    #[tokio::test]
    async fn inner_scopes_add_to_the_outer_one() {
        let inner = async { assert_eq!(count(async { _ = tokio::join!(call(1), call(1)) }).await, (2, 1)) };
        let outer = async {
            call(1).await;
            tokio::join!(inner, call(2));
        };
        assert_eq!(count(outer).await, (5, 3));
    }

    #[tokio::test]
    async fn a_call_outside_of_every_scope_counts_nowhere() {
        call(1).await;
        assert_eq!(count(async {}).await, (0, 0));
    }
}
