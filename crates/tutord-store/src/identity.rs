//! Which database this is.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// What tells a database from all others, in two names of 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// The database as it is now. After a restore, or the promotion of a standby, it is another one: what was read from it
    /// before may never have been written to it. On SQLite each process that serves begins another one.
    pub state: String,
    /// The database, whatever happens to its server.
    pub lineage: String,
}

/// Is told the identity when it changes; `None` when it is not known.
pub type IdentityListener = Arc<dyn Fn(Option<&DatabaseIdentity>) + Send + Sync>;

impl DatabaseIdentity {
    /// The names that are made of these parts; `of_state` is left out of the lineage.
    pub(crate) fn of(lineage: &[&str], of_state: &str) -> Self {
        let lineage = lineage.join("/");
        Self { state: hash(&[&lineage, "/", of_state].concat()), lineage: hash(&lineage) }
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
