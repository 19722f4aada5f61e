//! Many readers of one value at the same time.

use std::time::Duration;

use futures_util::future::join;

use crate::libraries::Variant;
use crate::load::Load;
use crate::measure::Spread;
use crate::speed::fresh;

/// The readers in all.
pub(crate) const READERS: usize = 500;
/// The time of a load.
pub(crate) const DELAY: Duration = Duration::from_millis(50);

/// The results of one variant.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) variant: Variant,
    /// Readers of a cold key in one cache.
    pub(crate) one: Outcome,
    /// Readers of a cold key in two caches, half of them in each.
    pub(crate) two: Outcome,
    /// Readers in one cache whose loader fails.
    pub(crate) failing: Outcome,
}

/// Medians of all rounds.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) loads: f64,
    /// The readers that got an error.
    pub(crate) errors: f64,
    /// Until the last reader had its result, in nanoseconds.
    pub(crate) last: Spread,
}

struct Round {
    loads: u64,
    errors: usize,
    last: Duration,
}

impl Outcome {
    fn of(rounds: &[Round]) -> Self {
        let median = |value: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(value).collect());
        Self {
            loads: median(&|round| round.loads as f64).median,
            errors: median(&|round| round.errors as f64).median,
            last: median(&|round| round.last.as_nanos() as f64),
        }
    }
}

fn round(load: &Load, results: &[(anyhow::Result<u64>, Duration)]) -> Round {
    Round {
        loads: load.count(),
        errors: results.iter().filter(|(result, _)| result.is_err()).count(),
        last: results.iter().map(|(_, took)| *took).max().unwrap_or_default(),
    }
}

/// Measures all variants.
pub(crate) async fn run(redis: &str, quick: bool) -> anyhow::Result<Vec<Crowd>> {
    let rounds = if quick { 3 } else { 9 };
    let mut crowds = Vec::new();
    for variant in Variant::complete() {
        let (first, second) = (variant.open(redis).await?, variant.open(redis).await?);
        let (mut one, mut two, mut failing) = (Vec::new(), Vec::new(), Vec::new());
        for id in fresh(rounds) {
            let load = Load::immediate().delayed(DELAY);
            one.push(round(&load, &first.crowd(id, READERS, &load).await));
        }
        for id in fresh(rounds) {
            let load = Load::immediate().delayed(DELAY);
            let half = READERS / 2;
            let (mut results, others) = join(first.crowd(id, half, &load), second.crowd(id, half, &load)).await;
            results.extend(others);
            two.push(round(&load, &results));
        }
        for id in fresh(rounds) {
            let load = Load::immediate().delayed(DELAY).failing();
            // A library that tries once for each reader would take 25 s.
            let crowd = first.crowd(id, READERS, &load);
            failing.push(match tokio::time::timeout(Duration::from_secs(5), crowd).await {
                Ok(results) => round(&load, &results),
                Err(_) => Round { loads: load.count(), errors: 0, last: Duration::from_secs(5) },
            });
        }
        crowds.push(Crowd { variant, one: Outcome::of(&one), two: Outcome::of(&two), failing: Outcome::of(&failing) });
    }
    Ok(crowds)
}
