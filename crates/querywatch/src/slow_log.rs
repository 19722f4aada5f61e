//! A ring of the newest slow statements.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::events::SlowStatement;

#[derive(Debug)]
pub(crate) struct SlowLog {
    statements: Mutex<VecDeque<SlowStatement>>,
    capacity: usize,
}

impl SlowLog {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { statements: Mutex::default(), capacity: capacity.max(1) }
    }

    fn statements(&self) -> std::sync::MutexGuard<'_, VecDeque<SlowStatement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, statement: SlowStatement) {
        let mut statements = self.statements();
        if statements.len() >= self.capacity {
            statements.pop_front();
        }
        statements.push_back(statement);
    }

    /// Returns the statements, newest first.
    pub(crate) fn all(&self) -> Vec<SlowStatement> {
        self.statements().iter().rev().cloned().collect()
    }
}
