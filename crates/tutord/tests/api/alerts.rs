//! The metrics that the alerts and the Grafana dashboard in `ops/` name exist.

use std::collections::BTreeSet;

use testbed::Redis;

use crate::support::TestApp;
use crate::support::database::ReplicatedPostgres;

const ALERTS: &str = include_str!("../../../../ops/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../../../ops/grafana/tutord.json");

/// Returns the words of a text that begin like a metric of tutord.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("tutord_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_and_the_dashboard_name_existing_metrics() {
    let redis = Redis::start().await.unwrap();
    let postgres = ReplicatedPostgres::start().await;
    let app = TestApp::on_database(&postgres.url).redis(&redis).start().await;
    let ada = app.student("ada").await;
    ada.start_conversation("hello").await;
    ada.get("/api/users/me").await.assert_ok();
    ada.get("/api/progress/export").await.assert_ok();
    // PostgreSQL reports no lag while the first write is on its way to the replica.
    let response = loop {
        let response = app.get("/metrics").await.assert_ok();
        if response.text().contains("tutord_db_replica_lag_seconds{") {
            break response;
        }
    };
    let lines = response.text().lines().filter(|line| !line.starts_with('#'));
    let reported: BTreeSet<&str> = lines.filter_map(|line| line.split(['{', ' ']).next()).collect();
    for (file, text) in [("alerts.yml", ALERTS), ("tutord.json", DASHBOARD)] {
        let named = metric_names(text);
        assert!(named.len() > 5, "{file}: {named:?}");
        let missing: Vec<_> = named.difference(&reported).collect();
        assert!(missing.is_empty(), "{file} names unknown metrics: {missing:?}\n{reported:?}");
    }
    for namespace in ["user:profile", "exercise"] {
        let reads = format!(r#"tutord_cache_reads_total{{namespace="{namespace}",result="miss"}}"#);
        assert!(response.text().contains(&reads), "{reads}");
    }
}
