//! The metadata of the schema: the rows of the table `metadata`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The metadata of a schema, and its pending migrations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// The names of the pending migrations.
    pub pending: Vec<String>,
    /// The values of the table `metadata`, by key.
    pub metadata: BTreeMap<String, String>,
}

/// The key of the oldest compatible version of tutord, which migrations set.
const OLDEST_VERSION: &str = "oldest_version";
/// The key of the version of the catalogue loaded last.
pub const CATALOGUE_KEY: &str = "catalogue";

impl SchemaState {
    /// Returns the version of the built-in catalogue loaded last, or `None` before the first.
    pub fn catalogue(&self) -> Option<&str> {
        self.metadata.get(CATALOGUE_KEY).map(String::as_str)
    }

    /// Checks that this version of tutord is compatible with the schema. Migrations of other versions are compatible
    /// unless they raise the oldest compatible version.
    ///
    /// # Errors
    /// Returns [`Error::Incompatible`] if it is not.
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

/// Parses the version `1.2.3`, ignoring any suffix.
fn version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = core.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
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
