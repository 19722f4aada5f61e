//! Recent invalidations, which are replayed to a new master.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The most recent names that are kept. With more, a new master is flushed.
const MAX_RECENT: usize = 20_000;

/// The names that this process has invalidated within a window.
///
/// A failover may lose the newest writes of the old master, and a process may send invalidations to the old master until it
/// learns of the new one.
#[derive(Debug)]
pub(crate) struct RecentInvalidations {
    window: Duration,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    names: VecDeque<(Instant, String)>,
    /// The time of the last flush or overflow.
    flushed: Option<Instant>,
}

/// The invalidations to replay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    Names(Vec<String>),
    Flush,
}

impl RecentInvalidations {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, content: Mutex::default() }
    }

    pub(crate) fn add_names(&self, names: &[String]) {
        let now = Instant::now();
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        while content.names.front().is_some_and(|(at, _)| *at + self.window < now) {
            content.names.pop_front();
        }
        content.names.extend(names.iter().map(|name| (now, name.clone())));
        if content.names.len() > MAX_RECENT {
            content.names.clear();
            content.flushed = Some(now);
        }
    }

    pub(crate) fn add_flush(&self) {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).flushed = Some(Instant::now());
    }

    /// Returns the invalidations of the window.
    pub(crate) fn replay(&self) -> Replay {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if content.flushed.is_some_and(|at| at + self.window >= now) {
            return Replay::Flush;
        }
        let recent = content.names.iter().filter(|(at, _)| *at + self.window >= now);
        Replay::Names(recent.map(|(_, name)| name.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_are_replayed_within_the_window() {
        let recent = RecentInvalidations::new(Duration::from_secs(60));
        recent.add_names(&["old".to_owned()]);
        tokio::time::advance(Duration::from_secs(50)).await;
        recent.add_names(&["new".to_owned()]);
        assert_eq!(recent.replay(), Replay::Names(vec!["old".to_owned(), "new".to_owned()]));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(recent.replay(), Replay::Names(vec!["new".to_owned()]));
        recent.add_names(&vec!["many".to_owned(); MAX_RECENT]);
        assert_eq!(recent.replay(), Replay::Flush, "too many to keep");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(recent.replay(), Replay::Names(Vec::new()));
    }
}
