//! The time of a hit, a miss and an invalidation, in interleaved rounds.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::libraries::{Tiers, Variant};
use crate::library::Subject;
use crate::load::Load;
use crate::measure::Times;

/// The readers of the concurrent measurement.
pub(crate) const READERS: usize = 64;
/// The values that hits read.
const VALUES: u64 = 512;

/// The times of each operation.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    pub(crate) l1_hit: Times,
    pub(crate) l2_hit: Times,
    /// By [`READERS`] readers at once.
    pub(crate) l2_hit_concurrent: Times,
    pub(crate) miss: Times,
    pub(crate) invalidation: Times,
}

/// Returns ids that no measurement has used.
pub(crate) fn fresh(count: u64) -> Vec<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let first = NEXT.fetch_add(count, Ordering::Relaxed);
    (first..first + count).collect()
}

/// Measures all variants.
pub(crate) async fn run(redis: &str, quick: bool) -> anyhow::Result<Speed> {
    let rounds = if quick { 7 } else { 41 };
    let load = Load::immediate();
    let mut subjects: Vec<(Variant, Box<dyn Subject>, Vec<u64>)> = Vec::new();
    for variant in Variant::compared().chain([Variant::BareMoka, Variant::BareGet]) {
        let (subject, ids) = (variant.open(redis).await?, fresh(VALUES));
        // The first pass loads, the second fills the L1 of libraries that fill it from Redis.
        subject.time_reads(&ids, 2 * ids.len(), &load).await?;
        subjects.push((variant, subject, ids));
    }
    let mut speed = Speed::default();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for round in 0..=rounds {
        subjects.shuffle(&mut random);
        for (variant, subject, ids) in &subjects {
            let discarded = &mut Speed::default();
            // The first round warms processor and connections.
            let speed = if round == 0 { discarded } else { &mut speed };
            measure(*variant, subject.as_ref(), ids, &load, speed).await?;
        }
    }
    Ok(speed)
}

async fn measure(
    variant: Variant,
    subject: &dyn Subject,
    ids: &[u64],
    load: &Load,
    speed: &mut Speed,
) -> anyhow::Result<()> {
    let name = variant.name();
    if variant.tiers() == Tiers::Redis {
        let times = 400;
        speed.l2_hit.add(name, subject.time_reads(ids, times, load).await?, times);
        let times = 40 * READERS;
        let took = subject.time_concurrent_reads(ids, times, READERS, load).await?;
        speed.l2_hit_concurrent.add(name, took, times);
    } else {
        // Brings back what an invalidation of a flush or a lost connection removed.
        subject.time_reads(ids, ids.len(), load).await?;
        let times = 8 * ids.len();
        speed.l1_hit.add(name, subject.time_reads(ids, times, load).await?, times);
    }
    if !variant.is_reference() {
        let ids = fresh(100);
        speed.miss.add(name, subject.time_reads(&ids, ids.len(), load).await?, ids.len());
        speed.invalidation.add(name, subject.time_invalidations(&ids).await?, ids.len());
    }
    Ok(())
}
