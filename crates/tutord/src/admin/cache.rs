//! The route `/api/admin/cache`: statistics of the cache, for admins.

use axum::extract::State;
use readthrough::{ConnectionStats, NamespaceStats, RedisStats};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::http::openapi::Routes;

use super::state::AdminState;
use crate::auth::Admin;

/// Target hit rates by namespace.
const TARGET_HIT_RATES: [(&str, f64); 2] = [("user:profile", 0.80), ("exercise", 0.90)];
/// Namespaces with a lower hit rate get advice.
const LOW_HIT_RATE: f64 = 0.60;
/// The minimum number of reads for advice.
const MIN_READS: u64 = 100;

/// Returns the admin routes.
pub fn router() -> Routes<AdminState> {
    vec![routes!(cache)]
}

/// The cache of a process.
#[derive(Serialize, ToSchema)]
struct CacheReport {
    enabled: bool,
    /// The namespaces, with `hit_rate` and optionally `target` and `advice`.
    namespaces: Vec<NamespaceReport>,
    /// The connection to Redis; null without Redis.
    #[schema(value_type = Option<Object>)]
    link: Option<ConnectionStats>,
    /// The statistics of Redis; null if Redis does not respond.
    #[schema(value_type = Option<Object>)]
    redis: Option<RedisStats>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct NamespaceReport {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) stats: NamespaceStats,
    /// 0 to 1; null before the first read.
    pub(crate) hit_rate: Option<f64>,
    pub(crate) target: Option<f64>,
    pub(crate) advice: Option<&'static str>,
}

impl From<NamespaceStats> for NamespaceReport {
    fn from(stats: NamespaceStats) -> Self {
        let hit_rate = stats.hit_rate();
        let target = TARGET_HIT_RATES.iter().find(|(name, _)| *name == stats.name).map(|(_, target)| *target);
        let poor = stats.hits() + stats.misses >= MIN_READS && hit_rate.is_some_and(|rate| rate < LOW_HIT_RATE);
        let advice = poor.then(|| advice(&stats));
        Self { hit_rate, target, advice, stats }
    }
}

/// Returns advice for a namespace with a low hit rate.
fn advice(stats: &NamespaceStats) -> &'static str {
    if stats.invalidations * 2 > stats.misses {
        "most misses follow invalidations: these values change nearly as often as they are read"
    } else if stats.evictions * 2 > stats.misses {
        "values are evicted for lack of memory: check evicted_keys and maxmemory of Redis"
    } else if stats.l2_hits == 0 {
        "no value was read from Redis: check that Redis is connected and does not evict its keys"
    } else {
        "values expire before they are read again: a longer time to live can help"
    }
}

/// Returns hit rates, memory and the connection to Redis of this process.
#[utoipa::path(get, path = "/cache", tag = "admin",
    responses((status = 200, body = CacheReport), (status = 401), (status = 403)))]
async fn cache(State(state): State<AdminState>, Admin(_admin): Admin) -> axum::Json<CacheReport> {
    axum::Json(CacheReport {
        enabled: state.cache.is_enabled(),
        namespaces: state.cache.stats().into_iter().map(NamespaceReport::from).collect(),
        link: state.cache.connection_stats(),
        redis: state.cache.redis_stats().await,
    })
}
