//! The metrics of all layers, as Prometheus reads them.
//!
//! Names are those of `telemetry`'s tables with `_` for the dots, `_seconds` where it is a time, and `_total` where it
//! is a counter. `alerts.yml` and `dashboard.json` of the relay are made for those of v0.1.0.
//!
//! The relay's own begin with `relay_`:
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `relay_config_last_reload_successful` | | 1 if the last reload of the settings was good, else 0 |
//! | `relay_config_last_reload_success_timestamp_seconds` | | the time of the last good one, or of the start |
//! | `relay_queue_waiting` | `caller`, `priority` | calls that wait for their turn; without a caller's name, `caller` is empty |

use std::{collections::HashSet, sync::Arc, time::Duration};

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio::time::sleep;
use tower_gemini::{
    context::Priority,
    rate_limit::Limiter,
    telemetry::{self, Conventions, Gauges},
};

use crate::show::reloads::Reloads;

/// The content type of the metrics, as Prometheus wants it.
pub(crate) const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The time after which the exporter sorts its samples without a scrape. Until then it keeps each number.
const UPKEEP: Duration = Duration::from_secs(5);

/// The exporter that is scraped.
#[derive(Clone)]
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    gauges: Gauges,
    waiting: Waiting,
}

/// The callers and priorities that have had calls in the queue: a gauge keeps its last value, and has to be set to zero.
/// Callers have names only by the settings.
type Waiting = Arc<Mutex<HashSet<(String, Priority)>>>;

const RELOADED: &str = "relay.config.last_reload.successful";
const GOOD_RELOAD: &str = "relay.config.last_reload.success.timestamp";
const WAITING: &str = "relay.queue.waiting";

impl Exporter {
    /// Takes everything that the layers of this process count from now on, and reports the gauges at each scrape.
    pub(crate) fn install(gauges: Gauges, conventions: Conventions) -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new().with_recommended_naming(true);
        for (name, boundaries) in telemetry::histograms(conventions) {
            builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), boundaries)?;
        }
        let handle = builder.install_recorder()?;
        telemetry::describe(conventions);
        metrics::describe_gauge!(RELOADED, "Whether the last reload of the settings was good.");
        metrics::describe_gauge!(GOOD_RELOAD, Unit::Seconds, "Time of the last good reload of the settings.");
        metrics::describe_gauge!(WAITING, "Calls of a caller that wait for their turn.");
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { handle, gauges, waiting: Waiting::default() })
    }

    /// Writes all metrics.
    pub(crate) fn render(&self, reloads: &Reloads, limiter: Option<&Limiter>) -> String {
        self.gauges.report();
        metrics::gauge!(RELOADED).set(f64::from(u8::from(reloads.is_good())));
        metrics::gauge!(GOOD_RELOAD).set(reloads.last_good().as_secs_f64());
        let waiting = limiter.map(Limiter::waiting).unwrap_or_default();
        let mut seen = self.waiting.lock();
        let gauge = |caller: &str, priority: Priority| metrics::gauge!(WAITING, "caller" => caller.to_owned(), "priority" => priority.as_str());
        // A series before anybody waits, so that queries find one.
        seen.insert((String::new(), Priority::Normal));
        for (caller, priority) in &*seen {
            gauge(caller, *priority).set(0.0);
        }
        for report in waiting {
            let caller = report.caller.as_deref().unwrap_or_default();
            gauge(caller, report.priority).set(report.waiting as f64);
            seen.insert((caller.to_owned(), report.priority));
        }
        drop(seen);
        self.handle.render()
    }
}
