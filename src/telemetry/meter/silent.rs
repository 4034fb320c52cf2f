//! Metrics without the feature: nobody listens.

use std::time::Duration;

use super::super::{
    layer::Level,
    record::{Facts, Summary},
};
use crate::context::TallyReport;

#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Meters(());

/// There is none.
#[derive(Debug)]
pub(in crate::telemetry) enum Meter {}

impl Meters {
    pub(in crate::telemetry) fn begin(&self, _: Level) -> Option<Meter> {
        None
    }
}

impl Meter {
    pub(in crate::telemetry) fn begun(&self, _: &Facts) {
        match *self {}
    }

    pub(in crate::telemetry) fn confirm(&self, _: Option<&str>) {
        match *self {}
    }

    pub(in crate::telemetry) fn head_came(&self, _: Duration, _: &TallyReport) {
        match *self {}
    }

    pub(in crate::telemetry) fn ended(&self, _: &Summary<'_>) {
        match *self {}
    }
}
