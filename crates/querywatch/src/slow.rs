//! The newest slow statements.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::events::SlowStatement;

#[derive(Debug)]
pub(crate) struct SlowRing {
    kept: Mutex<VecDeque<SlowStatement>>,
    most: usize,
}

impl SlowRing {
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most: most.max(1) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<SlowStatement>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, statement: SlowStatement) {
        let mut kept = self.kept();
        if kept.len() >= self.most {
            kept.pop_front();
        }
        kept.push_back(statement);
    }

    /// The newest first.
    pub(crate) fn all(&self) -> Vec<SlowStatement> {
        self.kept().iter().rev().cloned().collect()
    }
}
