//! How things stand with the keys of a pool.

use super::{KeyPool, KeyState};
use crate::observe::{Observe, Reading, Value};

impl KeyState {
    /// The names of all states.
    const NAMES: [&'static str; 4] = ["active", "cooling", "exhausted", "disabled"];

    /// The name in logs and metrics: `active`, `cooling`, `exhausted`, `disabled`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => Self::NAMES[0],
            Self::Cooling { .. } => Self::NAMES[1],
            Self::Exhausted { .. } => Self::NAMES[2],
            Self::Disabled { .. } => Self::NAMES[3],
        }
    }
}

impl Observe for KeyPool {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        for report in self.snapshot() {
            let key = report.fingerprint.to_string();
            let whose = [("tower_gemini.key", key.as_str()), ("tower_gemini.project", &*report.project)];
            let mut say = |name, value, labels: &[_]| say(Reading { name, value, model: "", labels });
            for state in KeyState::NAMES {
                let is_so = f64::from(u8::from(state == report.state.as_str()));
                let labels = [whose[0], whose[1], ("state", state)];
                say("tower_gemini.key.state", Value::Gauge(is_so), &labels);
            }
            say("tower_gemini.key.uses", Value::Counter(report.uses), &whose);
        }
    }
}
