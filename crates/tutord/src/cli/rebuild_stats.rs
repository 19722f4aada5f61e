//! `tutord rebuild-stats`: recomputes all statistics from the completed exercises.

use indicatif::ProgressBar;
use tutord_core::Timestamp;

use super::open;
use crate::config::DatabaseSettings;

/// The number of students in a batch.
const BATCH_SIZE: i64 = 500;

/// Recomputes each student in a separate transaction, so that `tutord serve` can run at the same time.
pub(super) async fn run(database: DatabaseSettings) -> anyhow::Result<()> {
    let store = open(&database).await?;
    let now = Timestamp::now();
    let bar = ProgressBar::no_length();
    let (mut after, mut students) = (0, 0_usize);
    loop {
        let done = store.rebuild_statistics(after, BATCH_SIZE, now).await?;
        let Some(last) = done.last() else { break };
        after = *last;
        students += done.len();
        bar.inc(u64::try_from(done.len()).unwrap_or(u64::MAX));
    }
    store.recount_leaderboards().await?;
    bar.finish_and_clear();
    say!("Recomputed the statistics of {students} students on the {} database.", store.backend());
    Ok(())
}
