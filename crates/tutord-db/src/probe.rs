//! The row of the table `metadata` that checks whether the database accepts writes.

use tutord_core::Timestamp;

/// The key of the row.
pub(crate) const PROBE_KEY: &str = "probe";

/// The values that [`try_write`](tutord_core::operations::Administration::try_write) writes in turn. After a full disk
/// the value must need new space, because a small row can fit in the place of another.
pub(crate) fn probe_values(grow: bool) -> Vec<String> {
    const ROOM: usize = 64 * 1024;
    let small = Timestamp::now().to_string();
    if !grow {
        return vec![small];
    }
    // Random, since PostgreSQL compresses.
    let large = rand::random_iter::<u64>().take(ROOM / 16).map(|number| format!("{number:016x}")).collect();
    vec![large, small]
}
