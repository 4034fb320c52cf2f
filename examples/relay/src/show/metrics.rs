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
//! | `relay_queue_waiting` | `caller`, `priority` | calls that wait for their turn; of all callers that no setting names, `caller` is empty |
//! | `relay_connections_open`, `…_busy` | | callers' connections, and those of them that have a call under way or an answer to be written |
//! | `relay_connections_refused_total` | | callers' connections that a cap has refused |
//! | `relay_connections_closed_total` | `reason` | callers' connections that were closed: `unread` or `idle` |

use std::{collections::HashSet, sync::Arc, time::Duration};

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::sleep;
use tower_gemini::{
    context::Priority,
    observe::{Reading, Value},
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
}

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
        Ok(Self { handle, gauges })
    }

    /// Writes all metrics.
    pub(crate) fn render(&self, reloads: &Reloads) -> String {
        self.gauges.report();
        metrics::gauge!(RELOADED).set(f64::from(u8::from(reloads.is_good())));
        metrics::gauge!(GOOD_RELOAD).set(reloads.last_good().as_secs_f64());
        self.handle.render()
    }
}

/// Reports the calls that wait for their turn, by caller and priority. Callers whom no setting names are one: they are known
/// by their addresses, and the exporter keeps each label to its end.
pub(crate) fn observe_queue(limiter: &Limiter, named: &HashSet<Arc<str>>, say: &mut dyn FnMut(Reading<'_>)) {
    let mut waiting = |caller: &str, priority: Priority, calls: usize| {
        let labels = [("caller", caller), ("priority", priority.as_str())];
        say(Reading { name: WAITING, value: Value::Gauge(calls as f64), model: "", labels: &labels });
    };
    // A series before anybody waits, so that queries find one.
    waiting("", Priority::Normal, 0);
    for report in limiter.waiting() {
        let caller = report.caller.filter(|caller| named.contains(caller));
        waiting(caller.as_deref().unwrap_or_default(), report.priority, report.waiting);
    }
}
