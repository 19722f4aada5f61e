//! Background work on leaderboards: brings the counts behind the ranks up to date, and removes the
//! leaderboards of weeks and months that are over.

use std::time::Duration;

use tutord_store::Timestamp;
use tutord_store::model::progress::utc_day;

use crate::app::App;
use crate::ops::background::drain;

/// The most changes that one transaction folds into the counts.
const FOLDED: i64 = 500;
/// The most entries of a past leaderboard that one transaction removes.
const REMOVED: i64 = 5_000;
/// How long a leaderboard is kept when its period is over: completions on their way may still count on it.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often past leaderboards, and changes that a stopped process left, are looked for.
const INTERVAL: Duration = Duration::from_secs(60);

/// Starts the task; it ends at shutdown.
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
