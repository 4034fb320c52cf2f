//! The current state of a limiter, as metrics.

use super::Limiter;
use crate::observe::{Observe, Reading, Value};

impl Observe for Limiter {
    fn observe(&self, record: &mut dyn FnMut(Reading<'_>)) {
        for report in self.snapshot() {
            let (project, model) = (report.scope.project(), report.scope.model());
            let mut gauge = |name, value, labels: &[(&'static str, &str)]| {
                record(Reading { name, value: Value::Gauge(value), model, labels });
            };
            for dimension in &report.dimensions {
                let labels = [("tower_gemini.project", project), ("dimension", dimension.dimension.as_str())];
                gauge("tower_gemini.limit.used", dimension.used as f64, &labels);
                if let Some(limit) = dimension.limit {
                    gauge("tower_gemini.limit.max", limit as f64, &labels);
                }
            }
            let labels = [("tower_gemini.project", project)];
            gauge("tower_gemini.limit.blocked", f64::from(u8::from(report.blocked_for.is_some())), &labels);
            gauge("tower_gemini.limit.waiting", report.waiting as f64, &labels);
        }
    }
}
