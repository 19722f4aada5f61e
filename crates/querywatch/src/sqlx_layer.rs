//! A tracing layer that records the statements of sqlx.

use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::context::{self, CurrentScope, SPAN_TARGET};
use crate::events::Outcome;
use crate::watch::Watch;

/// The target of the events of sqlx.
const SQLX_TARGET: &str = "sqlx::query";

impl Watch {
    /// Returns a tracing layer that records the statements of sqlx, and of libraries on top of it such as SeaORM.
    ///
    /// sqlx reports a statement as an event of target `sqlx::query`. The layer therefore has these limits:
    ///
    /// - It sees a statement only if sqlx emits the event: at level DEBUG by default (`log_statements`), and WARN for slow
    ///   statements. A global filter, such as `registry().with(EnvFilter)`, must allow this level of the target; prefer a
    ///   filter of the other layers (`fmt::layer().with_filter(…)`). On SQLite it must also allow TRACE of
    ///   `querywatch::scope`.
    /// - The features `max_level_…` of `tracing` must not remove level DEBUG, nor TRACE for SQLite.
    /// - The layer must be the last one: it logs slow statements while it handles an event, which resets the filters of the
    ///   layers after it.
    /// - The events contain no outcome, so each statement has [`Outcome::Unknown`], failures included.
    /// - A statement without an event is not counted. sqlx 0.9 emits none for `BEGIN`.
    /// - On SQLite, the event comes from a worker thread. The layer finds the scope by the span that
    ///   each [`Scope`](crate::Scope) enters.
    ///
    /// ```
    /// use tracing_subscriber::prelude::*;
    ///
    /// let watch = querywatch::Watch::builder().build();
    /// tracing_subscriber::registry().with(watch.sqlx_layer()).init();
    /// ```
    pub fn sqlx_layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        // The spans of scopes have level TRACE.
        let filter = filter_fn(is_relevant).with_max_level_hint(LevelFilter::TRACE);
        SqlxLayer(self.clone()).with_filter(filter)
    }
}

/// Returns whether the layer needs an event or span.
fn is_relevant(metadata: &Metadata<'_>) -> bool {
    metadata.target() == if metadata.is_span() { SPAN_TARGET } else { SQLX_TARGET }
}

struct SqlxLayer(Watch);

impl<S> Layer<S> for SqlxLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    /// Attaches the scope to its span.
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, subscriber: Context<'_, S>) {
        if let (Some(span), Some(scope)) = (subscriber.span(id), context::current()) {
            span.extensions_mut().insert(scope);
        }
    }

    fn on_event(&self, event: &Event<'_>, subscriber: Context<'_, S>) {
        let mut fields = StatementFields::default();
        event.record(&mut fields);
        let sql = if fields.statement.trim().is_empty() { &fields.summary } else { &fields.statement };
        let record = || self.0.record(sql, fields.duration, Outcome::Unknown, fields.rows);
        if context::current().is_some() {
            record();
            return;
        }
        let scope = subscriber
            .event_scope(event)
            .into_iter()
            .flatten()
            .find_map(|span| span.extensions().get::<CurrentScope>().cloned());
        context::run_in_sync(scope, record);
    }
}

/// The fields of an event of sqlx.
#[derive(Debug, Default)]
struct StatementFields {
    /// Empty if the summary is the whole text.
    statement: String,
    summary: String,
    duration: Duration,
    /// Returned or affected rows.
    rows: Option<u64>,
}

impl Visit for StatementFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "db.statement" => value.clone_into(&mut self.statement),
            "summary" => value.clone_into(&mut self.summary),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if matches!(field.name(), "rows_affected" | "rows_returned") {
            self.rows = self.rows.max(Some(value));
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.duration = Duration::try_from_secs_f64(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
