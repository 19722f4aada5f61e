//! The results of readers while Redis is stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use testbed::Redis;
use tokio::time::timeout;

use crate::libraries::{Tiers, Variant};
use crate::library::Subject;
use crate::load::Load;
use crate::measure::Spread;
use crate::speed::fresh;

/// How Redis is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Connections are closed and refused.
    Killed,
    /// Connections stay open, and get no response.
    Hung,
}

/// The longest time that a reader waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The time between two reads.
const INTERVAL: Duration = Duration::from_millis(25);

/// The results of the readers of one variant.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) variant: Variant,
    pub(crate) fault: Fault,
    /// Reads of values that were read shortly before.
    pub(crate) warm: Results,
    /// Reads of values that were never read.
    pub(crate) cold: Results,
}

/// The results of the reads.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) values: usize,
    pub(crate) errors: usize,
    /// Reads without a result after [`PATIENCE`].
    pub(crate) unanswered: usize,
    /// Until a reader had its result, in nanoseconds.
    pub(crate) took: Spread,
    pub(crate) longest: f64,
}

impl Results {
    fn of(reads: &[(Option<bool>, Duration)]) -> Self {
        let count = |outcome| reads.iter().filter(|(result, _)| *result == outcome).count();
        let took: Vec<f64> = reads.iter().map(|(_, took)| took.as_nanos() as f64).collect();
        Self {
            values: count(Some(true)),
            errors: count(Some(false)),
            unanswered: count(None),
            longest: took.iter().copied().fold(0.0, f64::max),
            took: Spread::of(took),
        }
    }
}

/// Measures all variants that use Redis.
pub(crate) async fn run(quick: bool) -> anyhow::Result<Vec<Outage>> {
    let reads = if quick { 20 } else { 80 };
    let mut outages = Vec::new();
    for fault in [Fault::Killed, Fault::Hung] {
        for variant in Variant::complete().filter(|variant| variant.tiers() != Tiers::Memory) {
            outages.push(one(variant, fault, reads).await?);
        }
    }
    Ok(outages)
}

async fn one(variant: Variant, fault: Fault, reads: u64) -> anyhow::Result<Outage> {
    let mut redis = Redis::start().await?;
    let subject: Arc<dyn Subject> = Arc::from(variant.open(&redis.url()).await?);
    let (load, warm, cold) = (Load::immediate(), fresh(reads), fresh(reads));
    subject.time_reads(&warm, 2 * warm.len(), &load).await?;
    match fault {
        Fault::Killed => redis.kill()?,
        Fault::Hung => redis.pause()?,
    }
    let mut tasks = Vec::new();
    for ids in warm.into_iter().zip(cold) {
        for id in [ids.0, ids.1] {
            let (subject, load) = (Arc::clone(&subject), load.clone());
            tasks.push(tokio::spawn(async move {
                let began = Instant::now();
                let result = timeout(PATIENCE, subject.read(id, &load)).await;
                (result.ok().map(|result| result.is_ok()), began.elapsed())
            }));
        }
        tokio::time::sleep(INTERVAL).await;
    }
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for (index, task) in tasks.into_iter().enumerate() {
        if index % 2 == 0 { &mut warm } else { &mut cold }.push(task.await?);
    }
    Ok(Outage { variant, fault, warm: Results::of(&warm), cold: Results::of(&cold) })
}
