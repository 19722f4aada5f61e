//! Round trips of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use querywatch::ConnectionInstrumentation;

/// The round trips of a connection, counted from diesel's events.
///
/// A round trip begins when a statement starts and no other is in flight: statements that are sent together are one.
/// Preparing a statement is one more, because the statement waits for it, and so do the statements behind it.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    in_flight: AtomicU32,
    round_trips: AtomicU32,
    prepared: AtomicU32,
}

impl Traffic {
    /// Discards statements of an earlier call that did not finish.
    pub(super) fn clear(&self) {
        self.in_flight.store(0, Ordering::Relaxed);
    }

    /// Returns the number of round trips since the connection was opened.
    pub(super) fn round_trips(&self) -> u32 {
        self.round_trips.load(Ordering::Relaxed)
    }

    /// Returns the number of statements whose preparation has begun.
    pub(super) fn prepared(&self) -> u32 {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Counts the preparation of a statement.
    pub(super) fn prepare(&self) {
        self.prepared.fetch_add(1, Ordering::Relaxed);
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    fn start(&self) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.round_trips.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn finish(&self) {
        let decrement = |in_flight: u32| in_flight.checked_sub(1);
        let _ = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement);
    }
}

/// The instrumentation of a connection: counts its round trips, and passes the events on.
pub(super) struct Observer {
    pub(super) traffic: Arc<Traffic>,
    pub(super) watch: ConnectionInstrumentation,
}

impl Instrumentation for Observer {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => self.traffic.start(),
            InstrumentationEvent::FinishQuery { .. } => self.traffic.finish(),
            InstrumentationEvent::CacheQuery { .. } => self.traffic.prepare(),
            _ => {}
        }
        self.watch.on_connection_event(event);
    }
}

/// Counts the round trips of a call in the current scope, however the call ends.
pub(super) struct CallCount {
    traffic: Arc<Traffic>,
    before: u32,
    call: Option<querywatch::RoundTripCall>,
}

impl CallCount {
    pub(super) fn begin(traffic: &Arc<Traffic>, call: querywatch::RoundTripCall) -> Self {
        traffic.clear();
        Self { traffic: Arc::clone(traffic), before: traffic.round_trips(), call: Some(call) }
    }
}

impl Drop for CallCount {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.end(self.traffic.round_trips().wrapping_sub(self.before));
        }
    }
}
