//! A cache of the shapes of SQL texts.

use std::hash::BuildHasher as _;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::quality::RandomState;

use crate::registry::{IdMap, Shape};

/// The maximum number of texts. More distinct texts than that contain values.
pub(crate) const MAX_TEXTS: usize = 512;

/// The shape of a text.
#[derive(Debug, Clone)]
pub(crate) struct CachedShape {
    pub(crate) shape: Arc<Shape>,
    /// Set if the text has placeholders.
    pub(crate) has_parameters: bool,
}

/// The shapes of texts, by the hash of the text. Threads share it.
#[derive(Debug, Default)]
pub(crate) struct TextCache {
    hashes: RandomState,
    shapes: RwLock<IdMap<CachedShape>>,
}

impl TextCache {
    /// Returns the hash of a text and its shape, which is computed if it is not cached.
    pub(crate) fn get_or_insert(&self, sql: &str, compute: impl FnOnce() -> CachedShape) -> (u64, CachedShape) {
        let text = self.hashes.hash_one(sql);
        let cached = self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(&text).cloned();
        if let Some(cached) = cached.filter(|cached| !cached.shape.is_evicted()) {
            return (text, cached);
        }
        let computed = compute();
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= MAX_TEXTS {
            shapes.clear();
        }
        shapes.insert(text, computed.clone());
        (text, computed)
    }
}
