//! The page Cache: hit rates, loads and the connection to Redis.

use maud::{Markup, html};
use querywatch_axum::parts::{Columns, empty, table, tile};
use querywatch_axum::{Section, View, format};
use readthrough::{ConnectionStats, RedisStats};

use super::state::DashboardState;
use crate::admin::cache::NamespaceReport;

pub(super) async fn view(state: &DashboardState) -> View {
    let link = state.cache.connection_stats();
    let redis = state.cache.redis_stats().await;
    let namespaces: Vec<_> = state.cache.stats().into_iter().map(NamespaceReport::from).collect();
    View {
        title: "Cache".to_owned(),
        intro: html! {
            "Counts of this process since its start. L1 is the memory of the process, L2 is Redis; a coalesced read waited for the "
            "load of another read. All three are hits, which issue no SQL."
        },
        sections: vec![
            Section::new("rates", "Hit rates", rates(state.cache.is_enabled(), &namespaces)),
            Section::new("loads", "Loads and memory", loads(&namespaces)),
            Section::new("link", "Redis", link_to_redis(link.as_ref(), redis.as_ref())),
        ],
    }
}

fn rates(enabled: bool, namespaces: &[NamespaceReport]) -> Markup {
    if !enabled {
        return empty(
            "The cache is disabled. CACHE_ENABLED=false disables it; on PostgreSQL the cache requires REDIS_URL, because other processes can change the rows.",
        );
    }
    let columns = Columns::default()
        .texts(["Namespace", "Hit rate"])
        .numbers(["Target", "Reads", "L1", "L2", "Coalesced", "Misses"])
        .texts(["Advice"]);
    let rows = html! {
        @for namespace in namespaces { (rate(namespace)) }
    };
    html! {
        @if namespaces.iter().all(|namespace| namespace.hit_rate.is_none()) {
            (empty("No reads yet. Hit rates appear with the first request."))
        }
        (table("Hit rates", "Reads by result", &columns, &rows))
    }
}

fn rate(namespace: &NamespaceReport) -> Markup {
    let NamespaceReport { stats, hit_rate, target, advice } = namespace;
    let below = hit_rate.zip(*target).is_some_and(|(rate, target)| rate < target);
    html! {
        tr {
            th scope="row" { code { (stats.name) } }
            td {
                @if let Some(rate) = hit_rate {
                    meter min="0" max="1" value=(format!("{rate:.3}")) aria-label=(format!("Hit rate of {}", stats.name)) {}
                    " " span.warn[below].good[target.is_some() && !below] { (format::percent(*rate)) }
                    @if below { " below target" }
                } @else { span.muted { "no reads" } }
            }
            td.number { (target.map_or_else(|| "–".to_owned(), format::percent)) }
            @for value in [stats.hits() + stats.misses, stats.l1_hits, stats.l2_hits, stats.coalesced, stats.misses] {
                td.number { (format::count(value)) }
            }
            td { (advice.unwrap_or_default()) }
        }
    }
}

fn loads(namespaces: &[NamespaceReport]) -> Markup {
    if namespaces.is_empty() {
        return empty("No namespaces exist.");
    }
    let columns = Columns::default().texts(["Namespace"]).numbers([
        "Loads",
        "Failed",
        "Mean load",
        "Longest load",
        "Early refreshes",
        "Invalidations",
        "Fills rejected",
        "Evictions",
        "L1 values",
        "L1 memory",
    ]);
    let rows = html! {
        @for NamespaceReport { stats, .. } in namespaces {
            tr {
                th scope="row" { code { (stats.name) } }
                td.number { (format::count(stats.loads)) }
                td.number { span.bad[stats.load_errors > 0] { (format::count(stats.load_errors)) } }
                td.number { (format::time_of(stats.load_micros / stats.loads.max(1), stats.loads)) }
                td.number { (format::time_of(stats.load_micros_max, stats.loads)) }
                @for value in [stats.early_refreshes, stats.invalidations, stats.fills_refused] {
                    td.number { (format::count(value)) }
                }
                @for value in [stats.evictions, stats.l1_entries] { td.number { (format::count(value)) } }
                td.number { (format::bytes(stats.l1_bytes)) }
            }
        }
    };
    table("Loads and memory", "Cost of misses, and cached values", &columns, &rows)
}

fn link_to_redis(link: Option<&ConnectionStats>, redis: Option<&RedisStats>) -> Markup {
    let Some(link) = link else {
        return empty("REDIS_URL is not set. Values are cached only in the memory of this process.");
    };
    html! {
        @if !link.is_available {
            p.bad { "Redis does not respond. Requests continue without it, and tutord retries the connection." }
        }
        dl.tiles {
            (tile("Connection", &html! { @if link.is_available { span.good { "up" } } @else { span.bad { "down" } } }))
            (tile("L1 cache", &html! { @if link.is_l1_fresh { "used" } @else { span.warn { "not used" } } }))
            (tile("Commands", &html! { (format::count(link.commands)) }))
            (tile("Failed or timed out", &html! { span.warn[link.failures > 0] { (format::count(link.failures)) } }))
            (tile("Circuit opened", &html! { span.warn[link.breaks > 0] { (format::count(link.breaks)) } }))
            (tile("Pending invalidations", &html! { span.warn[link.pending > 0] { (format::size(link.pending)) } }))
            @if let Some(redis) = redis {
                (tile("Version", &html! { (redis.version) }))
                (tile("Memory", &html! {
                    (format::bytes(redis.used_memory))
                    @if redis.maxmemory > 0 { " of " (format::bytes(redis.maxmemory)) }
                }))
                (tile("Evicted keys", &html! { (format::count(redis.evicted_keys)) }))
                (tile("Expired keys", &html! { (format::count(redis.expired_keys)) }))
            }
        }
        @if let Some(redis) = redis.filter(|redis| !redis.warnings.is_empty()) {
            h3 { "Redis settings to change" }
            ul { @for warning in &redis.warnings { li { (warning) } } }
        }
    }
}
