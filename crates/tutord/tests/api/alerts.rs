//! What `ops/` tells Prometheus and Grafana to look at is what a server really tells.

use std::collections::BTreeSet;

use testbed::Redis;

use crate::harness::TestApp;

const ALERTS: &str = include_str!("../../../../ops/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../../../ops/grafana/tutord.json");

/// Every word of a text that begins like a metric of tutord's.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("tutord_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_the_dashboard_name_metrics_that_exist() {
    let redis = Redis::start().await.unwrap();
    let (app, _servers) = TestApp::replicated(&["--redis-url", &redis.url()]).await;
    let ada = app.student("ada").await;
    ada.talk("hello").await;
    ada.get("/api/users/me").await.ok();
    ada.get("/api/progress/export").await.ok();
    // How late a replica is, is not known while the first write is on its way there.
    let answer = loop {
        let answer = app.get("/metrics").await.ok();
        if answer.body.as_str().unwrap().contains("tutord_db_replica_lag_seconds{") {
            break answer;
        }
    };
    let lines = answer.body.as_str().unwrap().lines().filter(|line| !line.starts_with('#'));
    let told: BTreeSet<&str> = lines.filter_map(|line| line.split(['{', ' ']).next()).collect();
    for (file, text) in [("alerts.yml", ALERTS), ("tutord.json", DASHBOARD)] {
        let named = named(text);
        assert!(named.len() > 5, "{file}: {named:?}");
        let missing: Vec<_> = named.difference(&told).collect();
        assert!(missing.is_empty(), "{file} names what nobody tells: {missing:?}\n{told:?}");
    }
    for namespace in ["user:profile", "exercise"] {
        let reads = format!(r#"tutord_cache_reads_total{{namespace="{namespace}",result="miss"}}"#);
        assert!(answer.body.as_str().unwrap().contains(&reads), "{reads}");
    }
}
