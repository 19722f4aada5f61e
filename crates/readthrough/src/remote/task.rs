//! The parts of the supervision task: its state, and guards that end it or tell of its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

/// The supervision task.
#[derive(Default)]
pub(crate) struct TaskState {
    pub(crate) _handle: Option<AbortOnDrop>,
    /// Whether the cache was dropped.
    pub(crate) is_stopped: bool,
}

/// Tells that the supervision task has ended, whatever ended it.
pub(crate) struct RunningGuard(pub(crate) Arc<AtomicBool>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Aborts a task when it is dropped.
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
