//! The layer, which records calls or attempts.

use std::fmt;

use tower_layer::Layer;

use super::{Conventions, Telemetry, interactions::Interactions, meter::Meters};
use crate::describe::{Describe, LEFT_OUT};

/// A layer that records calls or attempts as spans and metrics. See the [module](super) for their names.
///
/// All services made from one layer, and from its clones, know the same models by name in their metrics.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct TelemetryLayer {
    level: Option<Level>,
    shared: Shared,
}

/// The settings of a layer, and what its services share.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) conventions: Conventions,
    /// Set if the conventions' opt-in histograms of tokens are recorded.
    pub(super) token_histograms: bool,
    pub(super) meters: Meters,
    pub(super) interactions: Interactions,
}

/// The subject of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A call, as its caller sees it.
    Call,
    /// One attempt at the upstream.
    Attempt,
}

impl TelemetryLayer {
    /// Makes a layer that records each call. It belongs outside of everything but
    /// [`ErrorResponseLayer`](crate::ErrorResponseLayer), so that it sees what the caller sees.
    pub fn call() -> Self {
        Self { level: Some(Level::Call), shared: Shared::default() }
    }

    /// Makes a layer that records each attempt. It belongs inside of [`RetryLayer`](crate::RetryLayer), and outside of
    /// the layers that choose a key or wait for quota.
    pub fn attempt() -> Self {
        Self { level: Some(Level::Attempt), shared: Shared::default() }
    }

    /// Makes a layer that records nothing, of the same type: for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self { level: None, shared: Shared::default() }
    }

    /// Sets the conventions whose names are used. It matters to a layer made by [`call`](Self::call) alone: attempts are
    /// not known to the conventions. Default: [`Conventions::V0_1`].
    pub fn conventions(mut self, conventions: Conventions) -> Self {
        self.shared.conventions = conventions;
        self
    }

    /// Records two histograms of the tokens of a call as well, which the conventions (v0.1.0) leave to choice:
    /// `gen_ai.client.inference.operation.input_tokens` and `….output_tokens`. They say how large calls are; sums are
    /// the counters' business. Default: `false`.
    pub fn token_histograms(mut self, recorded: bool) -> Self {
        self.shared.token_histograms = recorded;
        self
    }

    /// Names models that have a label of their own from their first call on, however it ends: those of a program's settings.
    /// Up to 1,024 are remembered, for all services of this layer and its clones.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn name_models<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        names.into_iter().for_each(|name| self.shared.meters.models().name(name));
    }

    /// Gives the models of a table a label of their own, as they are listed at the time of a call. A table that was given
    /// before is forgotten.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn list_models(&self, models: &crate::models::ModelTable) {
        self.shared.meters.models().list(models.clone());
    }

    /// Makes gauges, which report the current state of handles from time to time. They know the same models by name as
    /// this layer.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn gauges(&self) -> super::Gauges {
        super::Gauges::new(self.shared.meters.models().clone())
    }
}

impl Describe for TelemetryLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Some(Level::Call) if self.shared.conventions == Conventions::V1_41 => {
                "records calls, by OpenTelemetry's names of 1.41"
            }
            Some(Level::Call) => "records calls",
            Some(Level::Attempt) => "records attempts",
            None => LEFT_OUT,
        })
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = Telemetry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Telemetry { inner, level: self.level, shared: self.shared.clone() }
    }
}
