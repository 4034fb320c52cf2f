use std::{collections::HashMap, convert::Infallible, fmt, sync::Arc, time::Duration};

use metrics::{Key, Label, SharedString};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::meter::Models;
use crate::observe::{Observe, Reading, Value};

/// The shortest time from one report to the next.
const LEAST: Duration = Duration::from_secs(1);

/// How things stand with handles, reported as metrics. From [`TelemetryLayer::gauges`](super::TelemetryLayer::gauges).
///
/// A cheap handle: all clones are the same gauges.
///
/// ```
/// use tower_gemini::{TelemetryLayer, circuit_breaker::CircuitBreakers, rate_limit::Limiter};
///
/// let (limiter, breakers) = (Limiter::new(), CircuitBreakers::new());
/// let gauges = TelemetryLayer::call().gauges().watch(limiter.clone()).watch(breakers.clone());
/// gauges.report();
/// ```
#[derive(Clone)]
#[must_use]
pub struct Gauges {
    models: Models,
    watched: Vec<Arc<dyn Observe + Send + Sync>>,
    said: Arc<Mutex<Said>>,
}

/// What was reported last.
#[derive(Default)]
struct Said {
    /// What is gone since has to be set to zero: a gauge keeps its last value.
    gauges: HashMap<Key, f64>,
    /// What handles had counted, each model by its own name: a number that is smaller now is that of a new handle.
    read: HashMap<Key, u64>,
    /// What all handles that there ever were have counted. It never falls, as a counter must not.
    counted: HashMap<Key, u64>,
}

impl Gauges {
    pub(super) fn new(models: Models) -> Self {
        Self { models, watched: Vec::new(), said: Arc::default() }
    }

    /// Reports of this handle as well.
    pub fn watch(mut self, handle: impl Observe + Send + Sync + 'static) -> Self {
        self.watched.push(Arc::new(handle));
        self
    }

    /// Reports how things stand now. What is not confirmed as a model is added up as `other`.
    pub fn report(&self) {
        // Held throughout: of two reports at once, the older reading would look like a new handle's.
        let mut said = self.said.lock();
        let Said { gauges: before, read: read_before, counted } = &mut *said;
        let mut gauges = HashMap::new();
        let mut read: HashMap<Key, (u64, Key)> = HashMap::new();
        for handle in &self.watched {
            handle.observe(&mut |reading| {
                let key = self.key(&reading);
                match reading.value {
                    Value::Gauge(value) => *gauges.entry(key).or_insert(0.0) += value,
                    Value::Counter(value) => {
                        let own = labelled(&reading, reading.model.to_owned().into());
                        read.entry(own).or_insert((0, key)).0 += value;
                    }
                }
            });
        }
        for gone in before.keys().filter(|key| !gauges.contains_key(*key)) {
            set(gone, 0.0);
        }
        gauges.iter().for_each(|(key, value)| set(key, *value));
        *before = gauges;
        for (own, (value, key)) in &read {
            let last = read_before.get(own).copied().unwrap_or(0);
            *counted.entry(key.clone()).or_insert(0) += value.checked_sub(last).unwrap_or(*value);
        }
        *read_before = read.into_iter().map(|(own, (value, _))| (own, value)).collect();
        for (key, value) in counted {
            metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA).absolute(*value));
        }
    }

    /// Reports for ever: now, and then `every` so often, but at least a second apart. 10 s is a good choice.
    ///
    /// Spawn it: the crate spawns nothing itself.
    ///
    /// # Cancellation
    ///
    /// What was reported last stays as it is.
    pub async fn report_every(self, every: Duration) -> Infallible {
        loop {
            self.report();
            sleep(every.max(LEAST)).await;
        }
    }

    fn key(&self, reading: &Reading<'_>) -> Key {
        let model = match reading.model {
            "" => SharedString::const_str(""),
            model => self.models.label(model),
        };
        labelled(reading, model)
    }
}

fn labelled(reading: &Reading<'_>, model: SharedString) -> Key {
    let label = |(name, value): &(&'static str, &str)| Label::new(*name, value.to_string());
    let mut labels: Vec<_> = reading.labels.iter().map(label).collect();
    labels.push(Label::new("gen_ai.request.model", model));
    Key::from_parts(reading.name, labels)
}

const METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new("tower_gemini::telemetry", metrics::Level::INFO, Some(module_path!()));

fn set(key: &Key, value: f64) {
    metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA).set(value));
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").field("watched", &self.watched.len()).finish_non_exhaustive()
    }
}
