//! What `ops/` tells Prometheus and Grafana to look at is what a server really tells.

use std::collections::BTreeSet;

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
    let app = TestApp::postgres(&[]).await;
    let ada = app.student("ada").await;
    ada.talk("hello").await;
    ada.get("/api/users/me").await.ok();
    let answer = app.get("/metrics").await.ok();
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
