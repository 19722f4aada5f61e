//! Background maintenance of leaderboards: updates the counts behind the ranks, and removes the leaderboards of past
//! weeks and months.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tutord_core::model::progress::utc_day;
use tutord_core::{Store, Timestamp};

use crate::background::{Background, Cause};

/// The maximum number of changes that one transaction applies to the counts.
const FOLDED: i64 = 500;
/// The maximum number of entries of a past leaderboard that one transaction removes.
const REMOVED: i64 = 5_000;
/// The retention of a leaderboard after its period, for completions that are still in progress.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The interval at which past leaderboards are removed, and the changes that a stopped process left are applied.
const INTERVAL: Duration = Duration::from_secs(60);

/// Starts the task, which ends at shutdown.
pub(crate) fn spawn(background: &Background, store: Arc<dyn Store>, changed: Arc<Notify>) {
    background.spawn_loop(INTERVAL, changed, move |background, cause| {
        let store = Arc::clone(&store);
        async move {
            if cause == Cause::Interval {
                let day = utc_day(Timestamp::now() - GRACE);
                background.drain("past leaderboards", || store.purge_leaderboards(day, REMOVED)).await;
            }
            background.drain("waiting changes of leaderboards", || store.fold_leaderboards(FOLDED)).await;
        }
    });
}
