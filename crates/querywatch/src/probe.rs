//! What a connection is given: it listens to diesel's events.

use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use foldhash::quality::{FoldHasher, RandomState};

use crate::call::{self, Pairing};
use crate::events::Outcome;
use crate::registry::{IdMap, Shape};
use crate::watch::Inner;
use crate::{scope, shape};

/// What diesel writes between a statement and its values.
const BINDS: &str = " -- binds: ";
/// Texts that a connection knows the shapes of. More than that are statements with values in their text.
const KNOWN: usize = 512;
/// A longer text's buffer is not kept.
const BUFFER: usize = 64 * 1024;

/// The instrumentation of one connection, for its `set_instrumentation`. Made by
/// [`Watch::instrumentation`](crate::Watch::instrumentation).
#[derive(Debug)]
pub struct Probe {
    watch: Arc<Inner>,
    hashes: RandomState,
    known: IdMap<Known>,
    buffer: String,
    pairing: Pairing,
}

/// What a text is known to be.
#[derive(Debug)]
struct Known {
    shape: Arc<Shape>,
    /// Whether it has places for bind values.
    parameters: bool,
}

impl Instrumentation for Probe {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.started(query),
            InstrumentationEvent::FinishQuery { query, error, .. } => self.finished(query, error.is_some()),
            // Transactions are seen as statements; the rest is none.
            _ => {}
        }
    }
}

impl Probe {
    pub(crate) fn new(watch: Arc<Inner>) -> Self {
        Self {
            watch,
            hashes: RandomState::default(),
            known: IdMap::default(),
            buffer: String::new(),
            pairing: Pairing::default(),
        }
    }

    fn started(&mut self, query: &dyn DebugQuery) {
        let now = Instant::now();
        let name = (self.watch.settings.name_cancelled && call::is_active()).then(|| {
            let text = self.hash(query, false).0;
            self.know(text, query);
            self.known.get(&text).map(|known| Arc::clone(&known.shape))
        });
        call::started(&self.watch, &mut self.pairing, now, name.flatten());
    }

    fn finished(&mut self, query: &dyn DebugQuery, failed: bool) {
        let now = Instant::now();
        let (text, values) = self.hash(query, self.watch.settings.compare_parameters);
        self.know(text, query);
        let Some(known) = self.known.get(&text) else { return };
        let values = if known.parameters { values } else { Some(text) };
        scope::count(&known.shape, values, &self.watch.settings);
        let outcome = if failed { Outcome::Failed } else { Outcome::Finished };
        if let Some(took) = call::finished(&self.watch, &mut self.pairing, now, &known.shape, outcome) {
            self.watch.ended(&known.shape, now, took, outcome);
        }
    }

    /// A hash of the text; and one of the values, where they are wanted and in the text.
    fn hash(&self, query: &dyn DebugQuery, values: bool) -> (u64, Option<u64>) {
        let values = values.then(|| self.hashes.build_hasher());
        let mut reader = HashReader { text: self.hashes.build_hasher(), values, in_values: false };
        // An error is what ends the reading before the values.
        let _ = write!(reader, "{query}");
        (reader.text.finish(), reader.values.filter(|_| reader.in_values).map(|values| values.finish()))
    }

    /// Finds the shape of a text that is not known yet.
    #[inline]
    fn know(&mut self, text: u64, query: &dyn DebugQuery) {
        if self.known.get(&text).is_none_or(|known| known.shape.is_evicted()) {
            self.learn(text, query);
        }
    }

    #[cold]
    fn learn(&mut self, text: u64, query: &dyn DebugQuery) {
        let _ = write!(TextReader(&mut self.buffer), "{query}");
        let folded = shape::fold(&self.buffer);
        let shape = self.watch.shape(&folded.shape);
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(text, Known { shape, parameters: folded.parameters });
    }
}

/// Hashes a statement without its values, which diesel writes as a piece of their own.
struct HashReader<'a> {
    text: FoldHasher<'a>,
    values: Option<FoldHasher<'a>>,
    in_values: bool,
}

impl fmt::Write for HashReader<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        match &mut self.values {
            Some(values) if self.in_values => values.write(piece.as_bytes()),
            Some(_) if piece == BINDS => self.in_values = true,
            None if piece == BINDS => return Err(fmt::Error),
            _ => self.text.write(piece.as_bytes()),
        }
        Ok(())
    }
}

/// Copies a statement up to its values.
struct TextReader<'a>(&'a mut String);

impl fmt::Write for TextReader<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let (text, ends) = piece.split_once(BINDS).map_or((piece, false), |(text, _)| (text, true));
        self.0.push_str(text);
        if ends { Err(fmt::Error) } else { Ok(()) }
    }
}
