//! The metrics of all layers, as Prometheus reads them.
//!
//! Names are those of `telemetry`'s tables with `_` for the dots, `_seconds` where it is a time, and `_total` where it
//! is a counter. `alerts.yml` and `dashboard.json` of the relay are made for those of v0.1.0.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::sleep;
use tower_gemini::telemetry::{self, Conventions, Gauges};

/// The content type of the metrics, as Prometheus wants it.
pub(crate) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    pub(crate) fn install(gauges: Gauges, conventions: Conventions) -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new().with_recommended_naming(true);
        for (name, boundaries) in telemetry::histograms(conventions) {
            builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), boundaries)?;
        }
        let handle = builder.install_recorder()?;
        telemetry::describe(conventions);
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
