//! The current state of a store, as metrics.

use super::{
    RedisStore,
    report::{Overshoot, StoreState},
};
use crate::observe::{Observe, Reading, Value};

/// The labels of the bands of an [`Overshoot`]: the part of the limit that was used, in percent.
const BANDS: [&str; 7] = ["0-50", "51-80", "81-90", "91-95", "96-99", "100", "over"];
const _: () = assert!(BANDS.len() == Overshoot::BANDS.len() + 1);

impl Observe for RedisStore {
    fn observe(&self, record: &mut dyn FnMut(Reading<'_>)) {
        let report = self.report();
        let mut say = |name, value, labels: &[(&'static str, &str)]| {
            record(Reading { name, value, model: "", labels });
        };
        let reason = match report.state {
            StoreState::Connected => "",
            StoreState::Away { reason, .. } => reason.as_str(),
        };
        let connected = f64::from(u8::from(report.state == StoreState::Connected));
        say("tower_gemini.store.connected", Value::Gauge(connected), &[("reason", reason)]);
        say("tower_gemini.store.instances", Value::Gauge(f64::from(report.instances)), &[]);
        say("tower_gemini.store.share", Value::Gauge(report.share), &[]);
        say("tower_gemini.store.scopes", Value::Gauge(report.scopes as f64), &[]);
        say("tower_gemini.store.evicts", Value::Gauge(f64::from(u8::from(report.eviction.is_some()))), &[]);
        let counts = report.counts;
        for (result, count) in [("granted", counts.granted), ("refused", counts.refused)] {
            say("tower_gemini.store.takes", Value::Counter(count), &[("result", result)]);
        }
        for (by, count) in [("share", counts.shared), ("lease", counts.leased)] {
            say("tower_gemini.store.decided_locally", Value::Counter(count), &[("by", by)]);
        }
        for (reason, count) in [("late", counts.late), ("timed_out", counts.timed_out), ("failed", counts.failed)] {
            say("tower_gemini.store.failures", Value::Counter(count), &[("reason", reason)]);
        }
        for (name, count) in [
            ("tower_gemini.store.leases", counts.leases),
            ("tower_gemini.store.corrections_dropped", counts.corrections_dropped),
            ("tower_gemini.store.retold", counts.retold),
            ("tower_gemini.store.outages", counts.outages),
        ] {
            say(name, Value::Counter(count), &[]);
        }
        for (band, count) in BANDS.iter().zip(report.overshoot.counts) {
            say("tower_gemini.store.overshoot", Value::Counter(count), &[("used_percent", band)]);
        }
    }
}
