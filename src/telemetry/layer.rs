use std::fmt;

use tower_layer::Layer;

use super::{Telemetry, meter::Meters};
use crate::describe::{Describe, LEFT_OUT};

/// Says what calls and attempts come to, in spans and metrics. See the [module](super) for their names.
///
/// All services made from one layer, and its clones, share the models' names that its metrics know.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct TelemetryLayer {
    level: Option<Level>,
    meters: Meters,
}

/// What one record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// What the caller sees.
    Call,
    /// What the upstream is asked, each time.
    Attempt,
}

impl TelemetryLayer {
    /// One span for each call. It belongs outside of everything but [`ErrorResponseLayer`](crate::ErrorResponseLayer), so
    /// that it sees what the caller sees.
    pub fn call() -> Self {
        Self { level: Some(Level::Call), meters: Meters::default() }
    }

    /// One span for each attempt. It belongs inside of whatever retries, outside of whatever chooses a key or waits.
    pub fn attempt() -> Self {
        Self { level: Some(Level::Attempt), meters: Meters::default() }
    }

    /// A layer that says nothing, of the same type: for where it is optional.
    pub fn disabled() -> Self {
        Self { level: None, meters: Meters::default() }
    }

    /// How things stand with handles, to be reported from time to time. Its metrics know the models that this layer's do.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn gauges(&self) -> super::Gauges {
        super::Gauges::new(self.meters.models().clone())
    }
}

impl Describe for TelemetryLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Some(Level::Call) => "says what a call comes to",
            Some(Level::Attempt) => "says what an attempt comes to",
            None => LEFT_OUT,
        })
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = Telemetry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Telemetry { inner, level: self.level, meters: self.meters.clone() }
    }
}
