//! The receiver of diesel's events.

use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use foldhash::quality::{FoldHasher, RandomState};

use crate::call::{self, StatementTimer};
use crate::collector::Collector;
use crate::context;
use crate::events::Outcome;
use crate::registry::IdMap;
use crate::text_cache::{CachedShape, MAX_TEXTS};
use crate::watch::Watch;

/// The separator that diesel writes between a statement and its values.
const BINDS: &str = " -- binds: ";
/// The maximum capacity of a buffer that is reused, in bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// The instrumentation of one connection, which [`Watch::instrumentation`] creates.
#[derive(Debug)]
pub struct ConnectionInstrumentation {
    collector: Arc<Collector>,
    hashes: RandomState,
    /// By the hash of the text.
    shapes: IdMap<CachedShape>,
    buffer: String,
    timer: StatementTimer,
}

impl Watch {
    /// Creates the instrumentation of one connection, for its `set_instrumentation`.
    pub fn instrumentation(&self) -> ConnectionInstrumentation {
        ConnectionInstrumentation {
            collector: Arc::clone(&self.0),
            hashes: RandomState::default(),
            shapes: IdMap::default(),
            buffer: String::new(),
            timer: StatementTimer::default(),
        }
    }
}

impl Instrumentation for ConnectionInstrumentation {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.start(query),
            InstrumentationEvent::FinishQuery { query, error, .. } => self.finish(query, error.is_some()),
            // Transactions also arrive as statements; the other events are no statements.
            _ => {}
        }
    }
}

impl ConnectionInstrumentation {
    fn start(&mut self, query: &dyn DebugQuery) {
        let now = Instant::now();
        let shape = (self.collector.settings.capture_cancelled_sql && call::is_active()).then(|| {
            let text = self.hash(query, false).0;
            self.ensure_cached(text, query);
            self.shapes.get(&text).map(|cached| Arc::clone(&cached.shape))
        });
        call::start(&self.collector, &mut self.timer, now, shape.flatten());
    }

    fn finish(&mut self, query: &dyn DebugQuery, failed: bool) {
        let now = Instant::now();
        let (text, values) = self.hash(query, self.collector.settings.compare_parameters);
        self.ensure_cached(text, query);
        let Some(cached) = self.shapes.get(&text) else { return };
        let values = if cached.has_parameters { values } else { Some(text) };
        context::count(&self.collector, &cached.shape, values);
        let outcome = if failed { Outcome::Failed } else { Outcome::Finished };
        if let Some(duration) = call::finish(&self.collector, &mut self.timer, now, &cached.shape, outcome) {
            context::complete(&self.collector, &cached.shape, now, duration, outcome, None);
        }
    }

    /// Hashes the text and, if requested and present, the values.
    fn hash(&self, query: &dyn DebugQuery, with_values: bool) -> (u64, Option<u64>) {
        let values = with_values.then(|| self.hashes.build_hasher());
        let mut writer = HashWriter { text: self.hashes.build_hasher(), values, is_in_values: false };
        // The writer returns an error to stop before the values.
        let _ = write!(writer, "{query}");
        (writer.text.finish(), writer.values.filter(|_| writer.is_in_values).map(|values| values.finish()))
    }

    #[inline]
    fn ensure_cached(&mut self, text: u64, query: &dyn DebugQuery) {
        if self.shapes.get(&text).is_none_or(|cached| cached.shape.is_evicted()) {
            self.cache(text, query);
        }
    }

    /// Computes and caches the shape of a text.
    #[cold]
    fn cache(&mut self, text: u64, query: &dyn DebugQuery) {
        let _ = write!(TextWriter(&mut self.buffer), "{query}");
        let computed = self.collector.compute_shape(&self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(MAX_BUFFER_BYTES);
        if self.shapes.len() >= MAX_TEXTS {
            self.shapes.clear();
        }
        self.shapes.insert(text, computed);
    }
}

/// Hashes a statement. diesel writes [`BINDS`] as a piece of its own.
struct HashWriter<'a> {
    text: FoldHasher<'a>,
    values: Option<FoldHasher<'a>>,
    is_in_values: bool,
}

impl fmt::Write for HashWriter<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        match &mut self.values {
            Some(values) if self.is_in_values => values.write(piece.as_bytes()),
            Some(_) if piece == BINDS => self.is_in_values = true,
            None if piece == BINDS => return Err(fmt::Error),
            _ => self.text.write(piece.as_bytes()),
        }
        Ok(())
    }
}

/// Copies a statement up to its values.
struct TextWriter<'a>(&'a mut String);

impl fmt::Write for TextWriter<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let (text, is_end) = piece.split_once(BINDS).map_or((piece, false), |(text, _)| (text, true));
        self.0.push_str(text);
        if is_end { Err(fmt::Error) } else { Ok(()) }
    }
}
