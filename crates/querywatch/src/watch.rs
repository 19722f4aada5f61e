//! The watch, to which all connections report, and its builder.

use std::sync::Arc;
use std::time::Duration;

use crate::collector::{Capacities, Collector, Settings};
use crate::events::Sink;
use crate::shape::Dialect;

/// Builds a [`Watch`].
#[must_use = "a builder does nothing until it builds a watch"]
pub struct WatchBuilder {
    settings: Settings,
    capacities: Capacities,
    repeatable: Vec<String>,
    sinks: Vec<Box<dyn Sink>>,
}

impl WatchBuilder {
    /// Sets the duration from which a statement is slow. Default: 100 ms.
    pub const fn slow_threshold(mut self, threshold: Duration) -> Self {
        self.settings.slow_threshold = threshold;
        self
    }

    /// Sets the maximum number of stored slow statements, at least 1. Default: 200.
    pub const fn max_slow_statements(mut self, statements: usize) -> Self {
        self.capacities.slow_statements = statements;
        self
    }

    /// Sets the number of statements of one shape above which a scope has a finding. Default: 5.
    pub const fn repeat_limit(mut self, statements: u32) -> Self {
        self.settings.repeat_limit = statements;
        self
    }

    /// Allows repetitions of shapes that contain this text. Default: none.
    pub fn allow_repeats_of(mut self, part_of_shape: impl Into<String>) -> Self {
        self.repeatable.push(part_of_shape.into());
        self
    }

    /// Compares the values of repeated statements by a hash, to distinguish
    /// [`FindingKind::RepeatedQuery`](crate::FindingKind::RepeatedQuery) from
    /// [`FindingKind::NPlusOne`](crate::FindingKind::NPlusOne). Default: `false`, because diesel must format the values.
    ///
    /// diesel passes the values of a statement on SQLite only. On PostgreSQL, statements with parameters count as N+1;
    /// statements without parameters are compared by their text in any case.
    pub const fn compare_parameters(mut self, compare: bool) -> Self {
        self.settings.compare_parameters = compare;
        self
    }

    /// Captures the text of each statement at its start, so that a statement that is cancelled within a
    /// `time_call` has a shape. Default: `false`, because diesel then builds the text on PostgreSQL a
    /// second time, which takes about 0.6 µs.
    pub const fn capture_cancelled_sql(mut self, capture: bool) -> Self {
        self.settings.capture_cancelled_sql = capture;
        self
    }

    /// Captures which source lines issued the first and last statement of a finding, and a statement outside of every
    /// scope. Default: only in debug builds,
    /// because the first statement of each shape in a scope then captures a backtrace, which takes microseconds. Requires
    /// debug information.
    pub const fn capture_locations(mut self, capture: bool) -> Self {
        self.settings.capture_locations = capture;
        self
    }

    /// Sets the SQL dialect, which determines what is a literal, a name or a comment. Default: PostgreSQL.
    ///
    /// Set it for MySQL, whose strings in double quotes and with backslashes otherwise remain in shapes.
    pub const fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.dialect = dialect;
        self
    }

    /// Sets the maximum number of shapes, at least 1. The watch merges the least recently used shapes above it into one.
    /// Default: 500.
    pub const fn max_shapes(mut self, shapes: usize) -> Self {
        self.capacities.shapes = shapes;
        self
    }

    /// Sets the length of the sliding window, which has 30 slots. Default: 5 minutes.
    pub const fn window(mut self, window: Duration) -> Self {
        self.capacities.window = window;
        self
    }

    /// Adds a receiver of slow statements and findings, and of all statements if it wants them.
    pub fn sink(mut self, sink: impl Sink) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Builds the watch.
    pub fn build(self) -> Watch {
        Watch(Arc::new(Collector::new(self.settings, self.capacities, self.repeatable, self.sinks)))
    }
}

/// Records the statements of all connections that report to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch(pub(crate) Arc<Collector>);

impl Watch {
    /// Returns a builder with the default settings.
    pub const fn builder() -> WatchBuilder {
        WatchBuilder {
            settings: Settings {
                slow_threshold: Duration::from_millis(100),
                repeat_limit: 5,
                compare_parameters: false,
                capture_cancelled_sql: false,
                capture_locations: cfg!(debug_assertions),
                dialect: Dialect::PostgreSql,
            },
            capacities: Capacities { shapes: 500, slow_statements: 200, window: Duration::from_mins(5) },
            repeatable: Vec::new(),
            sinks: Vec::new(),
        }
    }
}
