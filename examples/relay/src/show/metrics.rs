//! The metrics of all layers, as Prometheus reads them.
//!
//! Names are those of `telemetry`'s table with `_` for the dots, `_seconds` where it is a time, and `_total` where it
//! is a counter. `alerts.yml` and `dashboard.json` of the relay are made for them.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::sleep;
use tower_gemini::telemetry::{self, Gauges};

/// The content type of the metrics, as Prometheus wants it.
pub(crate) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Times of calls and attempts, in seconds: from a cache's answer to the total deadline.
const CALLS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 180.0, 285.0];
/// Times of waits, for a turn or after a failure.
const WAITS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0];
/// The time of one token.
const TOKEN: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0];
/// The layers' own time.
const OVERHEAD: &[f64] = &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Tokens: powers of four, as OpenTelemetry's conventions have them, up to the largest context.
const TOKENS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// The time after which the exporter sorts its samples without a scrape. Until then it keeps each number.
const UPKEEP: Duration = Duration::from_secs(5);

/// The exporter that is scraped.
#[derive(Clone)]
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    gauges: Gauges,
}

impl Exporter {
    /// Takes everything that the layers of this process count from now on, and reports the gauges at each scrape.
    pub(crate) fn install(gauges: Gauges) -> Result<Self, BuildError> {
        let whole = |name: &str| Matcher::Full(name.to_owned());
        let handle = PrometheusBuilder::new()
            .with_recommended_naming(true)
            .set_buckets_for_metric(Matcher::Suffix("wait".to_owned()), WAITS)?
            .set_buckets_for_metric(Matcher::Prefix("gen_ai.client.operation".to_owned()), CALLS)?
            .set_buckets_for_metric(whole("tower_gemini.attempt.duration"), CALLS)?
            .set_buckets_for_metric(whole("tower_gemini.time_per_output_token"), TOKEN)?
            .set_buckets_for_metric(whole("tower_gemini.overhead"), OVERHEAD)?
            .set_buckets_for_metric(whole("gen_ai.client.token.usage"), TOKENS)?
            .install_recorder()?;
        telemetry::describe();
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { handle, gauges })
    }

    /// Writes all metrics.
    pub(crate) fn render(&self) -> String {
        self.gauges.report();
        self.handle.render()
    }
}
