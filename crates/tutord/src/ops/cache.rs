//! `/api/admin/cache`: what the cache does, for admins.

use axum::extract::State;
use readthrough::{LinkStats, NamespaceStats, RedisStats};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Admin;

/// The hit rates that are worth reaching.
const TARGETS: [(&str, f64); 2] = [("user:profile", 0.80), ("exercise", 0.90)];
/// Below this something is wrong.
const POOR: f64 = 0.60;
/// Fewer reads say nothing.
const ENOUGH: u64 = 100;

/// The routes of this folder.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(cache))
}

/// The cache of one process.
#[derive(Serialize, ToSchema)]
struct CacheReport {
    enabled: bool,
    /// Each with `hit_rate` and, where there is one, `target` and `advice`.
    namespaces: Vec<NamespaceReport>,
    /// The connection to Redis, null without one.
    #[schema(value_type = Option<Object>)]
    link: Option<LinkStats>,
    /// What Redis says of itself, null when it does not answer.
    #[schema(value_type = Option<Object>)]
    redis: Option<RedisStats>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct NamespaceReport {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(super) stats: NamespaceStats,
    /// 0 to 1; null before the first read.
    pub(super) hit_rate: Option<f64>,
    pub(super) target: Option<f64>,
    pub(super) advice: Option<&'static str>,
}

impl From<NamespaceStats> for NamespaceReport {
    fn from(stats: NamespaceStats) -> Self {
        let hit_rate = stats.hit_rate();
        let target = TARGETS.iter().find(|(name, _)| *name == stats.name).map(|(_, target)| *target);
        let poor = stats.hits() + stats.misses >= ENOUGH && hit_rate.is_some_and(|rate| rate < POOR);
        let advice = poor.then(|| advice(&stats));
        Self { hit_rate, target, advice, stats }
    }
}

/// What to look at first when a namespace is rarely hit.
fn advice(stats: &NamespaceStats) -> &'static str {
    if stats.invalidations * 2 > stats.misses {
        "most misses follow writes: these values change nearly as often as they are read"
    } else if stats.evictions * 2 > stats.misses {
        "values are dropped for want of memory: see evicted_keys and maxmemory of Redis"
    } else if stats.l2_hits == 0 {
        "nothing came from Redis: is it connected, and are its keys evicted?"
    } else {
        "values expire before they are read again: a longer time to live may help"
    }
}

/// Hit rates, memory and the connection to Redis, of the process that answers.
#[utoipa::path(get, path = "/cache", tag = "admin",
    responses((status = 200, body = CacheReport), (status = 401), (status = 403)))]
async fn cache(State(app): State<App>, Admin(_admin): Admin) -> axum::Json<CacheReport> {
    axum::Json(CacheReport {
        enabled: app.cache.is_enabled(),
        namespaces: app.cache.stats().into_iter().map(NamespaceReport::from).collect(),
        link: app.cache.link(),
        redis: app.cache.redis().await,
    })
}
