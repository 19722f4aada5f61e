//! The route `GET /metrics` for Prometheus.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. To bound the number of series, routes are templates,
//! and statements are grouped by their first word.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use readthrough::NamespaceStats;
use tutord_core::Timestamp;
use tutord_core::operations::Replica;

use super::state::TelemetryState;
use crate::http::admission::Admission;
use crate::http::connections::Connections;
use crate::http::error::ApiError;
use crate::llm::Usage;
use crate::mail::MailStats;

/// The timeout of the query for replicas. It is shorter than Prometheus' scrape time-out of ten seconds.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(2);

/// Labels of values that are read at collection time.
type Labels = Vec<(&'static str, String)>;

/// Selects a counter of a namespace.
type CounterField = fn(&NamespaceStats) -> u64;

/// The registry of one response.
struct Collector(Registry);

impl Collector {
    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn seconds(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, std::sync::atomic::AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register_with_unit(name, help, Unit::Seconds, family);
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }

    fn connections(&mut self, connections: &Connections) {
        let state = |name: &str, count: usize| (vec![("state", name.to_owned())], count as u64);
        let values = [state("open", connections.open()), state("max", connections.max())];
        self.gauges("connections", "Open client connections", values);
        let of = |(reason, count): (&str, u64)| (vec![("reason", reason.to_owned())], count);
        self.counters("connections_refused", "Refused client connections", connections.refused().map(of));
        self.counters("connections_closed", "Client connections closed by the server", connections.closed().map(of));
    }

    fn shed(&mut self, admission: &Admission) {
        let values = admission.shed().map(|(access, priority, count)| {
            (vec![("access", access.to_owned()), ("priority", priority.to_owned())], count)
        });
        self.counters("requests_shed", "Requests shed under overload", values);
    }

    fn statements(&mut self, state: &TelemetryState) {
        let mut groups: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for shape in state.http.watch.shapes() {
            let (calls, errors, micros) = groups.entry(group(&shape.sql)).or_default();
            *calls += shape.since_start.calls;
            *errors += shape.since_start.errors;
            *micros += shape.since_start.total_us;
        }
        let of = |group: &String| vec![("group", group.clone())];
        self.counters("statements", "SQL statements", groups.iter().map(|(name, sums)| (of(name), sums.0)));
        self.counters(
            "statement_errors",
            "Failed SQL statements",
            groups.iter().map(|(name, sums)| (of(name), sums.1)),
        );
        let times = groups.iter().map(|(name, sums)| (of(name), seconds(sums.2)));
        self.seconds("statement_time", "Duration of SQL statements", times);
        let totals = state.http.watch.totals();
        self.counters("slow_statements", "Statements slower than SLOW_QUERY_THRESHOLD_MS", [(vec![], totals.slow)]);
        self.counters(
            "query_findings",
            "Requests with N+1 queries or an exceeded statement budget",
            [(vec![], totals.findings)],
        );
    }

    fn pool(&mut self, state: &TelemetryState) {
        let pool = state.operations.pool();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let in_use = pool.open.saturating_sub(pool.idle);
        let states = [("max", pool.max), ("in_use", in_use), ("idle", pool.idle)];
        self.gauges(
            "db_connections",
            "Database connections; max is the limit",
            states.map(|(state, value)| (vec![("state", state.to_owned())], count(value))),
        );
        self.gauges("db_waiting", "Requests waiting for a database connection", [(vec![], count(pool.waiting))]);
        self.counters("db_acquires", "Acquisitions of a database connection", [(vec![], pool.acquires)]);
        let waited = [(vec![], seconds(pool.acquire_us))];
        self.seconds("db_acquire_wait", "Time spent waiting for a database connection", waited);
    }

    /// Adds the replicas. Omits values whose lag is unknown, because zero would be wrong.
    fn replicas(&mut self, replicas: Option<&[Replica]>) {
        let Some(replicas) = replicas else { return };
        if replicas.iter().any(|replica| replica.progress.is_none()) {
            return;
        }
        let lags = lags(replicas);
        let count = u64::try_from(lags.len()).unwrap_or(u64::MAX);
        self.gauges("db_replicas", "Streaming replicas of the database server", [(vec![], count)]);
        let of = |name: &String| vec![("replica", name.clone())];
        let bytes = lags.iter().map(|(name, bytes, _)| (of(name), *bytes));
        self.gauges("db_replica_lag_bytes", "Write-ahead log that a replica has not replayed", bytes);
        let seconds = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for (name, _, time) in &lags {
            if let Some(time) = time {
                seconds.get_or_create(&of(name)).set(time.as_secs_f64());
            }
        }
        let help = "Last measured time between a write and its replay by a replica";
        self.0.register_with_unit("db_replica_lag", help, Unit::Seconds, seconds);
    }

    fn cache(&mut self, state: &TelemetryState) {
        let namespaces = state.cache.stats();
        let mut counters = |name: &str, help: &str, results: &[(&str, CounterField)]| {
            let values = namespaces.iter().flat_map(|namespace| {
                results.iter().map(|(result, value)| {
                    let mut labels = vec![("namespace", namespace.name.to_owned())];
                    if !result.is_empty() {
                        labels.push(("result", (*result).to_owned()));
                    }
                    (labels, value(namespace))
                })
            });
            self.counters(name, help, values);
        };
        counters(
            "cache_reads",
            "Cache reads by result",
            &[
                ("l1_hit", |stats| stats.l1_hits),
                ("l2_hit", |stats| stats.l2_hits),
                ("coalesced", |stats| stats.coalesced),
                ("miss", |stats| stats.misses),
            ],
        );
        counters("cache_invalidations", "Invalidated keys", &[("", |stats| stats.invalidations)]);
        counters(
            "cache_fills_refused",
            "Fills rejected because the value was outdated",
            &[("", |stats| stats.fills_refused)],
        );
        counters("cache_evictions", "Values evicted for lack of memory", &[("", |stats| stats.evictions)]);
        let bytes = namespaces.iter().map(|stats| (vec![("namespace", stats.name.to_owned())], stats.l1_bytes));
        self.gauges("cache_l1_bytes", "Memory of the in-process cache (L1)", bytes);
        self.counters(
            "cache_identity_changes",
            "Changes of the database's identity, each of which empties the cache",
            [(vec![], state.cache.identity_changes())],
        );
        if let Some(link) = state.cache.connection_stats() {
            self.gauges("cache_redis_up", "1 while Redis is used", [(vec![], u64::from(link.is_available))]);
            self.counters("cache_redis_breaks", "Times that the circuit to Redis opened", [(vec![], link.breaks)]);
        }
    }

    fn mails(&mut self, stats: &MailStats) {
        let outcomes = stats.outcomes().into_iter().map(|(kind, outcome, count)| {
            (vec![("kind", kind.as_str().to_owned()), ("outcome", outcome.to_owned())], count)
        });
        self.counters("mails", "Attempts to send a mail by outcome", outcomes);
        let counts = stats.counts();
        let rows = |count: i64| u64::try_from(count).unwrap_or_default();
        self.gauges("mails_pending", "Mails waiting to be sent", [(vec![], rows(counts.pending))]);
        self.gauges("mails_given_up", "Undeliverable mails of the last 30 days", [(vec![], rows(counts.failed))]);
        let age = counts
            .oldest
            .map_or(0, |oldest| Timestamp::now().as_micros().saturating_sub(oldest.as_micros()) / 1_000_000);
        self.gauges("mails_oldest_seconds", "Age of the oldest waiting mail", [(vec![], rows(age))]);
    }

    fn llm(&mut self, usage: &Usage, model: &str) {
        let outcomes = usage.outcomes().map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
        self.counters("llm_requests", "Requests to the model by outcome", outcomes);
        let of = || vec![("model", model.to_owned())];
        self.counters("llm_tokens", "Tokens that the model used", [(vec![], usage.tokens())]);
        let retries = usage
            .retries()
            .map(|(cause, count)| (vec![("model", model.to_owned()), ("cause", cause.to_owned())], count));
        self.counters("llm_retries", "Retried requests to the model", retries);
        self.gauges("llm_breaker_open", "1 while the model endpoint is down", [(of(), u64::from(usage.is_open()))]);
        let speed = usage.speed();
        self.counters("llm_replies", "Complete replies of the model", [(of(), speed.replies)]);
        self.counters("llm_reply_tokens", "Estimated tokens of complete replies", [(of(), speed.tokens)]);
        self.seconds(
            "llm_first_token",
            "Time from the request to the first text of complete replies",
            [(of(), speed.first_token.as_secs_f64())],
        );
        self.seconds(
            "llm_writing",
            "Time from the first text to the end of complete replies",
            [(of(), speed.writing.as_secs_f64())],
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds stay exact for 285 years")]
const fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Returns the lag of each replica under a unique name: the second `walreceiver` becomes `walreceiver#2`. Replicas are
/// numbered by address, so that names are stable while the same replicas are connected. Labels with the port or the
/// container address would create a new series at each reconnection.
fn lags(replicas: &[Replica]) -> Vec<(String, u64, Option<Duration>)> {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let replaying = replicas.iter().filter_map(|replica| {
        let progress = replica.progress.as_ref()?;
        Some((replica.name.as_str(), progress.lag_bytes?, progress.lag))
    });
    replaying
        .map(|(name, bytes, lag)| {
            let number = seen.entry(name).or_default();
            *number += 1;
            (if *number == 1 { name.to_owned() } else { format!("{name}#{number}") }, bytes, lag)
        })
        .collect()
}

/// Reads the replicas with one statement. Returns `None` on SQLite, and if the database does not respond in time.
async fn replicas(state: &TelemetryState) -> Option<Vec<Replica>> {
    if state.operations.backend() != "postgres" {
        return None;
    }
    let read = tokio::time::timeout(REPLICAS_TIMEOUT, state.operations.replicas()).await;
    match read.unwrap_or(Err(tutord_core::Error::Timeout)) {
        Ok(replicas) => Some(replicas),
        Err(error) => {
            tracing::warn!(%error, "could not read the replicas; the metrics omit them");
            None
        }
    }
}

/// Returns the first word of a statement; transactions and savepoints form one group.
fn group(sql: &str) -> String {
    let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
    match word.as_str() {
        "select" | "insert" | "update" | "delete" | "with" => word,
        "begin" | "commit" | "rollback" | "savepoint" | "release" => "transaction".to_owned(),
        _ => "other".to_owned(),
    }
}

/// Returns all metrics in the OpenMetrics format, computed at most once a second.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, content_type = "application/openmetrics-text", body = String), (status = 500)))]
pub async fn metrics(State(state): State<TelemetryState>) -> Result<impl IntoResponse, ApiError> {
    let body = state.metrics.get_or_compute(collect(&state)).await?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body))
}

async fn collect(state: &TelemetryState) -> Result<Bytes, ApiError> {
    let replicas = replicas(state).await;
    let mut collector = Collector(Registry::with_prefix("tutord"));
    state.http.requests.register(&mut collector.0);
    collector.connections(&state.http.connections);
    collector.shed(&state.http.admission);
    collector.statements(state);
    collector.pool(state);
    collector.replicas(replicas.as_deref());
    collector.cache(state);
    collector.mails(&state.mail_stats);
    collector.llm(&state.llm.usage, state.llm.settings.model_name());
    let mut body = String::new();
    text::encode(&mut body, &collector.0).map_err(|error| ApiError::internal(&error))?;
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use tutord_core::operations::ReplicaProgress;

    use super::*;

    #[test]
    fn replicas_that_replay_have_unique_names() {
        let replica = |name: &str, lag_bytes| {
            let (state, sync_state, lag) = ("streaming".to_owned(), "async".to_owned(), None);
            let progress = Some(ReplicaProgress { state, sync_state, lag_bytes, lag });
            Replica { name: name.to_owned(), address: None, progress }
        };
        let backup = replica("walreceiver", None);
        let hidden = Replica { progress: None, ..replica("walreceiver", None) };
        let replicas = [
            replica("near", Some(0)),
            backup,
            hidden,
            replica("walreceiver", Some(1)),
            replica("walreceiver", Some(2)),
        ];
        let expected = [("near", 0), ("walreceiver", 1), ("walreceiver#2", 2)];
        assert_eq!(lags(&replicas), expected.map(|(name, bytes)| (name.to_owned(), bytes, None)));
    }

    #[test]
    fn statements_are_grouped_by_their_first_word() {
        for (sql, expected) in [
            ("SELECT 1", "select"),
            ("BEGIN", "transaction"),
            ("with x as ()", "with"),
            ("(odd)", "other"),
            ("", "other"),
        ] {
            assert_eq!(group(sql), expected);
        }
    }
}
