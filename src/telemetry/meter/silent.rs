//! The metrics without the feature: none.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{
    layer::Level,
    record::{RecordFacts, Summary},
};
use crate::context::TallyReport;

/// In place of `Meters`: makes no meter.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct NoMeters(());

/// In place of `RecordMeter`: it has no value.
#[derive(Debug)]
pub(in crate::telemetry) enum NoMeter {}

impl NoMeters {
    pub(in crate::telemetry) fn begin(&self, _: Level) -> Option<NoMeter> {
        None
    }
}

impl NoMeter {
    pub(in crate::telemetry) fn begun(&self, _: &RecordFacts) {
        match *self {}
    }

    pub(in crate::telemetry) fn confirm(&self, _: Option<&str>) {
        match *self {}
    }

    pub(in crate::telemetry) fn head_came(&self, _: Duration, _: &TallyReport) {
        match *self {}
    }

    pub(in crate::telemetry) fn ended(&self, _: &Summary<'_>, _: Instant) {
        match *self {}
    }
}
