//! Export of the counters through the crate [`metrics`].

use metrics::{counter, gauge};

use crate::cache::Cache;

impl Cache {
    /// Exports all counters through the recorder of the crate `metrics`. Call it before each scrape, or at an interval.
    ///
    /// Each counter of [`NamespaceStats`](crate::NamespaceStats) becomes the counter `readthrough_<name>` with the label
    /// `namespace`; the sizes of L1 and the longest load become gauges. The counters of
    /// [`ConnectionStats`](crate::ConnectionStats) become `readthrough_connection_<name>` without labels.
    pub fn record_metrics(&self) {
        for stats in self.stats() {
            for (name, value) in stats.counters().filter(|(name, _)| *name != "load_micros_max") {
                counter!(format!("readthrough_{name}"), "namespace" => stats.name).absolute(value);
            }
            let gauges = [
                ("load_micros_max", stats.load_micros_max),
                ("l1_entries", stats.l1_entries),
                ("l1_bytes", stats.l1_bytes),
            ];
            for (name, value) in gauges {
                gauge!(format!("readthrough_{name}"), "namespace" => stats.name).set(to_f64(value));
            }
        }
        if let Some(connection) = self.connection_stats() {
            gauge!("readthrough_connection_up").set(f64::from(u8::from(connection.is_available)));
            gauge!("readthrough_connection_pending").set(to_f64(connection.pending.try_into().unwrap_or(u64::MAX)));
            counter!("readthrough_connection_commands").absolute(connection.commands);
            counter!("readthrough_connection_failures").absolute(connection.failures);
            counter!("readthrough_connection_breaks").absolute(connection.breaks);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a floating-point number")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;
    use crate::NamespaceOptions;

    type Values = Arc<Mutex<BTreeMap<String, f64>>>;

    /// Stores the value of each metric under its name and labels.
    struct MapRecorder(Values);

    struct MapEntry(String, Values);

    impl MapEntry {
        fn set(&self, value: f64) {
            self.1.lock().unwrap().insert(self.0.clone(), value);
        }
    }

    impl CounterFn for MapEntry {
        fn increment(&self, _: u64) {}
        fn absolute(&self, value: u64) {
            self.set(to_f64(value));
        }
    }

    impl GaugeFn for MapEntry {
        fn increment(&self, _: f64) {}
        fn decrement(&self, _: f64) {}
        fn set(&self, value: f64) {
            self.set(value);
        }
    }

    impl MapRecorder {
        fn entry(&self, key: &Key) -> Arc<MapEntry> {
            let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
            Arc::new(MapEntry(format!("{} {}", key.name(), labels.join(",")), Arc::clone(&self.0)))
        }
    }

    impl Recorder for MapRecorder {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.entry(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.entry(key))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test]
    async fn counters_are_exported_with_their_namespace() {
        let cache = Cache::builder().build().unwrap();
        let values = cache.namespace(NamespaceOptions::<u64>::local("n")).unwrap();
        for _ in 0..3 {
            values.get_or_load(&crate::Key::new(1), || async { Ok::<_, ()>(Some(1)) }).await.unwrap();
        }
        let recorded = Values::default();
        metrics::with_local_recorder(&MapRecorder(Arc::clone(&recorded)), || cache.record_metrics());
        let recorded = recorded.lock().unwrap();
        assert_eq!((recorded["readthrough_l1_hits n"], recorded["readthrough_loads n"]), (2.0, 1.0));
        assert!(recorded.contains_key("readthrough_l1_bytes n"));
        assert!(!recorded.keys().any(|name| name.contains("connection")), "there is no second tier");
    }
}
