//! Spans and metrics, without and with somebody who listens.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tower::Layer;
use tower_gemini::{ClassifyLayer, TelemetryLayer};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

use crate::{measure::Bench, upstream::Upstream};

/// Measures spans and metrics of a call and its one attempt, without and with a subscriber and a recorder.
pub(super) fn telemetry(bench: &mut Bench<'_>) {
    let upstream = Upstream::unary();
    let classified = || ClassifyLayer::new().layer(upstream.clone());
    let recorded = || TelemetryLayer::call().layer(TelemetryLayer::attempt().layer(classified()));
    // First, because asking for a subscriber costs more once a program has had one.
    let mut group = bench.group("telemetry, nobody listens", &upstream);
    group.call("bare: ClassifyLayer", classified());
    group.call("TelemetryLayer::disabled", TelemetryLayer::disabled().layer(classified()));
    group.call("call", TelemetryLayer::call().layer(classified()));
    group.call("call and attempt", recorded());
    group.measure();

    let registry = || Dispatch::new(tracing_subscriber::registry());
    let tracer = SdkTracerProvider::builder().build().tracer("bench");
    let to_opentelemetry = tracing_opentelemetry::layer().with_tracer(tracer);
    let opentelemetry = Dispatch::new(tracing_subscriber::registry().with(to_opentelemetry));
    let mut group = bench.group("telemetry, listened to", &upstream);
    group.call("bare: ClassifyLayer", classified());
    group.call_within("spans, kept and dropped", recorded(), heard_by(Some(registry()), None));
    group.call_within("spans, to OpenTelemetry", recorded(), heard_by(Some(opentelemetry.clone()), None));
    group.call_within("metrics, to Prometheus", recorded(), heard_by(None, Some(prometheus())));
    group.call_within("both", recorded(), heard_by(Some(opentelemetry), Some(prometheus())));
    group.measure();
}

fn prometheus() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

/// Makes a runner of calls with that subscriber and recorder, which lets the recorder tidy up outside of the clock.
fn heard_by(spans: Option<Dispatch>, metrics: Option<PrometheusRecorder>) -> impl Fn(&mut dyn FnMut()) {
    move |run| {
        let spans = spans.clone().unwrap_or_else(Dispatch::none);
        tracing::dispatcher::with_default(&spans, || match &metrics {
            Some(recorder) => {
                metrics::with_local_recorder(recorder, run);
                recorder.handle().run_upkeep();
            }
            None => run(),
        });
    }
}
