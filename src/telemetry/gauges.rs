//! The gauges of handles, whose state no call shows.

use std::{collections::HashMap, convert::Infallible, fmt, sync::Arc, time::Duration};

use metrics::{Key, Label, SharedString};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::meter::ModelLabels;
use crate::observe::{Observe, Reading, Value};

/// The shortest time from one report to the next: a report takes each scope's lock for a moment.
const LEAST: Duration = Duration::from_secs(1);

/// The current state of handles, reported as metrics. Made by
/// [`TelemetryLayer::gauges`](super::TelemetryLayer::gauges).
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
    models: ModelLabels,
    watched: Vec<Arc<dyn Observe + Send + Sync>>,
    last: Arc<Mutex<LastReport>>,
}

/// The report before this one.
#[derive(Default)]
struct LastReport {
    /// The gauges' values. One that is gone since has to be set to zero: a gauge keeps its last value.
    gauges: HashMap<Key, f64>,
    /// The counts of the handles, each model by its own name: a count that has become smaller is a new handle's.
    read: HashMap<Key, u64>,
    /// The counts of all handles that there ever were. They never fall, as a counter must not.
    counted: HashMap<Key, u64>,
}

impl Gauges {
    pub(super) fn new(models: ModelLabels) -> Self {
        Self { models, watched: Vec::new(), last: Arc::default() }
    }

    /// Adds a handle whose state is reported.
    pub fn watch(mut self, handle: impl Observe + Send + Sync + 'static) -> Self {
        self.watched.push(Arc::new(handle));
        self
    }

    /// Reports the current state of all handles. Models that no good answer has confirmed are added up as `other`.
    pub fn report(&self) {
        // Locked throughout: of two reports at once, the older reading would look like a new handle's.
        let mut last = self.last.lock();
        let LastReport { gauges: gauges_before, read: read_before, counted } = &mut *last;
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
        for gone in gauges_before.keys().filter(|key| !gauges.contains_key(*key)) {
            set(gone, 0.0);
        }
        gauges.iter().for_each(|(key, value)| set(key, *value));
        *gauges_before = gauges;
        for (own, (value, key)) in &read {
            let before = read_before.get(own).copied().unwrap_or(0);
            *counted.entry(key.clone()).or_insert(0) += value.checked_sub(before).unwrap_or(*value);
        }
        *read_before = read.into_iter().map(|(own, (value, _))| (own, value)).collect();
        for (key, value) in counted {
            metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA).absolute(*value));
        }
    }

    /// Reports until the future is dropped: at once, and then after each `every`, or each second if that is longer.
    /// 10 s is a good choice.
    ///
    /// Spawn it: the crate spawns no tasks itself.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the reports; the metrics keep their last values.
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
