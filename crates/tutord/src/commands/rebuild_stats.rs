//! `tutord rebuild-stats`: computes every sum anew from the completions.

use indicatif::ProgressBar;
use tutord_store::Timestamp;

use super::open;
use crate::config::DatabaseConfig;

/// How many students are asked for at once.
const STUDENTS: i64 = 500;

/// Each student is computed in a transaction of their own, so that the service may go on meanwhile.
pub(super) async fn run(database: DatabaseConfig) -> anyhow::Result<()> {
    let store = open(&database).await?;
    let now = Timestamp::now();
    let bar = ProgressBar::no_length();
    let (mut after, mut students) = (0, 0_usize);
    loop {
        let done = store.rebuild_statistics(after, STUDENTS, now).await?;
        let Some(last) = done.last() else { break };
        after = *last;
        students += done.len();
        bar.inc(u64::try_from(done.len()).unwrap_or(u64::MAX));
    }
    store.recount_leaderboards().await?;
    bar.finish_and_clear();
    say!("Computed the statistics of {students} students anew on the {} database.", store.backend());
    Ok(())
}
