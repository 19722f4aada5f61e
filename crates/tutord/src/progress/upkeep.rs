//! Background maintenance of leaderboards: updates the counts behind the ranks, and removes the leaderboards of past
//! weeks and months.

use std::time::Duration;

use tutord_core::Timestamp;
use tutord_core::model::progress::utc_day;

use crate::app::App;
use crate::ops::background::drain;

/// The maximum number of changes that one transaction applies to the counts.
const FOLDED: i64 = 500;
/// The maximum number of entries of a past leaderboard that one transaction removes.
const REMOVED: i64 = 5_000;
/// The retention of a leaderboard after its period, for completions that are still in progress.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The interval at which past leaderboards are removed, and the changes that a stopped process left are applied.
const INTERVAL: Duration = Duration::from_secs(60);

/// Starts the task, which ends at shutdown.
pub(crate) fn spawn(app: &App) {
    let app = app.clone();
    app.tasks.clone().spawn(async move {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = app.shutdown.cancelled() => return,
                () = app.leaderboards.notified() => {}
                _ = interval.tick() => {
                    let day = utc_day(Timestamp::now() - GRACE);
                    drain(&app, "past leaderboards", || app.store.purge_leaderboards(day, REMOVED)).await;
                }
            }
            drain(&app, "waiting changes of leaderboards", || app.store.fold_leaderboards(FOLDED)).await;
        }
    });
}
