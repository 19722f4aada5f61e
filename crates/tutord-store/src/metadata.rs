//! What the schema says of itself: the rows of the table `metadata`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::model::time::Timestamp;

/// What a schema says of itself, and what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// Names of the migrations that are not applied yet.
    pub pending: Vec<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The oldest version of tutord that may use the schema; migrations set it.
const OLDEST_VERSION: &str = "oldest_version";
/// The version of the catalogue that was loaded last.
pub(crate) const CATALOGUE: &str = "catalogue";
/// The row that is written to see whether the database takes writes.
pub(crate) const PROBE: &str = "probe";

impl SchemaState {
    /// The built-in catalogue that was loaded last; `None` before the first.
    pub fn catalogue(&self) -> Option<&str> {
        self.metadata.get(CATALOGUE).map(String::as_str)
    }

    /// Whether this version of tutord may use the schema. It may when another version added migrations, unless they raised
    /// the oldest version.
    ///
    /// # Errors
    /// [`Error::Incompatible`].
    pub fn check(&self) -> Result<()> {
        let Some(needed) = self.metadata.get(OLDEST_VERSION) else { return Ok(()) };
        let own = env!("CARGO_PKG_VERSION");
        // What can't be read was written by a version that is later still.
        if version(needed).is_some_and(|needed| version(own).is_some_and(|own| needed <= own)) {
            return Ok(());
        }
        Err(Error::Incompatible { needed: needed.clone(), own })
    }
}

/// `1.2.3`, without what may follow.
fn version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = core.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// What [`try_write`](crate::store::Administration::try_write) writes one after the other. After a full disk it must need
/// room, which a small row may find where another was.
pub(crate) fn probes(grow: bool) -> Vec<String> {
    const ROOM: usize = 64 * 1024;
    let small = Timestamp::now().to_string();
    if !grow {
        return vec![small];
    }
    // Random, since PostgreSQL compresses.
    let large = rand::random_iter::<u64>().take(ROOM / 16).map(|number| format!("{number:016x}")).collect();
    vec![large, small]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(version: &str) -> Result<()> {
        let metadata = BTreeMap::from([(OLDEST_VERSION.to_owned(), version.to_owned())]);
        SchemaState { metadata, ..SchemaState::default() }.check()
    }

    #[test]
    fn an_older_binary_is_refused_by_name() {
        for version in ["0.0.1", "0.1.0", env!("CARGO_PKG_VERSION"), "0.1.0-rc.1"] {
            needs(version).unwrap();
        }
        for version in ["99.0.0", "0.10.0", "0.1.10", "next"] {
            let refused = needs(version).unwrap_err().to_string();
            assert!(refused.contains(version) && refused.contains(env!("CARGO_PKG_VERSION")), "{refused}");
        }
        SchemaState::default().check().unwrap();
    }
}
