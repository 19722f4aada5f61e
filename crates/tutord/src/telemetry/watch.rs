//! The settings of the observer of SQL statements.

use std::time::Duration;

use clap::Args;
use querywatch::Watch;

use super::plans::Plans;

/// Thresholds and comments of SQL statements.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "StatementSpans")]
pub struct WatchSettings {
    /// Threshold in milliseconds from which a statement is logged, counted and listed as slow.
    #[arg(long, env = "SLOW_QUERY_THRESHOLD_MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub slow_query_threshold_ms: u64,
    /// Maximum number of statements of one shape in a request. A request with more is reported as a finding (N+1).
    #[arg(long, env = "N_PLUS_ONE_LIMIT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub n_plus_one_limit: u32,
    /// Append a comment with the request id and route to each statement, for PostgreSQL's log, auto_explain and
    /// pg_stat_activity. Disables the reuse of prepared statements, which costs one more round trip for each statement.
    #[arg(long, env = "SQL_COMMENTS", default_value_t = false, action = clap::ArgAction::Set)]
    pub sql_comments: bool,
}

impl WatchSettings {
    /// Creates the observer of the process's statements, and the collector of plans of slow statements.
    pub fn build(&self) -> (Watch, Plans) {
        let plans = Plans::default();
        let watch = Watch::builder()
            .slow_threshold(Duration::from_millis(self.slow_query_threshold_ms))
            .repeat_limit(self.n_plus_one_limit)
            .sink(plans.clone());
        #[cfg(feature = "otlp")]
        let watch = watch.sink(super::otlp::StatementSpans);
        (watch.build(), plans)
    }
}
