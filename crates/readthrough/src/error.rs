//! Errors.

/// The cache cannot use its configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// The cache was closed before Redis received all invalidations.
///
/// Until their values expire, other processes may read the old values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("redis did not receive {names} invalidations{}; other processes may read old values until they expire", if *.is_flush { " and a flush" } else { "" })]
#[non_exhaustive]
pub struct UnsentInvalidations {
    /// The number of entries and groups.
    pub names: usize,
    /// Set if a flush is among them.
    pub is_flush: bool,
}
