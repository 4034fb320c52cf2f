//! The current state of the callers' limits, as metrics.

use super::{CallerLimits, dimension::CallerAmount};
use crate::observe::{Observe, Reading, Value};

impl Observe for CallerLimits {
    fn observe(&self, record: &mut dyn FnMut(Reading<'_>)) {
        for report in self.named() {
            let model = report.model.as_deref().unwrap_or_default();
            for dimension in &report.dimensions {
                let Some(limit) = dimension.limit else { continue };
                let labels = [("tower_gemini.caller", &*report.caller), ("dimension", dimension.dimension.as_str())];
                let mut gauge = |name, amount: CallerAmount| {
                    record(Reading { name, value: Value::Gauge(amount.as_f64()), model, labels: &labels });
                };
                gauge("tower_gemini.caller.used", dimension.used);
                gauge("tower_gemini.caller.max", limit);
            }
        }
    }
}
