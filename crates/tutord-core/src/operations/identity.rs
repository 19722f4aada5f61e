//! The identity of the database.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// The identity of a database: two names of 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// The name of the database's current state. A restore or a promotion of a standby changes it, because values read
    /// before may never have been written to the new database. On SQLite each serving process starts a new state.
    pub state: String,
    /// The name of the database, independent of its server.
    pub lineage: String,
}

/// A listener called when the identity changes; `None` means unknown.
pub type IdentityListener = Arc<dyn Fn(Option<&DatabaseIdentity>) + Send + Sync>;

impl DatabaseIdentity {
    /// Creates the names from these parts; the lineage does not include `of_state`.
    pub fn of(lineage: &[&str], of_state: &str) -> Self {
        let lineage = lineage.join("/");
        Self { state: hash(&[&lineage, "/", of_state].concat()), lineage: hash(&lineage) }
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
