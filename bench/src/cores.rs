//! Work on all cores.

use std::time::{Duration, Instant};

use anyhow::anyhow;

/// Repeats work on a thread for each core; returns the repetitions per second. `begin` creates the work of a thread.
pub(crate) fn on_all_cores<W: FnMut()>(
    round: Duration,
    begin: impl Fn(usize) -> anyhow::Result<W> + Sync,
) -> anyhow::Result<f64> {
    let cores = std::thread::available_parallelism()?.get();
    let began = Instant::now();
    let run = &|thread| {
        let mut work = begin(thread)?;
        let mut done = 0_u64;
        while began.elapsed() < round {
            work();
            done += 1;
        }
        anyhow::Ok(done)
    };
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|thread| scope.spawn(move || run(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .sum::<anyhow::Result<u64>>()
    })?;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
