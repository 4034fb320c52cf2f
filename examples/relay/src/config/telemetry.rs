//! `[telemetry]`: the names that metrics and spans have.

use tower_gemini::telemetry::{Conventions, TelemetryLayer};

use crate::config::{
    toml::{Section, Value},
    values::{boolean, one_of},
};

pub(crate) const NAMES: &[&str] = &["conventions", "token_histograms"];

/// The settings of telemetry, which hold until the relay ends: an exporter keeps the names that it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TelemetrySettings {
    pub(crate) conventions: Conventions,
    pub(crate) token_histograms: bool,
}

impl TelemetrySettings {
    /// Returns the layer that records calls.
    pub(crate) fn layer(self) -> TelemetryLayer {
        TelemetryLayer::call().conventions(self.conventions).token_histograms(self.token_histograms)
    }
}

/// Reads `[telemetry]`.
pub(crate) fn read(mut section: Section<'_>) -> TelemetrySettings {
    let telemetry = TelemetrySettings {
        conventions: section.get("conventions", conventions).unwrap_or_default(),
        token_histograms: section.get("token_histograms", boolean).unwrap_or_default(),
    };
    section.finish();
    telemetry
}

fn conventions(value: &Value<'_>) -> Result<Conventions, String> {
    one_of(value, &[("v0.1.0", Conventions::V0_1), ("1.41", Conventions::V1_41)])
}
