//! TODO

mod body;
mod future;
#[cfg(feature = "metrics")]
mod gauges;
mod layer;
mod meter;
mod record;
mod service;
mod spans;
mod words;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use self::gauges::Gauges;
pub use self::{body::TelemetryBody, future::ResponseFuture, layer::TelemetryLayer, service::Telemetry};

/// Tells the recorder the units and meanings of all metrics in the table, for exporters that show them. Once, after the
/// recorder is installed.
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub fn describe() {
    use self::meter::{METRICS, Type};
    for metric in METRICS {
        match metric.kept_as {
            Type::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.meaning),
            Type::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.meaning),
            Type::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.meaning),
        }
    }
}
