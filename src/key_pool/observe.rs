//! Metrics of the current state of a pool's keys.

use super::{KeyPool, KeyState};
use crate::observe::{Observe, Reading, Value};

impl KeyState {
    /// The names of all states.
    const NAMES: [&'static str; 4] = ["active", "cooling", "exhausted", "disabled"];

    /// Returns the name in logs and metrics: `active`, `cooling`, `exhausted`, `disabled`.
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
            let owner = [("tower_gemini.key", key.as_str()), ("tower_gemini.project", &*report.project)];
            let mut say = |name, value, labels: &[_]| say(Reading { name, value, model: "", labels });
            for state in KeyState::NAMES {
                let is_current = f64::from(u8::from(state == report.state.as_str()));
                let labels = [owner[0], owner[1], ("state", state)];
                say("tower_gemini.key.state", Value::Gauge(is_current), &labels);
            }
            say("tower_gemini.key.uses", Value::Counter(report.uses), &owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_pool::{ApiKey, Key};

    #[tokio::test(start_paused = true)]
    async fn each_key_is_in_one_state_and_shows_its_fingerprint_only() {
        let keys = ["nobodys-first", "nobodys-second"].map(|text| ApiKey::new(text).unwrap());
        let [first, second] = keys.each_ref().map(|key| key.fingerprint().to_string());
        let [off, _] = keys.each_ref().map(ApiKey::fingerprint);
        let pool = keys.into_iter().fold(KeyPool::builder(), |pool, key| pool.key(Key::new(key).project("p")));
        let pool = pool.build().unwrap();
        let said = || {
            let mut said = Vec::new();
            pool.observe(&mut |reading| {
                let labels: Vec<_> = reading.labels.iter().map(|(_, value)| (*value).to_owned()).collect();
                said.push((reading.name, labels, reading.value));
            });
            said
        };
        let count = said().len();
        assert_eq!(count, 2 * (KeyState::NAMES.len() + 1));

        pool.disable(&off);
        let readings = said();
        assert_eq!(readings.len(), count);
        let so: Vec<_> = readings.iter().filter(|(.., value)| *value == Value::Gauge(1.0)).collect();
        let labels = |key: &str, state: &str| vec![key.to_owned(), "p".to_owned(), state.to_owned()];
        assert_eq!(
            so.iter().map(|(_, of, _)| of.clone()).collect::<Vec<_>>(),
            [labels(&first, "disabled"), labels(&second, "active")]
        );
        assert!(readings.contains(&("tower_gemini.key.uses", vec![second, "p".to_owned()], Value::Counter(0))));
        assert!(!format!("{readings:?}").contains("nobodys"));
    }
}
