//! The subscriber of spans and the recorder of metrics that the tests install.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Debug,
    sync::{Arc, Once},
};

use futures_util::FutureExt;
use http::{Request, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use parking_lot::Mutex;
use tower::{Layer as _, Service};
use tower_gemini::TelemetryLayer;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// A span as the subscriber saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) parent: Option<u64>,
    pub(crate) id: u64,
    pub(crate) fields: BTreeMap<&'static str, String>,
    pub(crate) has_closed: bool,
    /// The events within it.
    pub(crate) events: Vec<String>,
}

impl Seen {
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    pub(crate) fn number(&self, field: &str) -> f64 {
        self.get(field).unwrap_or_else(|| panic!("no {field} in {self:?}")).parse().unwrap()
    }
}

/// Lets tracing meet the layer's callsites, once: a thread without a subscriber that meets one for the first time would decide
/// for a thread with one that there is none.
fn meet_callsites() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let upstream = tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::new())) });
        let mut service = TelemetryLayer::call().layer(TelemetryLayer::attempt().layer(upstream));
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            service.call(Request::new(())).now_or_never().unwrap().unwrap();
        });
    });
}

/// All spans of this thread since the subscriber was made, in the order in which they began.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    /// Installs a subscriber until the guard is dropped.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        meet_callsites();
        let spans = Self::default();
        let subscriber = tracing_subscriber::registry().with(spans.clone());
        (spans, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().clone()
    }

    pub(crate) fn named(&self, name: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// Returns the span of the only call.
    pub(crate) fn call(&self) -> Seen {
        let calls = self.named("gemini.call");
        assert_eq!(calls.len(), 1, "{calls:#?}");
        calls[0].clone()
    }

    pub(crate) fn attempts(&self) -> Vec<Seen> {
        self.named("gemini.attempt")
    }

    fn change(&self, id: &span::Id, change: impl FnOnce(&mut Seen)) {
        let mut all = self.0.lock();
        change(all.iter_mut().rev().find(|span| span.id == id.into_u64() && !span.has_closed).unwrap());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        let name = attributes.metadata().name();
        let mut seen = Seen { name, parent, id: id.into_u64(), ..Seen::default() };
        attributes.record(&mut Fields(&mut seen.fields));
        self.0.lock().push(seen);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| values.record(&mut Fields(&mut seen.fields)));
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        if let Some(span) = context.event_span(event) {
            self.change(&span.id(), |seen| seen.events.push(format!("{fields:?}")));
        }
    }

    fn on_close(&self, id: span::Id, _: Context<'_, S>) {
        self.change(&id, |seen| seen.has_closed = true);
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Fields<'_> {
    fn say(&mut self, field: &Field, value: String) {
        let before = self.0.insert(field.name(), value);
        // An exporter may keep both values.
        assert_eq!(before, None, "{} was said before", field.name());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.say(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.say(field, value.to_owned());
    }
}

/// The values of each metric with its labels, as `name{label=value,…}` with the labels in the order of their names.
pub(crate) type Values = BTreeMap<String, Vec<f64>>;

/// A recorder for this thread.
pub(crate) struct Metrics {
    snapshotter: Snapshotter,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl Metrics {
    pub(crate) fn listen() -> Self {
        meet_callsites();
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        // The leak is of one recorder a test.
        let recorder = Box::leak(Box::new(recorder));
        Self { snapshotter, _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// Takes the values since the last call; of a gauge, its present one.
    pub(crate) fn take(&self) -> Values {
        let snapshot = self.snapshotter.snapshot().into_vec();
        let values = snapshot.into_iter().map(|(key, _, _, value)| {
            let mut labels: Vec<_> =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            labels.sort();
            let values = match value {
                DebugValue::Counter(count) => vec![count as f64],
                DebugValue::Gauge(value) => vec![value.into_inner()],
                DebugValue::Histogram(values) => values.into_iter().map(|value| value.into_inner()).collect(),
            };
            (format!("{}{{{}}}", key.key().name(), labels.join(",")), values)
        });
        values.collect()
    }

    /// Returns units and descriptions by name.
    pub(crate) fn described(&self) -> BTreeMap<String, (Option<metrics::Unit>, Option<String>)> {
        let described = self.snapshotter.snapshot().into_vec().into_iter();
        described
            .map(|(key, unit, text, _)| (key.key().name().to_owned(), (unit, text.map(|text| text.to_string()))))
            .collect()
    }
}

/// Returns the values of the only metric of that name and with those labels.
pub(crate) fn only<'a>(values: &'a Values, key: &str) -> &'a [f64] {
    values.get(key).unwrap_or_else(|| panic!("no {key} in {values:#?}"))
}
